"""Lengths of a hand that lies flat beside a card or a sheet of paper, for a calibration."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.image_crop import whole_image_box
from options.image_options import DETECTOR
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import LENGTHS, LengthCue
from src.photos.camera import Camera, choose_camera
from src.photos.detector.detection import Finder, finder_name
from src.photos.hands import believed
from src.photos.image import read_photo, shown_name
from src.photos.measuring.plane import check_corners, find_rectangle, homography, points_mm
from utils.cameras.views import View

logger = logging.getLogger(__name__)

#: Lengths that such a picture tells, and how exactly, m: most of the error is where the detector's points lie on this
#: person's hand. Two scans of a hand differ by 0.5 mm in its length, 1.4 mm in a finger's. Thumbs are seldom straight.
STD_M = {"hand": 0.003, **dict.fromkeys(("index", "middle", "ring", "little"), 0.0025), "palm_width": 0.0025}
#: How much longer a finger is, from its knuckle to its end, than along mediapipe's points of a flat hand, as a part of
#: that: the mean over five scans. A detector sees no size: of a child's hand they are as much nearer together.
#: Its tips end 8.0, 8.5, 7.6 and 6.3 mm before the finger does there; it puts the knuckle of the index nearer to the
#: wrist, and those of index and little finger as far apart as they are.
#: Its wrist and its middle fingertip are 15.2 mm nearer together than joint and tip (of hands of 175 mm), as landmarks
#: say that were learned of straight and bent fingers alike; those with bends say 11.9, and 17.2 if learned with hands
#: known to be flat.
BEYOND = {"hand": 0.095, "index": 0.060, "middle": 0.101, "ring": 0.117, "little": 0.096, "palm_width": 0.0}
#: Height of the 21 points above the table, mm, of a hand of `HEIGHTS_OF` m: half as thick as the hand is there.
HEIGHT_MM, HEIGHTS_OF = np.array([15.0, 13, 11, 9, 7, *(12.0, 8, 7, 5) * 4]), 0.185
#: A stretched middle finger is at most so much longer along its joints than straight from wrist to tip.
MOST_BENT = 1.03


def flat_hand_cues(
    picture: str | os.PathLike,
    kind: str,
    finder: Finder,
    side: str | None = None,
    corners: np.ndarray | None = None,
    K: Camera | None = None,
    fov: float | None = None,
) -> tuple[LengthCue, ...]:
    """What one picture of a flat hand beside a rectangle says of its lengths.

    Args:
        kind: of `RECTANGLES`; corners: (4,2) px, about its outline, a long side first; None: looked for.
        side: "left" or "right" hand, None: the surest.
        K, fov: see `choose_camera`; hardly matters.

    Raises:
        CalibrationError: no hand, no rectangle, or a hand that is not flat; names the picture and the remedy.
    """
    path = Path(picture)
    if not path.is_file():
        raise CalibrationError(f"--{kind} {path}: no such file")
    try:
        photo = read_photo(path)
        camera = choose_camera(photo, K, fov)
        if corners is not None and not ((corners >= -0.5) & (corners <= np.array(photo.size) - 0.5)).all():
            raise ValueError(
                f"--corners {np.round(corners, 1).ravel().tolist()} are not all inside its {photo.size[0]} x "
                f"{photo.size[1]} pixels; are they of another size of it, or before it was turned upright?"
            )
        if camera.lens is not None:  # its picture made straight
            view = View.of_box(camera.lens, whole_image_box(*photo.size), 1.0)
            photo, camera = replace(photo, path=None, image=view.image(photo.image)), Camera(view.K, camera.source)
            corners = None if corners is None else view.to_view(corners)
        hand = believed(finder(photo.image), side, shown_name(path))[0]
        corners = (
            find_rectangle(photo.image, kind, camera.K) if corners is None else check_corners(corners, kind, camera.K)
        )
    except ValueError as error:  # of the picture, or a lens that does not see its middle
        raise CalibrationError(f"--{kind} {path}: {error}") from error
    plane = homography(corners, kind)
    beyond, lengths = BEYOND if finder_name(finder) == DETECTOR else {}, {"hand": HEIGHTS_OF}
    for _ in range(2):  # a small hand is thin
        heights = HEIGHT_MM * lengths["hand"] / HEIGHTS_OF
        points = points_mm(hand.keypoints_2d, plane, heights, camera.K) / 1000
        lengths = joint_lengths(points, beyond)
    straight = np.linalg.norm(points[12] - points[0])
    along = np.linalg.norm(np.diff(points[[0, 9, 10, 11, 12]], axis=0), axis=1).sum()
    if not 0.08 < straight < 0.3 or along > MOST_BENT * straight:
        raise CalibrationError(
            f"--{kind} {path}: the hand is not flat and stretched beside the {kind} ({1000 * along:.0f} mm along the "
            f"middle finger's joints, {1000 * straight:.0f} mm straight); are the corners right, --corners?"
        )
    logger.info("%s: %s mm", path, ", ".join(f"{name} {1000 * mm:.1f}" for name, mm in lengths.items()))
    return tuple(LengthCue(name, length, STD_M[name]) for name, length in lengths.items())


def joint_lengths(points: np.ndarray, beyond: Mapping[str, float] = BEYOND) -> dict[str, float]:
    """Lengths of the hand, m, of the detector's points (21,2) m of a flat hand.

    The detector's points are not the hand's joints and ends; how far they differ on flat hands ``beyond`` says (our own
    detector's points are joints and ends). Along the joints; "hand" as a ruler measures it, straight.
    """
    along = {name: np.linalg.norm(np.diff(points[list(LENGTHS[name])], axis=0), axis=1).sum() for name in STD_M}
    return {name: float(length) * (1 + beyond.get(name, 0.0)) for name, length in along.items()}
