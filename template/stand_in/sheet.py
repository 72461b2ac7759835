"""Pictures of the stand-in hand by direct ray casting (embreex through trimesh; no OpenGL)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from template.stand_in.grasps import grasp_pose, rotations_from_pose
from template.stand_in.skinning import pose_hand
from utils.files import atomic_path

_LIGHTS = ((np.array([-0.35, 0.65, 0.67]), 0.75), (np.array([0.8, 0.1, 0.55]), 0.25))

#: World to view: from behind with the fingers up, and from the palm's side, turned to show the depth.
_BACK = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_PALM = np.array([[0.77, 0.0, -0.64], [0.0, 1.0, 0.0], [0.64, 0.0, 0.77]]) @ np.array(
    [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
)


def _betas(*leading: float) -> np.ndarray:
    return np.array(leading + (0.0,) * (10 - len(leading)))


#: Label, grasp, closure, betas of each cell.
_CELLS = (
    ("flat, mean hand", "open", 0.0, _betas()),
    ("flat, small hand (beta 1 = -2)", "open", 0.0, _betas(-2.0)),
    ("flat, big hand (beta 1 = +2)", "open", 0.0, _betas(2.0)),
    ("spread, beta 2 = +2.5", "spread", 1.0, _betas(0.0, 2.5)),
    ("relaxed, beta 2 = -2.5", "relaxed", 1.0, _betas(0.0, -2.5)),
    ("power grasp, cylinder", "power_cylinder", 1.0, _betas()),
    ("power grasp, sphere", "power_sphere", 1.0, _betas(1.0)),
    ("pinch", "pinch", 1.0, _betas()),
    ("tripod, beta 3 = +2.5", "tripod", 1.0, _betas(0.0, 0.0, 2.5)),
    ("lateral", "lateral", 1.0, _betas(-1.0)),
    ("pointing", "pointing", 1.0, _betas()),
    ("fist", "fist", 1.0, _betas()),
)


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
        origins, np.tile([0.0, 0.0, -1.0], (len(origins), 1)), multiple_hits=False, return_locations=True
    )
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


def write_sheet(hand: dict[str, np.ndarray], path: Path, pixels: int = 380) -> None:
    """Draw 12 poses and shapes, each from the back and from the palm's side, as a PNG.

    Args:
        hand: model dict with MANO's keys.
        path: where to write.
        pixels: size of one picture.
    """
    import cv2

    tiles = []
    for label, name, closure, betas in _CELLS:
        vertices = pose_hand(hand, rotations_from_pose(grasp_pose(name, closure)), betas)
        pair = [shade(vertices, hand["f"].astype(np.int64), view, pixels) for view in (_BACK, _PALM)]
        tile = np.ascontiguousarray(np.hstack(pair))
        cv2.putText(tile, label, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
        tiles.append(tile)
    sheet = np.vstack([np.hstack(tiles[row : row + 3]) for row in range(0, len(tiles), 3)])
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), sheet[..., ::-1]):
            raise OSError(f"{path} could not be written")
