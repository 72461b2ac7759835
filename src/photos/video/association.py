"""Which of the hands found in a frame is which of those that are followed (Kuhn 1955, the Hungarian method)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from src.photos.result import Result
from src.photos.video.sights import Sight, is_same_hand
from src.photos.video.track import COMES_BACK, GONE, Track, TrackedHand, is_clear, layout_of
from utils.camera import square_box
from utils.joints import BONES

#: How far from its expected place a hand may be, in sides of its box: at once, and more with every second unseen.
REACH, REACH_PER_S, LONGEST_REACH = 0.7, 4.0, 4.0
#: Factor of its size at once; unseen, more.
SIZE, SIZE_PER_S = 1.7, 1.0
#: Weights against the distance over `REACH`: of the size, of a side that contradicts, of fingers that lie otherwise.
_SIZE, _SIDE, _LAYOUT = 0.8, 0.6, 1.5
#: A hand read further than this from its expected place, in sides of the box, is another one.
JUMP = 0.6
#: A new hand closer to one that is seen, in sides of the box, must look like the other side.
CROWDED = 0.6
#: What seems so much further away than another hand, with this part of its keypoints within so much of its bones, in
#: sides of the other's box, is no hand behind it.
BEHIND, MOST, ON_BONE = 1.4, 0.65, 0.08
#: Side votes of two hands below which they are a left and a right one, although both look like one side.
WEAK_VOTES = 4.0
#: What two windows on one hand together say of its side (log-odds), from which that counts before the distance.
LEAST_VOTES = 0.5
#: Side votes (log-odds) from which a contradiction forbids.
SURE_OF_SIDE = 3.0


def cost(track: Track, sight: Sight, seconds: float, side_counts: bool = True) -> float:
    """How unlike this hand a sight is; infinite where it cannot be."""
    expected, box = track.motion.at(seconds), sight.region.box
    unseen = _unseen(track, seconds)
    reach = min(REACH + REACH_PER_S * unseen, LONGEST_REACH)
    distance = float(np.linalg.norm(box[:2] - expected[:2]) / max(expected[2], box[2]))
    if distance > reach or not _has_its_size(track, sight, seconds) or _is_another(track, sight, seconds):
        return math.inf
    size = abs(math.log(box[2] / expected[2]))
    side = 0.0
    if side_counts and track.left * sight.left < 0:
        if min(abs(track.left), abs(sight.left)) >= SURE_OF_SIDE:
            return math.inf
        side = math.tanh(min(abs(track.left), abs(sight.left)))
    layout = 0.0
    if track.layout is not None and sight.region.keypoints is not None and unseen < 0.3:
        layout = float(np.linalg.norm(layout_of(sight) - track.layout, axis=1).mean())
    return distance / REACH + _SIZE * size + _SIDE * side + _LAYOUT * layout


def _unseen(track: Track, seconds: float) -> float:
    return max(seconds - track.motion.seconds, 0.0) if track.misses else 0.0


def _has_its_size(track: Track, sight: Sight, seconds: float) -> bool:
    """A hand's box grows and shrinks, but not at once."""
    size = abs(math.log(sight.region.box[2] / track.motion.box[2]))
    return size <= math.log(SIZE) + SIZE_PER_S * min(_unseen(track, seconds), 1.0)


def _is_another(track: Track, sight: Sight, seconds: float) -> bool:
    """It lies where something else than the missing hand is known to be."""
    is_recent = seconds - track.motion.seconds <= GONE
    return is_recent and track.not_at is not None and _is_at(sight.region.box, track.not_at)


def tells_side(box: np.ndarray, is_left: bool, seen: Sequence[tuple[np.ndarray, bool]]) -> bool:
    """What looks like a left (or right) hand in ``box`` (3,) px is one, unless that one is followed elsewhere.

    Then it is rather the other one, misread, than a third hand.

    Args:
        seen: boxes (3,) of hands that are followed, and whether they are left ones.
    """
    theirs = [one for one, side in seen if side == is_left]
    return not theirs or any(is_close(box, one) for one in theirs)


def match(tracks: Sequence[Track], sights: Sequence[Sight], seconds: float) -> list[tuple[Track, Sight]]:
    """Pairs of least total cost, as many as can be; those that are unsure for whom no sure one is."""
    pairs: list[tuple[Track, Sight]] = []
    for is_sure in (True, False):
        left = [track for track in tracks if not any(track is one for one, _ in pairs)]
        asked = [sight for sight in sights if sight.is_sure == is_sure]
        if not left or not asked:
            continue
        costs = np.array([[cost(track, sight, seconds) for sight in asked] for track in left])
        possible = np.isfinite(costs)
        rows, columns = linear_sum_assignment(np.where(possible, costs, 1e6))
        pairs += [(left[r], asked[c]) for r, c in zip(rows, columns, strict=True) if possible[r, c]]
    return pairs


