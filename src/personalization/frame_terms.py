"""Cost, gradient and Gauss-Newton Hessian of every frame: keypoints, pose priors and depth.

A frame is one instant: one pose and one wrist position, seen by one or more cameras.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch

from src.personalization.hand_residuals import PosedPoints, point_jacobian, posed_points, shape_jacobian
from src.personalization.joints_model import JointsModel
from src.personalization.pose_prior import PosePrior, prior_terms
from src.personalization.robust import robust_loss

#: Points nearer than this to a camera's plane (m) make a state impossible (infinite cost).
NEAR = 0.05
#: Unknowns of a frame before the betas: 48 turns (axis, joint) and 3 of the wrist.
FRAME_SIZE = 51


@dataclass
class Observations:
    """What is known about N frames, each seen by C cameras. Points in MANO order, tips last.

    Attributes:
        projections: (N,C,3,4) K [R|t] pixels, from the frame of pose and wrist to each image.
        keypoints: (N,C,21,2) pixels; weights: (N,C,21) = 1 / variance, 1/px^2, zero where unseen.
        pose_priors: Gaussians on the rotations.
        depth, depth_weight: (N,) wrist z, m, and 1 / variance; zero weight where unknown.
        loss, loss_scale: see `robust.robust_loss`.
    """

    projections: torch.Tensor
    keypoints: torch.Tensor
    weights: torch.Tensor
    pose_priors: list[PosePrior] = field(default_factory=list)
    depth: torch.Tensor | None = None
    depth_weight: torch.Tensor | None = None
    loss: str = "geman_mcclure"
    loss_scale: float = 4.0

    def rows(self, index: torch.Tensor | slice) -> Observations:
        """The observations of some frames."""
        taken = {
            item.name: value[index]
            for item in fields(self)
            if isinstance(value := getattr(self, item.name), torch.Tensor)
        }
        return replace(self, pose_priors=[prior.rows(index) for prior in self.pose_priors], **taken)


@dataclass
class FrameTerms:
    """Second-order model of N frames: half chi-square (N,), gradient (N,U), Hessian (N,U,U).

    U = 51 unknowns (48 turns ordered (axis, joint), 3 of the wrist), or 61 with the betas.
    """

    cost: torch.Tensor
    gradient: torch.Tensor
    hessian: torch.Tensor


def evaluate_frames(
    model: JointsModel,
    seen: Observations,
    pose: torch.Tensor,
    wrist: torch.Tensor,
    rest: torch.Tensor,
    with_shape: bool,
) -> FrameTerms:
    """Linearise all frames.

    Args:
        pose: (N,16,3,3); wrist: (N,3) m; rest: (N,21,3) m zero-pose points of each frame's betas.
        with_shape: add the ten columns of the betas (without any prior on them).

    Returns:
        `FrameTerms`; the cost is infinite where a point comes too close to a camera that sees it.
    """
    posed = posed_points(model, pose, rest)
    residual, gradients, cost = _keypoint_residuals(seen, posed.points + wrist[:, None])
    jacobian = _stack_jacobian(model, posed, gradients, with_shape)
    hessian = jacobian.mT @ jacobian
    gradient = (jacobian.mT @ residual.flatten(1)[..., None])[..., 0]
    _add_pose_priors(seen, pose, posed, cost, gradient, hessian)
    if seen.depth is not None and seen.depth_weight is not None:
        off = wrist[:, 2] - seen.depth
        cost += seen.depth_weight * off * off / 2
        gradient[:, 50] += seen.depth_weight * off
        hessian[:, 50, 50] += seen.depth_weight
    return FrameTerms(cost, gradient, hessian)


def _keypoint_residuals(
    seen: Observations, points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighted residuals (N,C,21,2), their derivatives by the point (N,C,21,2,3), and the cost (N,)."""
    linear, shift = seen.projections[..., :3], seen.projections[..., 3]
    image = points[:, None] @ linear.mT + shift[:, :, None]
    depth = image[..., 2:]
    visible = seen.weights > 0
    impossible = (visible & (depth[..., 0] < NEAR)).flatten(1).any(dim=1)
    depth = depth.clamp_min(NEAR)
    pixels = image[..., :2] / depth
    difference = torch.where(visible[..., None], pixels - seen.keypoints, torch.zeros_like(pixels))
    loss, factor = robust_loss(seen.weights * (difference * difference).sum(-1), seen.loss, seen.loss_scale)
    cost = loss.flatten(1).sum(-1) / 2
    cost = torch.where(impossible, torch.full_like(cost, torch.inf), cost)
    root = (seen.weights * factor).sqrt()[..., None]
    by_point = (linear[:, :, None, :2] - pixels[..., None] * linear[:, :, None, 2:]) * (root / depth)[..., None]
    return difference * root, by_point, cost


def _stack_jacobian(
    model: JointsModel, posed: PosedPoints, by_point: torch.Tensor, with_shape: bool
) -> torch.Tensor:
    """Derivative (N, C*42, 51 or 61) of the weighted residuals."""
    cameras = by_point.shape[1]
    columns = point_jacobian(model, posed).flatten(3)
    if with_shape:
        columns = torch.cat([columns, shape_jacobian(model, posed)], dim=3)
    turned = by_point @ columns[:, None]
    parts = [turned[..., :48], by_point, turned[..., 48:]]
    return torch.cat(parts, dim=-1).reshape(by_point.shape[0], cameras * 42, -1)


def _add_pose_priors(
    seen: Observations,
    pose: torch.Tensor,
    posed: PosedPoints,
    cost: torch.Tensor,
    gradient: torch.Tensor,
    hessian: torch.Tensor,
) -> None:
    blocks = hessian[:, :48, :48]
    for prior in seen.pose_priors:
        prior_cost, prior_gradient, prior_hessian = prior_terms(prior, pose, posed.rotations)
        cost += prior_cost
        gradient[:, :48] += prior_gradient
        if prior_hessian.dim() == 4:
            blocks.unflatten(1, (3, 16)).unflatten(3, (3, 16)).diagonal(dim1=2, dim2=4).add_(prior_hessian)
        else:
            blocks.add_(prior_hessian)
