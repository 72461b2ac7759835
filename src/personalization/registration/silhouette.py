"""The silhouette seen edge on: how far it reaches along each of several directions in the image.

The reach along d is the support function h(d) = max over the silhouette of d . p; that of d and that of -d
are the two ends of the silhouette's one-dimensional projection. A mesh has the same function, so both can
be compared without any rendering (the 1D part of Chen et al., CVPR 2021, "Adaptive 2D-1D Registration").
"""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
import torch

#: Radius, px, of the disc whose loss in rasterising stands for that of a fingertip.
TIP_RADIUS = 5.0
#: Separate pieces smaller than this share of the silhouette are specks, not a finger behind an object.
SPECK = 0.05


def directions(count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Unit vectors (C,2) in the picture (px) evenly around the circle, the first along u, float64."""
    angle = torch.arange(count, dtype=torch.float64, device=device) * (2 * math.pi / count)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def silhouette_extents(
    mask: torch.Tensor, axes: torch.Tensor, mask_to_image: torch.Tensor | None = None
) -> torch.Tensor:
    """Reach of silhouettes along ``axes``, px of the image that the keypoints and K belong to.

    Small separate pieces are left out. Where the silhouette is cut off by the mask's border, its reach
    is unknown.

    Args:
        mask: (B,H,W) bool, or a probability that counts from one half on.
        axes: (D,2) unit vectors in the image.
        mask_to_image: (B,2,3) or (2,3) affine from mask px to image px; None: they are the same.

    Returns:
        (B,D) float64 on the axes' device, NaN where unknown: empty masks, and ends on the border.
    """
    inside = without_specks(mask if mask.dtype == torch.bool else mask > 0.5).to(axes.device)
    batch, height, width = inside.shape
    axes = axes.double()
    if mask_to_image is None:
        along, shift = axes.expand(batch, -1, -1), axes.new_zeros(batch, len(axes))
    else:
        affine = mask_to_image.to(axes).expand(batch, 2, 3)
        along, shift = axes @ affine[:, :, :2], (axes @ affine[:, :, 2:])[..., 0]
    # In each row only the first and the last pixel can be an extreme.
    filled = inside.any(dim=2)
    first = inside.float().argmax(dim=2)
    last = width - 1 - inside.flip(2).float().argmax(dim=2)
    x = torch.stack([first, last], dim=2)  # (B,H,2)
    y = torch.arange(height, device=x.device)[None, :, None].expand_as(x)
    points = torch.stack([x, y], dim=-1).flatten(1, 2).double()  # (B,2H,2)
    reach = torch.where(filled.repeat_interleave(2, dim=1)[:, None], along @ points.mT, -torch.inf)  # (B,D,2H)
    best, index = reach.max(dim=2)
    end = points.gather(1, index[..., None].expand(-1, -1, 2))
    limit = points.new_tensor([width - 1, height - 1])
    cut = ((end <= 0) | (end >= limit)).any(dim=2)
    known = filled.any(dim=1)[:, None] & ~cut
    degrees = torch.rad2deg(torch.atan2(along[..., 1].abs(), along[..., 0].abs())).round().long()  # from the u axis
    lost = torch.as_tensor(raster_loss(), device=x.device)[degrees]
    return torch.where(known, best + lost * along.norm(dim=2) + shift, torch.nan)


@functools.cache
def raster_loss() -> np.ndarray:
    """(91,) px that a small disc's reach loses on average, by the degrees between direction and u axis.

    A pixel is set where its centre lies inside, so the outline is beyond the outermost centre: half a pixel
    along the axes, less where the rows of centres across the direction are closer. Averaged over
    where in a pixel the disc's centre lies.
    """
    grid = np.arange(-TIP_RADIUS - 1, TIP_RADIUS + 2)
    pixels = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    offsets = (np.arange(20) + 0.5) / 20 - 0.5
    centres = np.stack(np.meshgrid(offsets, offsets), axis=-1).reshape(-1, 1, 2)
    inside = np.linalg.norm(pixels - centres, axis=-1) < TIP_RADIUS  # (400, pixels)
    angles = np.radians(np.arange(91))
    axes = np.stack([np.cos(angles), np.sin(angles)])
    reach = np.where(inside[..., None], (pixels - centres) @ axes, -np.inf).max(axis=1)
    return TIP_RADIUS - reach.mean(axis=0)


def mesh_extents(points: torch.Tensor, axes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Reach (B,D) of points (B,V,2) px along axes (D,2), and the point (B,D) that reaches farthest."""
    return (axes @ points.mT).max(dim=2)


def without_specks(mask: torch.Tensor) -> torch.Tensor:
    """Masks (B,H,W) bool without the separate pieces smaller than `SPECK` of each mask's area; on the CPU."""
    kept = []
    for one in mask.cpu().numpy().astype(np.uint8):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(one, connectivity=8)
        area = stats[:, cv2.CC_STAT_AREA].copy()
        area[0] = 0  # the background
        large = area >= max(SPECK * area.sum(), 1)
        kept.append(large[labels] if count > 1 else one.astype(bool))
    return torch.from_numpy(np.stack(kept)) if kept else mask.cpu()