def returning(away: Sequence[Track], seen: Sequence[Track], sight: Sight, seconds: float) -> Track | None:
    """The hand that is away and comes back as ``sight``: near where it was, or the only one of its side.

    Args:
        away: hands that are not seen; seen: hands that are.
    """
    there = [one for one in away if seconds - one.motion.seconds <= COMES_BACK]
    there = [one for one in there if not _is_another(one, sight, seconds)]
    is_left = sight.left > 0
    tells = tells_side(sight.region.box, is_left, [(one.motion.box, one.is_left) for one in seen if one.is_confirmed])
    near = [(cost(track, sight, seconds, tells), track.number, track) for track in there]
    best = min(near, default=None)
    if best is not None and math.isfinite(best[0]):
        return best[2]
    same = [track for track in there if track.is_left == is_left and _has_its_size(track, sight, seconds)]
    if len(same) == 1 and not any(track.is_left == is_left for track in seen):
        return same[0]
    return None


def part(tracks: Sequence[Track], sights: dict[int, Sight], seconds: float) -> None:
    """Of two tracks that lie on one hand only the likelier one has seen it: that of the side which both windows say."""
    by_number = {track.number: track for track in tracks}
    for first in sorted(sights):
        for second in sorted(sights):
            if first >= second or first not in sights or second not in sights:
                continue
            pair = sights[first], sights[second]
            # Read as the other side, a hand's keypoints lie elsewhere, but no window shows it clearly so.
            hides = lies_on(*pair) and is_clear(pair[0]) != is_clear(pair[1])
            if hides or is_same_hand(*pair):
                unclear = {n: hides and not is_clear(sights[n]) for n in (first, second)}
                left = pair[0].left + pair[1].left  # where both were hidden, the nearer one may be the other hand
                other = {n: abs(left) > LEAST_VOTES and by_number[n].left * left < 0 for n in (first, second)}
                costs = {n: cost(by_number[n], sights[n], seconds) for n in (first, second)}
                loser = max(costs, key=lambda n: (unclear[n], not by_number[n].is_confirmed, other[n], costs[n], n))
                del sights[loser]


def name_sides(tracks: Sequence[Track]) -> None:
    """Two hands of one side, of which one's votes are few, are a left and a right one: what is seen from then on says
    whether that was right, so it is said of a hand once."""
    sure = [track for track in tracks if track.is_confirmed and not track.misses]
    if len(sure) != 2 or sure[0].is_left != sure[1].is_left:
        return
    weaker = min(sure, key=lambda track: abs(track.left))
    if abs(weaker.left) < WEAK_VOTES and not weaker.is_named:
        weaker.left, weaker.is_named = -weaker.left / 2, True


def vote(tracks: Sequence[Track], sights: dict[int, Sight]) -> None:
    """A left and a right hand that are seen at once: what both look like says nothing of either."""
    seen = [track for track in tracks if track.is_confirmed and track.number in sights]
    if len(seen) != 2 or seen[0].is_left == seen[1].is_left or min(abs(track.left) for track in seen) < WEAK_VOTES:
        return
    one, two = (sights[track.number] for track in seen)
    half = (one.left - two.left) / 2
    sights |= {seen[0].number: replace(one, left=half), seen[1].number: replace(two, left=-half)}


def crowds(new: Sight, seen: Sight) -> bool:
    """A new hand lies on one that is seen and looks like the same side: rather a part of that one."""
    return is_close(new.region.box, seen.region.box) and not new.left * seen.left < 0


def is_close(one: np.ndarray, two: np.ndarray) -> bool:
    """Two boxes (3,) px are beside each other or on each other."""
    return bool(np.linalg.norm(one[:2] - two[:2]) < CROWDED * max(one[2], two[2]))


def lies_on(sight: Sight, other: Sight) -> bool:
    """Both are in one place, whatever their keypoints."""
    return _is_at(sight.region.box, other.region.box)


def _is_at(one: np.ndarray, two: np.ndarray) -> bool:
    """Two boxes (3,) px are on each other."""
    return bool(np.linalg.norm(one[:2] - two[:2]) < JUMP / 2 * max(one[2], two[2]))


def is_part(hand: Result, other: Result) -> bool:
    """It seems much further away than the other hand, which would hide it, and yet lies on that one's bones."""
    far, near = (float(np.linalg.norm(one.joints.mean(axis=0))) for one in (hand, other))
    if far < BEHIND * near:
        return False
    start, end = (other.keypoints[list(ends)] for ends in zip(*BONES, strict=True))
    along, from_start = end - start, hand.keypoints[:, None] - start
    share = ((from_start * along).sum(axis=2) / np.maximum((along**2).sum(axis=1), 1e-9)).clip(0, 1)
    distance = np.linalg.norm(from_start - share[..., None] * along, axis=2).min(axis=1)
    return bool((distance < ON_BONE * square_box(other.keypoints, 1.0)[2]).mean() >= MOST)


def yields(hand: TrackedHand, other: TrackedHand) -> bool:
    """Of two hands of a person that cannot both be seen, as one `is_part` of the other, this is the less sure one."""
    one, two = hand.result, other.result
    if one is None or two is None or hand.person != other.person:
        return False
    return bool(one.confidence.mean() < two.confidence.mean()) and (is_part(one, two) or is_part(two, one))


def is_near(box: np.ndarray, expected: np.ndarray) -> bool:
    """A box that was read may be the hand that was expected."""
    side = max(box[2], expected[2])
    ratio = box[2] / expected[2]
    return bool(np.linalg.norm(box[:2] - expected[:2]) <= JUMP * side and 1 / SIZE <= ratio <= SIZE)
