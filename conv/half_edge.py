"""A half-edge mesh in OpenMesh's circulation order: by hand, because OpenMesh must be compiled.

Weights of a trained spiral network depend on which neighbour comes first. For an inner vertex that
is the half-edge its faces left behind, so it depends on the order in which the faces were added;
for a boundary vertex it is the boundary half-edge. This module follows the linking rules of
OpenMesh's ``PolyConnectivity`` (documented in its half-edge chapter), face by face, so that
`HalfEdgeMesh.ring` equals ``mesh.vv(v)``; tests hold it to recorded circulations.

Half-edges come in pairs: ``h ^ 1`` is the opposite of ``h``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

NONE = -1


class HalfEdgeMesh:
    """Triangles added one by one; see `ring` for what it is for.

    Args:
        faces: (F, 3) vertex ids, counter-clockwise, in the order of the file.
        n_vertices: number of vertices, used or not.

    Raises:
        ValueError: if an edge has more than two faces, two faces disagree about the direction of
            their common edge, or two inner fans meet in one vertex.
    """

    def __init__(self, faces: np.ndarray, n_vertices: int) -> None:
        self.target: list[int] = []
        self.face: list[int] = []
        self.next: list[int] = []
        self.previous: list[int] = []
        self.outgoing = [NONE] * n_vertices
        self._between: dict[tuple[int, int], int] = {}
        for index, corners in enumerate(np.asarray(faces).tolist()):
            self._add_face(index, corners)

    def ring(self, vertex: int) -> list[int]:
        """Neighbours of ``vertex``, clockwise from its outgoing half-edge."""
        return [self.target[half_edge] for half_edge in self._fan(vertex)]

    def _fan(self, vertex: int) -> Iterator[int]:
        """Outgoing half-edges of ``vertex``, clockwise."""
        start = half_edge = self.outgoing[vertex]
        while half_edge != NONE:
            yield half_edge
            half_edge = self.next[half_edge ^ 1]
            if half_edge == start:
                return

    def _is_boundary(self, half_edge: int) -> bool:
        return self.face[half_edge] == NONE

    def _edge(self, source: int, target: int) -> int:
        """Half-edge source -> target, made with its opposite."""
        half_edge = len(self.target)
        self.target += [target, source]
        for links in (self.face, self.next, self.previous):
            links += [NONE, NONE]
        self._between[source, target], self._between[target, source] = half_edge, half_edge + 1
        return half_edge

    def _add_face(self, index: int, corners: list[int]) -> None:
        sides = list(zip(corners, corners[1:] + corners[:1], strict=True))
        known = [side in self._between for side in sides]
        self._check(index, corners, sides, known)
        pending = self._close_gaps(index, sides, known)
        inner = [self._between[side] if old else self._edge(*side) for side, old in zip(sides, known, strict=True)]
        filled = []
        for i, arriving in enumerate(inner):
            j = (i + 1) % len(inner)
            leaving, vertex = inner[j], corners[j]
            if known[i] and known[j]:
                if self.outgoing[vertex] == leaving:
                    filled.append(vertex)
            else:
                pending += self._outer_links(vertex, arriving, leaving, known[i], known[j])
                pending.append((arriving, leaving))
            self.face[arriving] = index
        for before, after in pending:
            self.next[before], self.previous[after] = after, before
        for vertex in filled:
            self.outgoing[vertex] = next(filter(self._is_boundary, self._fan(vertex)), self.outgoing[vertex])

    def _check(self, index: int, corners: list[int], sides: list[tuple[int, int]], known: list[bool]) -> None:
        if len(set(corners)) != len(corners):
            raise ValueError(f"face {index} {corners} uses a vertex twice; remove degenerate faces")
        for vertex in corners:
            if self.outgoing[vertex] != NONE and not self._is_boundary(self.outgoing[vertex]):
                raise ValueError(f"face {index} {corners}: vertex {vertex} is already surrounded (not a manifold)")
        for side, old in zip(sides, known, strict=True):
            if old and not self._is_boundary(self._between[side]):
                raise ValueError(f"face {index} {corners}: edge {side} already has a face here (not a manifold)")

    def _close_gaps(self, index: int, sides: list[tuple[int, int]], known: list[bool]) -> list[tuple[int, int]]:
        """Links that move fans lying between two old sides of the new face into another gap of their vertex."""
        links = []
        for i in range(len(sides)):
            j = (i + 1) % len(sides)
            if not (known[i] and known[j]):
                continue
            arriving, leaving = self._between[sides[i]], self._between[sides[j]]
            if self.next[arriving] == leaving:
                continue
            gap = self.next[leaving ^ 1] ^ 1
            while not self._is_boundary(gap):
                gap = self.next[gap] ^ 1
            if gap == arriving:
                raise ValueError(f"face {index}: the fans around vertex {sides[j][0]} cannot be ordered")
            links += [(gap, self.next[arriving]), (self.previous[leaving], self.next[gap]), (arriving, leaving)]
        return links

    def _outer_links(
        self, vertex: int, arriving: int, leaving: int, arriving_known: bool, leaving_known: bool
    ) -> list[tuple[int, int]]:
        """Links of the boundary outside the new face at ``vertex``; sets its outgoing half-edge."""
        outer_in, outer_out = leaving ^ 1, arriving ^ 1
        if leaving_known:
            self.outgoing[vertex] = outer_out
            return [(self.previous[leaving], outer_out)]
        if arriving_known:
            self.outgoing[vertex] = self.next[arriving]
            return [(outer_in, self.next[arriving])]
        boundary_out = self.outgoing[vertex]
        if boundary_out == NONE:
            self.outgoing[vertex] = outer_out
            return [(outer_in, outer_out)]
        return [(self.previous[boundary_out], outer_out), (outer_in, boundary_out)]
