"""Pose and translation from keypoints, the shape held: one frame, a sequence, many frames at once."""
