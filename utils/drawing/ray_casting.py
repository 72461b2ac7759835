"""Rays against triangle meshes on the CPU with Embree (`embreex`): no display, no OpenGL.

Only the closest hit and the any-hit (shadow) query are wrapped; shading is the caller's. Frames
and units are the caller's too, as long as rays and vertices share them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene


class Hits(NamedTuple):
    """Closest hits of N rays (or of an image of rays: every leading shape alike)."""

    face: np.ndarray  # (...,) int32 index of the face, -1 where nothing was hit
    barycentric: np.ndarray  # (..., 2) float32 weights of the face's second and third vertex
    distance: np.ndarray  # (...,) float32 in units of the direction's length; inf where nothing was hit


class RayCaster:
    """A triangle mesh that answers ray queries.

    Args:
        vertices: (V, 3) float. Several objects go in as one concatenated mesh.
        faces: (F, 3) int.

    Raises:
        ValueError: on wrong shapes or on a face index outside the vertices.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        vertices = np.ascontiguousarray(vertices, dtype=np.float32)
        faces = np.ascontiguousarray(faces, dtype=np.int32)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
            raise ValueError(f"vertices {vertices.shape} and faces {faces.shape} must be (V, 3) and (F, 3)")
        if len(faces) == 0 or faces.min() < 0 or faces.max() >= len(vertices):
            raise ValueError(f"faces must index the {len(vertices)} vertices, and there must be at least one face")
        self.faces = faces
        self._scene = EmbreeScene(robust=True)
        self._mesh = TriangleMesh(self._scene, vertices, faces)

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """Closest hit of each ray. origins (N, 3), m; directions (N, 3) need not be unit vectors."""
        result = self._run(origins, directions, output=True)
        face = result["primID"]
        distance = np.where(face >= 0, result["tfar"], np.float32(np.inf))
        return Hits(face, np.stack([result["u"], result["v"]], axis=-1), distance)

    def occluded(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(N,) bool: does the ray hit anything at all? Move origins off the surface by a little first."""
        return self._run(origins, directions, query="OCCLUDED") >= 0

    def render(self, K: np.ndarray, width: int, height: int) -> Hits:
        """Closest hits (height, width) through the pixels of a pinhole image of a mesh in the camera's frame.

        Args:
            K: (3, 3) intrinsics, pixels, pixel centres at integers.

        ``distance`` is the depth z.
        """
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        origin, directions = pixel_rays(K, np.stack([u.ravel(), v.ravel()], axis=1))
        hits = self.cast(np.broadcast_to(origin, directions.shape), directions)
        shape = u.shape
        return Hits(hits.face.reshape(shape), hits.barycentric.reshape(*shape, 2), hits.distance.reshape(shape))

    def _run(self, origins: np.ndarray, directions: np.ndarray, **options: object) -> object:
        origins = np.ascontiguousarray(origins, dtype=np.float32)
        directions = np.ascontiguousarray(directions, dtype=np.float32)
        return self._scene.run(origins, directions, **options)


def block_centres(start: int, stop: int, step: int) -> np.ndarray:
    """Pixel coordinates (float64) of the centres of the blocks of ``step`` pixels in [start, stop).

    ``stop - start`` is rounded up to whole blocks. These are the samples that `cv2.resize` by the
    factor ``step`` puts back in place.
    """
    count = -(-(stop - start) // step)
    return start + (np.arange(count) + 0.5) * step - 0.5


def pixel_rays(
    K: np.ndarray, pixels: np.ndarray, camera_to_mesh: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Origin (3,) and directions (N, 3), float32, of the rays through ``pixels`` (N, 2).

    Directions have z = 1 in the camera frame, so a hit's distance is its depth.
    """
    homogeneous = np.column_stack([pixels, np.ones(len(pixels))])
    directions = homogeneous @ np.linalg.inv(K).T
    if camera_to_mesh is None:
        return np.zeros(3, np.float32), directions.astype(np.float32)
    rotation, translation = camera_to_mesh[:, :3], camera_to_mesh[:, 3]
    return translation.astype(np.float32), (directions @ rotation.T).astype(np.float32)


def interpolate(hits: Hits, faces: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Vertex values at hits, by barycentric weights.

    Args:
        hits: of shape (N,), every one a real hit (face >= 0).
        faces: (F, 3) int.
        values: (V, C) float.

    Returns:
        (N, C).
    """
    corners = faces[hits.face]
    second, third = hits.barycentric[:, :1], hits.barycentric[:, 1:]
    result = values[corners[:, 0]] * (1 - second - third)
    result += values[corners[:, 1]] * second
    result += values[corners[:, 2]] * third
    return result


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Normals (F, 3) of triangles, twice the area long (m^2); seen from outside, corners go counter-clockwise."""
    corners = vertices[faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit vertex normals (V, 3) of a mesh (m); zero where a vertex has no area around it."""
    of_faces = face_normals(vertices, faces)
    normals = np.zeros(vertices.shape, dtype=np.float64)
    for axis in range(3):
        normals[:, axis] = np.bincount(faces.ravel(), weights=np.repeat(of_faces[:, axis], 3), minlength=len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
