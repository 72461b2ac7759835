"""Ground floor: camera, joints, rotations, files. Imports nothing of ours from above."""
