"""Draws ``docs/measure.jpg``, how a hand is measured: ``python -m tools.measuring_guide``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from src.photos.measuring.plane import RECTANGLES
from template import HandAssets, load_hand_assets
from template.kinematics import JointsModel
from utils.drawing.figures import save_figure
from utils.drawing.overlay import IDENTITY_COLOUR, overlay_mesh
from utils.joints import KNUCKLE_FLANKS

TARGET = Path(__file__).resolve().parents[1] / "docs" / "measure.jpg"
#: Pixels a millimetre, and the picture's sides, mm; the camera is so far away that it sees no perspective.
_SCALE, _SIDES, _FAR = 3.0, (200, 235), 100.0
_INK, _GROUND = "#c0392b", (238, 236, 232)


def hand_panel(axes: Axes, assets: HandAssets, palm_up: bool, aside: float = 0.0) -> np.ndarray:
    """Draw the flat right hand, fingers up, ``aside`` mm off the middle; returns (3,4), rest pose m to panel mm."""
    model = JointsModel(assets)
    joints = model.rest[model.to_standard].numpy()
    up = joints[12] - joints[0]
    up /= np.linalg.norm(up)
    out = np.cross(joints[5] - joints[0], joints[17] - joints[0])  # from palm to back, or against it
    back = joints[[6, 10, 14]].mean(axis=0) - joints[[8, 12, 16]].mean(axis=0)  # fingers bend a little to the palm
    towards = out * np.sign(out @ back) * (-1 if palm_up else 1)
    towards -= towards @ up * up
    towards /= np.linalg.norm(towards)
    right = np.cross(up, towards)
    turn = np.stack([right, -up, -towards])  # to a camera that looks at it: x right, y down, z away
    middle = turn @ (joints[0] + 0.088 * up) - [aside / 1000, 0, 0]
    vertices = assets.v_template @ turn.T - middle + [0, 0, _FAR]
    width, height = (round(_SCALE * side) for side in _SIDES)
    K = np.array([[1000 * _SCALE * _FAR, 0, width / 2], [0, 1000 * _SCALE * _FAR, height / 2], [0, 0, 1]])
    image = overlay_mesh(np.full((height, width, 3), _GROUND, np.uint8), vertices, assets.faces, K, IDENTITY_COLOUR)
    axes.imshow(image, extent=(0, _SIDES[0], _SIDES[1], 0))
    axes.set_axis_off()
    return np.c_[1000 * turn, [*(np.array(_SIDES) / 2 - 1000 * middle[:2]), 0]]


def place(matrix: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(2,) mm in the panel of a point of the rest pose."""
    return (matrix[:, :3] @ point + matrix[:, 3])[:2]


def arrow(axes: Axes, one: np.ndarray, other: np.ndarray, text: str, beside: tuple[float, float]) -> None:
    """A measure between two points, with its name beside its middle."""
    axes.annotate("", one, other, arrowprops={"arrowstyle": "|-|,widthA=0.5,widthB=0.5", "color": _INK, "lw": 2})
    write(axes, (one + other) / 2 + beside, text)


def write(axes: Axes, middle: np.ndarray, text: str) -> None:
    """Words around a point (2,), mm in the panel."""
    box = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": "none", "alpha": 0.85}
    axes.text(*middle, text, color=_INK, fontsize=10, ha="center", va="center", bbox=box)


def draw(target: Path = TARGET) -> None:
    assets = load_hand_assets(side="right")
    model = JointsModel(assets)
    joints = model.rest[model.to_standard].numpy()
    figure = Figure(figsize=(12.0, 5.6), layout="constrained")
    palm, back, card = figure.subplots(1, 3)
    matrix = hand_panel(palm, assets, palm_up=True)
    wrist, end = place(matrix, joints[0]), place(matrix, joints[12])
    palm.plot([wrist[0] - 26, wrist[0] + 26], [wrist[1]] * 2, color=_INK, lw=1.5, ls=(0, (4, 3)))
    arrow(palm, wrist, end, "hand length", (-30, 20))
    write(palm, wrist + [0, 9], "the wrist's crease next to the palm")
    palm.set_title("--hand_length_mm\ncrease to the middle finger's end, stretched", fontsize=11)
    matrix = hand_panel(back, assets, palm_up=False)
    low, high = (place(matrix, assets.v_template[vertex]) for vertex in KNUCKLE_FLANKS)
    level = (low[1] + high[1]) / 2
    arrow(back, np.array([low[0], level]), np.array([high[0], level]), "breadth", (0, 11))
    arrow(back, place(matrix, joints[9]), place(matrix, joints[12]), "finger", (0, -6))
    back.set_title(
        "--hand_breadth_mm  across the knuckles, no thumb\n--finger_length_mm middle=...  knuckle to end", fontsize=11
    )
    hand_panel(card, assets, palm_up=False, aside=26.0)
    height, width = RECTANGLES["card"]
    left, top = 14.0, 6.0
    card.add_patch(FancyBboxPatch((left + 3, top + 3), width - 6, height - 6, boxstyle="round,pad=3",
                                  fc="#f7f7f2", ec="#555", lw=1.2, zorder=3))  # fmt: skip
    card.add_patch(
        FancyBboxPatch((left + 38, top + 0.5), 9, height - 1, boxstyle="square,pad=0", fc="#444", ec="none", zorder=4)
    )
    below = top + height - 16
    arrow(card, np.array([left, below]), np.array([left + width, below]), "53.98 mm", (-9, 8))
    arrow(card, np.array([left - 6, top]), np.array([left - 6, top + height]), "85.60 mm", (22, -10))
    card.set_title("--card PICTURE\nthe hand flat on a table, a bank card beside it", fontsize=11)
    save_figure(target, figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=TARGET)
    draw(parser.parse_args().output)
