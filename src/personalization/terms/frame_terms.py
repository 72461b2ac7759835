"""Cost, gradient and Hessian of every frame: keypoints, pose priors and depth.

A frame is one instant: one pose and one wrist position, seen by one or more cameras. Single views leave
rotations about axes across the line of sight to second-order terms: there the Gauss-Newton Hessian
alone converges slowly, so the rest of the Hessian is given as well, apart, since it can be indefinite.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch

from src.personalization.terms.hand_residuals import (
    lever_arms,
    point_jacobian,
    posed_points,
    shape_jacobian,
    turn_curvature,
)
from src.personalization.terms.joints_model import JointsModel
from src.personalization.terms.keypoint_terms import keypoint_terms
from src.personalization.terms.pose_prior import PosePrior, prior_terms

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
    """Second-order model of N frames in U = 51 unknowns (48 turns ordered (axis, joint), wrist), 61 with betas.

    Attributes:
        cost: (N,) half chi-square; gradient: (N,U).
        hessian: (N,U,U) Gauss-Newton, positive semi-definite; excess: (N,U,U) the rest, of any sign.
        rotations: (N,16,3,3) global rotations.
    """

    cost: torch.Tensor
    gradient: torch.Tensor
    hessian: torch.Tensor
    excess: torch.Tensor
    rotations: torch.Tensor


def evaluate_frames(
    model: JointsModel,
    seen: Observations,
    pose: torch.Tensor,
    wrist: torch.Tensor,
    rest: torch.Tensor,
    with_shape: bool,
    exact: bool = True,
) -> FrameTerms:
    """Linearise all frames.

    Args:
        pose: (N,16,3,3); wrist: (N,3) m; rest: (N,21,3) m zero-pose points of each frame's betas.
        with_shape: add the ten columns of the betas (without any prior on them).
        exact: also compute the excess; without, it is zero.

    Returns:
        `FrameTerms`. Second derivatives of the tips' pose-blend term are left out of ``excess``.
    """
    posed = posed_points(model, pose, rest)
    point = keypoint_terms(
        (posed.points + wrist[:, None]).permute(2, 1, 0),
        seen.projections.permute(2, 3, 1, 0),
        seen.keypoints.permute(3, 1, 2, 0),
        seen.weights.permute(1, 2, 0),
        seen.loss,
        seen.loss_scale,
        exact,
    )
    force = point.force.permute(2, 1, 0)
    arms = lever_arms(model, posed)
    parts = [point_jacobian(model, posed, arms).flatten(3), _identity_columns(arms)]
    if with_shape:
        parts.append(shape_jacobian(model, posed))
    columns = torch.cat(parts, dim=-1)  # (N,21,3,U)
    flat = columns.flatten(1, 2)
    hessian = flat.mT @ (point.curve.permute(3, 2, 0, 1) @ columns).flatten(1, 2)
    gradient = (force.flatten(1)[:, None] @ flat)[:, 0]
    if point.excess is None:
        excess = hessian.new_zeros(()).expand_as(hessian)
    else:
        excess = flat.mT @ (point.excess.permute(3, 2, 0, 1) @ columns).flatten(1, 2)
        turn_curvature(model, posed, arms, force, excess, parts[2] if with_shape else None)
    cost = point.cost
    blocks = hessian[:, :48, :48]
    for prior in seen.pose_priors:
        last = pose.permute(2, 3, 1, 0), posed.rotations.permute(2, 3, 1, 0)
        prior_cost, prior_gradient, prior_hessian = prior_terms(prior, *last)
        cost = cost + prior_cost
        gradient[:, :48] += prior_gradient.permute(2, 0, 1).flatten(1)
        if prior.per_joint:
            diagonal = blocks.unflatten(1, (3, 16)).unflatten(3, (3, 16)).diagonal(dim1=2, dim2=4)
            diagonal.add_(prior_hessian.permute(3, 0, 1, 2))
        else:
            blocks.add_(prior_hessian)
    if seen.depth is not None and seen.depth_weight is not None:
        off = wrist[:, 2] - seen.depth
        cost = cost + seen.depth_weight * off * off / 2
        gradient[:, 50] += seen.depth_weight * off
        hessian[:, 50, 50] += seen.depth_weight
    return FrameTerms(cost, gradient, hessian, excess, posed.rotations)


def _identity_columns(like: torch.Tensor) -> torch.Tensor:
    return torch.eye(3, dtype=like.dtype, device=like.device).expand(like.shape[0], 21, 3, 3)
