"""A reconstructed hand as plain JSON: what predictions.json and a video's frames hold."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.photos.result import HandResult

SCHEMA = 1
CONVENTIONS = {
    "frame": "OpenCV camera: x right, y down, z forward; left hands are left",
    "units": "metres, pixels (centres at integers), millimetres where a name ends in _mm",
    "joint_order": "wrist, then thumb, index, middle, ring, little, each from palm to tip",
}


@dataclass(frozen=True)
class Sources:
    """Who said what: of the camera, of the box, and which hand it is."""

    camera: str
    box: str
    side: str


def hand_record(hand: HandResult, sources: Sources, with_vertices: bool = True) -> dict[str, Any]:
    """One hand.

    Returns:
        ``hand`` {side, source}; ``camera`` {K 3x3 px, source}; ``box`` {left_top_right_bottom px, source};
        ``hand_length`` {mm, std_mm, interval_95_mm, source}; ``reprojection_px``; the result's notes;
        ``keypoints_2d`` 21x2 px and ``keypoint_confidence`` 21, what was seen; ``joints`` 21x3 m, camera frame;
        ``pose`` 16x3x3 rotation matrices, ``betas`` 10 and ``transl`` 3 m of the hand model of that side (null from
        networks that give a mesh only); ``vertices`` 778x3 m.
    """
    length, interval = hand.length, None if hand.length is None else hand.length.interval_95
    arrays = {"pose": hand.pose, "betas": hand.betas, "transl": hand.transl, "joints": hand.joints}
    if with_vertices:
        arrays["vertices"] = hand.vertices
    return {
        "hand": {"side": hand.side, "source": sources.side},
        "camera": {"K": hand.K.tolist(), "source": sources.camera},
        "box": {"left_top_right_bottom": corners(hand.box), "source": sources.box},
        "hand_length": None if length is None else {
            "mm": round(length.mm, 2),
            "std_mm": None if length.std_mm is None else round(length.std_mm, 2),
            "interval_95_mm": None if interval is None else [round(value, 2) for value in interval],
            "source": length.source,
        },
        "reprojection_px": round(hand.reprojection_px, 3),
        **hand.notes,
        "keypoints_2d": _plain(hand.keypoints, 3),
        "keypoint_confidence": _plain(hand.confidence, 4),
        **{key: None if array is None else _plain(array, 6) for key, array in arrays.items()},
    }


def corners(box: np.ndarray) -> list[float]:
    """Left, top, right, bottom of a square box (3,), px."""
    x, y, side = box
    return [round(float(value), 2) for value in (x - side / 2, y - side / 2, x + side / 2, y + side / 2)]


def length_words(hand: HandResult) -> str:
    """Hand length with its interval."""
    if hand.length is None:
        return "hand length unknown"
    interval = hand.length.interval_95
    words = "interval not known" if interval is None else f"95%: {interval[0]:.0f} to {interval[1]:.0f}"
    return f"hand length {hand.length.mm:.0f} mm ({words})"


def command_line() -> str:
    """The command that is running, as a shell would take it."""
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])


def _plain(array: np.ndarray, digits: int) -> list:
    return np.round(np.asarray(array, dtype=np.float64), digits).tolist()
