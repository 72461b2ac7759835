"""The six objects: fixed shapes and sizes, the same for every subject, under YCB names and ids.

Fixed sizes matter: a can that is always 68 mm wide is what a network can read a hand's size from.
An object's own frame has its origin in the centre of its bounding box and z up when it stands.
Every shape is its own mirror image in x -> -x, so that a mirrored scene needs no other mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TEXTURE_SIZE = 128


@dataclass(frozen=True)
class ObjectMesh:
    """A textured triangle mesh, metres."""

    vertices: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    normals: np.ndarray  # (V, 3) unit, outward; vertices are doubled along sharp edges
    uv: np.ndarray  # (V, 2) in [0, 1]


@dataclass(frozen=True)
class CatalogueObject:
    """What can be grasped: ``half_extents`` (3,) metres of the box or (elliptic) cylinder about z."""

    name: str
    ycb_id: int
    shape: str  # "box" or "cylinder": the primitive that fingers close on
    half_extents: tuple[float, float, float]
    grasps: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]  # sRGB: ground, band, print
    profile: tuple[tuple[float, float], ...] | None = None  # (radius share, height share) if not a plain cylinder
    handle: bool = False

    def mesh(self) -> ObjectMesh:
        """The mesh in the object's own frame."""
        extents = np.array(self.half_extents)
        if self.shape == "box":
            return _box(extents)
        profile = self.profile or ((0, -1), (1, -1), (1, 1), (0, 1))
        body = _revolve(np.array(profile, dtype=float), extents)
        return _join(body, _handle(extents)) if self.handle else body

    def inside_depth(self, points: np.ndarray) -> np.ndarray:
        """How deep points (..., 3), object frame, lie inside the primitive, metres; negative outside."""
        extents = np.array(self.half_extents)
        if self.shape == "box":
            return (extents - np.abs(points)).min(axis=-1)
        radius = extents[:2].mean()
        radial = radius - radius * np.linalg.norm(points[..., :2] / extents[:2], axis=-1)
        return np.minimum(radial, extents[2] - np.abs(points[..., 2]))


_BOTTLE = ((0, -1), (0.95, -1), (1, -0.95), (1, 0.3), (0.82, 0.52), (0.38, 0.68), (0.34, 0.72), (0.34, 1), (0, 1))
_MUG = ((0, -1), (0.92, -1), (1, -0.9), (1, 1), (0.92, 1), (0.92, -0.85), (0, -0.85))
_RIMMED_CAN = ((0, -1), (1, -1), (1, -0.96), (0.97, -0.94), (0.97, 0.94), (1, 0.96), (1, 1), (0.95, 1), (0, 0.97))

CATALOGUE = (
    CatalogueObject("004_sugar_box", 3, "box", (0.045, 0.0195, 0.088), ("side_box", "top_box"),
                    ((236, 224, 186), (236, 188, 44), (58, 72, 140))),
    CatalogueObject("005_tomato_soup_can", 4, "cylinder", (0.034, 0.034, 0.051), ("side", "top"),
                    ((196, 34, 32), (238, 232, 220), (150, 120, 50)), _RIMMED_CAN),
    CatalogueObject("006_mustard_bottle", 5, "cylinder", (0.048, 0.031, 0.095), ("side",),
                    ((240, 200, 24), (228, 172, 16), (40, 60, 130)), _BOTTLE),
    CatalogueObject("010_potted_meat_can", 9, "box", (0.050, 0.029, 0.042), ("top_box", "side_box"),
                    ((34, 58, 132), (230, 196, 60), (232, 228, 220))),
    CatalogueObject("025_mug", 14, "cylinder", (0.043, 0.043, 0.041), ("side", "top"),
                    ((176, 30, 34), (186, 40, 42), (150, 22, 26)), _MUG, True),
    CatalogueObject("061_foam_brick", 21, "box", (0.039, 0.026, 0.026), ("pinch_box", "top_box"),
                    ((170, 66, 52), (182, 78, 60), (140, 50, 40))),
)  # fmt: skip


