"""The joints-only hand posed finger by finger, components first and frames last (`components_first`).

The same hand as `hand_residuals.posed_points`. Joints are ordered outwards in: the five last joints, the
five middle ones, the five knuckles, the palm; points are the five tips, then the joints. A level of all
fingers is then one slice, and what lies beyond a level are the points before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from src.personalization.terms.components_first import add_cross, cross_rows, product, product_transposed
from src.personalization.terms.joints_model import FingerTables, JointsModel
from utils.joints import MANO_PARENTS

#: Joints of a level, from the palm outwards.
PALM, KNUCKLES, MIDDLE, LAST = slice(15, 16), slice(10, 15), slice(5, 10), slice(0, 5)


@dataclass
class RestFingers:
    """Rest pose of N frames: bones (3,16,N) m from parent to joint (palm: zero); tips (3,5,N) m without what the
    pose blend gives at identity; carriers (3,J,N) m: rest positions of the joints that carry a tip."""

    bones: torch.Tensor
    tips: torch.Tensor
    carriers: torch.Tensor

    def rows(self, index: torch.Tensor) -> RestFingers:
        """Some of the frames."""
        return RestFingers(*(value[..., index] for value in vars(self).values()))


def rest_fingers(model: JointsModel, rest: torch.Tensor) -> RestFingers:
    """From zero-pose points (N,21,3) of `JointsModel.rest_points`."""
    tables = model.fingers
    bones = rest[:, :16] - rest[:, [0, *MANO_PARENTS[1:]]]
    tips = rest[:, tables.point_order[:5]].permute(2, 1, 0) - tables.blend_at_identity[..., None]
    carriers = rest[:, tables.joint_order[: tables.carrying]]
    return RestFingers(
        bones[:, tables.joint_order].permute(2, 1, 0).contiguous(), tips.contiguous(),
        carriers.permute(2, 1, 0).contiguous(),
    )


def local_transforms(model: JointsModel, rest: RestFingers, pose: torch.Tensor) -> torch.Tensor:
    """(3,4,16,N) rotation and bone of each joint, from pose (N,16,3,3) in MANO's order."""
    local = rest.bones.new_empty(3, 4, 16, len(pose))
    local[:, :3] = pose[:, model.fingers.joint_order].permute(2, 3, 1, 0)
    local[:, 3] = rest.bones
    return local


def frame_poses(model: JointsModel, local: torch.Tensor) -> torch.Tensor:
    """The inverse of `local_transforms`: pose (N,16,3,3)."""
    return local[:, :3, model.fingers.from_joint_order].permute(3, 2, 0, 1).contiguous()


def quick_points(model: JointsModel, pose: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """The points (N,21,3) of `hand_residuals.posed_points`, from the same arguments, several times as fast."""
    fingers = rest_fingers(model, rest)
    points = pose_fingers(model.fingers, fingers, local_transforms(model, fingers, pose)).points
    return points[:, model.fingers.from_point_order].permute(2, 1, 0).contiguous()


@dataclass
class PosedFingers:
    """Posed hands relative to their wrists.

    Attributes:
        world: (3,4,16,N) global rotations and positions of the joints, m; points: (3,21,N) m, tips first.
        corrected: (3,5,N) m rest tips with shape and pose blend; blend: (3,4,5,N) the tips' transforms.
    """

    world: torch.Tensor
    points: torch.Tensor
    corrected: torch.Tensor
    blend: torch.Tensor


def pose_fingers(tables: FingerTables, rest: RestFingers, local: torch.Tensor) -> PosedFingers:
    """Apply local transforms (3,4,16,N) to the rest pose (SMPL eqs. 2-9)."""
    n, carrying = local.shape[-1], tables.carrying
    world = torch.empty_like(local)
    parent = world[:, :, PALM]
    parent.copy_(local[:, :, PALM])
    for level in (KNUCKLES, MIDDLE, LAST):
        child = world[:, :, level]
        product(parent[:, :3], local[:, :, level], out=child)
        child[:, 3].add_(parent[:, 3])
        parent = child
    corrected = torch.addmm(rest.tips.reshape(15, n), tables.tip_pose, local.reshape(192, n)).view(3, 5, n)
    relative = world[:, :, :carrying].clone()
    for axis in range(3):  # the carrier's rest position is taken off: SMPL eq. 3
        relative[:, 3].addcmul_(world[:, axis, :carrying], rest.carriers[axis], value=-1)
    blend = torch.bmm(tables.tip_weights.expand(12, 5, carrying), relative.view(12, carrying, n)).view(3, 4, 5, n)
    points = local.new_empty(3, 21, n)
    points[:, 5:] = world[:, 3]
    tips = torch.addcmul(blend[:, 3], blend[:, 0], corrected[0], out=points[:, :5])
    tips.addcmul_(blend[:, 1], corrected[1]).addcmul_(blend[:, 2], corrected[2])
    return PosedFingers(world, points, corrected, blend)


def joint_torques(
    tables: FingerTables, rest: RestFingers, posed: PosedFingers, local: torch.Tensor, force: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cost's gradient in the joints' turns, from its gradient in the points (3,21,N), 1/m.

    The torque about a joint is the sum of the moments of all forces beyond it (a tip's force is shared among
    its carriers by skinning weight).

    Returns:
        Torques (3,16,N) in the camera's axes, and what the tips' pose blend adds, (3,16,N) in the axes of
        each joint.
    """
    n, carrying = force.shape[-1], tables.carrying
    on_tips, world = force[:, :5], posed.world
    # Adjoint of the tips' blended transforms, then of each carrier's.
    on_blend = force.new_empty(3, 4, 5, n)
    torch.mul(on_tips[:, None], posed.corrected, out=on_blend[:, :3])
    on_blend[:, 3] = on_tips
    shared = torch.bmm(tables.tip_weights.T.expand(12, carrying, 5), on_blend.view(12, 5, n))
    shared = shared.view(3, 4, carrying, n)
    shared[:, :3].addcmul_(shared[:, 3, None], rest.carriers, value=-1)
    beyond = force.new_empty(2, 3, 16, n)  # moments about the wrist, and forces
    moments, forces = beyond
    forces.copy_(force[:, 5:])
    forces[:, :carrying].add_(shared[:, 3])
    positions = world[:, 3]
    moments.zero_()
    add_cross(positions, forces, out=moments)
    moments[:, :carrying].add_(cross_rows(world[:, :3, :carrying].transpose(0, 1), shared[:, :3].transpose(0, 1)))
    beyond[:, :, MIDDLE].add_(beyond[:, :, LAST])
    beyond[:, :, KNUCKLES].add_(beyond[:, :, MIDDLE])
    beyond[:, :, 15].add_(beyond[:, :, KNUCKLES].sum(dim=2))
    add_cross(forces, positions, out=moments)

    pushed = product_transposed(posed.blend[:, :3], on_tips)
    slope = torch.mm(tables.tip_pose.T, pushed.view(15, n)).view(3, 4, 16, n)  # d cost / d R
    return moments, cross_rows(slope[:, :3], local[:, :3])  # d cost = sum over rows of d . (slope x R)
