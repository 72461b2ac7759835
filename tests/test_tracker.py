"""Following hands: who is who through crossing, hiding, leaving and mistakes of whoever finds them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from photo_cases import Fixed, hand_at, result_of

from src.photos.api import PhotoEstimator
from src.photos.boxes import Region
from src.photos.detector.detection import Detection
from src.photos.estimator import HandInPicture
from src.photos.estimator import Keypoints as Points
from src.photos.image import Photo, UnusableImage
from src.photos.result import Result
from src.photos.shape_filter import ShapeFilter
from src.photos.video import association
from src.photos.video.people import ENOUGH, People
from src.photos.video.sights import Sight, is_same_hand
from src.photos.video.track import GONE, MEMORY, BoxMotion, Track, TrackedHand, has_kept_size
from src.photos.video.tracker import HandTracker
from utils.camera import mirror_points


def test_a_pose_of_the_other_mirror_image_is_not_told():
    """The track's side counts; what was said of the pose was said of the mirror image."""
    said = Points(np.zeros((21, 2)), np.ones(21), "own detector", pose=np.tile(np.eye(3), (16, 1, 1)))
    tracker = SimpleNamespace(_own_keypoints=False, tools=SimpleNamespace(hand=None))
    track = SimpleNamespace(is_left=False, hits=5, side_probability=0.9)
    for is_left in (False, True):
        region = Region(np.array([5.0, 5, 9]), "", is_left, "", said)
        told = HandTracker._region(tracker, track, Sight(region, 0.0))
        assert not told.is_left and (told.keypoints.pose is None) == is_left


BLANK = np.zeros((480, 640, 3), np.uint8)
HAND = result_of(hand_at(0.6))
SHAPE = HAND.keypoints
SHAPE = (SHAPE - SHAPE.mean(axis=0)) / np.ptp(SHAPE, axis=0).max()


class Keypoints(Fixed):
    """Takes the keypoints that it is told at their word."""

    def estimate(self, seen: HandInPicture) -> Result:
        found = {"keypoints": seen.keypoints.points, "confidence": seen.keypoints.confidence, "box": seen.box}
        return replace(HAND, width=seen.image.shape[1], **found)


class Script:
    """A detector that finds what it is told to, frame by frame."""

    name = "script"

    def __init__(self, frames: list[list[Detection]]) -> None:
        self.frames, self.calls = frames, 0

    def __call__(self, image: np.ndarray) -> list[Detection]:
        self.calls += 1
        return self.frames[self.calls - 1] if self.calls <= len(self.frames) else []


def seen(x: float, y: float, is_left: bool = False, is_right: bool = True) -> Detection:
    """A hand of a side, which the detector names right, or is not."""
    points = SHAPE * ([-1, 1] if is_left else [1, 1])
    return Detection(points * 90 + [x, y], np.ones(21), is_left == is_right, 0.9)


def follow(frames: list[list[Detection]], fps: float = 30) -> tuple[list[list[TrackedHand]], HandTracker]:
    tools = PhotoEstimator(Keypoints(), detector=Script(frames))
    tracker = HandTracker(tools, Path("clip.mp4"), (640, 480))
    return [tracker(Photo("clip", None, BLANK), frame / fps) for frame in range(len(frames))], tracker


def at(hands: list[TrackedHand], x: float, y: float) -> TrackedHand:
    """The hand that was found there."""
    (hand,) = (h for h in hands if h.result is not None and np.abs(h.result.keypoints.mean(axis=0) - [x, y]).max() < 25)
    return hand


def test_hands_that_cross_keep_their_numbers_and_sides() -> None:
    """One passes the other, is hidden for a third of a second there; a detector that errs in a quarter of the sides."""
    rng, frames, truth = np.random.default_rng(0), [], []
    for frame in range(80):
        right, left = (160 + 4.0 * frame, 200 + 10 * math.sin(frame / 9)), (480 - 4.0 * frame, 260.0)
        truth.append((right, left))
        hands = [seen(*right, is_right=rng.random() < 0.75)]
        if not 34 <= frame < 44:
            hands.append(seen(*left, True, rng.random() < 0.75))
        frames.append([hands[place] for place in rng.permutation(len(hands))])
    found, _ = follow(frames)
    first = {at(found[1], *truth[1][0]).track: 0, at(found[1], *truth[1][1]).track: 1}
    assert len(first) == 2
    for frame in range(1, 80):
        for hand in found[frame]:
            if hand.result is not None:
                place = truth[frame][first[hand.track]]
                assert np.abs(hand.result.keypoints.mean(axis=0) - place).max() < 25, frame
        if frame > 15:
            assert [hand.is_left for hand in sorted(found[frame], key=lambda h: first[h.track])] == [False, True]
    (hidden,) = (hand for hand in found[38] if first[hand.track] == 1)
    assert hidden.result is None and "no further hand was found" in hidden.reason  # not: no hand was found yet
    assert all(hand.result is not None for hand in found[45])


