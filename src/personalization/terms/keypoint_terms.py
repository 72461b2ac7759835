"""Reprojection of points in any number of cameras: cost, force and curvature of each point, components first."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from src.personalization.solver.robust import robust_loss
from src.personalization.solver.status import NEAR


@dataclass
class PointTerms:
    """Second-order model of the keypoint cost in the positions of P points of N frames.

    Attributes:
        cost: (N,) half chi-square, infinite where a point is nearer than `NEAR` to a camera that sees it.
        force: (3,P,N) gradient, 1/m.
        curve: (3,3,P,N) Gauss-Newton curvature, 1/m^2, positive semi-definite.
        excess: (3,3,P,N) the rest of the exact curvature, from the perspective division and from the
            robust loss; may be indefinite. None unless asked for.
    """

    cost: torch.Tensor
    force: torch.Tensor
    curve: torch.Tensor
    excess: torch.Tensor | None


def keypoint_terms(
    points: torch.Tensor,
    projections: torch.Tensor,
    keypoints: torch.Tensor,
    weights: torch.Tensor,
    loss: str,
    loss_scale: float,
    exact: bool = True,
) -> PointTerms:
    """Linearise the reprojection of points (3,P,N), m.

    With u the pixel, e = w |u - k|^2 and p the projection's rows, du/dx = (p_r - u_r p_3) / h and
    d2u_r/dx2 = -(du_r p_3^T + p_3 du_r^T) / h, h = p_3 . (x, 1) being the depth.

    Args:
        projections: (3,4,C,N); keypoints: (2,C,P,N) px; weights: (C,P,N), 1/px^2, zero where unseen.
        exact: also compute the excess.
    """
    linear, shift = projections[:, :3, :, None], projections[:, 3, :, None]  # (3,3,C,1,N), (3,C,1,N)
    image = (linear * points[None, :, None]).sum(dim=1) + shift  # (3,C,P,N)
    visible = weights > 0
    impossible = (visible & (image[2] < NEAR)).any(dim=1).any(dim=0)
    inverse = 1 / image[2].clamp_min(NEAR)
    pixels = image[:2] * inverse
    off = torch.where(visible, pixels - keypoints, torch.zeros_like(pixels))
    rho, slope, bend = robust_loss(weights * (off * off).sum(dim=0), loss, loss_scale)
    cost = rho.sum(dim=(0, 1)) / 2
    cost = torch.where(impossible, torch.full_like(cost, torch.inf), cost)

    toward = linear[2]  # p_3, (3,C,1,N)
    derivative = (linear[:2] - pixels[:, None] * toward[None]) * inverse  # (2,3,C,P,N)
    weighed = slope * weights
    pull = ((weights * off)[:, None] * derivative).sum(dim=0)  # (3,C,P,N)
    force = slope * pull
    curve = ((weighed * derivative)[:, :, None] * derivative[:, None]).sum(dim=0)  # (3,3,C,P,N)
    excess = None
    if exact:
        tilt = (force * -inverse)[:, None] * toward[None]
        excess = tilt + tilt.transpose(0, 1)
        if loss != "none":
            excess = excess + (2 * bend * pull)[:, None] * pull[None]
        excess = excess.sum(dim=2)
    return PointTerms(cost, force.sum(dim=1), curve.sum(dim=2), excess)
