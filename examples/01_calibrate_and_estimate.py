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

photos = handid.write_photos("photos", 11, subject=9)  # rendered; K lies beside each, for your own give K= or fov=
estimate = handid.load()  # networks with their weights

# Once: ten pictures of a person and, if there is one, a ruler's length.
results = [estimate(photo) for photo in photos[:10]]  # picture -> Result: vertices (778,3) m, joints (21,3) m, ...
identity = handid.calibrate(results, hand_length_mm=196)
low, high = identity.interval_mm  # 95%
print(f"wrist to middle fingertip {identity.length_mm:.0f} mm, between {low:.0f} and {high:.0f}")
identity.save("identity.json")  # readable by its owner only: it is biometric data

# From then on: every picture with that hand.
result = estimate(photos[10], identity=identity)
print(result.side, result.joints[0], f"{result.reprojection_px:.1f} px")  # the wrist, m, OpenCV camera frame
result.save("hand.glb")  # or .ply, .json
# README: to here
