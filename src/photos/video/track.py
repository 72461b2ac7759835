"""One hand through a video: where it will be, which side it is, and whether it is still believed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from src.photos.result import Result
from src.photos.video.sights import CLEAR, Sight

#: A velocity fades with this time, s; of what a frame says of it, this part is taken over.
MEMORY, GAIN = 0.15, 0.6
#: Scores of a window between which its box is believed less and less; its place never less than so far.
DOUBTED, BELIEVED, LEAST_TRUST = 0.35, 0.65, 0.5
#: Factor by which a box may differ from the last clear one's while its windows are not.
UNCLEAR_SIZE = 1.4
#: Frames in which a new hand must be seen and searches that must find it before it is one, and frames in a row without
#: it that end it before.
BIRTH, FINDS, STILLBIRTH = 3, 2, 2
#: A hand that is not seen for this long is gone, s; for this long it may come back as the same one.
GONE, COMES_BACK = 1.0, 10.0
#: Neighbouring frames say nearly the same of the side: so much of a look counts, and the sum stays within a bound.
VOTE, MOST_VOTES = 0.5, 20.0


class BoxMotion:
    """Constant velocity of a square's centre, fading as nothing is seen; its size stays.

    Args:
        box: (3,) centre x, centre y, side, px; seconds: when it was seen.
    """

    def __init__(self, box: np.ndarray, seconds: float) -> None:
        self.box, self._velocity, self.seconds = np.array(box, dtype=np.float64), np.zeros(2), seconds

    def at(self, seconds: float) -> np.ndarray:
        """Box (3,) expected then."""
        reach = MEMORY * -math.expm1(-max(seconds - self.seconds, 0.0) / MEMORY)
        return np.append(self.box[:2] + reach * self._velocity, self.box[2])

    def update(self, box: np.ndarray, seconds: float, trust: float = 1.0) -> None:
        """It was seen there; ``trust`` in (0,1]: how far, against what was expected."""
        step, expected = seconds - self.seconds, self.at(seconds)
        centre = expected[:2] + max(trust, LEAST_TRUST) * (box[:2] - expected[:2])
        if step > 0:
            velocity, old = (centre - self.box[:2]) / step, self._velocity * math.exp(-step / MEMORY)
            # After a gap the mean velocity over it says little of the present one.
            self._velocity = old + GAIN * min(1.0, MEMORY / step) * (velocity - old)
        self.box = np.append(centre, expected[2] * (box[2] / expected[2]) ** trust)
        self.seconds = max(seconds, self.seconds)


@dataclass
class Track:
    """A hand that is followed.

    Attributes:
        number: from 1, never used again. motion: of its box. left: log-odds of a left hand.
        sight: the last one; layout: (21,2) its keypoints about the box's middle, over the side, or None.
        result: of the last frame in which it was seen, or None. hits: frames in which it was seen; finds: searches that
            found it. clear_side: of its box when it was last seen clearly, px, or None.
        is_confirmed: it is a hand. misses: frames in a row in which it was not seen. reason: why not.
        is_doubtful: fit and keypoints of the last frame disagree.
        contradictions: searches in a row that found it elsewhere; denials: that did not find it, nor did
            the detector's own keypoint network take what its window shows for a hand.
        is_found_anew: in this frame, by a search, and not by its window.
        not_at: box (3,) px of what was taken for it while it is missing, or None.
    """

    number: int
    motion: BoxMotion
    left: float
    sight: Sight
    layout: np.ndarray | None = None
    result: Result | None = None
    hits: int = 0
    finds: int = 1
    clear_side: float | None = None
    is_confirmed: bool = False
    misses: int = 0
    reason: str = ""
    is_doubtful: bool = False
    contradictions: int = 0
    denials: int = 0
    is_found_anew: bool = False
    is_named: bool = False
    not_at: np.ndarray | None = None

    @classmethod
    def born(cls, number: int, sight: Sight, seconds: float) -> Track:
        """A hand seen for the first time."""
        return cls(number, BoxMotion(sight.region.box, seconds), sight.left, sight)

    @property
    def is_left(self) -> bool:
        """What most votes say."""
        return self.left > 0

    @property
    def side_probability(self) -> float:
        """Of the side."""
        return 1 / (1 + math.exp(-abs(self.left)))

    def see(self, sight: Sight, seconds: float) -> None:
        """It was seen in a frame."""
        is_found = not self.hits or self.is_found_anew
        self.motion.update(sight.region.box, seconds, 1.0 if is_found else trust_of(sight.region.score))
        self.sight, self.not_at = sight, None
        if is_clear(sight):
            self.clear_side = float(self.motion.box[2])
        if sight.region.keypoints is not None:
            self.layout = layout_of(sight)
        if self.hits:  # the first one's word is what the track was born with
            self.left = float(np.clip(self.left + VOTE * sight.left, -MOST_VOTES, MOST_VOTES))
        self.hits, self.misses, self.reason = self.hits + 1, 0, ""
        self.is_confirmed = self.is_confirmed or (self.hits >= BIRTH and self.finds >= FINDS)

    def miss(self, reason: str) -> None:
        """It was not seen in a frame."""
        self.misses, self.reason, self.result, self.is_doubtful = self.misses + 1, reason, None, False

    def is_over(self, seconds: float) -> bool:
        """It has not been seen for too long."""
        if not self.is_confirmed:
            return self.misses >= STILLBIRTH
        return self.misses > 0 and seconds - self.motion.seconds > GONE


@dataclass(frozen=True)
class TrackedHand:
    """A followed hand in one frame.

    track: its number, from 1; is_confirmed: seen often enough to be one; person: whose it is, from 0.
    result: what was found, or None, and then reason: why, and failed: by an unexpected error.
    box: (3,) px, where it is or should be; is_left: as voted so far.
    """

    track: int
    box: np.ndarray
    is_left: bool
    is_confirmed: bool
    person: int = 0
    result: Result | None = None
    reason: str = ""
    failed: Exception | None = None


def is_clear(sight: Sight) -> bool:
    """A window shows a hand beyond doubt, or nobody gives scores."""
    return sight.region.score is None or sight.region.score >= CLEAR


def has_kept_size(track: Track, sight: Sight) -> bool:
    """What is seen unclearly has about the size of what was seen clearly."""
    if is_clear(sight) or track.clear_side is None:
        return True
    return abs(math.log(sight.region.box[2] / track.clear_side)) <= math.log(UNCLEAR_SIZE)


def trust_of(score: float | None) -> float:
    """How far a box is believed that was read with this mean confidence: doubtful ones shrink from frame to frame."""
    return 1.0 if score is None else float(np.clip((score - DOUBTED) / (BELIEVED - DOUBTED), 0.1, 1.0))


def layout_of(sight: Sight) -> np.ndarray:
    """(21,2) keypoints about the box's middle, over its side."""
    box = sight.region.box
    return (sight.region.keypoints.points - box[:2]) / box[2]