def test_who_leaves_and_comes_back_is_the_same() -> None:
    frames = [[seen(300, 200), seen(500, 200, is_left=True)] for _ in range(20)]
    frames += [[seen(300, 200)] for _ in range(60)]  # two seconds
    frames += [[seen(300, 200), seen(40, 400, is_left=True)] for _ in range(20)]  # it comes in elsewhere
    frames += [[seen(300, 200), seen(40, 400, is_left=True), seen(560, 380, is_left=True)] for _ in range(20)]
    found, tracker = follow(frames)
    left = at(found[5], 500, 200).track
    assert len(found[70]) == 1 and at(found[95], 40, 400).track == left
    third = at(found[110], 560, 380)
    assert third.track not in (left, at(found[5], 300, 200).track) and tracker.people.are_several


def test_a_mistake_of_one_frame_is_no_hand() -> None:
    frames = [[seen(300, 200)] + ([seen(550, 400)] if frame == 10 else []) for frame in range(20)]
    found, _ = follow(frames)
    mistake = at(found[10], 550, 400)
    assert not mistake.is_confirmed and all(hand.track != mistake.track for hand in found[-1])
    assert all(hand.is_confirmed for hand in found[-1])


def test_the_first_frame_of_a_video_already_has_its_hands() -> None:
    found, _ = follow([[seen(300, 200)]])
    assert [hand.is_confirmed for hand in found[0]] == [True]


@pytest.mark.parametrize("fps", [1000.0, 30.0, 5.0])
def test_whatever_rate_the_video_claims(fps: float) -> None:
    """And where half of the frames are missing."""
    frames = [[seen(100 + 5 * frame, 200), seen(400, 300, is_left=True)] for frame in range(60)]
    found, tracker = follow(frames[:30] + frames[30::2], fps)
    assert {hand.track for hands in found for hand in hands} == {1, 2}


def test_matching_is_the_cheapest_of_all() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):

        def sight(place: np.ndarray) -> Sight:
            return Sight(Region(np.array([*place, 80.0]), "", False, ""), float(rng.normal()))

        tracks = [Track.born(number, sight(rng.uniform(0, 100, 2)), 0.0) for number in range(3)]
        sights = [sight(rng.uniform(0, 100, 2)) for _ in range(4)]
        costs = np.array([[association.cost(track, one, 0.03) for one in sights] for track in tracks])

        def total(columns: tuple[int, ...], costs: np.ndarray = costs) -> tuple[int, float]:
            each = [costs[row, column] for row, column in enumerate(columns)]
            return sum(map(math.isinf, each)), sum(value for value in each if math.isfinite(value))

        best = min(itertools.permutations(range(4), 3), key=total)
        place = {id(one): column for column, one in enumerate(sights)}
        found = {(track.number, place[id(one)]) for track, one in association.match(tracks, sights, 0.03)}
        assert found == {(row, column) for row, column in enumerate(best) if math.isfinite(costs[row, column])}


def test_motion_is_predicted_and_ends() -> None:
    motion = BoxMotion(np.array([10.0, 20.0, 50.0]), 0.0)
    for frame in range(1, 60):
        motion.update(np.array([10.0 + 3 * frame, 20.0 - frame, 50.0]), frame / 30)
    np.testing.assert_allclose(motion.at(2.0)[:2], [190, -40], atol=1.0)
    far = motion.at(1000.0)
    np.testing.assert_allclose(far[:2] - [187, -39], MEMORY * np.array([90, -30]), rtol=0.15)
    assert far[2] == pytest.approx(50)


def test_doubtful_boxes_do_not_shrink() -> None:
    motion = BoxMotion(np.array([100.0, 100.0, 80.0]), 0.0)
    for frame in range(1, 11):
        motion.update(motion.box * [1, 1, 0.8], frame / 30, trust=0.1)
    assert motion.box[2] > 0.75 * 80


