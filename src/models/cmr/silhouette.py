"""Silhouettes of true meshes, to train the mask maps where a data set publishes no masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from utils.camera import project

#: Pixels of the marked picture to one of the map, along each axis.
_FINE = 2
#: Places (P, 3) in each triangle that are marked: a lattice with a quarter of an edge between neighbours.
_LATTICE = torch.tensor([(a / 4, b / 4, (4 - a - b) / 4) for a in range(5) for b in range(5 - a)])


@torch.no_grad()
def silhouette(
    vertices: torch.Tensor, faces: torch.Tensor, K: torch.Tensor, input_size: int, map_size: int
) -> torch.Tensor:
    """How much of each map pixel a hand's mesh covers, whatever may lie before it.

    Points all over the triangles are marked in a picture of twice the map's resolution, gaps of one pixel are
    closed, and the picture is averaged down. That is enough while the triangles' edges stay below some
    ten pixels of the map; a hand's have about two at 112 px.

    Args:
        vertices: (B, V, 3) metres, camera frame.
        faces: (F, 3).
        K: (B, 3, 3) px of the network input.
        input_size: its side, px.
        map_size: side of the map.

    Returns:
        (B, 1, map_size, map_size) float32 in [0, 1].
    """
    side = _FINE * map_size
    points = torch.einsum("bfcx,pc->bfpx", vertices[:, faces], _LATTICE.to(vertices)).flatten(1, 2)
    pixels = ((project(points, K) + 0.5) * (side / input_size) - 0.5).round()
    inside = ((pixels >= 0) & (pixels < side)).all(-1) & (points[..., 2] > 0)
    pixels = pixels.nan_to_num().clamp(0, side - 1).long()
    marked = vertices.new_zeros(len(vertices), side * side)
    marked.scatter_reduce_(1, pixels[..., 1] * side + pixels[..., 0], inside.to(marked.dtype), "amax")
    grown = F.max_pool2d(F.pad(marked.view(-1, 1, side, side), (1, 1, 1, 1)), 3, stride=1)
    closed = -F.max_pool2d(-F.pad(grown, (1, 1, 1, 1), value=1.0), 3, stride=1)
    return F.avg_pool2d(closed, _FINE)
