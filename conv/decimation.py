"""Quadric edge collapse that keeps vertices and never moves them: by hand, since libraries move them.

The error of a vertex is Garland and Heckbert's (SIGGRAPH 1997): the area-weighted sum of squared
distances to the planes of its original faces, with upright planes along the mesh's border so that
the border keeps its course. An edge is collapsed onto one of its ends, so that the coarse
vertices are a selection of the fine ones (as in CoMA, Ranjan et al., ECCV 2018, section 4).
"""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np

#: Weight of the border's planes over the faces'.
BORDER_WEIGHT = 1.0
#: Share of the squared edge length in the cost: breaks ties in flat parts in favour of short edges.
LENGTH_WEIGHT = 0.003
#: A collapse must not turn a face by more than this cosine, nor make it flatter than this (1 = equilateral).
MIN_COSINE = 0.2
MIN_SHAPE = 0.2


def decimate(vertices: np.ndarray, faces: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Collapse edges, cheapest first, until ``target`` vertices are left.

    Args:
        vertices: (V, 3), metres or any other unit.
        faces: (F, 3) vertex ids of a manifold, border allowed.
        target: number of vertices to keep.

    Returns:
        kept (target,) ascending ids of the kept vertices, and faces (F', 3) in the new numbering,
        in the order of the faces they come from, int64.

    Raises:
        ValueError: no more edges can be collapsed without folding the mesh or pinching it.
    """
    mesh = _Collapser(np.asarray(vertices, dtype=np.float64), np.asarray(faces))
    for shape in (MIN_SHAPE, 0.0):  # ill-shaped faces only where nothing else is left
        mesh.collapse_to(target, shape)
    if mesh.alive.sum() > target:
        raise ValueError(f"stuck at {mesh.alive.sum()} of {target} vertices; the mesh cannot be made coarser")
    kept = np.flatnonzero(mesh.alive)
    number = np.cumsum(mesh.alive) - 1
    return kept, number[np.array([face for face in mesh.faces if face is not None])]


class _Collapser:
    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.vertices = vertices
        self.faces: list[tuple[int, ...] | None] = [tuple(face) for face in faces.tolist()]
        self.alive = np.zeros(len(vertices), dtype=bool)
        self.alive[faces] = True
        self.faces_of: list[set[int]] = [set() for _ in vertices]
        for index, face in enumerate(self.faces):
            for vertex in face:
                self.faces_of[vertex].add(index)
        self.changes = np.zeros(len(vertices), dtype=int)
        self.border = _border_edges(faces)
        self.quadrics = _quadrics(vertices, faces, self.border)

    def collapse_to(self, target: int, min_shape: float) -> None:
        """Collapse until ``target`` vertices are left or no edge may be collapsed."""
        left = int(self.alive.sum())
        heap = [entry for v in np.flatnonzero(self.alive).tolist() for entry in self._candidates(v)]
        heapq.heapify(heap)
        while left > target and heap:
            _, removed, kept, stamp = heapq.heappop(heap)
            if stamp != self._stamp(removed, kept) or not self._allowed(removed, kept, min_shape):
                continue
            touched = self._collapse(removed, kept)
            left -= 1
            for vertex in touched:
                for entry in self._candidates(vertex):
                    heapq.heappush(heap, entry)
                for neighbour in self._neighbours(vertex):
                    heapq.heappush(heap, self._entry(neighbour, vertex))

    def _stamp(self, a: int, b: int) -> tuple[int, int]:
        """Changes when a vertex dies or its faces change; dead vertices have a stamp nobody holds."""
        return (int(self.changes[a]), int(self.changes[b]))

    def _neighbours(self, vertex: int) -> set[int]:
        return {v for face in self.faces_of[vertex] for v in self.faces[face]} - {vertex}

    def _candidates(self, vertex: int) -> list[tuple[float, int, int, tuple[int, int]]]:
        return [self._entry(vertex, neighbour) for neighbour in sorted(self._neighbours(vertex))]

    def _entry(self, removed: int, kept: int) -> tuple[float, int, int, tuple[int, int]]:
        point = np.append(self.vertices[kept], 1.0)
        quadric = self.quadrics[removed] + self.quadrics[kept]
        length = np.sum((self.vertices[removed] - self.vertices[kept]) ** 2)
        area = np.trace(quadric[:3, :3])  # unit normals weighted by area
        cost = float(point @ quadric @ point + LENGTH_WEIGHT * area * length)
        return (cost, removed, kept, self._stamp(removed, kept))

    def _allowed(self, removed: int, kept: int, min_shape: float) -> bool:
        shared = self.faces_of[removed] & self.faces_of[kept]
        opposite = {v for face in shared for v in self.faces[face]} - {removed, kept}
        if self._neighbours(removed) & self._neighbours(kept) != opposite:
            return False  # would pinch the surface (the link condition)
        on_border = {removed, kept} <= self.border.keys()
        if removed in self.border and not (on_border and len(shared) == 1):
            return False  # the border would move inwards
        if any(len(self.faces_of[v]) <= 3 - (v in self.border) for v in opposite):
            return False  # would leave a vertex with two faces
        return all(self._keeps_shape(face, removed, kept, min_shape) for face in self.faces_of[removed] - shared)

    def _keeps_shape(self, face: int, removed: int, kept: int, min_shape: float) -> bool:
        before = self.vertices[list(self.faces[face])]
        after = self.vertices[[kept if v == removed else v for v in self.faces[face]]]
        old, new = _normal(before), _normal(after)
        area = np.linalg.norm(new)
        sides = np.sum((after - np.roll(after, 1, axis=0)) ** 2)
        good_shape = 2 * np.sqrt(3) * area >= min_shape * sides
        return bool(good_shape and old @ new > MIN_COSINE * np.linalg.norm(old) * area)

    def _collapse(self, removed: int, kept: int) -> set[int]:
        """Move the faces of ``removed`` to ``kept``; returns the vertices whose faces changed."""
        touched = self._neighbours(removed)
        for index in list(self.faces_of[removed]):
            face = self.faces[index]
            if kept in face:
                for vertex in face:
                    self.faces_of[vertex].discard(index)
                self.faces[index] = None
            else:
                self.faces[index] = tuple(kept if v == removed else v for v in face)
                self.faces_of[kept].add(index)
        if removed in self.border:
            for neighbour in self.border.pop(removed) - {kept}:
                self.border[neighbour] = (self.border[neighbour] - {removed}) | {kept}
                self.border[kept].add(neighbour)
            self.border[kept].discard(removed)
        self.faces_of[removed] = set()
        self.quadrics[kept] += self.quadrics[removed]
        self.alive[removed] = False
        self.changes[[removed, *touched]] += 1
        return touched


def _normal(corners: np.ndarray) -> np.ndarray:
    """Normal of a triangle (3, 3), as long as twice its area."""
    (ax, ay, az), (bx, by, bz) = (corners[1] - corners[0]).tolist(), (corners[2] - corners[0]).tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def _border_edges(faces: np.ndarray) -> dict[int, set[int]]:
    """Border vertices with their neighbours along the border."""
    count = Counter(tuple(sorted(side)) for a, b, c in faces.tolist() for side in ((a, b), (b, c), (c, a)))
    border: dict[int, set[int]] = {}
    for (a, b), uses in count.items():
        if uses == 1:
            border.setdefault(a, set()).add(b)
            border.setdefault(b, set()).add(a)
    return border


def _quadrics(vertices: np.ndarray, faces: np.ndarray, border: dict[int, set[int]]) -> np.ndarray:
    """Error quadric (V, 4, 4) of each vertex; the planes of the faces around it and of the border."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normals, axis=1) / 2
    normals = normals / np.maximum(2 * area, 1e-300)[:, None]
    quadrics = np.zeros((len(vertices), 4, 4))

    def add(owners: np.ndarray, normal: np.ndarray, point: np.ndarray, weight: float) -> None:
        plane = np.append(normal, -normal @ point)
        quadrics[owners] += weight * np.outer(plane, plane)

    for face, normal, size in zip(faces, normals, area, strict=True):
        add(face, normal, vertices[face[0]], size)
        for a, b in ((face[0], face[1]), (face[1], face[2]), (face[2], face[0])):
            if b in border.get(a, ()):
                edge = vertices[b] - vertices[a]
                upright = np.cross(edge, normal)
                length = np.linalg.norm(upright)
                if length > 0:
                    add(np.array([a, b]), upright / length, vertices[a], BORDER_WEIGHT * length**2)
    return quadrics