def sight_at(where: np.ndarray, sure: float | None = None) -> Sight:
    """A right hand seen at a place (2,) px, or something that looks like one hardly."""
    points = Points(SHAPE * 90 + where, np.full(21, 1.0 if sure is None else sure), "")
    return Sight(Region(np.array([*where, 90.0]), "followed", False, "", points, 0.9 if sure is None else sure), -1.0)


class Windows:
    """Reads windows, but slides off by some pixels in each frame; a search finds the hand where it is."""

    can_read, every, again = True, 5, 2
    sight = staticmethod(sight_at)

    def __init__(self, slip: float) -> None:
        self.slip = slip

    def find(self, photo: Photo) -> list[Sight]:
        return [self.sight(np.array([300.0, 200.0]))]

    def read(self, photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        return self.sight(box[:2] + [self.slip, 0])

    def is_hand(self, photo: Photo, sight: Sight) -> bool:
        return True

    def rate(self, photo: Photo, sight: Sight) -> float:
        return 0.0


def test_a_window_that_slides_off_is_put_back() -> None:
    tracker = HandTracker(PhotoEstimator(Keypoints()), Path("clip.mp4"), (640, 480))
    tracker.looker = Windows(4.0)
    places = [tracker(Photo("clip", None, BLANK), frame / 30)[0].box[0] for frame in range(60)]
    assert max(places) < 300 + 90 and len(tracker.tracks) == 1  # alone it would run off
    assert min(abs(place - 300) for place in places[30:]) < 10


def test_two_tracks_never_see_one_hand() -> None:
    tracker = HandTracker(PhotoEstimator(Keypoints()), Path("clip.mp4"), (640, 480))
    tracker.looker = looker = Windows(0.0)
    looker.find = lambda _: [looker.sight(np.array([x, 200.0])) for x in (200.0, 400.0)]
    for frame in range(5):
        tracker(Photo("clip", None, BLANK), frame / 30)
    looker.find = lambda _: [looker.sight(np.array([200.0, 200.0]))]
    looker.read = lambda *_: looker.sight(np.array([200.0, 200.0]))  # both windows now show the first hand
    for frame in range(5, 5 + math.ceil(30 * GONE) + 2):
        hands = tracker(Photo("clip", None, BLANK), frame / 30)
        assert [hand.track for hand in hands if hand.result is not None] == [1]
    assert [track.number for track in tracker.tracks] == [1]


@pytest.mark.parametrize(("left", "stays"), [(1.0, 2), (0.2, 1), (-1.0, 1)])
def test_of_two_tracks_on_one_hand_that_of_its_side_stays(left: float, stays: int) -> None:
    """Both were hidden: the nearer one may be the other hand. Where the side is not told, the distance decides."""
    looker = Windows(0.0)
    sights = {number: replace(looker.sight(np.array([200.0, 200.0])), left=left) for number in (1, 2)}
    away = looker.sight(np.array([250.0, 200.0]))
    tracks = [replace(Track.born(number, sight, 0.0), left=votes, is_confirmed=True)
              for number, sight, votes in ((1, sights[1], -20.0), (2, away, 20.0))]  # fmt: skip
    association.part(tracks, sights, 0.1)
    assert list(sights) == [stays]


def with_windows(looker: Windows) -> HandTracker:
    tracker = HandTracker(PhotoEstimator(Keypoints()), Path("clip.mp4"), (640, 480))
    tracker.looker = looker
    return tracker


@pytest.mark.parametrize(("gain", "side"), [(0.0, 126), (0.1, 126), (0.3, 90)])
def test_a_window_that_fits_better_takes_the_place_of_one_on_the_same_hand(gain: float, side: float) -> None:
    """A window that spreads the keypoints over the forearm is on the hand as well, and nothing contradicts it."""
    tracker = with_windows(looker := Windows(0.0))
    right = looker.sight(np.array([300.0, 200.0]))
    points = replace(right.region.keypoints, points=SHAPE * 126 + [290.0, 200.0])
    spread = replace(right, region=replace(right.region, box=np.array([290.0, 200.0, 126.0]), keypoints=points))
    assert is_same_hand(right, spread)
    looker.find = lambda _: [spread]
    looker.read = lambda photo, box, is_left: spread if box[2] > 110 else right
    looker.rate = lambda photo, sight: 1.0 + gain * (sight.region.box[2] == 90)
    for frame in range(3):
        tracker(Photo("clip", None, BLANK), frame / 30)
    looker.find = lambda _: [right]
    for frame in range(3, 12):
        (hand,) = tracker(Photo("clip", None, BLANK), frame / 30)
    assert hand.box[2] == pytest.approx(side)


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_missing_hand_does_not_come_back_on_one_that_is_followed(is_gone: bool) -> None:
    """Half out of the picture a left hand was taken for a right one, and the covered right hand's number with it."""
    tracker = with_windows(looker := Windows(0.0))
    left = replace(looker.sight(np.array([400.0, 200.0])), left=3.0)
    looker.find = lambda _: [looker.sight(np.array([300.0, 200.0])), left]
    tracker(Photo("clip", None, BLANK), 0.0)
    mirrored = mirror_points(left.region.keypoints.points, 801)
    region = replace(left.region, keypoints=replace(left.region.keypoints, points=mirrored))
    looker.find = lambda _: [replace(left, left=-3.0, region=region)]
    looker.read = lambda photo, box, is_left: left if box[0] > 350 else None
    begin = math.ceil(30 * GONE) + 2 if is_gone else 1
    for frame in range(1, begin + 20):
        hands = tracker(Photo("clip", None, BLANK), frame / 30)
        assert [hand.track for hand in hands if hand.result is not None] == [2], frame


def test_what_is_seen_unsurely_takes_back_a_missing_hand_but_begins_none() -> None:
    tracker = with_windows(looker := Windows(0.0))
    tracker(Photo("clip", None, BLANK), 0.0)
    looker.read = lambda *_: None
    looker.find = lambda _: [replace(looker.sight(np.array([x, 200.0])), is_sure=False) for x in (310.0, 550.0)]
    for frame in range(1, 6):
        hands = tracker(Photo("clip", None, BLANK), frame / 30)
    assert [hand.track for hand in hands] == [1] and tracker.tracks[0].hits > 1
    assert hands[0].box[0] == pytest.approx(310, abs=10)


def test_a_window_that_no_search_confirms_must_show_a_hand_to_one_of_two() -> None:
    tracker = with_windows(looker := Windows(0.0))
    tracker(Photo("clip", None, BLANK), 0.0)
    looker.find, said = lambda _: [looker.sight(np.array([550.0, 200.0]))], itertools.cycle([False, True])
    looker.is_hand = lambda photo, sight: sight.region.box[0] > 400 or next(said)
    for frame in range(1, 30):
        tracker(Photo("clip", None, BLANK), frame / 30)
    assert {track.number for track in tracker.tracks} == {1, 2}  # denied at every other search
    looker.is_hand = lambda photo, sight: sight.region.box[0] > 400
    for frame in range(30, 42):
        tracker(Photo("clip", None, BLANK), frame / 30)
    assert {track.number for track in tracker.tracks} == {2}


def test_a_window_that_shrank_onto_fingers_is_put_back_to_the_hand() -> None:
    """Half hidden, a hand was read in the part that was left; the whole hand is larger than a hand grows at once."""
    tracker = with_windows(looker := Windows(0.0))
    hand = looker.sight(np.array([300.0, 200.0]))
    points = replace(hand.region.keypoints, points=SHAPE * 45 + [310.0, 215.0])
    part = replace(hand, region=replace(hand.region, box=np.array([310.0, 215.0, 45.0]), keypoints=points))
    looker.find = lambda _: [part]
    looker.read = lambda photo, box, is_left: part if box[2] < 60 else hand
    for frame in range(3):
        tracker(Photo("clip", None, BLANK), frame / 30)
    looker.find, better = lambda _: [hand], 0.0
    looker.rate = lambda photo, sight: better * (sight.region.box[2] == 90)
    for frame in range(3, 12):
        (seen_hand,) = tracker(Photo("clip", None, BLANK), frame / 30)
    assert seen_hand.box[2] == pytest.approx(45)
    better = 0.3  # both networks are surer of the whole hand
    for frame in range(12, 20):
        (seen_hand,) = tracker(Photo("clip", None, BLANK), frame / 30)
    assert seen_hand.box[2] == pytest.approx(90) and seen_hand.track == 1


class AtTheirSize(Keypoints):
    """Hands are as far away as their boxes are small."""

    def estimate(self, seen: HandInPicture) -> Result:
        return replace(super().estimate(seen), joints=HAND.joints * 90 / np.float32(seen.box[2]))


@pytest.mark.parametrize(("side", "sure", "shown"), [(45, 0.8, [1]), (45, 1.0, [2]), (80, 0.8, [1, 2])])
def test_what_lies_on_a_hand_and_seems_behind_it_is_a_part_of_it(side: int, sure: float, shown: list[int]) -> None:
    """Of a small hand on the fingers of a large one the less sure is not seen; one as large is beside it."""
    tracker = with_windows(looker := Windows(0.0))
    tracker.tools = PhotoEstimator(AtTheirSize())
    hand, other = looker.sight(np.array([300.0, 200.0])), replace(looker.sight(np.array([500.0, 200.0])), left=1.0)
    points = replace(hand.region.keypoints, confidence=np.full(21, 0.9))
    hand = replace(hand, region=replace(hand.region, keypoints=points))
    looker.find = lambda _: [hand, other]
    looker.read = lambda photo, box, is_left: other if is_left else hand
    for frame in range(3):
        tracker(Photo("clip", None, BLANK), frame / 30)
    tip, middle = hand.region.keypoints.points[[12, 10]]
    along = tip + (middle - tip) * np.linspace(0, 1, 21)[:, None]
    place = np.array([*along.mean(axis=0), side])
    points = Points(along, np.full(21, sure), "")
    tracker.tracks[1].motion = BoxMotion(place, 0.1)
    on_it = replace(other, region=replace(other.region, box=place, keypoints=points))
    looker.find = lambda _: [hand]
    looker.read = lambda photo, box, is_left: on_it if is_left else hand
    hands = tracker(Photo("clip", None, BLANK), 0.1)
    assert [one.track for one in hands if one.result is not None] == shown
    assert all("part of another" in one.reason for one in hands if one.result is None)


@pytest.mark.parametrize(("left", "count"), [(-1.0, 1), (1.0, 2)])
def test_a_new_hand_on_another_is_of_the_other_side(left: float, count: int) -> None:
    """Fingers alone are sometimes taken for a hand, of the side that they have."""
    tracker = with_windows(looker := Windows(0.0))
    tracker(Photo("clip", None, BLANK), 0.0)
    looker.find = lambda _: [
        looker.sight(np.array([300.0, 200.0])), replace(looker.sight(np.array([340.0, 200.0])), left=left)
    ]  # fmt: skip
    looker.read = lambda photo, box, is_left: looker.sight(np.array([300.0 if box[0] < 320 else 340.0, 200.0]))
    for frame in range(1, 12):
        hands = tracker(Photo("clip", None, BLANK), frame / 30)
    assert len(hands) == count


def test_a_new_hand_is_found_by_two_searches() -> None:
    tracker = with_windows(looker := Windows(0.0))
    looker.read = lambda photo, box, is_left: looker.sight(box[:2])
    tracker(Photo("clip", None, BLANK), 0.0)
    places = [300.0, 550.0]
    looker.find = lambda _: [looker.sight(np.array([x, 200.0])) for x in places]
    frame = 1
    while len(hands := tracker(Photo("clip", None, BLANK), frame / 30)) < 2:
        frame += 1
    places.remove(550.0)
    looker.is_hand = lambda photo, sight: sight.region.box[0] < 400
    for later in range(frame + 1, frame + 12):
        hands = tracker(Photo("clip", None, BLANK), later / 30)
        assert not any(hand.is_confirmed for hand in hands if hand.track == 2)
    assert [hand.track for hand in hands] == [1]


def test_what_cannot_be_fitted_has_not_moved() -> None:
    tracker = with_windows(looker := Windows(0.0))
    tracker(Photo("clip", None, BLANK), 0.0)
    looker.find = looker.read = lambda *_: looker_sights[0]
    unsure = looker.sight(np.array([340.0, 200.0]))
    points = replace(unsure.region.keypoints, confidence=np.full(21, 0.1))
    looker_sights = [replace(unsure, region=replace(unsure.region, keypoints=points))]
    looker.find = lambda _: looker_sights
    (hand,) = tracker(Photo("clip", None, BLANK), 1 / 30)
    assert hand.result is None and "was lost" in hand.reason and hand.box[0] == pytest.approx(300)


def test_a_search_that_errs_in_the_side_is_read_again() -> None:
    tracker = with_windows(looker := Windows(0.0))
    for frame in range(20):
        tracker(Photo("clip", None, BLANK), frame / 30)
    votes, asked = tracker.tracks[0].left, []
    mirrored = mirror_points(SHAPE * 90 + [300, 200], 601)
    wrong = looker.sight(np.array([300.0, 200.0]))
    points = replace(wrong.region.keypoints, points=mirrored)
    looker.find = lambda _: [replace(wrong, left=1.0, region=replace(wrong.region, is_left=True, keypoints=points))]

    def read(photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        asked.append(is_left)
        return wrong if len(asked) > 1 else None  # the window misses it, so that it is searched for

    looker.read = read
    (hand,) = tracker(Photo("clip", None, BLANK), 20 / 30)
    assert asked == [False, False] and hand.track == 1
    np.testing.assert_allclose(hand.result.keypoints, wrong.region.keypoints.points)
    assert tracker.tracks[0].left > votes


def test_an_unclear_window_keeps_the_size() -> None:
    sight = Windows(0.0).sight(np.array([300.0, 200.0]))
    track = Track.born(1, sight, 0.0)
    track.see(sight, 0.0)
    small = replace(sight.region, box=np.array([300.0, 200.0, 45.0]))
    assert has_kept_size(track, replace(sight, region=small))  # a clear one: a fist
    assert not has_kept_size(track, replace(sight, region=replace(small, score=0.4)))
    assert has_kept_size(track, replace(sight, region=replace(sight.region, score=0.4)))


def test_a_track_does_not_slide_onto_another_hand() -> None:
    """Read as the other side, a hand's keypoints are a mirror image, which no window shows clearly."""
    tracker = with_windows(looker := Windows(0.0))
    left = replace(looker.sight(np.array([400.0, 200.0])), left=1.0)
    looker.find = lambda _: [looker.sight(np.array([200.0, 200.0])), left]
    tracker(Photo("clip", None, BLANK), 0.0)
    points = replace(left.region.keypoints, points=mirror_points(left.region.keypoints.points, 401))
    points = replace(points, points=points.points + [200.0, 0])
    region = replace(left.region, box=np.array([205.0, 200.0, 90.0]), keypoints=points, score=0.4)
    unclear = replace(left, region=region)
    looker.read = lambda photo, box, is_left: unclear if is_left else looker.sight(np.array([200.0, 200.0]))
    looker.find = lambda _: [looker.sight(np.array([200.0, 200.0]))]
    tracker.tracks[1].motion.box[0] = 230.0
    hands = tracker(Photo("clip", None, BLANK), 1 / 30)
    assert not is_same_hand(unclear, looker.sight(np.array([200.0, 200.0])))
    assert [hand.result is not None for hand in hands] == [True, False]


def test_hands_share_a_shape_until_two_of_a_side_are_seen() -> None:
    shape = ShapeFilter(Fixed.assets)
    people = People(shape)
    sides = ((1, -5), (2, 5), (3, 5))
    right, left, other = (Track(number, BoxMotion(np.ones(3), 0), side, None) for number, side in sides)
    people.learned(right, shape)
    people.watch([right, left])
    assert people.shape(left) is people.shape(right)
    for _ in range(ENOUGH + 1):
        people.watch([right, left, other])
    new = ShapeFilter(Fixed.assets)
    people.learned(other, new)
    assert people.shape(other) is new and people.shape(left) is shape
    assert People(shape, sharing=False).are_several
    together = People(shape, sharing=True)
    for _ in range(2 * ENOUGH):
        together.watch([left, other])
    assert not together.are_several


def test_what_makes_two_looks_one_hand() -> None:
    look = Windows(0)
    assert is_same_hand(look.sight(np.array([10.0, 10])), look.sight(np.array([30.0, 10])))
    assert not is_same_hand(look.sight(np.array([10.0, 10])), look.sight(np.array([50.0, 10])))
    # Clasped hands lie in one place, but their fingers do not.
    clasped = look.sight(np.array([10.0, 10]))
    points = clasped.region.keypoints
    mirrored = replace(points, points=mirror_points(points.points, 21))
    turned = replace(clasped, region=replace(clasped.region, keypoints=mirrored))
    assert not is_same_hand(clasped, turned)


def test_no_hand_says_why() -> None:
    tools = PhotoEstimator(Keypoints(), detector=Script([[]]))
    tracker = HandTracker(tools, Path("clip.mp4"), (640, 480))
    assert tracker(Photo("clip", None, BLANK), 0.0) == [] and "script finds no hand" in tracker.reason
    with pytest.raises(UnusableImage):
        tools.regions(Photo("clip", None, BLANK))
