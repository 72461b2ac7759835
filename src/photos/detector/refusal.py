"""When a hand is refused: no hand is better than a confident wrong one. Every refusal says why, with its numbers.

Where nothing else is said, limits were learned from what mediapipe says of half of the people in 225 real pictures
(without labels: only hands whose side it is sure of), and checked on the others; `tests/test_refusal.py` repeats it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from src.personalization.solver.status import Status, usable
from src.photos.detector.detection import disagreement
from src.photos.image import UnusableImage

if TYPE_CHECKING:
    from src.photos.estimator import Keypoints
    from src.photos.result import Result

#: A hand of fewer pixels says next to nothing: its points are no better than a pixel.
MIN_HAND_PX = 24.0
#: A hand further away, or a surface nearer than this, is a fit that ran away, m.
DEPTH_RANGE = (0.02, 10.0)
#: Root mean square distance of fit and keypoints over the larger side of their box. Of a detector's: 99% of half of the
#: people's hands lie below 0.027 to 0.034, depending on which half; what is surely wrong lies at 0.11 to 0.16, and
#: fists seen from the side, which are hands, between. Of networks, whose errors on own pictures nobody knows, more.
MAX_MISFIT, MAX_MISFIT_OF_NETWORKS = 0.06, 0.15
#: Of our own detector's points, which are twice as noisy. Beyond it a third of the points are right; between the two
#: limits, where 8 of 115 real signs and 26 of 221 others lie, 45% of the points and two sides of three.
MAX_MISFIT_OF_OWN = 0.10
#: Least probability of the side, of the detector's word and of how much better that side's hand explains the keypoints.
#: Of the other half's hands 2 to 8% are refused so, nearly all with a side score below 0.95.
MIN_SIDE = 0.75
#: m, between a detector's 3D points and those in the picture (`disagreement`): 231 hands in pictures 3.6 (median) to
#: 11.8 mm, 366 before two cameras up to 16.5; all points in a heap on one finger, 18.4.
MAX_DISAGREEMENT = 0.017
#: The same of our own detector's word alone, so that nine hands in ten are kept: of 273 real signs, on which it was
#: chosen, 89%, 94.2% of them with the right side; of 269 others 91% and 95.1%. Of those below four in ten are wrong.
MIN_SIDE_OF_OWN = 0.65
#: A side score from which the other side is not tried: the keypoints alone never outweighed it.
SURE_SIDE = 0.99


def check_size(keypoints: Keypoints) -> None:
    """Raise UnusableImage unless the hand has `MIN_HAND_PX`."""
    if keypoints.size < MIN_HAND_PX:
        raise UnusableImage(
            f"no usable hand: it is {keypoints.size:.0f} pixels large, {MIN_HAND_PX:.0f} are needed; go nearer, or "
            "give the picture at its full size"
        )


def check_agreement(keypoints: Keypoints) -> None:
    """Raise UnusableImage if the detector's 3D points are of another hand than those in the picture."""
    repeats = keypoints.world is None or keypoints.only_depths
    off = 0.0 if repeats else disagreement(keypoints.points, keypoints.world)
    if off > MAX_DISAGREEMENT:
        raise UnusableImage(
            f"no usable hand: the detector contradicts itself (its 3D points are {1000 * off:.0f} mm off those in the "
            f"picture, {1000 * MAX_DISAGREEMENT:.0f} is the most)"
        )


def check_status(status: torch.Tensor, keypoints: Keypoints) -> None:
    """Raise UnusableImage, with the reason, unless the one problem of ``status`` (1,) has a result."""
    if not bool(usable(status)[0]):
        reason, mean = Status(int(status[0])).name.lower().replace("_", " "), keypoints.confidence.mean()
        raise UnusableImage(f"no usable hand: {reason} (mean confidence of the keypoints {mean:.2f})")


def check_depth(result: Result) -> Result:
    """The result, if it lies where a camera can see a hand.

    Raises:
        UnusableImage: it is not finite, reaches behind the camera, or is further away than `DEPTH_RANGE`.
    """
    points = np.concatenate([result.vertices, result.joints])
    if not np.isfinite(points).all():
        raise UnusableImage("no usable hand: the fit is not finite")
    nearest = float((points @ result.K[2]).min())  # z, or along where the view's camera looks
    if nearest < DEPTH_RANGE[0]:
        raise UnusableImage(f"no usable hand: behind camera (its nearest point at z = {nearest:.2f} m)")
    if result.distance_m > DEPTH_RANGE[1]:
        raise UnusableImage(f"no usable hand: the fit put it {result.distance_m:.3g} m away")
    return result


def check_misfit(reprojection_px: float, size_px: float, limit: float = MAX_MISFIT) -> float:
    """Distance of fit and keypoints over the most that is allowed.

    Args:
        reprojection_px: root mean square; size_px: larger side of the keypoints' box; limit: of their ratio.

    Raises:
        UnusableImage: no hand has such keypoints.
    """
    ratio = reprojection_px / max(size_px, 1e-9)
    if not ratio <= limit:
        raise UnusableImage(
            f"no usable hand: no hand fits its keypoints ({reprojection_px:.1f} px off, {100 * ratio:.1f}% of its "
            f"size; {100 * limit:.1f}% is the most)"
        )
    return ratio / limit


def side_probability(score: float, gain: float = 0.0) -> float:
    """Of the side that a detector names.

    Args:
        score: how sure it is, in [0.5,1]; gain: how much lower the cost (half chi-square) of that side's hand is than
            that of the other's.
    """
    odds = math.log(score / max(1 - score, 1e-4)) + gain
    return 1 / (1 + math.exp(-max(min(odds, 50.0), -50.0)))


def check_side(probability: float, least: float = MIN_SIDE) -> float:
    """The probability, if it is at least ``least``.

    Raises:
        UnusableImage: it may as well be the other hand.
    """
    if probability < least:
        raise UnusableImage(
            f"no usable hand: it is not sure to be a left or a right hand (probability {probability:.2f} of the side "
            f"named, {least} is needed); say which with --hand"
        )
    return probability
