"""`frame_terms.evaluate_frames` of one or a few frames on a CPU, in NumPy.

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
from src.personalization.terms.pose_prior import inverse_right_jacobian, right_jacobian, rotation_log
from template.kinematics import JointsModel

if TYPE_CHECKING:
    from src.personalization.terms.frame_terms import Observations


class FewTerms(NamedTuple):
    """`frame_terms.FrameTerms` in NumPy, and the points (N,21,3) m, relative to the wrist."""

    cost: NDArray
    gradient: NDArray
    hessian: NDArray
    chart: NDArray
    points: NDArray


def few_frames(
    model: JointsModel,
    seen: Observations,
    pose: NDArray,
    wrist: NDArray,
    rest: NDArray,
    with_shape: bool = False,
    least_curvature: NDArray | None = None,
) -> FewTerms:
    """Arguments as of `frame_terms.evaluate_frames`; rad and m."""
    n, posed = len(pose), model.few.pose(pose, rest)
    logarithms = [rotation_log((prior.reference.numpy().mT @ pose).transpose(2, 3, 1, 0)) for prior in seen.pose_priors]
    eye = np.eye(3, dtype=pose.dtype)
    chart = _frames_first(right_jacobian(logarithms[0])) if logarithms else np.tile(eye, (n, 16, 1, 1))
    moved = model.few.jacobian(posed, chart if logarithms else None)  # (N,21,3,48)
    fixed = np.broadcast_to(eye, (n, 21, 3, 3))
    shape = [model.few.shape_jacobian(posed)] if with_shape else []
    cost, off, rows = _keypoint_rows(posed.points + wrist[:, None], seen, least_curvature)
    residuals = off.reshape(n, 1, -1)
    own = np.concatenate([moved, fixed, *shape], axis=3)
    columns = (rows @ own).reshape(n, residuals.shape[2], own.shape[3])  # no row where no camera sees the hand
    gradient, hessian = (residuals @ columns)[:, 0], columns.mT @ columns
    if seen.points_3d is not None and seen.points_3d_weight is not None:
        planar = torch.from_numpy(posed.points).permute(2, 1, 0)
        guess = point_rows(planar, seen.points_3d, seen.points_3d_weight, seen.scale_std, seen.points_3d_turn)
        # The guess does not know where the hand is.
        own = np.concatenate([moved, np.zeros_like(fixed), *shape], axis=3)
        columns = (guess.rows.numpy().transpose(3, 1, 2, 0)[..., None, :] @ own[:, None]).reshape(n, 63, -1)
        free = guess.eliminated.numpy() @ columns
        cost = cost + guess.cost.numpy()
        gradient += (guess.residuals.numpy().transpose(2, 0, 1).reshape(n, 1, 63) @ columns)[:, 0]
        hessian += columns.mT @ columns - free.mT @ free
    for number, (prior, phi) in enumerate(zip(seen.pose_priors, logarithms, strict=True)):
        precision, vector = prior.precision.numpy(), phi.transpose(2, 1, 0)
        vector = (vector if prior.offset is None else vector - prior.offset.numpy()).reshape(n, 48)
        pull = (precision @ vector[..., None])[..., 0]
        cost = cost + (vector * pull).sum(axis=1) / 2
        if number:  # of the first the chart is its own logarithm
            derivative, joints = np.zeros((n, 16, 3, 16, 3), pose.dtype), range(16)
            blocks = _frames_first(inverse_right_jacobian(phi)) @ chart
            derivative[:, joints, :, joints] = blocks.swapaxes(0, 1)
            turned = derivative.reshape(n, 48, 48)
            pull, precision = (pull[:, None] @ turned)[:, 0], turned.mT @ (precision @ turned)
        gradient[:, :48] += pull
        hessian[:, :48, :48] += precision
    if seen.depth is not None and seen.depth_weight is not None:
        off, weight = wrist[:, 2] - seen.depth.numpy(), seen.depth_weight.numpy()
        cost = cost + weight * off * off / 2
        gradient[:, 50] += weight * off
        hessian[:, 50, 50] += weight
    return FewTerms(cost, gradient, hessian, chart, posed.points)


def _frames_first(matrices: NDArray) -> NDArray:
    """(N,16,3,3) of matrices (3,3,16,N)."""
    return matrices.transpose(3, 2, 0, 1)


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
