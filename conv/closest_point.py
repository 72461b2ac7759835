"""Where on a mesh the nearest point to a query lies: by hand, because trimesh needs a compiled rtree for it."""

from __future__ import annotations

import numpy as np


def barycentric_projection(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest surface point of each query.

    The nearest point of a triangle is the foot on its plane if that lies inside, else the nearest
    point of its three sides; all faces are tried, so meant for meshes of some thousand faces.

    Args:
        points: (N, 3), metres or any other unit.
        vertices: (V, 3), same unit.
        faces: (F, 3) vertex ids.

    Returns:
        face (N,) int64 and weights (N, 3) >= 0 that sum to 1; the point is
        ``(weights[:, :, None] * vertices[faces[face]]).sum(1)``.
    """
    corners = vertices[faces]
    face = np.empty(len(points), dtype=np.int64)
    weights = np.empty((len(points), 3))
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    aa, ab, bb = (first**2).sum(1), (first * second).sum(1), (second**2).sum(1)
    determinant = np.maximum(aa * bb - ab**2, 1e-300)
    for i, point in enumerate(points):
        offset = point - corners[:, 0]
        pa, pb = (offset * first).sum(1), (offset * second).sum(1)
        u, v = (bb * pa - ab * pb) / determinant, (aa * pb - ab * pa) / determinant
        options = [np.stack([1 - u - v, u, v], axis=1)]
        for start, end in ((0, 1), (1, 2), (2, 0)):
            edge = corners[:, end] - corners[:, start]
            along = ((point - corners[:, start]) * edge).sum(1) / np.maximum((edge**2).sum(1), 1e-300)
            side = np.zeros((len(corners), 3))
            side[:, end] = along.clip(0, 1)
            side[:, start] = 1 - side[:, end]
            options.append(side)
        stacked = np.stack(options)  # (4, F, 3): in the triangle, on each of its sides
        distance = np.sum(((stacked[..., None] * corners).sum(2) - point) ** 2, axis=-1)
        distance[0, (stacked[0] < 0).any(axis=1)] = np.inf
        face[i] = distance.min(axis=0).argmin()
        weights[i] = stacked[distance[:, face[i]].argmin(), face[i]]
    return face, weights
