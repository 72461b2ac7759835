"""Meshes to files that other programs open: PLY and GLB."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import trimesh

from utils.files import atomic_path

FORMATS = (".ply", ".glb")
#: glTF looks along -z with y up; our camera looks along +z with y down.
CAMERA_TO_GLTF = np.array([1.0, -1.0, -1.0])


def write_mesh(
    path: str | os.PathLike, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray | None = None
) -> None:
    """Write a mesh, atomically, vertices in the order given.

    Args:
        path: ends in `.ply` (OpenCV camera frame, as given) or `.glb` (turned into glTF's axes,
            x, -y, -z, so that a viewer shows what the camera saw).
        vertices: (V,3) metres.
        faces: (F,3) int.
        colors: (3,) or (V,3) uint8 RGB, or None.

    Raises:
        ValueError: another suffix, wrong shapes, a vertex that is not finite or a face out of range.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: suffix {path.suffix!r} is unknown; use one of {FORMATS}")
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"{path}: vertices {vertices.shape} and faces {faces.shape} must be (V,3) and (F,3)")
    if not np.isfinite(vertices).all():
        raise ValueError(f"{path}: vertex {int(np.argwhere(~np.isfinite(vertices))[0, 0])} is not finite")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ValueError(f"{path}: faces must index the {len(vertices)} vertices")
    if path.suffix == ".glb":
        vertices = vertices * CAMERA_TO_GLTF  # a half turn about x: face orientation stays
    if colors is not None:
        given = np.asarray(colors)
        fits = given.dtype.kind in "iu" and given.shape in ((3,), vertices.shape)
        if not fits or given.min(initial=0) < 0 or given.max(initial=0) > 255:
            raise ValueError(f"{path}: colors must be whole numbers from 0 to 255, (3,) or (V,3) as the vertices")
        colors = np.broadcast_to(given.astype(np.uint8), vertices.shape)
    mesh = trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)
    with atomic_path(path) as temporary:
        if path.suffix == ".glb":
            mesh.export(temporary, include_normals=True)
        else:
            mesh.export(temporary, vertex_normal=True)
