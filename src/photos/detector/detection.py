"""One hand found in a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from utils.camera import mirror_points


@dataclass(frozen=True)
class Detection:
    """One hand in an image, as it is seen there (a left hand is not mirrored).

    Attributes:
        keypoints_2d: (21,2) float64 px of the full image, standard order, pixel centres at integers; may lie outside.
        keypoint_confidence: (21,) in [0,1].
        is_left: the person's left hand.
        score: in [0,1], how sure the detector is; mediapipe tells it of the side alone, 0.5 to 1.
        side_score: in [0.5,1], how sure it is of the side, where ``score`` is of the hand; None: ``score`` says that.
        world: (21,3) m, the detector's own guess in three dimensions about the hand's centre, or None. Axes are those
            of a camera turned towards the hand (x right, y down, z away).
        only_depths: ``world`` is the points in the picture with depths, which tells nothing of proportions or the side.
        pose: (16,3,3) the detector's own guess, in the axes of ``world``; of a left hand that of its mirror image.
    """

    keypoints_2d: np.ndarray
    keypoint_confidence: np.ndarray
    is_left: bool
    score: float
    world: np.ndarray | None = None
    side_score: float | None = None
    only_depths: bool = False
    pose: np.ndarray | None = None

    @property
    def sure_of_side(self) -> float:
        """Probability of the side, in [0.5,1]."""
        return self.score if self.side_score is None else self.side_score

    @property
    def bbox(self) -> np.ndarray:
        """Tight box (4,) of the keypoints: left, top, right, bottom, px."""
        return np.concatenate([self.keypoints_2d.min(axis=0), self.keypoints_2d.max(axis=0)])

    @property
    def size(self) -> float:
        """Larger side of the box, px."""
        left, top, right, bottom = self.bbox
        return float(max(right - left, bottom - top))

    def moved(self, offset: Sequence[float]) -> Detection:
        """The same hand where it is in an image of which this was a window, whose first pixel is at ``offset`` px."""
        return replace(self, keypoints_2d=self.keypoints_2d + np.asarray(offset, dtype=np.float64))


#: From a picture (H,W,3) uint8 RGB to the hands in it, surest first.
Finder = Callable[[np.ndarray], list[Detection]]


def finder_name(finder: Finder) -> str:
    """What results call it: its ``name``, else it is mediapipe, which comes as a function."""
    return getattr(finder, "name", "mediapipe")


def mirrored(hand: Detection, width: int) -> Detection:
    """The hand after its image of ``width`` px was flipped left to right; sides swap."""
    world = None if hand.world is None else hand.world * [-1.0, 1.0, 1.0]
    return replace(hand, keypoints_2d=mirror_points(hand.keypoints_2d, width), world=world, is_left=not hand.is_left)


def disagreement(points: np.ndarray, world: np.ndarray) -> float:
    """How far a detector's 3D points (21,3) m, seen from the front, are from its points (21,2) px in the picture: root
    mean square a coordinate, m, scale and place at their best."""
    seen, front = (part - part.mean(axis=0) for part in (points, world[:, :2]))
    scale = max(float((seen * front).sum() / np.square(front).sum().clip(1e-12)), 1e-9)  # px per m
    return float(np.sqrt(np.square(seen / scale - front).mean()))
