"""Reprojection of the 21 points in any number of cameras: cost, force and curvature of each point."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from src.personalization.robust import robust_loss

#: Points nearer than this to a camera's plane (m) make a state impossible (infinite cost).
NEAR = 0.05


@dataclass
class PointTerms:
    """Second-order model of the keypoint cost in the positions of the points.

    Attributes:
        cost: (N,) half chi-square, infinite where a point is too close to a camera that sees it.
        force: (N,21,3) gradient, 1/m.
        roots: (N,C,21,2,3) rows whose outer products sum to the Gauss-Newton curvature, 1/m.
        excess: (N,21,3,3) exact curvature minus the Gauss-Newton part, 1/m^2: from the perspective
            division and from the robust loss. May be indefinite.
    """

    cost: torch.Tensor
    force: torch.Tensor
    roots: torch.Tensor
    excess: torch.Tensor


def keypoint_terms(
    points: torch.Tensor,
    projections: torch.Tensor,
    keypoints: torch.Tensor,
    weights: torch.Tensor,
    loss: str,
    loss_scale: float,
) -> PointTerms:
    """Linearise the reprojection of points (N,21,3), m.

    With u the pixel, e = w |u - k|^2 and p the projection's rows, du/dx = (p_r - u_r p_3) / h and
    d2u_r/dx2 = -(du_r p_3^T + p_3 du_r^T) / h, h = p_3 . (x, 1) being the depth.

    Args:
        projections: (N,C,3,4); keypoints: (N,C,21,2) px; weights: (N,C,21), 1/px^2, zero where unseen.
    """
    linear, shift = projections[..., :3], projections[..., 3]
    image = points[:, None] @ linear.mT + shift[:, :, None]
    visible = weights > 0
    impossible = (visible & (image[..., 2] < NEAR)).flatten(1).any(dim=1)
    depth = image[..., 2:].clamp_min(NEAR)
    pixels = image[..., :2] / depth
    off = torch.where(visible[..., None], pixels - keypoints, torch.zeros_like(pixels))
    rho, slope, bend = robust_loss(weights * (off * off).sum(-1), loss, loss_scale)
    cost = rho.flatten(1).sum(-1) / 2
    cost = torch.where(impossible, torch.full_like(cost, torch.inf), cost)

    toward = linear[:, :, None, 2]  # p_3
    derivative = (linear[:, :, None, :2] - pixels[..., None] * toward[..., None, :]) / depth[..., None]
    pull = ((weights[..., None] * off)[..., None] * derivative).sum(dim=-2)  # (N,C,21,3)
    force = slope[..., None] * pull
    tilt = (-force / depth)[..., :, None] * toward[..., None, :]
    excess = tilt + tilt.mT
    if loss != "none":
        excess = excess + (2 * bend[..., None] * pull)[..., :, None] * pull[..., None, :]
    roots = derivative * (weights * slope).sqrt()[..., None, None]
    return PointTerms(cost, force.sum(dim=1), roots, excess.sum(dim=1))
