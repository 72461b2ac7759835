"""The joints-only hand posed finger by finger, components first and frames last (`components_first`).

The same hand as `hand_residuals.posed_points`; only bones that carry a tip with some weight are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from src.personalization.components_first import antisymmetric_part, cross, matmul, matmul_transposed, matvec
from src.personalization.joints_model import JointsModel


@dataclass
class RestFingers:
    """Rest pose of N frames: bones (3,3,5,N) = (axis, bone, finger), m, from parent to joint; tips (3,5,N) in
    the tips' own order; carriers (3,K,N): rest joints of the carrying bones of `JointsModel.tip_pairs`."""

    bones: torch.Tensor
    tips: torch.Tensor
    carriers: torch.Tensor

    def rows(self, index: torch.Tensor) -> RestFingers:
        """Some of the frames."""
        return RestFingers(*(value[..., index] for value in vars(self).values()))


def rest_fingers(model: JointsModel, rest: torch.Tensor) -> RestFingers:
    """From zero-pose points (N,21,3) of `JointsModel.rest_points`."""
    last = rest.permute(2, 1, 0).contiguous()
    joints = last[:, 1:16].unflatten(1, (5, 3)).transpose(1, 2)  # (3,bone,finger,N)
    before = torch.cat([last[:, None, :1].expand(-1, 1, 5, -1), joints[:, :2]], dim=1)
    return RestFingers((joints - before).contiguous(), last[:, 16:].contiguous(), last[:, model.tip_pairs[1]])


@dataclass
class PosedFingers:
    """Posed hands relative to their wrists.

    Attributes:
        rotations: (3,3,16,N) global, MANO order; joints: (3,3,5,N) m = (axis, bone, finger).
        tips: (3,5,N) m in the tips' order; carried: (3,K,N) m each tip as its carrying bones move it;
        blend: (3,3,5,N) weighted sum of the carriers' rotations.
    """

    rotations: torch.Tensor
    joints: torch.Tensor
    tips: torch.Tensor
    carried: torch.Tensor
    blend: torch.Tensor


def pose_fingers(model: JointsModel, rest: RestFingers, pose: torch.Tensor) -> PosedFingers:
    """Pose (3,3,16,N), local rotations, applied to the rest pose (SMPL eqs. 2-9)."""
    tip, bone = model.tip_pairs
    fingers = pose[:, :, 1:].unflatten(2, (5, 3))
    root = pose[:, :, :1]
    first = matmul(root, fingers[:, :, :, 0])
    second = matmul(first, fingers[:, :, :, 1])
    third = matmul(second, fingers[:, :, :, 2])
    rotations = torch.cat([root, torch.stack([first, second, third], dim=3).flatten(2, 3)], dim=2)
    knuckle = matvec(root, rest.bones[:, 0])
    middle = knuckle + matvec(first, rest.bones[:, 1])
    joints = torch.stack([knuckle, middle, middle + matvec(second, rest.bones[:, 2])], dim=1)

    feature = pose[:, :, 1:].permute(2, 0, 1, 3).clone()
    for axis in range(3):
        feature[:, axis, axis] -= 1
    moved = (model.tip_pose.flatten(0, 1).T @ feature.flatten(0, 2)).view(5, 3, -1).transpose(0, 1)
    corrected = rest.tips + moved  # (3,5,N)
    carriers = rotations[:, :, bone]
    places = torch.cat([torch.zeros_like(joints[:, 0, :1]), joints.transpose(1, 2).flatten(1, 2)], dim=1)
    carried = places[:, bone] + matvec(carriers, corrected[:, tip] - rest.carriers)
    weights = model.pair_weights[:, None]
    tips = torch.zeros_like(corrected).index_add_(1, tip, weights * carried)
    blend = rotations.new_zeros(3, 3, 5, pose.shape[-1]).index_add_(2, tip, weights * carriers)
    return PosedFingers(rotations, joints, tips, carried, blend)


def joint_torques(
    model: JointsModel, posed: PosedFingers, on_joints: torch.Tensor, on_tips: torch.Tensor
) -> torch.Tensor:
    """Gradient (3,16,N) of the cost in the turns, from its gradient in the points.

    The torque about a joint is the sum of the moments of all forces on its subtree (tips shared among bones
    by skinning weight), plus what the pose-blend term of the tips contributes.

    Args:
        on_joints: (3,3,5,N), on_tips: (3,5,N), 1/m.
    """
    tip, bone = model.tip_pairs
    places = torch.cat([torch.zeros_like(on_tips[:, :1]), posed.joints.transpose(1, 2).flatten(1, 2)], dim=1)
    forces = torch.cat([torch.zeros_like(on_tips[:, :1]), on_joints.transpose(1, 2).flatten(1, 2)], dim=1)
    moments = cross(places, forces)
    shared = model.pair_weights[:, None] * on_tips[:, tip]
    moments.index_add_(1, bone, cross(posed.carried, shared))
    forces.index_add_(1, bone, shared)
    below = model.subtree.T
    torque = below @ moments - cross(places, below @ forces)

    pushed = matmul_transposed(posed.blend, on_tips).transpose(0, 1).flatten(0, 1)  # (15,N) = (tip, axis)
    slope = (model.tip_pose.flatten(0, 1) @ pushed).view(15, 3, 3, -1)  # d cost / d R
    own, up = posed.rotations[:, :, 1:], posed.rotations[:, :, model.parents]
    # A (dC/dR)^T A_parent^T; trace([w] M) = w . antisymmetric_part(M)
    turned = matmul(matmul(own, slope.permute(2, 1, 0, 3)), up.transpose(0, 1))
    torque[:, 1:] += antisymmetric_part(turned)
    return torque
