"""What a video frame shows of hands: searched for everywhere, or read in a window where one should be."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import numpy as np

from src.photos.api import PhotoEstimator
from src.photos.boxes import Region
from src.photos.detector.own_hands import (
    DETECTOR_WEIGHTS,
    OwnHands,
    RatedReader,
    in_space,
    logit,
    mean_pose,
    open_own_hands,
)
from src.photos.detector.search import KeypointReader, limited, several_looks
from src.photos.estimator import Keypoints
from src.photos.image import Photo, UnusableImage
from utils.camera import square_box

logger = logging.getLogger(__name__)

#: Mean confidence of the keypoints below which a window shows no hand.
LOST = 0.35
#: Log-odds of the side: of a detector that only names it, and per unit of difference in mean confidence between a
#: window and its mirror image.
NAMED_SIDE, PER_CONFIDENCE = 1.0, 24.0
#: The same per unit of what the network of all places says of it, asked where the former is not sure: in 88 such of 538
#: windows of validation people 75% of the sides are right without and 91% with it (0.5 to 1), in the others 98%.
PER_EVIDENCE = 0.5
#: No single look says more of the side (log-odds). A window whose mirror image says so much shows the other hand.
MOST_OF_A_LOOK = 3.0
#: Mean confidence of the table-top network from which a proposed place is a hand, if the network of all places gives
#: the same keypoints' box so much. Of proposals on four clips of validation people, hands have 0.46 to 0.87 and 0.43 to
#: 0.99, other things 0.41 to 0.56 and 0 to 0.53.
#: Where hands cross, the first is less sure, 0.36 to 0.53, and the second stays so, 0.73 to 0.89.
PLACES = {0.45: 0.55, 0.3: 0.7}
#: The latter below which what a followed window shows is no hand, and the former from which it is not asked of each.
HARDLY, CLEAR = 0.2, 0.55
#: Windows over the box, of which the surest is believed. In one that is too large, keypoints are too far apart, and the
#: next window is larger still; in one that is too small they are not too close.
SIZES = (1.0, 0.85)
#: Windows beside one that shows no hand clearly, in sides of the box, and how much surer one of them must be.
AROUND, SURER = np.array([(0.2, 0, 0), (-0.2, 0, 0), (0, 0.2, 0), (0, -0.2, 0), (0, 0, 0.3)]), 0.05
#: The source of a box that a track itself gave.
FOLLOWED = "followed"


@dataclass(frozen=True)
class Sight:
    """A hand at one place of a frame.

    region: where, with its keypoints if they were read. left: log-odds of a left hand.
    is_sure: enough for a new hand; else only for one that is followed and missing.
    is_others: a window's mirror image is so much surer that it shows the other hand.
    """

    region: Region
    left: float
    is_sure: bool = True
    is_others: bool = False


#: Box (3,), keypoints (21,2) and confidence (21,) of a window.
Reading = tuple[np.ndarray, np.ndarray, np.ndarray]


class Looker:
    """Who finds hands in frames; this one by `PhotoEstimator.regions`, which cannot read a window.

    Attributes:
        every: frames from one search of the whole picture to the next while all is well; None: there is one hand, whose
            place was said, and it is looked for where it is missing.
        again: the same while a hand is missing.
        can_read: `read` looks at the picture; else it only gives back the box.
    """

    can_read = False

    def __init__(self, tools: PhotoEstimator, every: int | None, again: int) -> None:
        self.tools, self.every, self.again = tools, every, again

    def find(self, photo: Photo) -> list[Sight]:
        """All hands, surest first. Raises UnusableImage, with the reason, if there is none."""
        return [self.sight(region) for region in self.tools.regions(photo)]

    def sight(self, region: Region) -> Sight:
        """How far a region says which side its hand is."""
        score = None if region.keypoints is None else region.keypoints.side_score
        said = NAMED_SIDE if score is None else min(math.log(score / max(1 - score, 1e-3)), MOST_OF_A_LOOK)
        return Sight(region, said if region.is_left else -said)

    def read(self, photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        """The hand of a side in a window about the box (3,), px; None: there is none."""
        return Sight(Region(limited(box, photo.image), FOLLOWED, is_left, FOLLOWED), 0.0)

    def is_hand(self, photo: Photo, sight: Sight) -> bool:
        """Whether what was read in a window and no search found is a hand after all."""
        return True

    def rate(self, photo: Photo, sight: Sight) -> float:
        """How well a window fits the hand in it, to compare windows on one hand."""
        return 0.0


class OwnWindows(Looker):
    """Our own detector, and its keypoint network in windows."""

    can_read = True

    def __init__(self, tools: PhotoEstimator, reader: RatedReader) -> None:
        super().__init__(replace(tools, detector=tools.detector.searching_closely()), every=5, again=2)
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
        points = several_looks(
            np.stack([first.keypoints[0], pair.keypoints[0]]), np.stack([first.confidence[0], confidence])
        )
        evidence = float(logit(pair.is_left[1]) - logit(pair.is_left[0])) / 2
        left = np.clip(evidence if not is_left else -evidence, -MOST_OF_A_LOOK, MOST_OF_A_LOOK)
        own = pair.rows(np.array([0]))
        (world,), (pose,) = in_space(points[None], own), mean_pose(own)
        keypoints = Keypoints(points, confidence, self.tools.detector.name, world, only_depths=True, pose=pose)
        region = Region(square_box(points, 1.0), FOLLOWED, is_left, FOLLOWED, keypoints, float(confidence.mean()))
        return Sight(region, float(-left))


class NetworkWindows(Looker):
    """The keypoint network of the table-top networks in windows; places come from our own detector, or a search."""

    can_read = True

    def __init__(self, tools: PhotoEstimator, reader: KeypointReader, finder: OwnHands | None, is_given: bool) -> None:
        super().__init__(tools, every=None if is_given else 5, again=5 if finder is None or is_given else 2)
        self.reader, self.finder, self.is_given = reader, finder, is_given

    def find(self, photo: Photo) -> list[Sight]:
        if self.finder is None or self.is_given:
            return super().find(photo)
        asked = self.tools.hand if self.tools.hand in ("left", "right") else None
        sides, rated = (False, True) if asked is None else (asked == "left",), []
        squares = self.finder.proposals(photo.image)[0]
        count, found = len(squares), []
        if count:
            looks = self._look(photo.image, np.tile(squares, (len(sides), 1)), np.repeat(sides, count))
            by_place = [looks[place::count] for place in range(count)]
            found = [(one, max(one, key=lambda look: look[2].mean())) for one in by_place]
            found = [(one, best) for one, best in found if best[2].mean() >= LOST]
        agreeing, said = self._judge(photo.image, np.stack([best[0] for _, best in found])) if found else ([], [])
        for (looks, best), agrees, left in zip(found, agreeing, said, strict=True):
            sure = float(best[2].mean())
            is_left = sides[[look is best for look in looks].index(True)]
            sight = told(self._sight(best, is_left, looks[1 - int(is_left)] if asked is None else None), left)
            is_sure = any(sure >= place and agrees >= least for place, least in PLACES.items())
            if is_sure or agrees >= HARDLY:
                region = replace(sight.region, source=self.finder.name)
                rated.append((sure + float(agrees), replace(sight, region=region, is_sure=is_sure)))
        if not rated:
            raise UnusableImage(f"no usable hand: {self.finder.name} and {self.reader.card.model} find none")
        return _each_once(rated)

    def read(self, photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        image = photo.image
        look, other = self._look(image, limited(box, image)[None], is_left, and_mirrored=True)
        if look[2].mean() < CLEAR:
            around = np.stack([limited(one, image) for one in box + AROUND * box[2]])
            best = max(self._look(image, around, is_left), key=lambda one: one[2].mean())
            gain = best[2].mean() - look[2].mean()
            if gain > SURER:
                theirs, ours = self._judge(image, np.stack([best[0], look[0]]))[0]
                look, other = (best, None) if gain + theirs - ours > SURER else (look, other)
        sure, judged = look[2].mean(), None
        if sure < LOST:
            return None
        if sure < CLEAR:
            judged = self._judge(image, look[0][None])
            if self.finder is not None and judged[0][0] < HARDLY:
                return None
        if other is None:
            points, confidence = self._read(image, look[0][None], not is_left)
            other = look[0], points[0], confidence[0]
        sight = self._sight(look, is_left, other)
        sign = 1 if is_left else -1
        if self.tools.hand in ("left", "right") or sign * sight.left >= MOST_OF_A_LOOK:
            return sight
        judged = self._judge(image, look[0][None]) if judged is None else judged
        sight = told(sight, judged[1][0])
        return replace(sight, is_others=sign * sight.left <= -MOST_OF_A_LOOK)

    def is_hand(self, photo: Photo, sight: Sight) -> bool:
        box = limited(sight.region.box, photo.image)
        return self.finder is None or self._judge(photo.image, box[None])[0][0] >= HARDLY

    def rate(self, photo: Photo, sight: Sight) -> float:
        """See `Looker`: how sure both networks are. The first alone is often surer of a hand with its forearm."""
        agrees = self._judge(photo.image, limited(sight.region.box, photo.image)[None])[0][0]
        return 0.0 if self.finder is None else sight.region.score + float(agrees)

    def _judge(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) how sure our network of all places is, which saw more than hands: the other is sure of sleeves too; and
        (N,) how far it takes each for a left hand."""
        if self.finder is None:
            return np.zeros(len(boxes)), np.zeros(len(boxes))
        rated = self.finder.reader.read(image, boxes.repeat(2, axis=0), np.tile([False, True], len(boxes)))
        sure = rated.confidence.mean(axis=1).reshape(-1, 2).max(axis=1)
        return sure, -np.diff(logit(rated.is_left).reshape(-1, 2))[:, 0] / 2

    def _look(
        self, image: np.ndarray, boxes: np.ndarray, is_left: bool | np.ndarray, and_mirrored: bool = False
    ) -> list[Reading]:
        """Hands of a side each, read in ``boxes`` (N,3) and then in the box found.

        Args:
            and_mirrored: N more readings, of the same boxes as the other side.
        """
        count, is_left = len(boxes), np.broadcast_to(is_left, len(boxes))
        before, sure = self._read(image, boxes, is_left)
        boxes = np.stack([limited(square_box(points, 1.0), image) for points in before])
        if and_mirrored:
            boxes, is_left = np.concatenate([boxes, boxes]), np.concatenate([is_left, ~is_left])
        points, confidence = self._read(image, boxes, is_left)
        points[:count] = several_looks(np.stack([before, points[:count]]), np.stack([sure, confidence[:count]]))
        return list(zip(boxes, points, confidence, strict=True))

    def _read(self, image: np.ndarray, boxes: np.ndarray, is_left: bool | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (N,21,2) and confidence (N,21) of the surest of the windows about each of ``boxes`` (N,3)."""
        windows = np.concatenate([boxes * [1, 1, size] for size in SIZES])
        sides = np.tile(np.broadcast_to(is_left, len(boxes)), len(SIZES))
        points, confidence = self.reader.read(image, windows, sides)
        points, confidence = points.reshape(-1, len(boxes), 21, 2), confidence.reshape(-1, len(boxes), 21)
        best = confidence.mean(axis=2).argmax(axis=0), np.arange(len(boxes))
        return points[best], confidence[best]

    def _sight(self, look: Reading, is_left: bool, other: Reading | None) -> Sight:
        """``look`` at the side ``is_left``, beside what the ``other`` side's look gave."""
        _, points, confidence = look
        name, sure = self.reader.card.model, float(confidence.mean())
        gain = NAMED_SIDE if other is None else PER_CONFIDENCE * (sure - float(other[2].mean()))
        left = float(np.clip(gain, -MOST_OF_A_LOOK, MOST_OF_A_LOOK)) * (1 if is_left else -1)
        keypoints = Keypoints(points, confidence, name)
        region = Region(square_box(points, 1.0), FOLLOWED, is_left, name, keypoints, sure)
        return Sight(region, left)


def told(sight: Sight, left: float) -> Sight:
    """The sight, with what the network of all places says of its side too (log-odds of a left hand)."""
    left = float(np.clip(sight.left + PER_EVIDENCE * left, -MOST_OF_A_LOOK, MOST_OF_A_LOOK))
    return replace(sight, left=left)


def _each_once(rated: list[tuple[float, Sight]]) -> list[Sight]:
    """The sights, best rated first, without those whose keypoints lie on a better one's."""
    kept: list[Sight] = []
    for _, sight in sorted(rated, key=lambda one: (not one[1].is_sure, -one[0])):
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
        return Looker(tools, every=1, again=1)
    if tools.reader is None or tools.estimator.card.crop == "image":
        return Looker(tools, every=None, again=5)
    finder = None
    if tools.weights is not None and (tools.weights.parent / DETECTOR_WEIGHTS).is_file():
        finder = open_own_hands(tools.weights.parent, tools.reader.device).searching_closely()
    return NetworkWindows(tools, tools.reader, finder, is_given)
