"""Hands before they were found: a hand that is found, or found again, was often there some frames earlier.

Only what has been recorded can be looked at again; a stream shows each frame as it comes.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from src.photos.boxes import Region
from src.photos.estimator import Keypoints
from src.photos.image import Photo, UnusableImage
from src.photos.result import Result
from src.photos.video.association import JUMP, is_near, yields
from src.photos.video.sights import Sight, is_same_hand
from src.photos.video.track import GONE, BoxMotion, Track, TrackedHand, has_kept_size, trust_of
from src.photos.video.tracker import HandTracker
from utils.camera import square_box

#: Frames are kept for so long, s, and while their pictures have no more bytes.
REACH, MOST_BYTES = GONE, 2**28
#: Frames in a row in which a hand is not found, from which it is no longer looked for.
MOST_MISSES = 2
#: Sides of its box that a hand may move in a second.
FASTEST = 20.0
#: Mean confidence by which a hand may be less sure than what is somewhere else, and still be the hand.
LESS_SURE = 0.1
#: A hand further than this, in sides of its box, from where the frame after it leads to was something else.
AT = 0.3


@dataclass(frozen=True)
class _Past:
    """A frame that may be looked at again; hands: by track."""

    number: int
    seconds: float
    photo: Photo
    hands: dict[int, TrackedHand]


class LookBack:
    """Follows hands backwards, from where a tracker found them to where they are no longer seen.

    Args:
        tracker: that was called with every frame.
    """

    def __init__(self, tracker: HandTracker) -> None:
        self.tracker = tracker
        self._past: deque[_Past] = deque()
        self._searched: set[int] = set()

    def add(
        self, number: int, photo: Photo, seconds: float, hands: Iterable[TrackedHand]
    ) -> Iterator[tuple[int, TrackedHand]]:
        """Take in what the tracker said of frame ``number``; gives hands of earlier frames, by their numbers.

        Args:
            photo: the frame, taken at ``seconds``.
        """
        if not self.tracker.looker.can_read:
            return
        now = _Past(number, seconds, photo, {hand.track: hand for hand in hands})
        self._past.append(now)
        most = MOST_BYTES // max(photo.image.nbytes, 1)
        while len(self._past) > most or seconds - self._past[0].seconds > REACH:
            self._past.popleft()
        seen = {one.track for one in now.hands.values() if one.result is not None and one.is_confirmed}
        moved = {track.number for track in self.tracker.tracks if track.is_found_anew}
        for track in [one for one in self.tracker.tracks if one.number in seen & (moved | (seen - self._searched))]:
            found, elsewhere = self._backwards(track)
            if elsewhere is not None:  # what was found is another hand, and that one is missing since
                for hand in self.tracker.divide(track, elsewhere.hands[track.number].result, elsewhere.seconds):
                    now.hands[hand.track] = hand
                    yield number, hand
                continue
            for past, hand in found:
                past.hands[track.number] = hand
                yield past.number, hand
        self._searched = seen

    def _backwards(self, track: Track) -> tuple[list[tuple[_Past, TrackedHand]], _Past | None]:
        """The hand in the latest gap of its track, or where its window had slid off it, latest frame first; and the
        frame that shows it elsewhere, too far away for one hand."""
        read: list[tuple[_Past, TrackedHand]] = []
        later = self._past[-1].hands[track.number].result
        motion = BoxMotion(later.box, -self._past[-1].seconds)
        misses, is_before = 0, False
        for past in list(self._past)[-2::-1]:
            hand = past.hands.get(track.number)
            known = None if hand is None else hand.result
            if known is not None and _is_at(known, motion.at(-past.seconds)):
                if is_before:  # the other end of the gap
                    break
                later = known
                motion.update(later.box, -past.seconds)
                continue
            is_before = True
            found = self._read(past, track, motion, later)
            misses = misses + 1 if found is None else 0
            if known is not None and (found is None or known.confidence.mean() >= found.result.confidence.mean()):
                if _is_elsewhere(known, found, read, past.seconds):
                    return [], past
                if found is not None:
                    break
            if misses >= MOST_MISSES:
                break
            if found is None:
                continue
            later = found.result
            read.append((past, found))
        return read, None

    def _read(self, past: _Past, track: Track, motion: BoxMotion, later: Result) -> TrackedHand | None:
        """The hand where ``motion`` leads to; None: it is not there, or another one is."""
        tracker, expected = self.tracker, motion.at(-past.seconds)
        followed = {one.number for one in tracker.tracks}
        there = [hand for number, hand in past.hands.items() if hand.result is not None
                 and number != track.number and (hand.is_confirmed or number in followed)]  # fmt: skip
        others = [_sight_of(hand.result) for hand in there]
        boxes = [(one.region.box, one.region.is_left) for one in others]
        sight = tracker.read(past.photo, track, expected, boxes)
        if sight is None or not is_near(sight.region.box, expected) or not has_kept_size(track, sight):
            return None
        if any(is_same_hand(sight, one) for one in others):
            return None
        moved = copy.deepcopy(motion)
        moved.update(sight.region.box, -past.seconds, trust_of(sight.region.score))
        try:
            found = tracker.look(past.photo, track, replace(sight, region=replace(sight.region, box=moved.box)), later)
        except UnusableImage:
            return None
        person = tracker.people.number(track)
        hand = TrackedHand(track.number, moved.box.copy(), track.is_left, track.is_confirmed, person, found)
        if any(yields(hand, one) for one in there):
            return None
        vars(motion).update(vars(moved))
        found.notes["looked_back"] = True
        return hand


def _is_at(result: Result, expected: np.ndarray) -> bool:
    """Its keypoints lie where the hand should be."""
    box = square_box(result.keypoints, 1.0)
    return bool(np.linalg.norm(box[:2] - expected[:2]) <= AT * max(box[2], expected[2]))


def _is_elsewhere(
    known: Result, found: TrackedHand | None, read: list[tuple[_Past, TrackedHand]], seconds: float
) -> bool:
    """The hand that was ``known`` at ``seconds`` cannot be what was ``read`` after it and ``found`` then: that is too
    far away, in more than one frame, and not much surer."""
    sure = [hand.result.confidence.mean() for _, hand in read]
    if len(read) < 2 or known.confidence.mean() < np.mean(sure) - LESS_SURE:
        return False
    if found is not None and is_same_hand(_sight_of(found.result), _sight_of(known)):
        return False
    past, hand = read[-1]
    one, two = (square_box(result.keypoints, 1.0) for result in (known, hand.result))
    reach = max(FASTEST * (past.seconds - seconds), JUMP)
    return bool(np.linalg.norm(one[:2] - two[:2]) > reach * max(one[2], two[2]))


def _sight_of(result: Result) -> Sight:
    box = np.asarray(result.box, dtype=np.float64)
    points = Keypoints(result.keypoints, result.confidence, "")
    return Sight(Region(box, "", result.side == "left", "", points), 0.0)
