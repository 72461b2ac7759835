"""What a video frame shows of hands: searched for everywhere, or read in a window where one should be."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from src.photos.api import PhotoEstimator
from src.photos.boxes import Region
from src.photos.detector.own_hands import DETECTOR_WEIGHTS, OwnHands, RatedReader, logit, open_own_hands
from src.photos.estimator import Keypoints
from src.photos.image import Photo, UnusableImage
from src.photos.result import mirror_box, mirror_points
from src.photos.search import KeypointReader, limited
from utils.camera import square_box

logger = logging.getLogger(__name__)

#: Mean confidence of the keypoints below which a window shows no hand.
LOST = 0.35
#: Log-odds of the side: of a detector that only names it, and per unit of difference in mean confidence between a
#: window and its mirror image.
NAMED_SIDE, PER_CONFIDENCE = 1.0, 12.0
#: No single look says more of the side (log-odds).
MOST_OF_A_LOOK = 3.0
#: Mean confidence of the table-top network from which a proposed place is a hand, if the network of all places gives
#: the same keypoints' box so much. Of proposals on four clips of validation people, hands have 0.46 to 0.87 and 0.43 to
#: 0.99, other things 0.41 to 0.56 and 0 to 0.53.
#: Where hands cross, the first is less sure, 0.36 to 0.53, and the second stays so, 0.73 to 0.89.
PLACES = {0.45: 0.55, 0.3: 0.7}
#: A place that a search proposes is moved so often to the keypoints found there.
MOVES = 3
#: The source of a box that a track itself gave.
FOLLOWED = "followed"


@dataclass(frozen=True)
class Sight:
    """A hand at one place of a frame.

    region: where, with its keypoints if they were read. left: log-odds of a left hand.
    """

    region: Region
    left: float


class Looker(Protocol):
    """Who finds hands in frames.

    Attributes:
        every: frames from one search of the whole picture to the next while all is well; None: there is one hand, whose
            place was said, and it is looked for where it is missing.
        again: the same while a hand is missing.
        can_read: `read` looks at the picture; else it only gives back the box.
    """

    every: int | None
    again: int
    can_read: bool

    def find(self, photo: Photo) -> list[Sight]:
        """All hands, surest first. Raises UnusableImage, with the reason, if there is none."""

    def read(self, photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        """The hand of a side in a window about the box (3,), px; None: there is none."""


class Regions:
    """What `PhotoEstimator.regions` gives, which cannot read a window: a box given, a detector, the whole picture."""

    can_read = False

    def __init__(self, tools: PhotoEstimator, every: int | None, again: int) -> None:
        self.tools, self.every, self.again = tools, every, again

    def find(self, photo: Photo) -> list[Sight]:
        """See `Looker`."""
        return [self.sight(region) for region in self.tools.regions(photo)]

    def sight(self, region: Region) -> Sight:
        """How far a region says which side its hand is."""
        score = None if region.keypoints is None else region.keypoints.side_score
        said = NAMED_SIDE if score is None else min(math.log(score / max(1 - score, 1e-3)), MOST_OF_A_LOOK)
        return Sight(region, said if region.is_left else -said)

    def read(self, photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        """See `Looker`: nothing is looked at."""
        return Sight(Region(limited(box, photo.image), FOLLOWED, is_left, FOLLOWED), 0.0)


class OwnWindows(Regions):
    """Our own detector, and its keypoint network in windows."""

    can_read = True

    def __init__(self, tools: PhotoEstimator, reader: RatedReader) -> None:
        super().__init__(tools, every=5, again=2)
        self.reader = reader

    def read(self, photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        """See `Looker`: once in the box expected, then in the one found, which is mirrored as well to tell the side."""
        image = photo.image
        first = self.reader.read(image, limited(box, image)[None], is_left)
        tight = limited(square_box(first.keypoints[0], 1.0), image)
        pair = self.reader.read(image, np.stack([tight, tight]), np.array([is_left, not is_left]))
        confidence = pair.confidence[0]
        if confidence.mean() < LOST or pair.is_hand[0] < 0.5:
            return None
        weight = np.stack([first.confidence[0], confidence])[..., None] ** 2
        points = (weight * np.stack([first.keypoints[0], pair.keypoints[0]])).sum(axis=0) / weight.sum(axis=0)
        evidence = float(logit(pair.is_left[1]) - logit(pair.is_left[0])) / 2
        left = np.clip(evidence if not is_left else -evidence, -MOST_OF_A_LOOK, MOST_OF_A_LOOK)
        keypoints = Keypoints(points, confidence, self.tools.detector.name)
        region = Region(square_box(points, 1.0), FOLLOWED, is_left, FOLLOWED, keypoints, float(confidence.mean()))
        return Sight(region, float(-left))


class NetworkWindows(Regions):
    """The keypoint network of the table-top networks in windows; places come from our own detector, or a search."""

    can_read = True

    def __init__(self, tools: PhotoEstimator, reader: KeypointReader, finder: OwnHands | None, is_given: bool) -> None:
        super().__init__(tools, every=None if is_given else 5, again=5 if finder is None or is_given else 2)
        self.reader, self.finder, self.is_given = reader, finder, is_given

    def find(self, photo: Photo) -> list[Sight]:
        """See `Looker`."""
        if self.finder is None or self.is_given:
            return super().find(photo)
        asked = self.tools.hand if self.tools.hand in ("left", "right") else None
        sights = []
        for square in self.finder.proposals(photo.image)[0]:
            sides = (False, True) if asked is None else (asked == "left",)
            looks = [self._look(photo.image, square, side, MOVES) for side in sides]
            best = max(looks, key=lambda look: look[2].mean())
            if not self._is_hand(photo.image, best[0], float(best[2].mean())):
                continue
            is_left = sides[[look is best for look in looks].index(True)]
            sight = self._sight(best, is_left, looks[1 - int(is_left)] if asked is None else None)
            sights.append(replace(sight, region=replace(sight.region, source=self.finder.name)))
        if not sights:
            raise UnusableImage(f"no usable hand: {self.finder.name} and {self.reader.card.model} find none")
        return _each_once(sights)

    def read(self, photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        """See `Looker`."""
        look = self._look(photo.image, limited(box, photo.image), is_left)
        if look[2].mean() < LOST:
            return None
        return self._sight(look, is_left, self._read(photo.image, look[0], not is_left))

    def _is_hand(self, image: np.ndarray, box: np.ndarray, sure: float) -> bool:
        """Our network of all places, which has seen more than hands, agrees: the other is ``sure`` of sleeves too."""
        if sure < min(PLACES):
            return False
        rated = self.finder.reader.read(image, np.stack([box, box]), np.array([False, True]))
        agrees = rated.confidence.mean(axis=1).max()
        return any(sure >= place and agrees >= least for place, least in PLACES.items())

    def _look(
        self, image: np.ndarray, box: np.ndarray, is_left: bool, moves: int = 1
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Box, keypoints and confidence of a side's hand, read in ``box`` and then ``moves`` times in the box found."""
        for _ in range(moves):
            _, before, sure = self._read(image, box, is_left)
            box = limited(square_box(before, 1.0), image)
        _, points, confidence = self._read(image, box, is_left)
        weight = np.stack([sure, confidence])[..., None] ** 2  # two windows, two errors
        points = (weight * np.stack([before, points])).sum(axis=0) / weight.sum(axis=0)
        return box, points, confidence

    def _read(self, image: np.ndarray, box: np.ndarray, is_left: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width = image.shape[1]
        if not is_left:
            points, confidence = self.reader.read(image, box[None])
            return box, points[0], confidence[0]
        mirrored = np.ascontiguousarray(image[:, ::-1])
        points, confidence = self.reader.read(mirrored, mirror_box(box, width)[None])
        return box, mirror_points(points[0], width), confidence[0]

    def _sight(self, look: tuple[np.ndarray, ...], is_left: bool, other: tuple[np.ndarray, ...] | None) -> Sight:
        """``look`` at the side ``is_left``, beside what the ``other`` side's look gave."""
        _, points, confidence = look
        name, sure = self.reader.card.model, float(confidence.mean())
        gain = NAMED_SIDE if other is None else PER_CONFIDENCE * (sure - float(other[2].mean()))
        left = float(np.clip(gain, -MOST_OF_A_LOOK, MOST_OF_A_LOOK)) * (1 if is_left else -1)
        keypoints = Keypoints(points, confidence, name)
        region = Region(square_box(points, 1.0), FOLLOWED, is_left, name, keypoints, sure)
        return Sight(region, left)


def _each_once(sights: list[Sight]) -> list[Sight]:
    """The sights, surest first, without those whose keypoints lie on a surer one's."""
    kept: list[Sight] = []
    for sight in sorted(sights, key=lambda one: -(one.region.score or 0.0)):
        if not any(is_same_hand(sight, other) for other in kept):
            kept.append(sight)
    return kept


def is_same_hand(first: Sight, second: Sight, apart: float = 0.3) -> bool:
    """The keypoints (or, without, the boxes' middles) are closer than ``apart`` of the larger box's side."""
    one, two = first.region, second.region
    if one.keypoints is not None and two.keypoints is not None:
        distance = np.linalg.norm(one.keypoints.points - two.keypoints.points, axis=1).mean()
    else:
        distance = np.linalg.norm(one.box[:2] - two.box[:2])
    return bool(distance < apart * max(one.box[2], two.box[2]))


def open_looker(tools: PhotoEstimator, photo: Photo) -> Looker:
    """Who looks for hands with these tools; ``photo``: any frame, whose name may have a box beside it."""
    is_given = tools.bbox is not None or photo.beside("_bbox.json") is not None
    if isinstance(tools.detector, OwnHands):
        return OwnWindows(tools, tools.detector.reader)
    if tools.detector is not None:
        return Regions(tools, every=1, again=1)
    if tools.reader is None or tools.estimator.card.crop == "image":
        return Regions(tools, every=None, again=5)
    finder = None
    if tools.weights is not None and (tools.weights.parent / DETECTOR_WEIGHTS).is_file():
        finder = open_own_hands(tools.weights.parent, tools.reader.device)
    return NetworkWindows(tools, tools.reader, finder, is_given)


def without_keypoints(sight: Sight) -> Sight:
    """For networks of meshes, whose own keypoints belong to their meshes."""
    return replace(sight, region=replace(sight.region, keypoints=None))
