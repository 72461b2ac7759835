"""Joints of the posed hand and their exact derivatives, without automatic differentiation.

Unknowns of a frame are the wrist position and, for each of the 16 rotations, a small turn ``w`` about
*camera-frame* axes that carries the joint's whole subtree: the joint's global rotation becomes
``exp([w]) A``. Its local rotation is then ``R exp([A^T w])``, so the local (right) increment is
``A^T w``. In these coordinates the derivative of a point x of the subtree is just
``w x (x - q)`` with q the joint's position; only the tips' pose-blend term needs more (`blend_jacobian`).
Columns are ordered (axis, joint): ``w`` is (N, 3, 16).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from src.personalization.terms.joints_model import JointsModel
from utils.joints import MANO_PARENTS


@dataclass
class PosedPoints:
    """The posed joints-only hand, MANO order with tips last, and what its derivatives need.

    Attributes:
        points: (N,21,3) metres, relative to the wrist joint.
        rotations: (N,16,3,3) global rotations A.
        tip_frames: (N,5,16,3) positions of each tip as carried by each joint alone.
        tip_blend: (N,5,3,3) weighted sum of the global rotations at each tip.
    """

    points: torch.Tensor
    rotations: torch.Tensor
    tip_frames: torch.Tensor
    tip_blend: torch.Tensor


def global_rotations(pose: torch.Tensor) -> torch.Tensor:
    """Global rotations (N,16,3,3) from local ones (N,16,3,3), MANO order: A_k = A_parent R_k (SMPL eq. 4).

    The five fingers are walked together, one phalanx at a time.
    """
    fingers = pose[:, 1:].unflatten(1, (5, 3))
    root = pose[:, :1]
    first = root @ fingers[:, :, 0]
    second = first @ fingers[:, :, 1]
    third = second @ fingers[:, :, 2]
    return torch.cat([root, torch.stack([first, second, third], dim=2).flatten(1, 2)], dim=1)


def posed_points(model: JointsModel, pose: torch.Tensor, rest: torch.Tensor) -> PosedPoints:
    """Pose the joints-only hand.

    Args:
        pose: (N,16,3,3) local rotations; the root's is the hand's orientation in the camera frame.
        rest: (N,21,3) metres, zero-pose joints and tips (`JointsModel.rest_points`).
    """
    rotations = global_rotations(pose)
    parents = list(MANO_PARENTS[1:])
    bones = rest[:, 1:16] - rest[:, parents]
    turned = (rotations[:, parents] @ bones[..., None])[..., 0].unflatten(1, (5, 3))
    joints = torch.cat([torch.zeros_like(rest[:, :1]), turned.cumsum(dim=2).flatten(1, 2)], dim=1)

    feature = pose[:, 1:].flatten(2) - torch.eye(3, dtype=pose.dtype, device=pose.device).flatten()
    corrected = rest[:, 16:] + (feature.flatten(1) @ model.tip_pose.flatten(0, 1)).unflatten(1, (5, 3))
    offsets = corrected[:, :, None] - rest[:, None, :16]
    tip_frames = joints[:, None] + torch.einsum("njab,ntjb->ntja", rotations, offsets)
    tips = torch.einsum("tj,ntja->nta", model.tip_weights, tip_frames)
    tip_blend = (model.tip_weights @ rotations.flatten(2)).unflatten(2, (3, 3))
    return PosedPoints(torch.cat([joints, tips], dim=1), rotations, tip_frames, tip_blend)


def lever_arms(model: JointsModel, posed: PosedPoints) -> torch.Tensor:
    """Arms (N,21,16,3), metres: a turn w of joint k moves point j by ``w x arm[j, k]`` (rigid part).

    For a joint it is x - q inside the subtree, else zero; for a tip each joint of the subtree
    contributes by its skinning weight.
    """
    joints = posed.points[:, :16]
    rigid = (joints[:, :, None] - joints[:, None]) * model.subtree[:, :, None]
    below = model.tip_weights[:, :, None] * model.subtree  # (tip, carrying joint, turning joint)
    carried = torch.einsum("tjk,ntja->ntka", below, posed.tip_frames)
    tips = carried - below.sum(dim=1)[:, :, None] * joints[:, None]
    return torch.cat([rigid, tips], dim=1)


def blend_jacobian(model: JointsModel, posed: PosedPoints) -> torch.Tensor:
    """Pose-blend part of the tips' derivative, (N,5,3,3,16): metres per radian, last axes (axis, joint).

    The corrective at a tip is linear in R - I, and turning joint k by w changes its local rotation by
    ``A_parent^T [w] A_k``; the corrective moves with the tip's blended rotation.
    """
    parents = list(MANO_PARENTS[1:])
    up = posed.rotations[:, parents]
    own = posed.rotations[:, 1:]
    # (A_p^T [e_c] A)_{ab} = A_p[:, a] . (e_c x A[:, b]) = e_c . (A[:, b] x A_p[:, a])
    turned = torch.linalg.cross(own.mT[:, :, None, :, :], up.mT[:, :, :, None, :], dim=-1)  # (N,15,a,b,c)
    n = turned.shape[0]
    per_joint = turned.reshape(n, 15, 9, 3).permute(1, 3, 0, 2).reshape(15, 3 * n, 9)  # (k, (c, N), ab)
    moved = (per_joint @ model.tip_pose).reshape(15, 3, n, 5, 3).permute(2, 3, 4, 1, 0)  # (N,5,3,c,k)
    out = posed.points.new_zeros(n, 5, 3, 3, 16)
    out[..., 1:] = (posed.tip_blend @ moved.flatten(3)).unflatten(3, (3, 15))
    return out


def point_jacobian(model: JointsModel, posed: PosedPoints, arms: torch.Tensor) -> torch.Tensor:
    """Derivative (N,21,3,3,16) of every point, metres per radian; last axes (axis of w, joint)."""
    x, y, z = arms.unbind(-1)
    zero = torch.zeros_like(x)
    # d(w x a)/dw = -[a]: rows are the point's coordinates, columns the axis of w.
    entries = [zero, z, -y, -z, zero, x, y, -x, zero]
    jacobian = torch.stack(entries, dim=2).unflatten(2, (3, 3))
    jacobian[:, 16:] += blend_jacobian(model, posed)
    return jacobian


def turn_curvature(
    model: JointsModel,
    posed: PosedPoints,
    arms: torch.Tensor,
    force: torch.Tensor,
    out: torch.Tensor,
    shape_columns: torch.Tensor | None,
) -> None:
    """Add ``sum_j force_j . d2x_j`` to ``out`` (N,U,U): the hand's own curvature, in place.

    Turning an ancestor by v and a descendant k by w moves a point by ``v x (w x arm)`` to second order
    (for one joint, symmetrised), so the block of any ancestor with k is the same 3x3 matrix
    ``sum_j arm_jk force_j^T - (arm_jk . force_j) I``. Betas change the arm: block ``darm x force``,
    here with the tips taken as rigid.

    Args:
        arms: `lever_arms`; force: (N,21,3) gradient of the cost in the points;
        shape_columns: `shape_jacobian` if the last ten unknowns are the betas.
    """
    outer = (arms.permute(0, 2, 3, 1).flatten(1, 2) @ force).unflatten(1, (16, 3))  # (N,k,a,b) = arm_a force_b
    trace = outer.diagonal(dim1=2, dim2=3).sum(-1)
    pairs = outer - trace[..., None, None] * torch.eye(3, dtype=arms.dtype, device=arms.device)
    half = model.subtree - torch.eye(16, dtype=arms.dtype, device=arms.device) / 2  # (k, ancestor)
    block = pairs.permute(0, 2, 3, 1)[:, :, None] * half.T[:, None]  # (N,a,ancestor,b,k)
    block = block.flatten(3, 4).flatten(1, 2)
    turns = out[:, :48, :48]
    turns += block
    turns += block.mT
    if shape_columns is None:
        return
    moment = torch.linalg.cross(shape_columns, force[..., None].expand_as(shape_columns), dim=2)  # (N,21,3,10)
    below = model.points_below
    total = torch.einsum("jk,njcs->ncks", below, moment)
    pulled = torch.einsum("jk,njc->nkc", below, force)
    own = shape_columns[:, :16]
    total = total - torch.linalg.cross(own, pulled[..., None].expand_as(own), dim=2).permute(0, 2, 1, 3)
    cross = total.flatten(1, 2)
    out[:, :48, -10:] += cross
    out[:, -10:, :48] += cross.mT


def shape_jacobian(model: JointsModel, posed: PosedPoints) -> torch.Tensor:
    """Derivative (N,21,3,10) of the wrist-relative points with respect to betas, metres per unit."""
    parents = list(MANO_PARENTS[1:])
    directions = model.directions  # (10,21,3)
    bones = directions[:, 1:16] - directions[:, parents]
    turned = torch.einsum("njab,sjb->njas", posed.rotations[:, parents], bones).unflatten(1, (5, 3))
    joints = torch.cat([turned.new_zeros(turned.shape[0], 1, 3, 10), turned.cumsum(dim=2).flatten(1, 2)], dim=1)
    own = torch.einsum("njab,sjb->njas", posed.rotations, directions[:, :16])
    tips = torch.einsum("ntab,stb->ntas", posed.tip_blend, directions[:, 16:])
    tips = tips + torch.einsum("tj,njas->ntas", model.tip_weights, joints - own)
    return torch.cat([joints, tips], dim=1)
