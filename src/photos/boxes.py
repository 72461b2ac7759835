"""Where in a picture the hand is, which hand it is, and who says so."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from src.photos.estimator import Keypoints
from src.photos.image import Photo, UnusableImage, shown_name
from src.photos.result import mirror_box
from src.photos.search import MIN_SCORE, KeypointReader
from utils.camera import square_box

#: A box of a hand may reach beyond the picture, but not be so many times as long as its longer side.
LARGEST_BOX = 3.0


@dataclass(frozen=True)
class Region:
    """A hand to look at.

    Attributes:
        box: (3,) tight square, centre x, centre y, side, px of the picture as it is; source: who says so.
        is_left: a left hand; side_source: who says so.
        keypoints: of the picture as it is, where finding the hand gave them.
    """

    box: np.ndarray
    source: str
    is_left: bool
    side_source: str
    keypoints: Keypoints | None = None


def choose_region(
    photo: Photo,
    bbox: tuple[float, float, float, float] | None = None,
    hand: str | None = None,
    keypoints: str = "network",
    reader: KeypointReader | None = None,
) -> Region:
    """The hand of a picture: ``<name>_bbox.json``, else ``bbox``, else the detector, else a search, else all of it.

    Args:
        photo: the picture.
        bbox: left, top, right, bottom, px.
        hand: "left" or "right"; None: what the detector says, else right.
        keypoints: "mediapipe" asks that detector, which gives keypoints as well.
        reader: keypoint network to search with; None (there is none, or the network is made to look at whole
            images): the whole image is taken.

    Raises:
        UnusableImage: no hand is there, or the box is none.
        ImportError: mediapipe is not installed; says how to get it.
    """
    side = hand or "right"
    side_source = "default" if hand is None else f"--hand {hand}"
    given, source = _given_box(photo, bbox)
    if keypoints == "mediapipe":
        return _detected(photo, hand, given, source)
    if given is not None:
        return Region(given, source, side == "left", side_source)
    if reader is None:
        whole = np.array([0, 0, photo.size[0] - 1, photo.size[1] - 1], dtype=np.float64).reshape(2, 2)
        return Region(square_box(whole, 1.0), "whole image", side == "left", side_source)
    image = photo.image if side == "right" else photo.image[:, ::-1]
    best = reader.search(np.ascontiguousarray(image))
    if best.score < MIN_SCORE:
        raise UnusableImage(
            f"no usable hand found: the best place scores {best.score:.2f}, {MIN_SCORE} is needed. "
            f"If there is one, say where with --bbox or {shown_name(photo.path.with_suffix(''))}_bbox.json"
        )
    box, keypoints = best.box, Keypoints(best.keypoints, best.confidence, reader.card.model)
    if side == "left":
        box, keypoints = mirror_box(box, photo.size[0]), keypoints.mirrored(photo.size[0])
    source = f"searched with {reader.card.model}, score {best.score:.2f}"
    return Region(box, source, side == "left", side_source, keypoints)


def checked_box(corners: np.ndarray, source: str, size: tuple[int, int]) -> np.ndarray:
    """Tight square (3,) around left, top, right, bottom.

    Raises:
        UnusableImage: not four numbers in that order, or outside the picture of ``size`` (width, height).
    """
    if corners.shape != (4,) or not np.isfinite(corners).all() or not (corners[2:] - corners[:2] > 2).all():
        raise UnusableImage(f"{source}: {corners.tolist()} must be LEFT TOP RIGHT BOTTOM in pixels")
    if (corners[2:] < 0).any() or (corners[:2] > size).any():
        raise UnusableImage(f"{source}: {corners.tolist()} lies outside the picture of {size[0]} x {size[1]} pixels")
    if (corners[2:] - corners[:2]).max() > LARGEST_BOX * max(size):
        raise UnusableImage(f"{source}: {corners.tolist()} is far larger than the picture of {size[0]} x {size[1]}")
    return square_box(corners.reshape(2, 2), 1.0)


def _given_box(photo: Photo, bbox: tuple[float, ...] | None) -> tuple[np.ndarray | None, str]:
    beside = photo.path.with_name(f"{photo.path.stem}_bbox.json")
    if beside.is_file():
        name = shown_name(beside)
        try:
            corners = np.asarray(json.loads(beside.read_text(encoding="utf-8")), dtype=np.float64)
        except (ValueError, TypeError, OSError, OverflowError) as error:
            raise UnusableImage(f"{name}: must be [left, top, right, bottom] in pixels ({error})") from error
        return checked_box(corners, name, photo.size), name
    if bbox is not None:
        return checked_box(np.asarray(bbox, dtype=np.float64), "--bbox", photo.size), "--bbox"
    return None, ""


def _detected(photo: Photo, hand: str | None, given: np.ndarray | None, source: str) -> Region:
    """The surest hand that mediapipe finds, of the side asked for, in the box given."""
    from src.photos.detector import find_hands, of_side

    hands = of_side(find_hands(photo.image), hand)
    if given is not None:
        hands = [one for one in hands if _inside(one.keypoints_2d.mean(axis=0), given)]
    if not hands:
        words = " ".join(part for part in (hand, "hand", f"inside {source}" if source else "") if part)
        raise UnusableImage(f"no usable hand: mediapipe finds no {words}")
    best = hands[0]
    keypoints = Keypoints(best.keypoints_2d, best.keypoint_confidence, "mediapipe", best.world)
    box = square_box(best.keypoints_2d, 1.0) if given is None else given
    side_source = f"--hand {hand}" if hand else f"mediapipe, {best.score:.2f}"
    return Region(box, source or "mediapipe", best.is_left, side_source, keypoints)


def _inside(point: np.ndarray, box: np.ndarray) -> bool:
    return bool((np.abs(point - box[:2]) <= box[2] / 2).all())
