"""mediapipe's newer door, the Tasks API: its models are not in the wheel, the user gives the file (a ``.task``).

Measured with 0.10.14 and 1.2.3 beside 0.10.14's older door on 37 real pictures: here sides are those of the picture as
it is, there they are swapped. Coordinates and world points are the same in kind.
"""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from src.photos.detector.detection import Detection
from utils.install import pip_install

#: mediapipe rates no single keypoint. Those outside the image are guesses.
OUTSIDE_CONFIDENCE = 0.25
MIN_DETECTION_CONFIDENCE = 0.4
MAX_HANDS = 4


class Landmarker:
    """mediapipe's hand landmarker, opened.

    Args:
        task: anything with ``detect(image)`` that returns hand_landmarks, hand_world_landmarks and handedness, lists
            of one entry a hand; wrap: from an array (H,W,3) uint8 RGB to the image that it takes.
    """

    def __init__(self, task: Any, wrap: Any = lambda image: image) -> None:
        self.task, self.wrap = task, wrap

    def look(self, image: np.ndarray) -> list[Detection]:
        """The hands in an image (H,W,3) uint8 RGB."""
        result = self.task.detect(self.wrap(np.ascontiguousarray(image)))
        worlds = result.hand_world_landmarks or [None] * len(result.hand_landmarks)
        return [
            detection(points, world, side[0].category_name == "Left", side[0].score, image.shape[1], image.shape[0])
            for points, world, side in zip(result.hand_landmarks, worlds, result.handedness, strict=True)
        ]


def open_landmarker(file: str | os.PathLike) -> Landmarker:
    """Open a ``hand_landmarker.task``.

    Raises:
        FileNotFoundError: no such file. ImportError: mediapipe is missing, or has no Tasks API; says what to install.
        ValueError: the file is no hand landmarker.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"--landmarker {path}: no such file; mediapipe's makers give hand_landmarker.task")
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise ImportError(f"mediapipe's tasks cannot be imported ({error}): {pip_install('mediapipe')}") from error
    options = vision.HandLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=path.read_bytes()),
        num_hands=MAX_HANDS,
        min_hand_detection_confidence=MIN_DETECTION_CONFIDENCE,
    )
    try:
        task = vision.HandLandmarker.create_from_options(options)
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"--landmarker {path}: is no hand landmarker of mediapipe ({error})") from error
    # It must be closed before the interpreter's threads end, which `atexit` comes after; 1.2.3 complains at length.
    getattr(threading, "_register_atexit", atexit.register)(task.close)
    return Landmarker(task, lambda image: mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image))


def detection(points: Any, world: Any, is_left: bool, score: float, width: int, height: int) -> Detection:
    """One hand of mediapipe's in an image of ``width`` x ``height`` px.

    x * width is a coordinate whose integers are pixel centres (see `mediapipe_hands`).

    Args:
        points: 21 with x, y over the image's sides; world: 21 with x, y, z in metres, or None.
    """
    keypoints = np.array([[point.x * width, point.y * height] for point in points], dtype=np.float64)
    inside = ((keypoints >= -0.5) & (keypoints <= [width - 0.5, height - 0.5])).all(axis=1)
    return Detection(
        keypoints_2d=keypoints,
        keypoint_confidence=np.where(inside, 1.0, OUTSIDE_CONFIDENCE),
        is_left=is_left,
        score=float(score),
        world=None if world is None else np.array([[p.x, p.y, p.z] for p in world], dtype=np.float64),
    )
