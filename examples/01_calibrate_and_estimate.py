"""A person's hand from ten of their pictures, then a later picture with it: the fifteen lines of the README.

The pictures are rendered, of a person whom no shipped network has seen; bring your own instead.
"""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for a clone that is not installed
os.makedirs("out/examples", exist_ok=True)
os.chdir("out/examples")

# README: from here
import handid

photos = handid.write_photos("photos", 22)[1::2]  # of one person; K lies beside each, else give K= or fov=

# Once: ten pictures of a person, seen by a network that does not know them, and a ruler's length.
anonymous = handid.load("mano_baseline_conf")
results = [anonymous(photo) for photo in photos[:10]]  # picture -> Result; vertices (778,3) m, joints (21,3) m, ...
identity = handid.calibrate(results, hand_length_mm=196)
print(f"{identity.length_mm:.0f} mm, 95%: {identity.interval_mm}")
identity.save("identity.json")  # readable by its owner only: it is biometric data

# From then on: every picture with that hand.
estimate = handid.load("mano_identity")
result = estimate(photos[10], identity=identity)
print(result.side, result.joints[0], f"{result.reprojection_px:.1f} px")  # the wrist, m, OpenCV camera frame
result.save("hand.glb")  # or .ply, .json
# README: to here
