"""A sheet of 12 poses and shapes: the first stand-in and, beside it, the fine mesh of the second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from template import HandModel, axis_angle_to_pose, load_hand_assets
from template.fine import FineHand, load_fine_mesh
from template.stand_in.grasps import grasp_pose
from template.stand_in.sheet import MIDDLE, SKIN, draw_cells, picture
from tools.stand_in.build import COARSE_PATH

_NAIL = np.array([238.0, 190.0, 178.0])


def write_sheet(path: Path, pixels: int = 270) -> None:
    """Draw the cells of `template.stand_in.sheet`, left the old hand and right the new one."""
    old, assets, fine = HandModel(load_hand_assets()), load_hand_assets(COARSE_PATH), load_fine_mesh()
    new = FineHand(assets, fine)
    tint = SKIN + fine["nail"][:, None] * (_NAIL - SKIN)

    def pair(name: str, closure: float, betas: np.ndarray, turned: np.ndarray) -> list[np.ndarray]:
        angles = np.concatenate([np.zeros(3), grasp_pose(name, closure)])
        pose = axis_angle_to_pose(torch.as_tensor(angles, dtype=torch.float32)[None])
        shape = torch.as_tensor(betas, dtype=torch.float32)[None]
        vertices, fine_vertices = old(pose, shape).vertices[0], new(pose, shape)[0]
        return [
            picture(vertices.double().numpy() - MIDDLE, old.assets.faces, turned, pixels),
            picture(fine_vertices.double().numpy() - MIDDLE, fine["faces"], turned, pixels, tint),
        ]

    draw_cells(path, pair)
