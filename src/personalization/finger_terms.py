"""The Hessian of a frame as five fingers around a palm: what makes fitting thousands of frames quick.

With the betas fixed, fingers see each other only through the palm's six unknowns (turn of the hand,
position of the wrist). Each finger contributes a 15x15 block over [its joints' turns 9, palm turn 3,
wrist 3] instead of its share of a dense 51x51 matrix. The cost and the gradient are exact; the Hessian
leaves out what couples fingers otherwise (a tip's pose-blend term and the small skinning weights of
other bones), which slows the last digits of convergence and moves no optimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from src.personalization.components_first import frames_first, frames_last
from src.personalization.finger_pose import RestFingers, joint_torques, pose_fingers
from src.personalization.frame_terms import Observations
from src.personalization.joints_model import JointsModel
from src.personalization.keypoint_terms import PointTerms, keypoint_terms
from src.personalization.least_squares import State
from src.personalization.pose_prior import PosePrior, prior_terms


@dataclass
class SeenFingers:
    """`Observations` with frames last. Points: wrist, then (joint or tip, finger), 21 in all.

    Attributes: projections (3,4,C,N), keypoints (2,C,21,N), weights (C,21,N); the rest as given.
    """

    projections: torch.Tensor
    keypoints: torch.Tensor
    weights: torch.Tensor
    given: Observations

    def rows(self, index: torch.Tensor) -> SeenFingers:
        """Some of the frames."""
        parts = (self.projections, self.keypoints, self.weights)
        return SeenFingers(*(value[..., index] for value in parts), self.given.rows(index))


def seen_fingers(model: JointsModel, seen: Observations) -> SeenFingers:
    """Rearranged observations. Their pose priors must be per joint."""
    order = model.finger_order
    return SeenFingers(
        frames_last(seen.projections.permute(0, 2, 3, 1)),
        frames_last(seen.keypoints[:, :, order].permute(0, 3, 1, 2)),
        frames_last(seen.weights[:, :, order]),
        seen,
    )


def evaluate_fingers(
    model: JointsModel, seen: SeenFingers, rest: RestFingers, pose: torch.Tensor, wrist: torch.Tensor, exact: bool
) -> State:
    """Linearise N frames.

    Args:
        pose: (N,16,3,3); wrist: (N,3) m.
        exact: compute ``total``; without, it is ``blocks``.

    Returns:
        cost (N,); gradients: palm (N,6), finger (N,5,9); blocks: (N,5,15,15) Gauss-Newton; total
        (N,5,15,15) the same to second order; palm: (N,6,6) what belongs to no finger; rotations (N,16,3,3).
    """
    given, n = seen.given, len(pose)
    turns = frames_last(pose.permute(0, 2, 3, 1))
    posed = pose_fingers(model, rest, turns)
    own_tips = posed.tips[:, model.tip_of_finger]
    ends = torch.cat([posed.joints, own_tips[:, None]], dim=1)  # (3,point,finger,N)
    points = torch.cat([torch.zeros_like(own_tips[:, :1]), ends.flatten(1, 2)], dim=1) + wrist.T[:, None]
    point = keypoint_terms(points, seen.projections, seen.keypoints, seen.weights, given.loss, given.loss_scale, exact)
    force = point.force[:, 1:].unflatten(1, (4, 5))
    on_tips = torch.empty_like(own_tips)
    on_tips[:, model.tip_of_finger] = force[:, 3]
    gradient = joint_torques(model, posed, force[:, :3], on_tips)
    blocks, total = _finger_blocks(model, ends, point)

    cost = point.cost
    palm = pose.new_zeros(n, 6, 6)
    palm[:, 3:, 3:] = point.curve[:, :, 0].permute(2, 0, 1)
    for prior in given.pose_priors:
        cost = cost + _add_prior(prior, turns, posed.rotations, gradient, palm, blocks, total)
    gradient = frames_first(gradient.transpose(0, 1))  # (N,16,3)
    palm_gradient = torch.cat([gradient[:, 0], point.force.sum(dim=1).T], dim=1)
    if given.depth is not None and given.depth_weight is not None:
        off = wrist[:, 2] - given.depth
        cost = cost + given.depth_weight * off * off / 2
        palm_gradient[:, 5] += given.depth_weight * off
        palm[:, 5, 5] += given.depth_weight
    return {
        "cost": cost,
        "palm_gradient": palm_gradient,
        "finger_gradient": gradient[:, 1:].reshape(n, 5, 9),
        "blocks": blocks,
        "total": total,
        "palm": palm,
        "rotations": frames_first(posed.rotations.permute(2, 0, 1, 3)),
    }


def _add_prior(
    prior: PosePrior,
    pose: torch.Tensor,
    rotations: torch.Tensor,
    gradient: torch.Tensor,
    palm: torch.Tensor,
    blocks: torch.Tensor,
    total: torch.Tensor,
) -> torch.Tensor:
    """Add a pose prior's gradient and Hessian in place; returns its cost (N,)."""
    cost, slope, hessian = prior_terms(prior, pose, rotations)
    gradient += slope
    hessian = frames_first(hessian.permute(2, 0, 1, 3))  # (N,16,3,3)
    palm[:, :3, :3] += hessian[:, 0]
    own = hessian[:, 1:].unflatten(1, (5, 3))
    for matrix in (blocks,) if total is blocks else (blocks, total):
        corner = matrix[..., :9, :9].unflatten(2, (3, 3)).unflatten(4, (3, 3))
        corner.diagonal(dim1=2, dim2=4).add_(own.permute(0, 1, 3, 4, 2))
    return cost


