"""Which of the hands found in a frame is which of those that are followed (Kuhn 1955, the Hungarian method)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from src.photos.video.sights import Sight
from src.photos.video.track import COMES_BACK, Track, layout_of

#: How far from its expected place a hand may be, in sides of its box: at once, and more with every second unseen.
REACH, REACH_PER_S, LONGEST_REACH = 0.7, 4.0, 4.0
#: Factor of its size at once; unseen, more.
SIZE, SIZE_PER_S = 1.7, 1.0
#: Weights against the distance over `REACH`: of the size, of a side that contradicts, of fingers that lie otherwise.
_SIZE, _SIDE, _LAYOUT = 0.8, 0.6, 1.5
#: Side votes (log-odds) from which a contradiction forbids.
SURE_OF_SIDE = 3.0


def cost(track: Track, sight: Sight, seconds: float) -> float:
    """How unlike this hand a sight is; infinite where it cannot be."""
    expected, box = track.motion.at(seconds), sight.region.box
    unseen = max(seconds - track.motion.seconds, 0.0) if track.misses else 0.0
    reach = min(REACH + REACH_PER_S * unseen, LONGEST_REACH)
    largest = math.log(SIZE) + SIZE_PER_S * min(unseen, 1.0)
    distance = float(np.linalg.norm(box[:2] - expected[:2]) / max(expected[2], box[2]))
    size = abs(math.log(box[2] / expected[2]))
    if distance > reach or size > largest:
        return math.inf
    side = 0.0
    if track.left * sight.left < 0:
        if min(abs(track.left), abs(sight.left)) >= SURE_OF_SIDE:
            return math.inf
        side = math.tanh(min(abs(track.left), abs(sight.left)))
    layout = 0.0
    if track.layout is not None and sight.region.keypoints is not None and unseen < 0.3:
        layout = float(np.linalg.norm(layout_of(sight) - track.layout, axis=1).mean())
    return distance / REACH + _SIZE * size + _SIDE * side + _LAYOUT * layout


def match(tracks: Sequence[Track], sights: Sequence[Sight], seconds: float) -> list[tuple[Track, Sight]]:
    """Pairs of least total cost, as many as can be."""
    if not tracks or not sights:
        return []
    costs = np.array([[cost(track, sight, seconds) for sight in sights] for track in tracks])
    possible = np.isfinite(costs)
    rows, columns = linear_sum_assignment(np.where(possible, costs, 1e6))
    return [(tracks[r], sights[c]) for r, c in zip(rows, columns, strict=True) if possible[r, c]]


def returning(away: Sequence[Track], seen: Sequence[Track], sight: Sight, seconds: float) -> Track | None:
    """The hand that is away and comes back as ``sight``: near where it was, or the only one of its side.

    Args:
        away: hands that are not seen; seen: hands that are.
    """
    there = [track for track in away if seconds - track.motion.seconds <= COMES_BACK]
    near = [(cost(track, sight, seconds), track.number, track) for track in there]
    best = min(near, default=None)
    if best is not None and math.isfinite(best[0]):
        return best[2]
    is_left = sight.left > 0
    same = [track for track in there if track.is_left == is_left]
    if len(same) == 1 and not any(track.is_left == is_left for track in seen):
        return same[0]
    return None
