"""Cost, gradient and Gauss-Newton Hessian of every frame: keypoints, 3D points, pose priors and depth.

A frame is one instant: one pose and one wrist position, seen by one or more cameras.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import numpy as np
import roma
import torch

from src.personalization.terms.few_frames import few_frames
from src.personalization.terms.inputs import FrameInputs
from src.personalization.terms.keypoint_terms import keypoint_rows
from src.personalization.terms.point_terms import point_rows
from src.personalization.terms.pose_prior import PosePrior, inverse_right_jacobian, right_jacobian
from template.components_first import are_few, product, product_transposed
from template.few_joints import LANDMARK_FRAMES
from template.kinematics import JointsModel, posed_points, row_jacobian, shape_jacobian

#: Unknowns of a frame before the betas: 48 of the rotations, (joint, axis), and 3 of the wrist.
FRAME_SIZE = 51
POSE, WRIST, SHAPE = slice(0, 48), slice(48, 51), slice(51, 61)
#: And after them how far each of the 21 points lies from the model's, (point, axis), m, in the frame of its bone.
OFFSETS = slice(61, 124)


@dataclass
class Observations:
    """What is known about N frames, each seen by C cameras. Points in MANO order, tips last.

    Attributes:
        projections: (N,C,3,4) K [R|t] pixels, from the frame of pose and wrist to each image.
        keypoints: (N,C,21,2) pixels; weights: (N,C,21) = 1 / variance, 1/px^2, zero where unseen.
        pose_priors: Gaussians on the rotations.
        depth, depth_weight: (N,) wrist z, m, and 1 / variance; zero weight where unknown.
        points_3d: (N,21,3) m, the points as an estimator gives them, about any centre and up to a scale;
            points_3d_weight: (N,21,3) 1 / variance of each coordinate, 1/m^2, zero where unknown;
            points_3d_turn: (N,3,3) from the frame's axes to theirs, None: they are the same.
        scale_std: of that scale about 1: zero for a metric estimator, infinity where it says nothing of size.
        loss, loss_scale: see `robust.robust_loss`.
    """

    projections: torch.Tensor
    keypoints: torch.Tensor
    weights: torch.Tensor
    pose_priors: list[PosePrior] = field(default_factory=list)
    depth: torch.Tensor | None = None
    depth_weight: torch.Tensor | None = None
    points_3d: torch.Tensor | None = None
    points_3d_weight: torch.Tensor | None = None
    points_3d_turn: torch.Tensor | None = None
    scale_std: float = 0.15
    loss: str = "geman_mcclure"
    loss_scale: float = 4.0

    def rows(self, index: torch.Tensor | slice) -> Observations:
        """The observations (px, depths in m) of some frames."""
        taken = {
            item.name: value[index]
            for item in fields(self)
            if isinstance(value := getattr(self, item.name), torch.Tensor)
        }
        return replace(self, pose_priors=[prior.rows(index) for prior in self.pose_priors], **taken)


def join_views(
    seen: Observations, inputs: FrameInputs, instant: np.ndarray, camera_to_world: np.ndarray
) -> tuple[Observations, torch.Tensor, torch.Tensor]:
    """Of one person's images, ``seen`` (px) each alone, those of F instants, which may have different numbers of views.

    The frame of an instant is that of its first usable view. The network's poses of all views are turned
    into it and averaged (chordal mean) for the prior; its standard deviations are not reduced, since
    the views' errors are not independent.

    Args:
        instant: (N,) equal for views of one instant; camera_to_world: (N,4,4) m, of their cameras.

    Returns:
        The observations, the instants' starting poses (F,16,3,3), and their status (F,).
    """
    good, device = inputs.good.cpu().numpy(), inputs.pose.device
    names, place = np.unique(instant, return_inverse=True)
    members = [np.flatnonzero(place == index) for index in range(len(names))]
    members = [np.concatenate([rows[good[rows]], rows[~good[rows]]]) for rows in members]  # usable views first
    most = max(len(rows) for rows in members)
    table = torch.as_tensor(np.stack([np.resize(rows, most) for rows in members]), device=device)
    real = torch.as_tensor(np.stack([np.arange(most) < len(rows) for rows in members]), device=device)
    world = torch.as_tensor(camera_to_world).to(inputs.pose)[table]
    relative = torch.linalg.solve(world, world[:, :1].expand_as(world))  # first view's frame -> view's frame
    turned = inputs.pose[table].clone()
    turned[:, :, 0] = relative[..., :3, :3].mT @ turned[:, :, 0]
    share = (real & inputs.good[table]).to(inputs.pose)
    share[:, 0] += (share.sum(dim=1) == 0).to(inputs.pose)
    mean = roma.special_procrustes((share[..., None, None, None] * turned).sum(dim=1))
    first = table[:, 0]
    one = seen.rows(first)
    observations = replace(
        one,
        projections=inputs.K[table] @ relative[..., :3, :],
        keypoints=seen.keypoints[:, 0][table],
        weights=seen.weights[:, 0][table] * real[..., None],
        pose_priors=[
            replace(prior, reference=mean) if each.reference is inputs.pose else prior  # the network's, or another
            for prior, each in zip(one.pose_priors, seen.pose_priors, strict=True)
        ],
    )
    return observations, mean, inputs.status[first]


@dataclass
class FrameTerms:
    """Gauss-Newton model of N frames in U = 51 unknowns (48 of the rotations, (joint, axis); wrist), 61 with betas,
    124 with offsets.

    Attributes:
        cost: (N,) half chi-square; gradient: (N,U); hessian: (N,U,U), positive semi-definite.
        chart: (N,16,3,3) L: the unknowns y of a joint turn it to ``R exp([L y])``.
    """

    cost: torch.Tensor
    gradient: torch.Tensor
    hessian: torch.Tensor
    chart: torch.Tensor


def evaluate_frames(
    model: JointsModel,
    seen: Observations,
    pose: torch.Tensor,
    wrist: torch.Tensor,
    rest: torch.Tensor,
    with_shape: bool,
    least_curvature: torch.Tensor | None = None,
    offsets: torch.Tensor | None = None,
) -> FrameTerms:
    """Linearise all frames.

    Args:
        pose: (N,16,3,3); wrist: (N,3) m; rest: (N,21,3) m zero-pose points of each frame's betas.
        with_shape: add the ten columns of the betas (without any prior on them).
        least_curvature: (N,) see `keypoint_rows`; for a search, whose minimum it leaves as it is, not for covariances.
        offsets: (N,21,3) m, MANO's order, see `OFFSETS`: their columns are added after those of the betas.
    """
    if offsets is not None:
        model = model.moved(offsets)
    elif are_few(pose):
        floor = None if least_curvature is None else least_curvature.numpy()
        few = few_frames(model, seen, pose.numpy(), wrist.numpy(), rest.numpy(), with_shape, floor)
        return FrameTerms(*map(torch.from_numpy, few[:4]))
    cost, residuals, columns, chart, logarithms, eliminated = _rows(
        model, seen, pose, wrist, rest, with_shape, least_curvature, offsets is not None
    )
    n, size = len(pose), columns.shape[2]
    gradient = (residuals[:, None] @ columns)[:, 0]
    if seen.pose_priors:
        first = seen.pose_priors[0].precision
        base = first.new_zeros(len(first), size, size)
        base[:, POSE, POSE] = first
        hessian = torch.baddbmm(base.expand(n, -1, -1), columns.mT, columns)
    else:
        hessian = columns.mT @ columns
    if eliminated is not None:
        free = eliminated @ columns[:, -63:]
        hessian = torch.baddbmm(hessian, free.mT, free, alpha=-1)
    for number, (prior, phi) in enumerate(zip(seen.pose_priors, logarithms, strict=True)):
        prior_cost, pull = prior.pull(phi)
        cost = cost + prior_cost
        if number == 0:  # the chart is its own logarithm
            gradient[:, POSE].add_(pull)
            continue
        derivative = torch.zeros(n, 16, 3, 16, 3, dtype=pose.dtype, device=pose.device)
        blocks = product(inverse_right_jacobian(phi), chart).permute(3, 0, 1, 2)
        derivative.diagonal(dim1=1, dim2=3).copy_(blocks)
        derivative = derivative.view(n, 48, 48)
        gradient[:, POSE] += (pull[:, None] @ derivative)[:, 0]
        hessian[:, POSE, POSE] += derivative.mT @ (prior.precision @ derivative)
    if seen.depth is not None and seen.depth_weight is not None:
        off = wrist[:, 2] - seen.depth
        cost = cost + seen.depth_weight * off * off / 2
        gradient[:, 50].add_(seen.depth_weight * off)
        hessian[:, 50, 50].add_(seen.depth_weight)
    if chart is None:
        chart = torch.eye(3, dtype=pose.dtype, device=pose.device).view(3, 3, 1, 1).expand(3, 3, 16, n)
    return FrameTerms(cost, gradient, hessian, chart.permute(3, 2, 0, 1))


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


def _rows(
    model: JointsModel,
    seen: Observations,
    pose: torch.Tensor,
    wrist: torch.Tensor,
    rest: torch.Tensor,
    with_shape: bool,
    least_curvature: torch.Tensor | None,
    with_offsets: bool,
) -> FrameRows:
    """Of any number of frames, components first."""
    n, size = len(pose), OFFSETS.stop if with_offsets else FRAME_SIZE + 10 * with_shape
    posed = posed_points(model, pose, rest)
    local = posed.local[:, :3]
    cost, residuals, rows = keypoint_rows(
        posed.planar + wrist.T[:, None],
        seen.projections.permute(2, 3, 1, 0).contiguous(),
        seen.keypoints.permute(3, 1, 2, 0).contiguous(),
        seen.weights.permute(1, 2, 0).contiguous(),
        seen.loss,
        seen.loss_scale,
        least_curvature,
    )
    guess = None
    if seen.points_3d is not None and seen.points_3d_weight is not None:
        guess = point_rows(posed.planar, seen.points_3d, seen.points_3d_weight, seen.scale_std, seen.points_3d_turn)
        cost = cost + guess.cost
        residuals, rows = torch.cat([residuals, guess.residuals]), torch.cat([rows, guess.rows], dim=1)
    logarithms = [prior.logarithms(local) for prior in seen.pose_priors]
    chart = right_jacobian(logarithms[0]) if logarithms else None

    by_point = pose.new_zeros(len(residuals), 21, size, n)  # (row, point, unknown, N)
    row_jacobian(model, posed, rows, chart, out=by_point[:, :, POSE].unflatten(2, (16, 3)))
    views = 2 * seen.weights.shape[1]  # the 3D guess does not know where the hand is
    by_point[:views, :, WRIST] = rows[:, :views].permute(1, 2, 0, 3)
    if with_shape:
        moved = shape_jacobian(model, posed)
        by_point[:, :, SHAPE] = product_transposed(rows[:, :, :, None], moved[:, None])
    if with_offsets:
        turned = product_transposed(posed.rotations[:, :, None, LANDMARK_FRAMES], rows[:, None])  # (3,R,21,N)
        by_point[:, :, OFFSETS].unflatten(2, (21, 3)).diagonal(dim1=1, dim2=2).copy_(turned.permute(1, 0, 3, 2))
    count = 21 * len(residuals)
    columns = by_point.view(count * size, n).T.contiguous().view(n, count, size)
    eliminated = None if guess is None else guess.eliminated
    return FrameRows(cost, residuals.reshape(count, n).T.contiguous(), columns, chart, logarithms, eliminated)
