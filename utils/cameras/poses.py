"""Where a moving camera stands in the world, one pose a picture or frame, from the files that trackers write."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from utils.files import READ_ERRORS, read_reason

logger = logging.getLogger(__name__)

#: Turns of a world's axes into those of the OpenCV camera, in which y points down: where files have an up of their own.
AXES = {
    "y_down": np.eye(3),
    "y_up": np.diag([1.0, -1, -1]),
    "z_up": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
}
KEY = "world_from_camera"
_TEXT = (".txt", ".csv", ".tum")
SUFFIXES = (".json", ".npz", *_TEXT)
_LARGEST_FILE = 1 << 28
#: m from the origin, to which float32 is exact to 0.06 mm.
FURTHEST = 1000.0
_LONG_STEP = 2.0  # m from frame to frame, which no camera moves that looks at hands


@dataclass(frozen=True, eq=False)
class CameraPose:
    """Where a camera is: its point p (m) is ``rotation`` (3,3) p + ``place`` (3,) m in the world, whose up ``axes``
    (of `AXES`) tells."""

    rotation: np.ndarray
    place: np.ndarray
    axes: str = "y_down"

    @property
    def matrix(self) -> np.ndarray:
        """(4,4), its place in m."""
        return np.vstack([np.column_stack([self.rotation, self.place]), [0, 0, 0, 1]])


def read_poses(path: str | Path, axes: str = "y_down") -> list[CameraPose]:
    """World-from-camera of every frame, metres, in order.

    Args:
        path: ``.json``, a list of 4x4 (or 3x4) matrices or a mapping that has it as ``world_from_camera``; ``.npz``
            with ``world_from_camera`` (F,4,4); or text (``.txt``, ``.csv``, ``.tum``) with a line a frame: time, tx,
            ty, tz, qx, qy, qz, qw as TUM's trajectories have it (times must not fall, or else are not looked at), or
            12 or 16 numbers of a matrix, row by row. Metres, OpenCV camera axes.
        axes: of the world, one of `AXES`.

    Raises:
        FileNotFoundError: no such file. ValueError: it holds no poses, or one that is no rigid motion; says which.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: camera poses are read from files that end in one of {SUFFIXES}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of camera poses")
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"it is larger than {_LARGEST_FILE} bytes")
        matrices = _read(path)
    except READ_ERRORS as error:
        raise ValueError(f"{path}: holds no camera poses ({read_reason(error)})") from error
    poses = []
    for number, matrix in enumerate(matrices):
        rotation, place = matrix[:, :3], matrix[:, 3]
        name = f"{path}, pose {number} (of 0 to {len(matrices) - 1})"
        if not np.isfinite(matrix).all():
            raise ValueError(f"{name}: has numbers that are not finite; leave those frames out of the video")
        off = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
        if off > 1e-3 or np.linalg.det(rotation) < 0:
            kind = f"R R^T is {off:.2g} off the identity" if off > 1e-3 else "it mirrors"
            raise ValueError(
                f"{name}: {rotation.tolist()} is no rotation ({kind}); world-from-camera moves and turns only"
            )
        if np.abs(place).max() > FURTHEST:
            raise ValueError(
                f"{name}: stands at {place.tolist()} m: meshes and animations have single precision, which is too "
                f"coarse beyond {FURTHEST:g} m; subtract an origin from all places"
            )
        poses.append(CameraPose(rotation, place, axes))
    upside_down = axes == "y_down" and np.allclose(poses[0].rotation, AXES["y_up"], atol=0.05)
    if upside_down and path.suffix.lower() in _TEXT:  # as (1, 0, 0, 0) with w first, which is no turn
        logger.warning("%s: the first camera is upside down; is it qw that comes first? qx qy qz qw is meant", path)
    steps = np.linalg.norm(np.diff([pose.place for pose in poses], axis=0), axis=1)
    if len(steps) and np.median(steps) > _LONG_STEP:
        logger.warning(
            "%s: the camera moves by %.0f m from pose to pose; places are metres, are these millimetres?",
            path, np.median(steps),
        )  # fmt: skip
    return poses


def check_count(poses: list[CameraPose], count: int, path: object, what: str) -> None:
    """Raise ValueError unless there are as many poses as pictures or frames (``what``)."""
    if len(poses) != count:
        raise ValueError(f"{path}: {len(poses)} camera poses for {count} {what}; it must have one for each, in order")


def _read(path: Path) -> np.ndarray:
    """(F,3,4) float64."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            if KEY not in arrays.files:
                raise ValueError(f"it has {arrays.files}, not {KEY}")
            values = arrays[KEY]
    elif suffix == ".json":
        values = json.loads(path.read_text(encoding="utf-8-sig"))
        values = values[KEY] if isinstance(values, dict) else values
    else:
        text = path.read_text("utf-8-sig").splitlines()
        if named := next((line for line in text if re.search(r"q\w*w\b.*q\w*x\b", line.split("#")[-1], re.I)), None):
            raise ValueError(
                f"its columns are {named!r}, quaternions with w first; a line is: time tx ty tz qx qy qz qw"
            )
        lines = (line.split("#")[0].replace(",", " ").split() for line in text)
        values = [[float(number) for number in line] for line in lines if line]
    values = np.array(values, dtype=np.float64)
    if values.ndim == 3 and values.shape[1:] == (4, 4):
        values = values.reshape(len(values), 16)
    if suffix in _TEXT and values.ndim == 2 and values.shape[1] == 8:
        if np.abs(np.linalg.norm(values[:, 4:], axis=1) - 1).max() > 0.01:
            raise ValueError("quaternions of a length that is not 1; a line is: time tx ty tz qx qy qz qw")
        if len(early := np.flatnonzero(np.diff(values[:, 0]) < 0)):
            raise ValueError(f"time falls after pose {early[0]}, at {values[early[0], 0]:g} s; sort the lines by time")
        return np.concatenate([Rotation.from_quat(values[:, 4:]).as_matrix(), values[:, 1:4, None]], axis=2)
    if not len(values):
        raise ValueError("it has none")
    if values.ndim == 2 and values.shape[1] == 16:
        if np.abs(values[:, 12:] - [0, 0, 0, 1]).max() > 1e-6:
            raise ValueError("the last row of a matrix is not 0 0 0 1; are they transposed?")
        values = values[:, :12]
    return values.reshape(len(values), 3, 4)
