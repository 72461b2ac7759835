"""Where in a picture the hand is, which hand it is, and who says so."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from options.image_options import DETECTOR
from src.photos.detector.detection import Finder, finder_name
from src.photos.detector.search import MIN_SCORE, FoundHand, KeypointReader
from src.photos.estimator import Keypoints
from src.photos.image import Photo, UnusableImage, shown_name
from utils.camera import mirror_points, square_box
from utils.files import READ_ERRORS

#: A box of a hand may reach beyond the picture, but not be so many times as long as its longer side.
LARGEST_BOX = 3.0


@dataclass(frozen=True)
class Region:
    """A hand to look at.

    Attributes:
        box: (3,) tight square, centre x, centre y, side, px of the picture as it is; source: who says so.
        is_left: a left hand; side_source: who says so.
        keypoints: of the picture as it is, where finding the hand gave them.
        score: of the search with a keypoint network, probability of our own detector, or None.
    """

    box: np.ndarray
    source: str
    is_left: bool
    side_source: str
    keypoints: Keypoints | None = None
    score: float | None = None


@dataclass(frozen=True)
class Refused:
    """A hand that was found and is not believed: where, and why."""

    region: Region
    reason: str


def choose_regions(
    photo: Photo,
    bbox: tuple[float, float, float, float] | None = None,
    hand: str | None = None,
    detector: Finder | None = None,
    reader: KeypointReader | None = None,
) -> list[Region]:
    """The hands of a picture, surest first: in ``<name>_bbox.json``, else ``bbox``, else all that the detector finds,
    else the best of a search, else all of the picture.

    Args:
        bbox: left, top, right, bottom, px.
        hand: "left" or "right"; None: what the detector says, else right; "auto": what the detector says, else the
            side that the keypoint network is surer of.
        detector: finds hands, and gives keypoints as well.
        reader: keypoint network to search with; None (there is none, or the network is made to look at whole
            images): the whole image is taken.

    Raises:
        UnusableImage: no hand is there, or the box is none.
        ImportError: mediapipe is not installed; says how to get it.
    """
    given, source = _given_box(photo, bbox)
    if detector is not None:
        return _detected(photo, None if hand == "auto" else hand, given, source, detector)
    if reader is not None and (given is None or hand == "auto"):
        sides = ("right", "left") if hand == "auto" else (hand or "right",)
        by_side = {side: _looked_for(photo, side, given, reader) for side in sides}
        side, best = max(by_side.items(), key=lambda item: item[1].score)
        if given is None and best.score < MIN_SCORE:
            beside = "" if photo.path is None else f" or {shown_name(photo.path.with_suffix(''))}_bbox.json"
            raise UnusableImage(
                f"no usable hand found: the best place scores {best.score:.2f}, {MIN_SCORE} is needed. "
                f"If there is one, say where with --bbox{beside}, or try --keypoints own (handid.load('own')): "
                f"{reader.card.model} knows table tops alone"
            )
        name = reader.card.model
        source = source or f"searched with {name}, score {best.score:.2f}"
        side_source = _side_source(hand)
        if len(by_side) > 1:
            side_source = f"{name}, {best.score:.2f} against {min(one.score for one in by_side.values()):.2f}"
        keypoints = Keypoints(best.keypoints, best.confidence, name)
        return [
            Region(best.box if given is None else given, source, side == "left", side_source, keypoints, best.score)
        ]
    if given is None:
        whole = np.array([0, 0, photo.size[0] - 1, photo.size[1] - 1], dtype=np.float64).reshape(2, 2)
        given, source = square_box(whole, 1.0), "whole image"
    return [Region(given, source, hand == "left", _side_source(hand))]


def _side_source(hand: str | None) -> str:
    return "default" if hand in (None, "auto") else f"--hand {hand}"


def _looked_for(photo: Photo, side: str, given: np.ndarray | None, reader: KeypointReader) -> FoundHand:
    """The best hand of a side, in the box (3,) if one is given; in the picture as it is."""
    width = photo.size[0]
    image = np.ascontiguousarray(photo.image if side == "right" else photo.image[:, ::-1])
    if given is not None:
        best = reader.follow(image, given if side == "right" else mirror_points(given, width), 0)
    else:
        best = reader.search(image)
    if side == "right":
        return best
    return FoundHand(mirror_points(best.box, width), mirror_points(best.keypoints, width), best.confidence, best.score)


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
    beside = photo.beside("_bbox.json")
    if beside is not None:
        name = shown_name(beside)
        try:
            corners = np.asarray(json.loads(beside.read_text(encoding="utf-8")), dtype=np.float64)
        except READ_ERRORS as error:
            raise UnusableImage(f"{name}: must be [left, top, right, bottom] in pixels ({error})") from error
    elif bbox is not None:
        corners, name = np.asarray(bbox, dtype=np.float64), "--bbox"
    else:
        return None, ""
    return checked_box(corners, name, photo.size), name


def _detected(photo: Photo, hand: str | None, given: np.ndarray | None, source: str, detector: Finder) -> list[Region]:
    """The hands that the detector finds, of the side asked for, in the box given; surest first."""
    name = finder_name(detector)
    found = [one for one in detector(photo.image) if hand is None or one.is_left == (hand == "left")]
    if given is not None:
        found = [one for one in found if _inside(one.keypoints_2d.mean(axis=0), given)]
    if not found:
        words = " ".join(part for part in (hand, "hand", f"inside {source}" if source else "") if part)
        raise UnusableImage(f"no usable hand: {name} finds no {words}")
    regions = []
    for one in sorted(found, key=lambda each: -each.score):
        side_source = f"--hand {hand}" if hand else f"{name}, {one.sure_of_side:.2f}"
        # Who says which hand it is need not ask; and of other detectors the score is of the hand, not of its side.
        side_score = None if hand else one.score if name == DETECTOR else one.side_score
        in_space = one.world, side_score, one.only_depths, one.pose
        keypoints = Keypoints(one.keypoints_2d, one.keypoint_confidence, name, *in_space)
        box = square_box(one.keypoints_2d, 1.0) if given is None else given
        score = None if name == DETECTOR else one.score
        regions.append(Region(box, source or name, one.is_left, side_source, keypoints, score))
    return regions


def _inside(point: np.ndarray, box: np.ndarray) -> bool:
    return bool((np.abs(point - box[:2]) <= box[2] / 2).all())
