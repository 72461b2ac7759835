"""Spirals around mesh vertices, in OpenMesh's order: written by hand since released checkpoints depend on it.

A spiral lists a vertex, its ring in the circulation order of `HalfEdgeMesh.ring`, then ring after
ring outwards, cut at a fixed length (Gong et al., SpiralNet++, ICCV workshops 2019, section 3).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from conv.half_edge import HalfEdgeMesh


def spiral_indices(
    faces: np.ndarray, n_vertices: int, length: int = 27, vertices: np.ndarray | None = None
) -> np.ndarray:
    """Spirals (V, length), int64: the vertex itself first, then outwards.

    Args:
        faces: (F, 3) vertex ids.
        n_vertices: number V of vertices.
        length: vertices in a spiral; 27 in CMR at every level.
        vertices: (V, 3) positions, metres or any other unit. SpiralNet++ replaces a spiral that runs out of rings
            before ``length`` by the ``length`` nearest vertices, nearest first; only then are they used.

    Raises:
        ValueError: if the faces are no manifold, see `HalfEdgeMesh`; if the mesh has fewer vertices than ``length``; or
            if a spiral runs out and ``vertices`` is None.
    """
    if n_vertices < length:
        raise ValueError(f"a spiral of {length} needs as many vertices, the mesh has {n_vertices}; shorten the spiral")
    mesh = HalfEdgeMesh(faces, n_vertices)
    rings = [mesh.ring(vertex) for vertex in range(n_vertices)]
    spirals = np.empty((n_vertices, length), dtype=np.int64)
    for vertex in range(n_vertices):
        spiral = _walk(vertex, rings, length)
        if len(spiral) < length:
            if vertices is None:
                raise ValueError(
                    f"the rings around vertex {vertex} hold only {len(spiral)} of {length} vertices; "
                    "give `vertices` so that the nearest ones can be taken"
                )
            spiral = KDTree(vertices).query(vertices[vertex], k=length)[1].tolist()
        spirals[vertex] = spiral[:length]
    return spirals


def _walk(vertex: int, rings: list[list[int]], length: int) -> list[int]:
    """Rings around ``vertex`` one after the other; shorter than ``length`` if they run out."""
    spiral, visited, ring = [vertex], {vertex}, rings[vertex]
    while ring:
        spiral += ring
        visited.update(ring)
        if len(spiral) >= length:
            break
        ring = _next_ring(ring, rings, visited)
    return spiral


def _next_ring(ring: list[int], rings: list[list[int]], visited: set[int]) -> list[int]:
    """Unseen neighbours of ``ring``, each member's taken in turn from behind its first neighbour in the ring."""
    members, following = set(ring), {}
    for member in ring:
        neighbours = rings[member]
        start = next((i for i, neighbour in enumerate(neighbours) if neighbour in members), len(neighbours))
        for neighbour in neighbours[start:] + neighbours[:start]:
            if neighbour not in visited:
                following[neighbour] = None
    return list(following)
