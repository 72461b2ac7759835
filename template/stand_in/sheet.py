"""Pictures of the stand-in hands by direct ray casting (embreex; no OpenGL)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from template.stand_in.grasps import grasp_pose, rotations_from_pose
from template.stand_in.skinning import pose_hand
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
#: The flat hand's middle, metres.
MIDDLE = np.array([0.02, 0.0, 0.01])
#: World to view, from behind with the fingers up.
_BACK = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_FAR = 20.0  # metres from the camera
SKIN = np.array([222.0, 172.0, 146.0])

#: A cell's two pictures, of a grasp, closure, betas (10,) and view (3, 3).
Pair = Callable[[str, float, np.ndarray, np.ndarray], list[np.ndarray]]


def view(turn: float, tilt: float) -> np.ndarray:
    """World to view (3, 3): the back of the hand with its fingers up, turned and tilted, degrees."""
    t, e = np.radians([turn, tilt])
    about_y = np.array([[np.cos(t), 0, np.sin(t)], [0, 1, 0], [-np.sin(t), 0, np.cos(t)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
    return about_x @ about_y @ _BACK


def picture(
    vertices: np.ndarray, faces: np.ndarray, turned: np.ndarray, pixels: int, colour: np.ndarray = SKIN
) -> np.ndarray:
    """Picture (pixels, pixels, 3) uint8, 0.28 m wide, from so far away that it has no perspective.

    Args:
        vertices: (V, 3) metres; faces: (F, 3); turned: (3, 3) world to view, whose viewer looks down -z, y up.
        colour: (3,) or (V, 3) RGB 0..255.
    """
    from utils.drawing.overlay import overlay_mesh

    focal, middle = pixels * _FAR / 0.28, (pixels - 1) / 2
    K = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    seen = vertices @ turned.T * [1.0, -1.0, -1.0] + [0.0, 0.0, _FAR]
    return overlay_mesh(np.full((pixels, pixels, 3), 245, np.uint8), seen, faces, K, colour, 1.0)


def draw_cells(path: Path, pair: Pair) -> None:
    """Write the twelve cells of `CELLS`, two pictures each, atomically."""
    import cv2

    tiles = []
    for text, name, closure, leading, turn, tilt in CELLS:
        betas = np.array(leading + (0.0,) * (10 - len(leading)))
        tile = np.ascontiguousarray(np.hstack(pair(name, closure, betas, view(turn, tilt))))
        cv2.putText(tile, text, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
        tiles.append(tile)
    sheet = np.vstack([np.hstack(tiles[row : row + 3]) for row in range(0, len(tiles), 3)])
    quality = [cv2.IMWRITE_JPEG_QUALITY, 88] if path.suffix in (".jpg", ".jpeg") else []
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), sheet[..., ::-1], quality):
            raise OSError(f"{path} could not be written")


def write_sheet(hand: dict[str, np.ndarray], path: Path, pixels: int = 380) -> None:
    """Draw twelve poses and shapes of a hand of MANO's layout, each from two sides.

    Args:
        hand: the arrays of `template/stand_in.npz`.
    """
    faces = hand["f"].astype(np.int64)

    def pair(name: str, closure: float, betas: np.ndarray, turned: np.ndarray) -> list[np.ndarray]:
        vertices = pose_hand(hand, rotations_from_pose(grasp_pose(name, closure)), betas) - MIDDLE
        behind = np.diag([-1.0, 1.0, -1.0]) @ turned
        return [picture(vertices, faces, side, pixels) for side in (turned, behind)]

    draw_cells(path, pair)
