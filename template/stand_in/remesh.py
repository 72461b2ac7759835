"""From the implicit surface to a mesh of exact size: marching cubes, cut, edge collapse, relaxation.

A disc with one boundary loop of 16 edges and 778 vertices has 2 * 778 - 2 - 16 = 1538 faces (Euler),
so it is enough to bring the loop to 16 vertices and the mesh to 778.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import numpy as np

from template.stand_in.skeleton import unit
from template.stand_in.surface import Field, gradient, project
from utils.drawing.ray_casting import face_normals

if TYPE_CHECKING:
    import scipy.sparse

WRIST_CUT = 0.1125  # x of the open end, metres
LOOP_EDGES = 16
VERTICES = 778


def fine_mesh(field: Field, voxel: float = 0.0013, coarse_faces: int = 9000) -> tuple[np.ndarray, np.ndarray]:
    """The surface in front of the wrist cut as a fine mesh with one open loop, outward faces; ``voxel`` in metres."""
    import fast_simplification
    import trimesh
    from skimage.measure import marching_cubes

    low, high = np.array([-0.110, -0.065, -0.070]), np.array([WRIST_CUT, 0.045, 0.105])
    axes = [np.arange(b, a, -voxel)[::-1] for a, b in zip(low, high)]  # the last slab is the cut itself
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    values = np.concatenate([field(slab.reshape(-1, 3)).reshape(slab.shape[:3]) for slab in np.array_split(grid, 24)])
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(voxel,) * 3)
    vertices, faces = fast_simplification.simplify(
        (vertices + grid[0, 0, 0]).astype(np.float32), faces.astype(np.int32), target_count=coarse_faces
    )
    mesh = trimesh.Trimesh(vertices, faces)
    mesh = max(mesh.split(only_watertight=False), key=lambda part: len(part.faces))
    vertices, faces = np.array(mesh.vertices), np.array(mesh.faces)
    far = np.argmin(vertices[:, 0])  # the middle fingertip: its normal must look along -x
    normals = face_normals(vertices, faces[(faces == far).any(axis=1)])
    return vertices, faces if normals.sum(axis=0)[0] < 0 else faces[:, ::-1]


class Collapser:
    """A triangle mesh that loses one vertex at a time, the relatively shortest edge first."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, size: Field) -> None:
        self.points = [np.array(point) for point in vertices]
        self.faces = {number: tuple(int(v) for v in face) for number, face in enumerate(faces)}
        self.around: list[set[int]] = [set() for _ in self.points]
        for number, face in self.faces.items():
            for vertex in face:
                self.around[vertex].add(number)
        self.alive = sum(bool(faces) for faces in self.around)
        self.size = list(size(np.asarray(vertices)))
        self.stamp = [0] * len(self.points)
        self.loop = set(boundary_loop(faces))
        self.heap: list[tuple[float, int, int, int, int]] = []
        for one, other in {tuple(sorted(e)) for f in self.faces.values() for e in zip(f, f[1:] + f[:1])}:
            self._push(one, other)

    def neighbours(self, vertex: int) -> set[int]:
        """Vertices that share an edge with this one."""
        return {v for face in self.around[vertex] for v in self.faces[face]} - {vertex}

    def _push(self, one: int, other: int) -> None:
        length = np.linalg.norm(self.points[one] - self.points[other])
        ratio = length / (0.5 * (self.size[one] + self.size[other]))
        heapq.heappush(self.heap, (ratio, one, other, self.stamp[one], self.stamp[other]))

    def run(self, target: int, loop_target: int) -> None:
        """Collapse (lengths in m) until `target` vertices are left, `loop_target` of them on the boundary.

        The loop goes first where its edges are short; if it comes last, its collapses take the mesh
        below `target`. So thin out roughly first, then ask for the exact number with the loop done.

        Raises:
            RuntimeError: if no edge may be collapsed any more.
        """
        while self.alive > target or len(self.loop) > loop_target:
            if not self.heap:
                raise RuntimeError(f"edge collapse is stuck at {self.alive} vertices, {len(self.loop)} on the loop")
            _, one, other, first, second = heapq.heappop(self.heap)
            if self.stamp[one] == first and self.stamp[other] == second:
                self._try(one, other, target, loop_target)

    def _try(self, one: int, other: int, target: int, loop_target: int) -> None:
        shared = self.around[one] & self.around[other]
        on_loop = (one in self.loop) + (other in self.loop)
        along_loop = on_loop == 2 and len(shared) == 1
        if on_loop == 2 and (not along_loop or len(self.loop) <= loop_target):
            return
        if on_loop < 2 and self.alive <= target:
            return
        if len(self.neighbours(one) & self.neighbours(other)) != (1 if along_loop else 2):
            return
        if other in self.loop and one not in self.loop:
            one, other = other, one  # the loop's vertex stays
        if on_loop == 1 and (self.neighbours(other) & self.loop) - self.neighbours(one) - {one}:
            return  # an inner edge between two loop vertices would cut a corner off the wrist
        place = self.points[one] if on_loop == 1 else (self.points[one] + self.points[other]) / 2
        if not self._keeps_sides(one, other, shared, place):
            return
        for face in shared:
            for vertex in self.faces.pop(face):
                self.around[vertex].discard(face)
        for face in self.around[other]:
            self.faces[face] = tuple(one if v == other else v for v in self.faces[face])
            self.around[one].add(face)
        self.around[other] = set()
        self.points[one] = place
        self.size[one] = (self.size[one] + self.size[other]) / 2
        self.stamp[one] += 1
        self.stamp[other] = -1
        self.loop.discard(other)
        self.alive -= 1
        for vertex in self.neighbours(one):
            self._push(one, vertex)

    def _keeps_sides(self, one: int, other: int, shared: set[int], place: np.ndarray) -> bool:
        for face in (self.around[one] | self.around[other]) - shared:
            old = np.array([self.points[v] for v in self.faces[face]])
            new = np.array([place if v in (one, other) else self.points[v] for v in self.faces[face]])
            before, after = (np.cross(t[1] - t[0], t[2] - t[0]) for t in (old, new))
            if before @ after < 0.3 * np.linalg.norm(before) * np.linalg.norm(after):
                return False
        return True

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V, 3), metres, and faces (F, 3), renumbered without gaps."""
        used = sorted({v for face in self.faces.values() for v in face})
        number = {v: n for n, v in enumerate(used)}
        return np.array([self.points[v] for v in used]), np.array([[number[v] for v in f] for f in self.faces.values()])


def boundary_loop(faces: np.ndarray) -> list[int]:
    """Vertices of the boundary in order (along the faces' own direction).

    Raises:
        ValueError: if the mesh has no boundary, or more than one loop.
    """
    edges = {(int(a), int(b)) for face in faces for a, b in zip(face, np.roll(face, -1))}
    following = {a: b for a, b in edges if (b, a) not in edges}
    if not following:
        raise ValueError("the mesh has no boundary")
    loop = [next(iter(following))]
    while following[loop[-1]] != loop[0]:
        loop.append(following[loop[-1]])
    if len(loop) != len(following):
        raise ValueError(f"the mesh has more than one boundary loop ({len(following)} edges, a loop of {len(loop)})")
    return loop


def neighbour_mean(faces: np.ndarray, count: int) -> scipy.sparse.csr_matrix:
    """(V, V) means over the neighbours of each of ``count`` vertices of faces (F, 3)."""
    import scipy.sparse

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    share = 1.0 / np.bincount(edges[:, 0], minlength=count)[edges[:, 0]]
    return scipy.sparse.csr_matrix((share, edges.T), shape=(count, count))


def inner_edges(faces: np.ndarray) -> np.ndarray:
    """(E, 6) of the edges between two faces: both ends, one face and its third corner, the other face and its."""
    owner = {(int(f[i]), int(f[(i + 1) % 3])): (n, int(f[(i + 2) % 3])) for n, f in enumerate(faces) for i in range(3)}
    return np.array([(a, b, *owner[a, b], *owner[b, a]) for a, b in owner if a < b and (b, a) in owner])


def sharp_edges(vertices: np.ndarray, faces: np.ndarray, inner: np.ndarray, limit_degrees: float) -> np.ndarray:
    """Those rows of `inner_edges` whose two faces turn against each other by more than the limit, degrees."""
    normals = unit(face_normals(vertices, faces))
    cosines = (normals[inner[:, 2]] * normals[inner[:, 4]]).sum(axis=1)
    return inner[cosines < np.cos(np.radians(limit_degrees))]


def relax(
    vertices: np.ndarray, faces: np.ndarray, field: Field, size: Field, rounds: int, fixed: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Alternate flips and tangential smoothing of vertices (m); boundary and `fixed` ones stay where they are."""
    pinned = np.zeros(len(vertices), bool)
    pinned[boundary_loop(faces)] = True
    pinned[list(fixed)] = True
    for _ in range(rounds):
        faces = flip_edges(vertices, faces)
        vertices = _slide(vertices, faces, field, size, pinned)
    return vertices, flip_edges(vertices, faces)


def _slide(vertices: np.ndarray, faces: np.ndarray, field: Field, size: Field, pinned: np.ndarray) -> np.ndarray:
    """Each vertex towards the size-weighted centre of its triangles, within the surface."""
    centres = vertices[faces].mean(axis=1)
    areas = np.linalg.norm(face_normals(vertices, faces), axis=1) / size(centres) ** 2
    total, weight = np.zeros_like(vertices), np.zeros(len(vertices))
    for corner in range(3):
        np.add.at(total, faces[:, corner], centres * areas[:, None])
        np.add.at(weight, faces[:, corner], areas)
    move = total / weight[:, None] - vertices
    normal = gradient(vertices, field)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    move -= (move * normal).sum(axis=1, keepdims=True) * normal
    moved = project(vertices + 0.6 * move, field, steps=2)
    return np.where(pinned[:, None], vertices, moved)


def flip_edges(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Flip edges whose opposite angles exceed 180 degrees together (Delaunay), where the surface allows."""
    faces = [tuple(int(v) for v in face) for face in faces]
    owner = {(f[i], f[(i + 1) % 3]): n for n, f in enumerate(faces) for i in range(3)}
    rim = {v for edge in owner if edge[::-1] not in owner for v in edge}
    queue = [edge for edge in owner if edge[0] < edge[1]]
    for _ in range(20000):
        if not queue:
            break
        a, b = queue.pop()
        if (a, b) not in owner or (b, a) not in owner:
            continue
        left, right = owner[a, b], owner[b, a]
        c = next(v for v in faces[left] if v not in (a, b))
        d = next(v for v in faces[right] if v not in (a, b))
        if (c, d) in owner or (d, c) in owner or (c in rim and d in rim):
            continue
        pa, pb, pc, pd = vertices[[a, b, c, d]]
        if _angle(pa - pc, pb - pc) + _angle(pa - pd, pb - pd) <= np.pi + 1e-6:
            continue
        old = [np.cross(pb - pa, pc - pa), np.cross(pa - pb, pd - pb)]
        new = [np.cross(pa - pc, pd - pc), np.cross(pb - pd, pc - pd)]
        unit = [n / max(np.linalg.norm(n), 1e-15) for n in old + new]
        mean = unit[0] + unit[1]
        if unit[0] @ unit[1] < 0.5 or min(unit[2] @ mean, unit[3] @ mean) < 1.2 or unit[2] @ unit[3] < 0.5:
            continue
        for face in (faces[left], faces[right]):
            for i in range(3):
                del owner[face[i], face[(i + 1) % 3]]
        faces[left], faces[right] = (c, a, d), (d, b, c)
        for number in (left, right):
            face = faces[number]
            for i in range(3):
                owner[face[i], face[(i + 1) % 3]] = number
        queue += [(c, a), (a, d), (d, b), (b, c)]
    return np.array(faces)


def _angle(one: np.ndarray, other: np.ndarray) -> float:
    return math.acos(max(-1.0, min(1.0, float(one @ other) / math.sqrt(float(one @ one) * float(other @ other)))))
