"""The Hessian of a frame as five fingers around a palm: what makes fitting thousands of frames quick.

With the betas fixed, fingers see each other only through the palm's six unknowns (turn of the hand,
position of the wrist). Each finger contributes a 15x15 block over [palm turn 3, its joints' turns 9,
wrist 3] instead of its share of a dense 51x51 matrix. The cost and the gradient are exact; the Hessian
leaves out what couples fingers otherwise (a tip's pose-blend term and the small skinning weights of
other bones), which slows the last digits of convergence and moves no optimum.
"""

from __future__ import annotations

import torch

from src.personalization.frame_terms import Observations
from src.personalization.hand_residuals import PosedPoints, posed_points
from src.personalization.joints_model import JointsModel
from src.personalization.keypoint_terms import PointTerms, keypoint_terms
from src.personalization.least_squares import State
from src.personalization.pose_prior import prior_terms
from utils.joints import MANO_PARENTS

PARENT_LIST = list(MANO_PARENTS[1:])


def evaluate_fingers(
    model: JointsModel, seen: Observations, pose: torch.Tensor, wrist: torch.Tensor, rest: torch.Tensor, exact: bool
) -> State:
    """Linearise N frames; arguments as in `frame_terms.evaluate_frames`. Pose priors must be per joint.

    Args:
        exact: compute ``total``; without, it is ``blocks``.

    Returns:
        cost (N,); gradients: palm (N,6), finger (N,5,9); blocks: (N,5,15,15) over [own turns 9, palm turn 3,
        wrist 3], Gauss-Newton; total (N,5,15,15) the same to second order; palm: (N,6,6) what belongs to no
        finger; rotations (N,16,3,3).
    """
    posed = posed_points(model, pose, rest)
    point = keypoint_terms(
        posed.points + wrist[:, None], seen.projections, seen.keypoints, seen.weights, seen.loss, seen.loss_scale
    )
    roots = point.roots.permute(0, 2, 3, 1, 4).flatten(2, 3)  # (N,21,2C,3)
    curve = roots.mT @ roots
    torque, force = joint_torques(model, posed, point.force)
    blocks, total = _finger_blocks(model, posed.points, curve, point, exact)

    cost = point.cost
    palm = pose.new_zeros(len(pose), 6, 6)
    palm[:, 3:, 3:] = curve[:, 0]
    for prior in seen.pose_priors:
        prior_cost, gradient, hessian = prior_terms(prior, pose, posed.rotations)
        cost = cost + prior_cost
        torque = torque + gradient.unflatten(1, (3, 16)).mT
        hessian = hessian.permute(0, 3, 1, 2)  # (N,16,3,3)
        palm[:, :3, :3] += hessian[:, 0]
        for bone in range(3):
            part = slice(3 * bone, 3 * bone + 3)
            blocks[:, :, part, part] += hessian[:, 1 + bone :: 3]
            if exact:
                total[:, :, part, part] += hessian[:, 1 + bone :: 3]
    palm_gradient = torch.cat([torque[:, 0], force], dim=1)
    if seen.depth is not None and seen.depth_weight is not None:
        off = wrist[:, 2] - seen.depth
        cost = cost + seen.depth_weight * off * off / 2
        palm_gradient[:, 5] += seen.depth_weight * off
        palm[:, 5, 5] += seen.depth_weight
    return {
        "cost": cost,
        "palm_gradient": palm_gradient,
        "finger_gradient": torque[:, 1:].reshape(-1, 5, 9),
        "blocks": blocks,
        "total": total,
        "palm": palm,
        "rotations": posed.rotations,
    }


