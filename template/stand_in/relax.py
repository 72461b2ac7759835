"""Better triangles at a fixed count: edge flips and sliding along the implicit surface."""

from __future__ import annotations

import math

import numpy as np

from template.stand_in.remesh import boundary_loop
from template.stand_in.surface import Field, gradient, project


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
    areas = np.linalg.norm(_normals(vertices, faces), axis=1) / size(centres) ** 2
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


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


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