def _finger_blocks(
    model: JointsModel, ends: torch.Tensor, point: PointTerms
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keypoints' share of ``blocks`` and ``total`` of `evaluate_fingers`, from the points (3,point,finger,N)."""
    pivots = torch.cat([ends[:, :3], torch.zeros_like(ends[:, :1])], dim=1)  # own joints, palm
    arms = (ends[:, :, None] - pivots[:, None]) * model.finger_reach[..., None, None]  # (3,point,joint,5,N)
    identity = torch.eye(3, dtype=ends.dtype, device=ends.device)[:, :, None, None, None]
    turned = _with_arms(arms, identity.expand(3, 3, 4, *ends.shape[2:])).mT
    curve = point.curve[:, :, 1:].unflatten(2, (4, 5))
    weighed = _with_arms(arms, curve)
    if point.excess is None:
        blocks = _by_frame(turned @ weighed, ends.shape[-1])
        return blocks, blocks
    fully = _with_arms(arms, curve + point.excess[:, :, 1:].unflatten(2, (4, 5)))
    pairs = _turn_curvature(arms, point.force[:, 1:].unflatten(1, (4, 5)), model.finger_ancestor)
    total = torch.baddbmm(pairs, turned, fully)
    total[: ends.shape[-1], 12:, 12:] += point.excess[:, :, 0].permute(2, 0, 1)  # the wrist's own, with the first finger
    return _by_frame(turned @ weighed, ends.shape[-1]), _by_frame(total, ends.shape[-1])


def _by_frame(blocks: torch.Tensor, n: int) -> torch.Tensor:
    return blocks.unflatten(0, (5, n)).transpose(0, 1)


def _with_arms(arms: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``rows`` times the points' derivative [-[arm] of each joint, identity]: (5 * N,12,15).

    A row r of -[a] products is ``a x r``.

    Args:
        arms: (3,point,joint,5,N); rows: (row,3,point,5,N).
    """
    out = arms.new_empty(4, 3, 5, 3, *arms.shape[3:])  # (point, row, joint or identity, axis, finger, N)
    a = arms[:, :, None]  # (3,point,1,joint,5,N)
    r = rows.permute(1, 2, 0, 3, 4)  # (3,point,row,5,N)
    for axis in range(3):
        y, z = (axis + 1) % 3, (axis + 2) % 3
        target = out[:, :, :4, axis]
        torch.mul(a[y], r[z][:, :, None], out=target)
        target.addcmul_(a[z], r[y][:, :, None], value=-1)
    out[:, :, 4] = r.permute(1, 2, 0, 3, 4)
    return out.view(180, -1).T.contiguous().view(-1, 12, 15)


def _turn_curvature(arms: torch.Tensor, force: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """`hand_residuals.turn_curvature` of each finger, zero in the wrist's rows and columns: (5 * N,15,15).

    Args:
        arms: (3,point,joint,5,N); force: (3,point,5,N); ancestor: (joint, joint), one half on the diagonal.
    """
    outer = (arms[:, None] * force[None, :, :, None]).sum(dim=2)  # (axis of arm, axis of force, joint, 5, N)
    trace = outer[0, 0] + outer[1, 1] + outer[2, 2]
    for axis in range(3):
        outer[axis, axis] -= trace
    block = outer.permute(0, 2, 1, 3, 4) * ancestor[:, None, :, None, None, None]  # (ancestor,a,joint,b,5,N)
    out = arms.new_zeros(15, 15, *arms.shape[3:])
    corner = out[:12, :12].unflatten(0, (4, 3)).unflatten(2, (4, 3))
    torch.add(block, block.permute(2, 3, 0, 1, 4, 5), out=corner)
    return out.view(225, -1).T.contiguous().view(-1, 15, 15)
