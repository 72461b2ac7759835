"""Whether the hands in a person's pictures may be several people's.

Shapes fitted to single pictures do not tell people apart: each is known hardly better than before (the evidence for one
shape of 37 strangers is no less, a hand, than that of one person's pictures). Two things tell something: a picture with
two right hands shows two people, and how much the detector's own 3D proportions differ from picture to picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from src.photos.detector.detection import Detection

#: Standard deviation of the logarithms of finger lengths, palm length and palm breadth over their mean, median of the
#: seven. Four sets of pictures of one person each: 4.8 to 6.5% (a fifth, seen at a slant throughout: 10.8%); three sets
#: of strangers: 8.4, 9.6 and 11.1%.
ONE_PERSON_SPREAD = 0.075
#: Of fewer hands it says nothing.
ENOUGH = 8


def people_in_picture(hands: Sequence[Detection]) -> int:
    """Least number of people whose hands these are: nobody has two right hands."""
    left = sum(hand.is_left for hand in hands)
    return max(left, len(hands) - left)


def proportions_spread(hands: Sequence[Detection]) -> float | None:
    """How much the proportions of the detector's 3D hands differ, see `ONE_PERSON_SPREAD`; None: too few to say."""
    worlds = np.array([hand.world for hand in hands if hand.world is not None])
    if len(worlds) < ENOUGH:
        return None
    bones = np.linalg.norm(np.diff(worlds[:, 1:].reshape(-1, 5, 4, 3), axis=2), axis=3)
    palm = np.linalg.norm(worlds[:, [9, 17]] - worlds[:, [0, 5]], axis=2)
    lengths = np.log(np.concatenate([bones.sum(axis=2), palm], axis=1))
    return float(np.median((lengths - lengths.mean(axis=1, keepdims=True)).std(axis=0)))
