"""One hand through a video: where it will be, which side it is, and whether it is still believed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from src.photos.result import Result
from src.photos.video.sights import Sight

#: A box's velocity fades with this time, s; of what a frame says of it, this part is taken over.
MEMORY, GAIN = 0.15, 0.6
#: Frames in which a new hand must be seen before it is one, and frames in a row without it that end it before.
BIRTH, STILLBIRTH = 3, 2
#: A hand that is not seen for this long is gone, s; for this long it may come back as the same one.
GONE, COMES_BACK = 1.0, 10.0
#: Neighbouring frames say nearly the same of the side: so much of a look counts, and the sum stays within a bound.
VOTE, MOST_VOTES = 0.5, 20.0


class BoxMotion:
    """Constant velocity of centre and size (as a logarithm) of a square, fading as nothing is seen.

    Args:
        box: (3,) centre x, centre y, side, px; seconds: when it was seen.
    """

    def __init__(self, box: np.ndarray, seconds: float) -> None:
        self._state, self._velocity, self.seconds = _to_state(box), np.zeros(3), seconds

    def at(self, seconds: float) -> np.ndarray:
        """Box (3,) expected then."""
        reach = MEMORY * -math.expm1(-max(seconds - self.seconds, 0.0) / MEMORY)
        return _to_box(self._state + reach * self._velocity)

    def update(self, box: np.ndarray, seconds: float) -> None:
        """It was seen there."""
        step, now = seconds - self.seconds, _to_state(box)
        if step > 0:
            velocity = (now - self._state) / step
            old = self._velocity * math.exp(-step / MEMORY)
            # After a gap the mean velocity over it says little of the present one.
            gain = GAIN * min(1.0, MEMORY / step)
            self._velocity = old + gain * (velocity - old)
        self._state, self.seconds = now, max(seconds, self.seconds)


def _to_state(box: np.ndarray) -> np.ndarray:
    return np.array([box[0], box[1], math.log(box[2])])


def _to_box(state: np.ndarray) -> np.ndarray:
    return np.array([state[0], state[1], math.exp(state[2])])


@dataclass
class Track:
    """A hand that is followed.

    Attributes:
        number: from 1, never used again. motion: of its box. left: log-odds of a left hand.
        sight: the last one; layout: (21,2) its keypoints about the box's middle, over the side, or None.
        result: of the last frame in which it was seen, or None. hits: frames in which it was seen.
        is_confirmed: it is a hand. misses: frames in a row in which it was not seen. reason: why not.
        is_doubtful: fit and keypoints of the last frame disagree.
        contradictions: searches in a row that found it elsewhere.
    """

    number: int
    motion: BoxMotion
    left: float
    sight: Sight
    layout: np.ndarray | None = None
    result: Result | None = None
    hits: int = 0
    is_confirmed: bool = False
    misses: int = 0
    reason: str = ""
    is_doubtful: bool = False
    contradictions: int = 0

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
        box = sight.region.box
        self.motion.update(box, seconds)
        self.sight = sight
        if sight.region.keypoints is not None:
            self.layout = layout_of(sight)
        if self.hits:  # the first one's word is what the track was born with
            self.left = float(np.clip(self.left + VOTE * sight.left, -MOST_VOTES, MOST_VOTES))
        self.hits, self.misses, self.reason = self.hits + 1, 0, ""
        self.is_confirmed = self.is_confirmed or self.hits >= BIRTH

    def miss(self, reason: str) -> None:
        """It was not seen in a frame."""
        self.misses, self.reason, self.result, self.is_doubtful = self.misses + 1, reason, None, False

    def is_over(self, seconds: float) -> bool:
        """It has not been seen for too long."""
        if not self.is_confirmed:
            return self.misses >= STILLBIRTH
        return self.misses > 0 and seconds - self.motion.seconds > GONE


def layout_of(sight: Sight) -> np.ndarray:
    """(21,2) keypoints about the box's middle, over its side."""
    box = sight.region.box
    return (sight.region.keypoints.points - box[:2]) / box[2]
