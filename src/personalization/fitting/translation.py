"""Where the hand is, in closed form, from 2D keypoints and the shape of the posed hand."""

from __future__ import annotations

from dataclasses import replace

import torch

from src.personalization.terms.frame_terms import Observations

#: Where a hand is looked for when nothing says how far it is, m (docs/facts.md 7.5).
TYPICAL_DEPTH = 0.85


def wrist_from_keypoints(
    points: torch.Tensor, projections: torch.Tensor, keypoints: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted linear least squares for the wrist position.

    A keypoint (u, v) of point x with projection rows p1, p2, p3 gives two equations linear in the wrist:
    ``(p1 - u p3) . (x + wrist, 1) = 0`` and the same with v. Solved twice, the second time divided by
    each point's depth, so that the residuals are in pixels (the direct linear transform, Hartley and
    Zisserman 2004, section 7.1, with the rotation known).

    Args:
        points: (N,P,3) m, relative to the wrist, axes of the frame the projections start from.
        projections: (N,C,3,4) pixels; keypoints: (N,C,P,2) pixels; weights: (N,C,P), zero where unseen.

    Returns:
        wrist (N,3) m, and a mask (N,) of frames where it is finite and in front of the first camera.
        Where it is not, the wrist is zero. Solved in float64.
    """
    dtype = points.dtype
    points, projections, keypoints, weights = (value.double() for value in (points, projections, keypoints, weights))
    linear, shift = projections[..., :3], projections[..., 3]
    rows = linear[:, :, None, :2] - keypoints[..., None] * linear[:, :, None, 2:]  # (N,C,P,2,3)
    offsets = shift[:, :, None, :2] - keypoints * shift[:, :, None, 2:]
    right = -((rows @ points[:, None, :, :, None])[..., 0] + offsets)
    seen = (weights > 0)[..., None, None]
    rows, right = torch.where(seen, rows, 0.0), torch.where(seen[..., 0], right, 0.0)
    wrist = points.new_zeros(points.shape[0], 3)
    scale = weights
    for _ in range(2):
        weighted = (rows * scale[..., None, None]).flatten(1, 3)
        normal = weighted.mT @ rows.flatten(1, 3)
        size = normal.diagonal(dim1=1, dim2=2).mean(-1).clamp_min(1e-30)
        normal = normal / size[:, None, None] + 1e-12 * torch.eye(3, dtype=normal.dtype, device=normal.device)
        wrist = torch.linalg.solve_ex(normal, (weighted.mT @ right.flatten(1)[..., None])[..., 0] / size[:, None])[0]
        depth = ((points + wrist[:, None])[:, None] @ linear[:, :, 2, :, None])[..., 0] + shift[:, :, None, 2]
        scale = weights / depth.clamp_min(0.05).square()
    good = torch.isfinite(wrist).all(-1) & (depth.amin(dim=-1)[:, 0] > 0.05)
    return torch.where(good[:, None], wrist, torch.zeros_like(wrist)).to(dtype), good


def wrist_at_depth(pixel: torch.Tensor, K: torch.Tensor, depth: float = TYPICAL_DEPTH) -> torch.Tensor:
    """Wrist (N,3) m seen at ``pixel`` (N,2), ``depth`` m along where the camera looks."""
    homogeneous = torch.cat([pixel, torch.ones_like(pixel[:, :1])], dim=1)
    return depth * torch.linalg.solve(K, homogeneous[..., None])[..., 0]


def place_frames(
    observations: Observations, points: torch.Tensor, depths: tuple[float, float]
) -> tuple[Observations, torch.Tensor, torch.Tensor]:
    """Closed-form wrists (N,3) m; frames that cannot be placed between ``depths`` (m) lose their keypoints' weight.

    Args:
        points: (N,21,3) m, of the posed hands, relative to their wrists.

    Returns:
        The observations, the wrists, and the mask (N,) of placed frames (True where nothing is seen).
    """
    wrist, placed = wrist_from_keypoints(points, observations.projections, observations.keypoints, observations.weights)
    placed = placed & (wrist[:, 2] > depths[0]) & (wrist[:, 2] < depths[1])
    unseen = (observations.weights == 0).flatten(1).all(dim=1)
    K = observations.projections[:, 0, :, :3]
    centre = torch.where(unseen[:, None], K[:, :2, 2], observations.keypoints[:, 0].mean(dim=1))
    wrist = torch.where((placed & ~unseen)[:, None], wrist, wrist_at_depth(centre, K))
    weights = torch.where(placed[:, None, None], observations.weights, torch.zeros_like(observations.weights))
    return replace(observations, weights=weights), wrist, placed | unseen
