"""The hand model by itself: shape, pose and place to a mesh in metres; batched, differentiable, on any device.

Poses a person's hand and a larger one, lets the larger reach a point by gradient descent, writes meshes.
"""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for a clone that is not installed
import handid

folder = Path("out/examples")

assets = handid.load_hand_assets()  # the stand-in; load_hand_assets("path/to/mano") for your MANO file
hand = handid.HandModel(assets)

# Two people: the mean hand, and one two standard deviations along the first direction of shape.
betas = torch.zeros(2, 10)
betas[1, 0] = 2.0
angles = torch.zeros(2, 16, 3)  # axis-angles, radians, of the wrist and 15 finger joints; all zero is the flat hand
angles[:, 1:13, 2] = 0.6  # bend the joints of the four fingers
transl = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.2, 0.5]])  # m; wrist = J0(betas) + transl

output = hand(handid.axis_angle_to_pose(angles.flatten(1)), betas, transl)
print("vertices", tuple(output.vertices.shape), "joints", tuple(output.joints.shape))  # (2,778,3), (2,21,3) m
length = (output.joints[:, 12] - output.joints[:, 9]).norm(dim=-1)  # middle knuckle to fingertip
print("middle finger, bent, knuckle to tip:", [f"{1000 * value:.0f} mm" for value in length])

# Inverse kinematics by gradient: the second hand's index fingertip (joint 8) moves to 2 cm from its thumb's (joint 4).
angles.requires_grad_()
optimizer = torch.optim.Adam([angles], lr=0.03)
for _ in range(100):
    joints = hand.joints(handid.axis_angle_to_pose(angles.flatten(1)), betas, transl)  # joints alone cost a fraction
    gap = (joints[1, 8] - joints[1, 4]).norm()
    loss = (gap - 0.02).square() + 1e-5 * angles.square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"index to thumb: {1000 * gap.item():.0f} mm")

with torch.no_grad():
    output = hand(handid.axis_angle_to_pose(angles.flatten(1)), betas, transl)
for name, vertices in zip(("mean", "large"), output.vertices.numpy(), strict=True):
    handid.write_mesh(folder / f"{name}.glb", vertices, assets.faces)
    print("wrote", folder / f"{name}.glb")