def _box(extents: np.ndarray) -> ObjectMesh:
    vertices, normals, uv, faces = [], [], [], []
    for side in range(6):
        axis, sign = side // 2, 1.0 - 2.0 * (side % 2)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            corner = np.zeros(3)
            corner[[axis, first, second]] = sign, a * sign, b
            vertices.append(corner * extents)
            normals.append(np.eye(3)[axis] * sign)
            uv.append(((side % 3 + 0.5 + 0.47 * a) / 3, (side // 3 + 0.5 + 0.47 * b) / 2))
        start = 4 * side
        faces += [(start, start + 1, start + 2), (start, start + 2, start + 3)]
    return ObjectMesh(np.array(vertices), np.array(faces), np.array(normals), np.array(uv))


def _revolve(profile: np.ndarray, extents: np.ndarray, segments: int = 32) -> ObjectMesh:
    """Surface of revolution; each piece of the profile has its own two rings, so its edges are sharp."""
    angles = np.linspace(0, 2 * np.pi, segments + 1)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
    parts = []
    for piece in range(len(profile) - 1):
        ends = profile[piece : piece + 2]
        rise = np.diff(ends * extents[[0, 2]], axis=0)[0]
        slope = np.array([rise[1], -rise[0]]) / max(np.linalg.norm(rise), 1e-12)
        rings, normals, uv = [], [], []
        for end, length in zip(ends, lengths[piece : piece + 2], strict=True):
            rings.append(np.column_stack([circle * end[0] * extents[:2], np.full(segments + 1, end[1] * extents[2])]))
            sideways = circle * slope[0] / extents[:2] * extents[:2].mean()
            normal = np.column_stack([sideways, np.full(segments + 1, slope[1])])
            normals.append(normal / np.linalg.norm(normal, axis=1, keepdims=True))
            uv.append(np.column_stack([angles / (2 * np.pi), np.full(segments + 1, length / lengths[-1])]))
        parts.append(ObjectMesh(np.vstack(rings), _strip(segments + 1), np.vstack(normals), np.vstack(uv)))
    return _join(*parts)


def _strip(columns: int, rows: int = 2) -> np.ndarray:
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    start = (row * columns + column).ravel()
    lower = np.stack([start, start + 1, start + columns + 1], axis=1)
    upper = np.stack([start, start + columns + 1, start + columns], axis=1)
    return np.concatenate([lower, upper])


def _handle(extents: np.ndarray, thickness: float = 0.005) -> ObjectMesh:
    """A half ring in the plane x = 0, on the side of -y."""
    along = np.linspace(-np.pi / 2, np.pi / 2, 13)
    around = np.linspace(0, 2 * np.pi, 9)
    along_grid, around_grid = np.meshgrid(along, around, indexing="ij")
    outward = np.stack([np.zeros_like(along_grid), -np.cos(along_grid), np.sin(along_grid)], axis=-1)
    normals = outward * np.cos(around_grid)[..., None] + np.array([1.0, 0, 0]) * np.sin(around_grid)[..., None]
    centre = outward * np.array([0, 0.026, 0.62 * extents[2]]) + np.array([0, -0.97 * extents[1], 0])
    vertices = centre + thickness * normals
    uv = np.stack([along_grid / np.pi + 0.5, np.full_like(along_grid, 0.25)], axis=-1)
    faces = _strip(len(around), len(along))
    return ObjectMesh(vertices.reshape(-1, 3), faces, normals.reshape(-1, 3), uv.reshape(-1, 2))


def _join(*parts: ObjectMesh) -> ObjectMesh:
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    return ObjectMesh(
        np.vstack([part.vertices for part in parts]),
        np.vstack([part.faces + start for part, start in zip(parts, starts, strict=True)]),
        np.vstack([part.normals for part in parts]),
        np.vstack([part.uv for part in parts]),
    )
