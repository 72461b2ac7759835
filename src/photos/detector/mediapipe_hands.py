"""mediapipe's hands as `Detection`: of 0.10.14 its models come in the wheel, nothing is downloaded.

Three traps of that version, each measured on synthetic images of known hands (tests/test_own_photos.py repeats it):

* Sides come back swapped: mediapipe takes every image for a mirror image. Of 104 right hands 99 were called "Left".
  (Its Tasks API does not: see `landmarker`.)
* x * width is a coordinate whose integers are pixel **centres**, though normalised coordinates suggest a corner
  origin: an image and its flip give x * width + x' * width - width = -0.90 ± 0.09 px, where a corner origin means 0
  and centres mean -1. (Its OpenCV warp reads coordinate 0 as the middle of the first pixel.) So nothing is subtracted.
* The palm detector sees the whole image at 192 px and misses small hands, so an image without any is searched again
  in four overlapping windows.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import warnings
from typing import Any

import numpy as np

from src.photos.detector.detection import Detection
from src.photos.detector.landmarker import MAX_HANDS, MIN_DETECTION_CONFIDENCE, Landmarker, detection, open_landmarker
from src.photos.image import check_rgb
from utils.camera import square_box
from utils.install import pip_install, pip_install_extra

#: Side of a window of the second search over the image's.
WINDOW = 0.625
#: A hand found in a window is looked at again in a square of so many times its box.
CLOSER_LOOK = 3.0
#: Boxes that share more than this part of their union are one hand, unless their keypoints are further apart than this
#: part of the box, or one is surely a left and the other surely a right hand: clasped hands are two.
SAME_HAND, APART, SURE_OF_SIDE = 0.3, 0.3, 0.9


class MediapipeHands:
    """Callable: image (H,W,3) uint8 RGB -> hands, surest first.

    Args:
        detector: a `Landmarker`, or anything with mediapipe's ``process(image)``; default: mediapipe's own, for
            unrelated images.

    Raises:
        ImportError: mediapipe is missing, or is a version without models; it says what to install.
    """

    def __init__(self, detector: Any = None) -> None:
        self.detector = open_mediapipe() if detector is None else detector

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """All hands in an image (H,W,3) uint8 RGB.

        Raises:
            ValueError: not such an image.
        """
        check_rgb(image)
        hands = self.look(image) or self._look_closer(image)
        return without_repeats(hands)

    def look(self, image: np.ndarray) -> list[Detection]:
        """One call of the detector."""
        if isinstance(self.detector, Landmarker):
            return self.detector.look(image)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # protobuf's, about mediapipe's own use of it
            result = self.detector.process(np.ascontiguousarray(image))
        if not result.multi_hand_landmarks:
            return []
        worlds = result.multi_hand_world_landmarks or [None] * len(result.multi_hand_landmarks)
        found = []
        for points, world, handedness in zip(result.multi_hand_landmarks, worlds, result.multi_handedness, strict=True):
            side, place = handedness.classification[0], None if world is None else world.landmark
            is_left = side.label == "Right"  # it takes the image for a mirror image
            found.append(detection(points.landmark, place, is_left, side.score, image.shape[1], image.shape[0]))
        return found

    def _look_closer(self, image: np.ndarray) -> list[Detection]:
        height, width = image.shape[:2]
        hands = []
        for top in (0, height - round(WINDOW * height)):
            for left in (0, width - round(WINDOW * width)):
                window = image[top : top + round(WINDOW * height), left : left + round(WINDOW * width)]
                hands += [self._again(image, hand.moved((left, top))) for hand in self.look(window)]
        return hands

    def _again(self, image: np.ndarray, hand: Detection) -> Detection:
        """The hand as found in a square about it: a window may have cut it."""
        x, y, side = square_box(hand.keypoints_2d, CLOSER_LOOK)
        left, top = max(int(x - side / 2), 0), max(int(y - side / 2), 0)
        again = self.look(image[top : int(y + side / 2) + 1, left : int(x + side / 2) + 1])
        same = [one for one in (f.moved((left, top)) for f in again) if overlap(one, hand) > SAME_HAND]
        return max(same, key=lambda one: overlap(one, hand), default=hand)


@functools.lru_cache(maxsize=2)
def _shared(landmarker: str | None = None) -> MediapipeHands:
    return MediapipeHands(None if landmarker is None else open_landmarker(landmarker))


def find_hands(image: np.ndarray, landmarker: str | None = None) -> list[Detection]:
    """All hands in an image (H,W,3) uint8 RGB, surest first; the detector is opened once.

    Args:
        landmarker: a ``.task`` file for mediapipe's newer versions, which carry no models; None: 0.10.14's own.

    Raises:
        ImportError: mediapipe is missing; it says what to install. ValueError: not such an image.
        FileNotFoundError, ValueError: as `open_landmarker`.
    """
    return _shared(landmarker)(image)


def is_installed() -> bool:
    """Whether there is a mediapipe at all; its version may still lack models."""
    try:
        return importlib.util.find_spec("mediapipe") is not None
    except ValueError:  # something without a spec stands in for it
        return True


def install_advice() -> str:
    """How to get it into this Python, in one line."""
    if sys.version_info >= (3, 13):  # 0.10.14 has no wheel for it
        return f"{pip_install('mediapipe')}, and give its makers' hand_landmarker.task with --landmarker FILE"
    return pip_install_extra("detect")


def open_mediapipe() -> Any:
    """mediapipe's detector of hands in unrelated images.

    Raises:
        ImportError: see `MediapipeHands`.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")  # else it reports on every start
    try:
        import mediapipe
    except ImportError as error:
        raise ImportError(
            f"mediapipe cannot be imported ({error}): {install_advice()}, or take our own detector (--keypoints own, "
            'keypoints="own", handid.load("own"))'
        ) from error
    try:
        return mediapipe.solutions.hands.Hands(
            static_image_mode=True, max_num_hands=MAX_HANDS, min_detection_confidence=MIN_DETECTION_CONFIDENCE
        )
    except (AttributeError, OSError, RuntimeError, ValueError) as error:
        version = getattr(mediapipe, "__version__", "of unknown version")
        raise ImportError(
            f"mediapipe {version} has no hand models inside ({error}): give its makers' hand_landmarker.task with "
            f"--landmarker FILE, or {install_advice()}"
        ) from error


def without_repeats(hands: list[Detection]) -> list[Detection]:
    """The hands, surest first, without those that are one before them, found twice."""
    kept: list[Detection] = []
    for hand in sorted(hands, key=lambda one: -one.score):
        if not any(are_one(hand, other) for other in kept):
            kept.append(hand)
    return kept


def are_one(hand: Detection, other: Detection) -> bool:
    """One hand found twice, not two hands that cover each other."""
    if overlap(hand, other) <= SAME_HAND:
        return False
    if hand.is_left != other.is_left and min(hand.score, other.score) >= SURE_OF_SIDE:
        return False
    off = np.linalg.norm(hand.keypoints_2d - other.keypoints_2d, axis=1).mean()
    return bool(off <= APART * max(hand.size, other.size))


def overlap(one: Detection, other: Detection) -> float:
    """Intersection over union of two boxes."""
    low = np.maximum(one.bbox[:2], other.bbox[:2])
    high = np.minimum(one.bbox[2:], other.bbox[2:])
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    areas = [float(np.prod(hand.bbox[2:] - hand.bbox[:2])) for hand in (one, other)]
    return shared / max(sum(areas) - shared, 1e-9)