def _finger_blocks(
    model: JointsModel, points: torch.Tensor, curve: torch.Tensor, point: PointTerms, exact: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keypoints' share of ``blocks`` and ``total`` of `evaluate_fingers`."""
    order = model.finger_points.T  # (point, finger)
    ends = points[:, order].permute(3, 1, 2, 0).contiguous()  # (3,4,5,N): frames last, so that loops are long
    pivots = torch.cat([ends[:, :3], torch.zeros_like(ends[:, :1])], dim=1)  # own joints, palm
    arms = (ends[:, :, None] - pivots[:, None]) * model.finger_reach[..., None, None]  # (3,point,joint,5,N)
    identity = torch.eye(3, dtype=points.dtype, device=points.device)
    turned = _with_arms(arms, identity[:, :, None, None, None].expand(3, 3, 4, 5, arms.shape[-1])).mT
    bent = curve[:, order].permute(3, 4, 1, 2, 0)
    if not exact:
        blocks = turned @ _with_arms(arms, bent)
        return blocks, blocks
    fully = bent + point.excess[:, order].permute(3, 4, 1, 2, 0)
    blocks, total = (turned @ torch.cat([_with_arms(arms, bent), _with_arms(arms, fully)], dim=-1)).split(15, dim=-1)
    pairs = _turn_curvature(arms, point.force[:, order].permute(3, 1, 2, 0), model.finger_ancestor)
    turns = total[..., :12, :12]
    turns += pairs
    turns += pairs.mT
    return blocks, total


def _with_arms(arms: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``rows`` times the points' derivative [-[arm] of each joint, identity]: (N,5,12,15).

    A row r of -[a] products is ``a x r``; written out, since products of many 3x3 matrices are slow.

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
    return out.flatten(2, 3).flatten(0, 1).permute(3, 2, 0, 1).contiguous()


def joint_torques(model: JointsModel, posed: PosedPoints, force: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient of the cost in the turns (N,16,3) and in the wrist (N,3), from its gradient in the points.

    The torque about a joint is the sum of moments of all forces on its subtree (tips shared among bones
    by skinning weight), plus what the pose-blend term of the tips contributes.

    Args:
        force: (N,21,3), 1/m.
    """
    joints = posed.points[:, :16]
    on_tips = force[:, 16:]
    shared = model.tip_weights[:, :, None] * on_tips[:, :, None]  # (N,tip,bone,3)
    moments = torch.linalg.cross(joints, force[:, :16]) + torch.linalg.cross(posed.tip_frames, shared).sum(dim=1)
    forces = force[:, :16] + shared.sum(dim=1)
    below = model.subtree.T
    torque = below @ moments - torch.linalg.cross(joints, below @ forces)

    pushed = (posed.tip_blend.mT @ on_tips[..., None]).flatten(1)  # (N,15)
    slope = (pushed @ model.tip_pose.flatten(0, 1).T).unflatten(1, (15, 3, 3))  # d cost / d R
    turned = posed.rotations[:, 1:] @ slope.mT @ posed.rotations[:, PARENT_LIST].mT
    # trace([w] M) = w . (M_yz - M_zy, M_zx - M_xz, M_xy - M_yx)
    blend = torch.stack(
        [
            turned[..., 1, 2] - turned[..., 2, 1],
            turned[..., 2, 0] - turned[..., 0, 2],
            turned[..., 0, 1] - turned[..., 1, 0],
        ],
        dim=-1,
    )
    torque[:, 1:] += blend
    return torque, force.sum(dim=1)


def _turn_curvature(arms: torch.Tensor, force: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """Half of `hand_residuals.turn_curvature` of each finger (the other half is its transpose): (N,5,12,12).

    Args:
        arms: (3,point,joint,5,N); force: (3,point,5,N); ancestor: (joint, joint), one half on the diagonal.
    """
    outer = (arms[:, None] * force[None, :, :, None]).sum(dim=2)  # (axis of arm, axis of force, joint, 5, N)
    trace = outer[0, 0] + outer[1, 1] + outer[2, 2]
    for axis in range(3):
        outer[axis, axis] -= trace
    block = outer.permute(0, 2, 1, 3, 4) * ancestor[:, None, :, None, None, None]  # (ancestor,a,joint,b,5,N)
    return block.flatten(2, 3).flatten(0, 1).permute(3, 2, 0, 1)
