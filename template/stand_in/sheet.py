"""Pictures of the stand-in hand by direct ray casting (embreex through trimesh; no OpenGL)."""

from __future__ import annotations

import numpy as np

_LIGHTS = ((np.array([-0.35, 0.65, 0.67]), 0.75), (np.array([0.8, 0.1, 0.55]), 0.25))


def shade(
    vertices: np.ndarray, faces: np.ndarray, view: np.ndarray, pixels: int = 360, extent: float = 0.23
) -> np.ndarray:
    """An orthographic picture (pixels, pixels, 3) uint8, shaded with smooth normals.

    Args:
        vertices: (V, 3) metres.
        faces: (F, 3).
        view: (3, 3) rotation, world to view; the viewer looks down the view's -z, y is up.
        extent: width of the picture in metres.
    """
    import trimesh
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    turned = vertices @ view.T
    turned = turned - (turned.max(axis=0) + turned.min(axis=0)) / 2
    mesh = trimesh.Trimesh(turned, faces, process=False)
    grid = (np.arange(pixels) + 0.5) / pixels * extent - extent / 2
    x, y = np.meshgrid(grid, -grid)
    origins = np.stack([x, y, np.full_like(x, 0.5)], axis=-1).reshape(-1, 3)
    hits, rays, where = RayMeshIntersector(mesh).intersects_id(
        origins, np.tile([0.0, 0.0, -1.0], (len(origins), 1)), multiple_hits=False, return_locations=True)
    image = np.full((pixels * pixels, 3), 245.0)
    if len(hits):
        corners = trimesh.triangles.points_to_barycentric(mesh.triangles[hits], where)
        normals = (mesh.vertex_normals[faces[hits]] * corners[..., None]).sum(axis=1)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        light = 0.22 + sum(power * np.clip(normals @ (to / np.linalg.norm(to)), 0, 1) for to, power in _LIGHTS)
        back = mesh.face_normals[hits][:, 2] < 0  # the inside of the hand, seen through the wrist
        colour = np.where(back[:, None], [120.0, 60.0, 60.0], [236.0, 188.0, 160.0])
        image[rays] = np.clip(colour * light[:, None], 0, 255)
    return image.reshape(pixels, pixels, 3).astype(np.uint8)
