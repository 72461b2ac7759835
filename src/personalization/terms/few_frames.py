"""`keypoint_terms`, the logarithms of `pose_prior` and the Jacobians of one or a few frames on a CPU, in NumPy.

The same numbers as for many frames where the number of calls is the time: a third of it for one frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from src.personalization.solver.robust import radial_curvature, robust_loss
from src.personalization.solver.status import NEAR
from src.personalization.terms.point_terms import point_rows
from src.personalization.terms.pose_prior import right_jacobian, rotation_log
from template.kinematics import JointsModel

if TYPE_CHECKING:
    from src.personalization.terms.frame_terms import Observations

#: Above so many frames the large operations are faster.
MOST = 16


class FrameRows(NamedTuple):
    """Residuals of N frames, whitened, and their derivatives; pose priors and depth are not among them.

    cost: (N,) half chi-square; residuals: (N,M), those of keypoints first, (row, point); columns: (N,M,U).
    chart: (3,3,16,N) of the unknowns, see `kinematics.row_jacobian`, or None; logarithms: (3,16,N) rad, of each prior.
    eliminated: (N,4,63) of `PointRows`, or None.
    """

    cost: torch.Tensor
    residuals: torch.Tensor
    columns: torch.Tensor
    chart: torch.Tensor | None
    logarithms: list[torch.Tensor]
    eliminated: torch.Tensor | None


def few_rows(
    model: JointsModel,
    seen: Observations,
    pose: torch.Tensor,
    wrist: torch.Tensor,
    rest: torch.Tensor,
    with_shape: bool,
    least_curvature: torch.Tensor | None,
) -> FrameRows:
    """Arguments as of `frame_terms.evaluate_frames`; rad and m."""
    local, place, n = pose.numpy(), wrist.numpy(), len(pose)
    posed = model.few.pose(local, rest.numpy())
    logarithms = [
        rotation_log((prior.reference.numpy().swapaxes(2, 3) @ local).transpose(2, 3, 1, 0))
        for prior in seen.pose_priors
    ]
    chart = right_jacobian(logarithms[0]) if logarithms else None
    moved = model.few.jacobian(posed, None if chart is None else chart.transpose(3, 2, 0, 1))  # (N,21,3,48)
    fixed = np.broadcast_to(np.eye(3, dtype=local.dtype), (n, 21, 3, 3))
    shape = [model.few.shape_jacobian(posed)] if with_shape else []
    cost, residuals, rows = _keypoint_rows(
        posed.points + place[:, None], seen, None if least_curvature is None else least_curvature.numpy()
    )
    columns = [rows @ np.concatenate([moved, fixed, *shape], axis=3)]  # (N,21,2C,U)
    residuals, eliminated = [residuals], None
    if seen.points_3d is not None and seen.points_3d_weight is not None:
        planar = torch.from_numpy(posed.points).permute(2, 1, 0)
        guess = point_rows(planar, seen.points_3d, seen.points_3d_weight, seen.scale_std)
        cost, eliminated = cost + guess.cost.numpy(), guess.eliminated
        residuals.append(guess.residuals.numpy().transpose(2, 1, 0))
        # The guess does not know where the hand is.
        own = np.concatenate([moved, np.zeros_like(fixed), *shape], axis=3)
        columns.append(guess.rows.numpy().transpose(3, 2, 1, 0) @ own)
    whole = np.concatenate(columns, axis=2).swapaxes(1, 2)  # (N,row,21,U)
    return FrameRows(
        torch.from_numpy(cost),
        torch.from_numpy(np.concatenate(residuals, axis=2).swapaxes(1, 2).reshape(n, -1)),
        torch.from_numpy(whole.reshape(n, -1, whole.shape[3])),
        None if chart is None else torch.from_numpy(chart),
        [torch.from_numpy(phi) for phi in logarithms],
        eliminated,
    )


def _keypoint_rows(
    points: NDArray, seen: Observations, least_curvature: NDArray | None
) -> tuple[NDArray, NDArray, NDArray]:
    """`keypoint_terms.keypoint_rows` of points (N,21,3) m: cost (N,), residuals (N,21,2C), rows (N,21,2C,3)."""
    projections, keypoints, weights = seen.projections.numpy(), seen.keypoints.numpy(), seen.weights.numpy()
    linear = projections[..., :3]
    image = points[:, None] @ linear.swapaxes(2, 3) + projections[:, :, None, :, 3]  # (N,C,21,3)
    depth, visible = image[..., 2], weights > 0
    inverse = 1 / np.maximum(depth, NEAR)
    pixels = image[..., :2] * inverse[..., None]
    off = np.where(visible[..., None], pixels - keypoints, 0)
    squared = (off * off).sum(axis=3) * weights
    rho, slope = robust_loss(squared, seen.loss, seen.loss_scale)
    cost = rho.sum(axis=(1, 2)) / 2
    cost[(visible & (depth < NEAR)).any(axis=(1, 2))] = np.inf
    trust = np.sqrt(slope * weights)
    rows = linear[:, :, None, :2] - pixels[..., None] * linear[:, :, None, 2:]  # (N,C,21,2,3)
    rows *= (trust * inverse)[..., None, None]
    if least_curvature is not None and seen.loss != "none":
        flat = radial_curvature(squared, seen.loss, seen.loss_scale).clip(min=least_curvature[:, None, None]) ** 0.5
        along = (off[..., None, :] @ rows) * ((1 - flat) * weights / squared.clip(min=1e-12))[..., None, None]
        rows -= along * off[..., None]
        trust /= flat
    n, cameras = weights.shape[:2]
    residuals = (off * trust[..., None]).swapaxes(1, 2).reshape(n, 21, 2 * cameras)
    return cost, residuals, rows.swapaxes(1, 2).reshape(n, 21, 2 * cameras, 3)
