"""A start for the hand's position that up to half of the keypoints cannot spoil."""

from __future__ import annotations

import torch

from src.personalization.solver.status import NEAR

#: Median of the length of a 2D Gaussian vector over its standard deviation: sqrt(2 ln 2).
RAYLEIGH_MEDIAN = 1.1774


def weighted_median(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Median (...,) of values (...,n) with weights (...,n) >= 0; infinite where all weights are zero."""
    ordered, index = torch.where(weights > 0, values, torch.inf).sort(dim=-1)
    passed = weights.gather(-1, index).cumsum(dim=-1)
    place = (passed < passed[..., -1:] / 2).sum(dim=-1, keepdim=True)
    return ordered.gather(-1, place.clamp_max(values.shape[-1] - 1))[..., 0]


def least_median_start(
    points: torch.Tensor, K: torch.Tensor, keypoints: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Position with the least median of reprojection distances over all pairs of keypoints and over all of them.

    Least median of squares (Rousseeuw 1984) with every minimal sample tried: two keypoints give four linear
    equations for three unknowns (the direct linear transform with known rotation), and 21 keypoints have but
    210 pairs, so nothing is drawn at random. Breaks down at half of the weight.

    Args:
        points: (B,P,3) m, relative to the root; K: (B,3,3) px; keypoints: (B,P,2) px;
        weights: (B,P), zero where unseen.

    Returns:
        position (B,3) m, that median (B,) px, and the mask (B,) of problems whose best position is in front of
        the camera; where it is behind (keypoints upside down and inside out) or there is none, the
        position is zero and the median infinite.
    """
    ray_rows = K[:, None, :2] - keypoints[..., None] * K[:, None, 2:]  # (B,P,2,3)
    right = -(ray_rows @ points[..., None])[..., 0]
    scaled = ray_rows * weights[..., None, None]
    normal = scaled.mT @ ray_rows  # (B,P,3,3)
    vector = (scaled.mT @ right[..., None])[..., 0]
    first, second = torch.triu_indices(points.shape[1], points.shape[1], 1, device=points.device)
    systems = torch.cat([normal[:, first] + normal[:, second], normal.sum(dim=1, keepdim=True)], dim=1)
    vectors = torch.cat([vector[:, first] + vector[:, second], vector.sum(dim=1, keepdim=True)], dim=1)
    size = systems.diagonal(dim1=-2, dim2=-1).mean(dim=-1).clamp_min(1e-30)
    ridge = 1e-12 * torch.eye(3, dtype=points.dtype, device=points.device)
    candidates = torch.linalg.solve_ex(systems / size[..., None, None] + ridge, vectors / size[..., None])[0]
    image = (points[:, None] + candidates[:, :, None]) @ K[:, None].mT  # (B,C,P,3)
    depth = image[..., 2]
    distance = (image[..., :2] / depth[..., None] - keypoints[:, None]).norm(dim=-1)
    seen = weights[:, None] > 0
    front, behind = (((sign * depth > NEAR) | ~seen).all(dim=-1) for sign in (1, -1))
    possible = torch.isfinite(candidates).all(dim=-1) & (front | behind)
    score = weighted_median(torch.nan_to_num(distance, torch.inf), weights[:, None].expand_as(distance))
    score, best = torch.where(possible, score, torch.inf).min(dim=1)
    placed = torch.isfinite(score) & front.gather(1, best[:, None])[:, 0]
    position = candidates.gather(1, best[:, None, None].expand(-1, 1, 3))[:, 0]
    position = torch.where(placed[:, None], position, torch.zeros_like(position))
    return position, torch.where(placed, score, torch.inf), placed
