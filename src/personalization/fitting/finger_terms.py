"""Cost, gradient and Hessian of a frame as five fingers around a palm: what makes fitting thousands of frames quick.

With the betas fixed, fingers see each other only through the palm's six unknowns (turn of the hand,
position of the wrist). A finger's share of the Hessian over [its joints' turns 9, palm turn 3, wrist 3]
comes from moments instead of Jacobians: a point x of curvature C seen from the wrist weighs
``S = [[ [x] C [x]^T, [x] C ], [ C [x]^T, C ]]`` (6x6) against a motion (turn, shift) of the hand, and a
joint at q turning by w moves all beyond it by (w, q x w). So sums of S along a finger are all that is
needed, as the composite inertias of articulated bodies (Featherstone 2008, section 6.3).

The cost and the gradient are exact; the Hessian leaves out what couples fingers otherwise (a tip's
pose-blend term and the small skinning weights of other bones), which slows the last digits of
convergence and moves no optimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from src.personalization.fitting.finger_points import SeenPoints, point_terms
from src.personalization.fitting.finger_pose import PosedFingers, RestFingers, joint_torques, pose_fingers
from src.personalization.fitting.finger_prior import PulledPose, prior_pull
from src.personalization.solver.levenberg_marquardt import State
from src.personalization.terms.components_first import CYCLIC, matvec
from src.personalization.terms.joints_model import FingerTables

#: Rows of a finger's panel: its own unknowns (last joint first, three axes each), turn of the palm, wrist, gradient.
OWN, TURN, WRIST, GRADIENT = slice(0, 9), slice(9, 12), slice(12, 15), 15


@dataclass
class SeenFingers:
    """What is known about N frames: keypoints, the pull of the pose prior, and the wrist's depth (N,), m, with
    its weight, or None."""

    points: SeenPoints
    priors: list[PulledPose]
    depth: torch.Tensor | None = None
    depth_weight: torch.Tensor | None = None

    def rows(self, index: torch.Tensor) -> SeenFingers:
        """Some of the frames."""
        depth, weight = (None if value is None else value[index] for value in (self.depth, self.depth_weight))
        return SeenFingers(self.points.rows(index), [prior.rows(index) for prior in self.priors], depth, weight)


def evaluate_fingers(
    tables: FingerTables, seen: SeenFingers, rest: RestFingers, local: torch.Tensor, wrist: torch.Tensor
) -> State:
    """Linearise N frames.

    Args:
        local: (3,4,16,N) of `finger_pose.local_transforms`; wrist: (3,N) m.

    Returns:
        cost (N,); panel (16,9,2,5,N): columns of the fingers' own unknowns (of their square the lower triangle counts)
        of the Hessian to second order, and of Gauss-Newton's; palm (7,6,2,N): the same for turn and wrist (rows:
        these, then the gradient); world (3,4,16,N).
    """
    posed = pose_fingers(tables, rest, local)
    cost, force, curve = point_terms(seen.points, posed.points, wrist)
    torque, inner = joint_torques(tables, rest, posed, local, force)
    rotations = posed.world[:, :3]
    torque += matvec(rotations, inner)
    panel, palm = _hessian(posed, force, curve)
    own = panel[OWN].view(3, 3, 3, 3, 2, 5, -1).diagonal(dim1=0, dim2=2)  # (axis, axis, 2, 5, N, level)
    for prior in seen.priors:
        prior_cost, gradient, hessian = prior_pull(prior, local[:, :3], rotations)
        cost = cost + prior_cost
        torque += gradient
        own += hessian[:, :, None, :15].unflatten(3, (3, 5)).permute(0, 1, 2, 4, 5, 3)
        palm[:3, :3] += hessian[:, :, 15, None]
    panel[GRADIENT].view(3, 3, 2, 5, -1).copy_(torque[:, :15].unflatten(1, (3, 5)).transpose(0, 1)[:, :, None])
    palm[6, :3] = torque[:, 15, None]
    palm[6, 3:] = force.sum(dim=1)[:, None]
    if seen.depth is not None and seen.depth_weight is not None:
        off = wrist[2] - seen.depth
        pull = seen.depth_weight * off
        cost = cost + pull * off / 2
        palm[6, 5] += pull
        palm[5, 5] += seen.depth_weight
    return {"cost": cost, "panel": panel, "palm": palm, "world": posed.world}


def _hessian(posed: PosedFingers, force: torch.Tensor, curve: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keypoints' share of ``panel`` and ``palm``, from force (3,21,N) and curvatures (3,3,2,21,N) of the points."""
    n = force.shape[-1]
    x = posed.points[:, :20]
    # Sums of x C x^T, x C and C over the points beyond a level, seen from the wrist; then of x force^T.
    sums = force.new_empty(3, 3, 3, 2, 20, n)
    square, moment = sums[0], sums[1]
    sums[2] = curve[:, :, :, :20]
    _cross_columns(x, sums[2], out=moment)
    _cross_columns(x, moment.transpose(0, 1), out=square)
    pushed = force.new_empty(4, 3, 4, 5, n)  # (x force^T row or force, axis, level)
    torch.mul(x[:, None], force[:, :20], out=pushed[:3].view(3, 3, 20, n))
    pushed[3] = force[:, :20].view(3, 4, 5, n)
    beyond = sums.view(3, 3, 3, 2, 4, 5, n)
    for level in range(1, 4):
        beyond[..., level, :, :].add_(beyond[..., level - 1, :, :])
        pushed[:, :, level].add_(pushed[:, :, level - 1])
    # The joints, last ones first: their level's sums are those of what lies beyond them.
    at = posed.points[:, 5:20].view(3, 3, 1, 5, n)

    panel = force.new_empty(16, 9, 2, 5, n)
    by_axis = panel[9:15].view(6, 3, 3, 2, 5, n)  # (row, level, axis, variant, finger, N)
    levels = beyond[..., :3, :, :].transpose(3, 4)  # (kind, 3, 3, level, variant, finger, N)
    by_axis[:3] = levels[0].transpose(1, 2)
    by_axis[3:] = levels[1].permute(1, 2, 0, 3, 4, 5)
    lines = levels[1:].flatten(0, 1)  # rows of x C, then of C: each crossed with the joint's position
    for axis, after, last in CYCLIC:
        by_axis[:, :, axis].addcmul_(lines[:, after], at[last]).addcmul_(lines[:, last], at[after], value=-1)
    palm = force.new_empty(7, 6, 2, n)
    whole = beyond[..., 3, :, :].sum(dim=4)
    palm[:3, :3] = whole[0]
    palm[3:6, :3] = whole[1].transpose(0, 1)
    torch.add(whole[2], curve[:, :, :, 20], out=palm[3:6, 3:])
    _turn_curvature(pushed, at[:, :, 0], by_axis[:3, :, :, 0], palm[:3, :3, 0])

    # Rows of the own joints: the moment about them, of the columns' force on what lies beyond.
    turn, shift = panel[TURN], panel[WRIST]
    rows = panel[OWN].view(3, 3, 9, 2, 5, n)  # (level, axis, column, variant, finger, N)
    arms = at[:, :, None]
    for axis, after, last in CYCLIC:
        torch.addcmul(turn[axis], arms[last], shift[after], out=rows[:, axis])
        rows[:, axis].addcmul_(arms[after], shift[last], value=-1)
    # A joint with itself: symmetrised.
    own = panel[OWN].view(3, 3, 3, 3, 2, 5, n)[:, :, :, :, 0].diagonal(dim1=0, dim2=2)
    for row, column in ((1, 0), (2, 0), (2, 1)):
        own[row, column].lerp_(own[column, row], 0.5)
    return panel, palm


