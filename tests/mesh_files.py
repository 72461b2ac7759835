"""Mesh files as other programs read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V,3) in the OpenCV camera frame and faces (F,3); glTF's axes are turned back (x, -y, -z)."""
    mesh = trimesh.load_mesh(path, process=False)
    flip = np.array([1.0, -1.0, -1.0]) if path.suffix == ".glb" else 1.0
    return np.asarray(mesh.vertices) * flip, np.asarray(mesh.faces)
