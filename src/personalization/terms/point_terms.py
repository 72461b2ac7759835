"""An estimator's 3D points as evidence, wherever the hand is and however large it draws hands."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class PointRows:
    """Gauss-Newton model of N frames' points against a guess; centre and scale are at their best.

    Attributes:
        cost: (N,) half chi-square; residuals: (3,21,N), no unit; rows: (3,3,21,N), 1/m, derivatives of the residuals in
            the points, centre and scale held.
        eliminated: (N,4,63) unit directions of the residuals, (row, point), that centre and scale take up: a Jacobian J
            of the residuals has the Hessian ``J^T J - (E J)^T (E J)`` (variable projection, Golub and Pereyra 1973).
    """

    cost: torch.Tensor
    residuals: torch.Tensor
    rows: torch.Tensor
    eliminated: torch.Tensor


def point_rows(
    points: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    scale_std: float,
    turn: torch.Tensor | None = None,
) -> PointRows:
    """Weighted distance of ``centre + scale points`` (3,21,N) m to the target; the scale's prior is N(1, scale_std^2).

    It is the hand that is scaled and not the target, whose errors would shrink with it: of two hands of one form the
    smaller would fit better. With P and W the centred points and targets divided by their standard deviations, and
    v = scale_std^2, the best scale is (v W.P + 1) / (v P.P + 1).

    Args:
        target: (N,21,3) m; weight: (N,21,3) of its coordinates, 1/m^2, zero where there is none.
        scale_std: zero to infinity.
        turn: (N,3,3) from the axes of the points to those of the target, of whose residuals are; None: the same.
    """
    n, weight = len(target), weight.permute(2, 1, 0)
    axes = torch.eye(3, dtype=points.dtype, device=points.device)[..., None]
    turned = axes  # (of the points, of the residuals, N)
    if turn is not None:
        turned = turn.permute(2, 1, 0)
        points = (turned[:, :, None] * points[:, None]).sum(dim=0)
    total = weight.sum(dim=1, keepdim=True).clamp_min(1e-30)
    root = weight.sqrt()
    target = torch.where(weight > 0, target.permute(2, 1, 0), 0.0)
    centred, wanted = (root * (value - (weight * value).sum(dim=1, keepdim=True) / total) for value in (points, target))
    square = (centred * centred).sum(dim=(0, 1))
    along = (wanted * centred).sum(dim=(0, 1))
    if scale_std == float("inf"):
        share = square.clamp_min(1e-30).reciprocal()
        scale, off = along * share, torch.zeros_like(square)
    else:
        variance = scale_std**2
        scale, share = (variance * along + 1) / (variance * square + 1), variance / (variance * square + 1)
        off = variance * ((along - square) / (variance * square + 1)).square()  # (scale - 1)^2 / variance
    residuals = scale * centred - wanted
    eliminated = points.new_zeros(4, 3, 21, n)
    eliminated[:3] = axes[:, :, None] * (root / total.sqrt())
    eliminated[3] = share.sqrt() * centred
    return PointRows(
        cost=((residuals * residuals).sum(dim=(0, 1)) + off) / 2,
        residuals=residuals,
        rows=turned[:, :, None] * (scale * root),
        eliminated=eliminated.permute(3, 0, 1, 2).reshape(n, 4, 63),
    )
