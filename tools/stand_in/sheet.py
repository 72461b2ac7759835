"""A sheet of 12 poses and shapes: the first stand-in and, beside it, the fine mesh of the second."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from template import HandModel, axis_angle_to_pose, load_hand_assets
from template.fine import FineHand, load_fine_mesh
from template.stand_in.grasps import grasp_pose
from template.stand_in.skeleton import unit
from tools.stand_in.build import COARSE_PATH
from tools.stand_in.regions import normals
from utils.drawing.ray_casting import RayCaster
from utils.files import atomic_path

#: Label, grasp, closure, the leading betas, turn about the hand's long axis and tilt, degrees (0, 0: the back).
CELLS = (
    ("mean hand", "open", 0.0, (), 0, 0),
    ("palm", "open", 0.0, (), 180, 0),
    ("beta 1 = -2", "open", 1.0, (-2.0,), 15, 0),
    ("beta 1 = +2", "open", 1.0, (2.0,), 15, 0),
    ("relaxed, beta 2 = +2.5", "relaxed", 1.0, (0.0, 2.5), -60, 0),
    ("spread", "spread", 1.0, (), 150, 10),
    ("fist", "fist", 1.0, (), 180, 10),
    ("fist, from behind", "fist", 1.0, (), 30, 20),
    ("pinch", "pinch", 1.0, (), -110, 0),
    ("pointing", "pointing", 1.0, (), -80, 0),
    ("cylinder", "power_cylinder", 1.0, (), -120, 0),
    ("hook, beta 3 = +2.5", "hook", 1.0, (0.0, 0.0, 2.5), 60, 0),
)
_BACK = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_LIGHTS = ((np.array([-0.45, 0.55, 0.70]), 0.80), (np.array([0.8, 0.1, 0.5]), 0.22))
_SKIN, _NAIL = np.array([222.0, 172.0, 146.0]), np.array([238.0, 190.0, 178.0])


def view(turn: float, tilt: float) -> np.ndarray:
    """World to view (3, 3): x right, y up, z to the viewer; the fingers point up."""
    t, e = np.radians([turn, tilt])
    about_y = np.array([[np.cos(t), 0, np.sin(t)], [0, 1, 0], [-np.sin(t), 0, np.cos(t)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
    return about_x @ about_y @ _BACK


def shade(
    vertices: np.ndarray,
    faces: np.ndarray,
    turned: np.ndarray,
    pixels: int,
    extent: float = 0.28,
    colour: np.ndarray | None = None,
) -> np.ndarray:
    """Orthographic picture (pixels, pixels, 3) uint8 RGB with shadows; vertices in metres, colour (V, 3) 0..255."""
    seen = vertices @ turned.T
    seen = seen - [0.0, 0.0, seen[:, 2].min()]
    colour = np.tile(_SKIN, (len(vertices), 1)) if colour is None else colour
    facing = normals(seen, faces)
    caster = RayCaster(seen, faces)
    fine = 2 * pixels
    grid = ((np.arange(fine) + 0.5) / fine - 0.5) * extent
    x, y = np.meshgrid(grid, -grid)
    origins = np.stack([x, y, np.full_like(x, 1.0)], axis=-1).reshape(-1, 3)
    hits = caster.cast(origins, np.tile([0.0, 0.0, -1.0], (len(origins), 1)))
    on = np.flatnonzero(hits.face >= 0)
    share = np.column_stack([1 - hits.barycentric[on].sum(axis=1), hits.barycentric[on]])
    corner = faces[hits.face[on]]
    normal = unit(np.einsum("nk,nkc->nc", share, facing[corner]))
    place = origins[on] - [0, 0, 1] * hits.distance[on, None]
    light = np.full(len(on), 0.26)
    for towards, power in _LIGHTS:
        towards = unit(towards)
        shadow = caster.occluded(place + 4e-4 * normal, np.tile(towards, (len(on), 1)))
        light += power * np.clip(normal @ towards, 0, 1) * np.where(shadow, 0.25, 1.0)
    image = np.full((fine * fine, 3), 245.0)
    image[on] = np.clip(np.einsum("nk,nkc->nc", share, colour[corner]) * light[:, None], 0, 255)
    image = cv2.resize(image.reshape(fine, fine, 3).astype(np.float32), (pixels, pixels), interpolation=cv2.INTER_AREA)
    return image.astype(np.uint8)


def write_sheet(path: Path, pixels: int = 270) -> None:
    """Draw `CELLS`, the old hand left, the new one right, as a PNG or JPEG."""
    old, assets, fine = HandModel(load_hand_assets()), load_hand_assets(COARSE_PATH), load_fine_mesh()
    new = FineHand(assets, fine)
    tint = _SKIN + fine["nail"][:, None] * (_NAIL - _SKIN)
    tiles = []
    for text, name, closure, leading, turn, tilt in CELLS:
        angles = np.concatenate([np.zeros(3), grasp_pose(name, closure)])
        pose = axis_angle_to_pose(torch.as_tensor(angles, dtype=torch.float32)[None])
        betas = torch.zeros(1, 10)
        betas[0, : len(leading)] = torch.tensor(leading)
        turned, middle = view(turn, tilt), np.array([0.02, 0.0, 0.01])
        pair = [
            shade(old(pose, betas).vertices[0].double().numpy() - middle, old.assets.faces, turned, pixels),
            shade(new(pose, betas)[0].double().numpy() - middle, fine["faces"], turned, pixels, colour=tint),
        ]
        tile = np.ascontiguousarray(np.hstack(pair))
        cv2.putText(tile, text, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
        tiles.append(tile)
    sheet = np.vstack([np.hstack(tiles[row : row + 3]) for row in range(0, len(tiles), 3)])
    quality = [cv2.IMWRITE_JPEG_QUALITY, 88] if path.suffix in (".jpg", ".jpeg") else []
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), sheet[..., ::-1], quality):
            raise OSError(f"{path} could not be written")
