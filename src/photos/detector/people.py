"""Whether the hands in a person's pictures may be several people's, and how many.

Shapes fitted to single pictures do not tell people apart: each is known hardly better than before (the evidence for one
shape of 37 strangers is no less, a hand, than that of one person's pictures). Nor do clusters of the detector's own 3D
proportions: they differ by some 6% from picture to picture of a person and by 7% from person to person, and one
person's poses fall into clusters as well as people do. Three things tell something: a picture with two right hands
shows two people; how much those proportions differ altogether says how many people could be behind them; and a hand
whose 3D proportions contradict its own points in the picture tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.photos.detector.detection import Detection, disagreement

#: Spread (`proportions_spread`) of one person's hands: six people, each in 7 to 189 pictures, 4.9 to 6.5%.
ONE_PERSON_SPREAD = (0.048, 0.065)
#: What different people add to it, its square: strangers' 8.0, 9.3 and 9.8% (35, 20 and 25 of them) over one person's.
BETWEEN_PEOPLE = 0.070
#: Of fewer hands it says nothing.
ENOUGH = 8
#: m, see `disagreement`. Medians of eleven sets of pictures 3.3 to 4.4 mm; of a hand seen at a slant throughout, with a
#: spread of 10.8%, 6.8.
MOST_DISAGREEMENT = 0.0055


@dataclass(frozen=True)
class HowMany:
    """How many people's hands these may be.

    Attributes:
        hands: that were compared; spread: of their proportions, see `proportions_spread`.
        least, most: people. One person's are refused in none of the sets above, nor in draws of ten of their pictures.
    """

    hands: int
    spread: float
    least: int
    most: int

    def __str__(self) -> str:
        low, high = ONE_PERSON_SPREAD
        people = f"{self.least} to {self.most}" if self.most > self.least else f"{self.least}"
        return (
            f"their proportions differ by {100 * self.spread:.1f}% over {self.hands} hands (one person's: "
            f"{100 * low:.0f} to {100 * high:.1f}%), which would be {people} {'person' if self.most == 1 else 'people'}"
        )


def people_in_picture(hands: Sequence[Detection]) -> int:
    """Least number of people whose hands these are: nobody has two right hands."""
    left = sum(hand.is_left for hand in hands)
    return max(left, len(hands) - left)


def proportions_spread(worlds: np.ndarray) -> float:
    """Standard deviation of the logarithms of finger lengths, palm length and palm breadth over their mean, the median
    of the seven, of 3D hands (N,21,3) m in standard order."""
    bones = np.linalg.norm(np.diff(worlds[:, 1:].reshape(-1, 5, 4, 3), axis=2), axis=3)
    palm = np.linalg.norm(worlds[:, [9, 17]] - worlds[:, [0, 5]], axis=2)
    lengths = np.log(np.concatenate([bones.sum(axis=2), palm], axis=1))
    return float(np.median((lengths - lengths.mean(axis=1, keepdims=True)).std(axis=0, ddof=1)))


def how_many(hands: Sequence[Detection]) -> HowMany | None:
    """See `HowMany`; None: it cannot be told, of too few hands or without usable 3D points.

    K people who are equally often seen differ by (1 - 1 / K) of what different people add to the variance.
    """
    usable = [hand for hand in hands if hand.world is not None and not hand.only_depths]
    worlds = [one.world for one in usable if disagreement(one.keypoints_2d, one.world) <= MOST_DISAGREEMENT]
    if len(worlds) < ENOUGH:
        return None
    spread, n = proportions_spread(np.array(worlds)), len(worlds)
    off = 1 / np.sqrt(n)  # 95%, of one person's hands drawn at random

    def people(seen: float, one: float) -> int:
        share = (seen**2 - one**2) / BETWEEN_PEOPLE**2
        return n if share >= 1 - 1 / n else max(1, round(1 / (1 - share)))

    low, high = ONE_PERSON_SPREAD
    least = max(2, people(spread / (1 + off), high)) if spread > high * (1 + off) else 1
    return HowMany(n, spread, least, max(least, people(spread * (1 + off), low)))
