"""The hands in a person's own photos as `Predictions`: detector, camera, and a fit to the keypoints alone."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.personalization.calibration.from_keypoints import KeypointHands
from src.personalization.solver.status import CalibrationError
from src.photos.camera import Camera, choose_camera
from src.photos.detector.detection import Detection, Finder, mirrored
from src.photos.detector.mediapipe_hands import find_hands
from src.photos.detector.people import HowMany, how_many, people_in_picture
from src.photos.detector.refusal import MIN_HAND_PX, MIN_SIDE
from src.photos.image import Photo, UnusableImage, check_regular, file_stem, list_photos, read_photo, shown_name
from src.photos.perspective import MARGIN, seen_there
from utils.camera import mirror_intrinsics, square_box
from utils.cameras.lens import CameraModel
from utils.cameras.views import View

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhotoHand:
    """One hand of a photo, in the right-hand convention.

    Attributes:
        name: of the file and the side; image_id: made of the file's content and the side.
        hand: mirrored if it is a left one; K: (3,3) px, mirrored alike.
        is_left: the hand in the photo is a left one. camera: what K rests on.
    """

    name: str
    image_id: int
    hand: Detection
    K: np.ndarray
    is_left: bool
    camera: Camera


def find_photo_hands(
    folder: str | os.PathLike | Sequence[str | os.PathLike],
    side: str | None = None,
    K: Camera | None = None,
    fov: float | None = None,
    finder: Finder = find_hands,
) -> list[PhotoHand]:
    """At most one right and one left hand in each image of a folder, or of those named; what is left out is logged
    with the reason.

    Args:
        side: "left" or "right", only those; None: both (a person's hands share their shape).
        K, fov: see `choose_camera`.

    Raises:
        FileNotFoundError, ValueError: no folder, no image in it. ImportError: no detector.
        CalibrationError: no hand in any image.
    """
    if isinstance(folder, str | os.PathLike):
        photos = list_photos(folder)
    else:
        photos = [(file_stem(Path(path)), Path(path)) for path in folder]
    hands, known, errors, people = [], set(), [], 1
    for name, path in photos:
        shown = shown_name(path)
        try:
            check_regular(path)
            digest = hashlib.sha256(path.read_bytes()).digest()
            if digest in known:
                raise UnusableImage(f"{shown}: the same picture as one before it")
            known.add(digest)
            photo = read_photo(path, name)
            camera = choose_camera(photo, K, fov)
            found = [_photo_hand(photo, camera, hand, digest) for hand in believed(finder(photo.image), side, shown)]
        except ImportError:  # there is no detector
            raise
        except SeveralPeople as error:
            people = max(people, error.count)
            logger.warning("%s; left out", error)
        except UnusableImage as error:
            logger.warning("%s; left out", error if str(error).startswith(shown) else f"{shown}: {error}")
        except Exception as error:  # one picture stops no other
            errors.append(f"{shown}: {type(error).__name__}: {error}")
            logger.warning("%s; left out", errors[-1])
            logger.debug("%s", path, exc_info=True)
        else:
            hands += found
    if not hands:
        failed = f"; {len(errors)} of them failed (first: {errors[0]})" if errors else ""
        raise CalibrationError(
            f"--images {folder}: no {f'{side} ' if side else ''}hand found in any of {len(photos)} images{failed}. "
            f"Whole hands of at least {MIN_HAND_PX:.0f} px are needed, better a quarter of the picture, in good light"
        )
    if people > 1:
        logger.warning(
            "are all hands one person's? A picture shows at least %d people. One shape is made of all that are used",
            people,
        )
    guessed = [hand.camera.source for hand in hands if hand.camera.is_guess]
    warn_of_guesses(guessed, len(hands))
    return hands


def warn_of_guesses(guessed: list[str], count: int) -> None:
    """Say in the log of how many of ``count`` hands the camera is a guess, by the sources of those."""
    if guessed:
        logger.warning(
            "%d of %d hands are in pictures whose camera is a guess (%s): give K or fov; shapes suffer, and distances "
            "scale with it",
            len(guessed),
            count,
            guessed[0],
        )


def check_one_person(hands: Sequence[Detection], accept_conflict: bool = False) -> HowMany | None:
    """How many people's hands these seem to be; None: it cannot be told.

    Raises:
        CalibrationError: surely several people's, unless they are accepted.
    """
    found = how_many(hands)
    if found is None:
        logger.warning("whether all %d hands are one person's cannot be told from them", len(hands))
    elif found.least > 1:
        said = f"these are not one person's hands: {found}"
        if not accept_conflict:
            raise CalibrationError(
                f"{said}. Keep one person's pictures, or use --accept_conflict if they are all the same"
            )
        logger.warning("%s; one shape is made of all (accept_conflict)", said)
    else:
        logger.info("one person's hands, as far as can be told: %s", found)
    return found


class SeveralPeople(UnusableImage):
    """A picture shows hands of at least ``count`` people."""

    def __init__(self, shown: str, count: int) -> None:
        super().__init__(f"{shown}: hands of at least {count} people; crop it to those of one person")
        self.count = count


def believed(found: list[Detection], side: str | None, shown: str) -> list[Detection]:
    """The hands of a picture that say something of one person's shape: at most one right and one left.

    Raises:
        UnusableImage: none; ``shown`` names the picture. SeveralPeople: two hands of one side.
    """
    large = [hand for hand in found if hand.size >= MIN_HAND_PX and (side is None or hand.is_left == (side == "left"))]
    wanted = [hand for hand in large if hand.sure_of_side >= MIN_SIDE]
    if side is not None and not wanted:
        wanted = large  # who says the side is surer of it than the detector
    if people_in_picture(wanted) > 1:
        raise SeveralPeople(shown, people_in_picture(wanted))
    if not wanted:
        reasons = "; ".join(
            f"{hand.size:.0f} px large, sure to be {'left' if hand.is_left else 'right'} to {hand.sure_of_side:.2f}"
            for hand in found
        )
        what = f"no {f'{side} ' if side else ''}hand found"
        remedy = "; where you know the side, say it (--hand)" if large and side is None else ""
        raise UnusableImage(f"{shown}: {what}" + (f" that is usable (found: {reasons}){remedy}" if reasons else ""))
    return wanted


def _photo_hand(photo: Photo, camera: Camera, hand: Detection, digest: bytes) -> PhotoHand:
    width, K = photo.size[0], camera.K
    if camera.lens is not None:
        hand, view = through_lens(hand, camera.lens)
        width, K = view.size, view.K
    number = int.from_bytes(digest[:6], "big") * 2 + hand.is_left
    name = f"{shown_name(photo.path or Path(photo.name))}, {'left' if hand.is_left else 'right'} hand"
    if not hand.is_left:
        return PhotoHand(name, number, hand, K, False, camera)
    return PhotoHand(name, number, mirrored(hand, width), mirror_intrinsics(K, width), True, camera)


def through_lens(hand: Detection, lens: CameraModel) -> tuple[Detection, View]:
    """A hand of a picture with distortion (px) as a pinhole camera that faces it shows it, and that camera's view.

    Keypoints that it does not see are believed not at all.

    Raises:
        UnusableImage: the lens sees nothing there.
    """
    try:
        view = View.of_box(lens, square_box(hand.keypoints_2d, 1.0), MARGIN)
    except ValueError as error:
        raise UnusableImage(str(error)) from error
    points, trust = seen_there(view.to_view(hand.keypoints_2d), hand.keypoint_confidence, (view.size - 1) / 2)
    return replace(hand, keypoints_2d=points, keypoint_confidence=trust), view


def keypoint_hands(hands: list[PhotoHand]) -> KeypointHands:
    """What is seen of them, to be fitted."""
    seen, unknown = [hand.hand for hand in hands], np.full((21, 3), np.nan)
    poses = [one.pose for one in seen if one.pose is not None]
    return KeypointHands(
        np.stack([one.keypoints_2d for one in seen]),
        np.stack([hand.K for hand in hands]),
        np.stack([one.keypoint_confidence for one in seen]),
        np.array([hand.is_left for hand in hands]),
        np.array([hand.image_id for hand in hands], dtype=np.int64),
        [hand.name for hand in hands],
        np.stack([unknown if one.world is None else one.world for one in seen]),
        np.stack(poses) if len(poses) == len(seen) else None,
    )
