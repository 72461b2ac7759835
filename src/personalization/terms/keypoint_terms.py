"""Reprojection of points in any number of cameras: cost, whitened residuals and their rows, components first."""

from __future__ import annotations

import torch

from src.personalization.solver.robust import radial_curvature, robust_loss
from src.personalization.solver.status import NEAR


def keypoint_rows(
    points: torch.Tensor,
    projections: torch.Tensor,
    keypoints: torch.Tensor,
    weights: torch.Tensor,
    loss: str,
    loss_scale: float,
    least_curvature: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gauss-Newton model of the reprojection of points (3,P,N), m.

    With u the pixel and p the projection's rows, du_r/dx = (p_r - u_r p_3) / h, h = p_3 . (x, 1) being the depth.
    Residuals are divided by their standard deviation, and by what the robust loss makes of it (iteratively reweighted
    least squares: Triggs et al. 2000, "Bundle adjustment", section 4.3).

    Args:
        projections: (3,4,C,N); keypoints: (2,C,P,N) px; weights: (C,P,N), 1/px^2, zero where unseen.
        least_curvature: (N,) in (0,1] asks for the loss's own curvature too (Triggs' second-order term), of which so
            much is kept at least; the gradient is the same. None: without, which is as if it were one.

    Returns:
        cost (N,), half chi-square, infinite where a point is nearer than `NEAR` to a camera that sees it; residuals
        (2C,P,N), no unit; rows (3,2C,P,N), 1/m, their derivatives in the points.
    """
    cameras, count, n = weights.shape
    linear, shift = projections[:, :3, :, None], projections[:, 3, :, None]  # (3,3,C,1,N), (3,C,1,N)
    image = torch.addcmul(shift, linear[:, 0], points[0])  # (3,C,P,N)
    image.addcmul_(linear[:, 1], points[1]).addcmul_(linear[:, 2], points[2])
    visible = weights > 0
    impossible = (visible & (image[2] < NEAR)).flatten(0, 1).any(dim=0)
    inverse = image[2].clamp_min(NEAR).reciprocal_()
    pixels = image[:2] * inverse
    off = torch.where(visible, pixels - keypoints, 0.0)
    squared = (off[0] * off[0]).addcmul_(off[1], off[1]).mul_(weights)
    rho, slope = robust_loss(squared, loss, loss_scale)
    cost = rho.sum(dim=(0, 1)).div_(2).masked_fill_(impossible, torch.inf)
    trust = slope.mul(weights).sqrt_()
    scale = trust * inverse
    rows = torch.addcmul(linear[:2].transpose(0, 1), linear[2][:, None], pixels, value=-1).mul_(scale)  # (3,2,C,P,N)
    if least_curvature is not None and loss != "none":
        flat = radial_curvature(squared, loss, loss_scale).clamp_min_(least_curvature).sqrt_()
        along = (rows[:, 0] * off[0]).addcmul_(rows[:, 1], off[1])
        rows.addcmul_(along.mul_((1 - flat).mul_(weights).div_(squared.clamp_min(1e-12)))[:, None], off, value=-1)
        trust /= flat
    return cost, off.mul_(trust).reshape(2 * cameras, count, n), rows.reshape(3, 2 * cameras, count, n)