def _turn_curvature(pushed: torch.Tensor, at: torch.Tensor, rows: torch.Tensor, palm: torch.Tensor) -> None:
    """Add ``sum_j arm_j force_j^T - (arm_j . force_j) I`` of every joint (`hand_residuals.turn_curvature`) in place.

    Args:
        pushed: (4,3,4,5,N) sums of x force^T and of forces, used up; at: (3,level,5,N) the joints;
        rows: (axis,level,axis,5,N) to add to; palm: (3,3,N), to which it is added symmetrised.
    """
    arms = pushed[:3, :, :3].addcmul_(at[:, None], pushed[3, :, :3], value=-1)
    whole = pushed[:3, :, 3].sum(dim=2)
    rows += arms.transpose(1, 2)
    palm += (whole + whole.transpose(0, 1)) / 2
    trace = arms[0, 0] + arms[1, 1] + arms[2, 2]
    rows.diagonal(dim1=0, dim2=2).sub_(trace[..., None])
    palm.diagonal(dim1=0, dim2=1).sub_((whole[0, 0] + whole[1, 1] + whole[2, 2])[..., None])


def _cross_columns(x: torch.Tensor, matrix: torch.Tensor, out: torch.Tensor) -> None:
    """``out`` = [x] matrix: every column of matrices (3,3,2,P,N) crossed from the left with vectors (3,P,N)."""
    for axis, after, last in CYCLIC:
        torch.mul(matrix[last], x[after], out=out[axis]).addcmul_(matrix[after], x[last], value=-1)
