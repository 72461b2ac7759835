"""Silhouettes of true meshes, to train the mask maps where a data set publishes no masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from utils.camera import project

#: Barycentric places in each triangle that are marked besides its corners.
_PLACES = ((1 / 3, 1 / 3, 1 / 3), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5))


@torch.no_grad()
def silhouette(
    vertices: torch.Tensor, faces: torch.Tensor, K: torch.Tensor, input_size: int, map_size: int
) -> torch.Tensor:
    """Where a hand's mesh is seen, whatever may lie before it.

    Vertices and some points of every triangle are marked in the map and the gaps of one pixel closed, which is
    enough as long as the triangles are not larger than about two pixels of the map (a hand's at 112 px are not).

    Args:
        vertices: (B, V, 3) metres, camera frame.
        faces: (F, 3).
        K: (B, 3, 3) px of the network input.
        input_size: its side, px.
        map_size: side of the map.

    Returns:
        (B, 1, map_size, map_size) float32, 1 on the hand, 0 elsewhere.
    """
    corners = vertices[:, faces]
    inner = torch.einsum("bfcx,pc->bfpx", corners, corners.new_tensor(_PLACES)).flatten(1, 2)
    points = torch.cat([vertices, inner], dim=1)
    pixels = ((project(points, K) + 0.5) * (map_size / input_size) - 0.5).round()
    inside = ((pixels >= 0) & (pixels < map_size)).all(-1) & (points[..., 2] > 0)
    pixels = pixels.nan_to_num().clamp(0, map_size - 1).long()
    maps = vertices.new_zeros(len(vertices), map_size * map_size)
    maps.scatter_reduce_(1, pixels[..., 1] * map_size + pixels[..., 0], inside.to(maps.dtype), "amax")
    maps = maps.view(-1, 1, map_size, map_size)
    grown = F.max_pool2d(F.pad(maps, (1, 1, 1, 1)), 3, stride=1)
    return -F.max_pool2d(-F.pad(grown, (1, 1, 1, 1), value=1.0), 3, stride=1)
