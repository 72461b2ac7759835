"""Hands before they were found: followed backwards to where they are no longer seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_tracker import BLANK, SHAPE, Keypoints, Windows, sight_at

from src.photos.api import PhotoEstimator
from src.photos.image import Photo, UnusableImage
from src.photos.video.look_back import LookBack
from src.photos.video.sights import Sight
from src.photos.video.smoothing import FrameHands
from src.photos.video.tracker import HandTracker

FIRST, LAST = 4, 60
SPEED = 4.0


def place(frame: int) -> np.ndarray:
    return np.array([150.0 + SPEED * frame, 200.0])


class Moving(Windows):
    """A hand from frame `FIRST` on, hidden in some, which searches find in some frames only, and windows always."""

    def __init__(self, found_from: int, hidden: range = range(0), not_found: range = range(0)) -> None:
        self.frame, self.found_from, self.hidden, self.not_found = 0, found_from, hidden, not_found

    def at(self, photo: Photo) -> Sight | None:
        frame = int(photo.image[0, 0, 0])  # each picture carries its number
        if frame < FIRST or frame in self.hidden:
            return None
        return sight_at(place(frame))

    def find(self, photo: Photo) -> list[Sight]:
        frame, sight = int(photo.image[0, 0, 0]), self.at(photo)
        if frame < self.found_from or frame in self.not_found or sight is None:
            raise UnusableImage("none")
        return [sight]

    def read(self, photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        sight = self.at(photo)
        near = sight is not None and np.linalg.norm(sight.region.box[:2] - box[:2]) < 30
        return sight if near else None


def run(looker: Moving, fps: float = 30.0) -> list[FrameHands]:
    tracker = HandTracker(PhotoEstimator(Keypoints()), Path("clip.mp4"), (640, 480))
    tracker.looker = looker
    back, frames = LookBack(tracker), []
    for number in range(LAST):
        image = BLANK.copy()
        image[0, 0, 0] = number
        photo = tracker.photo(image)
        frames.append(FrameHands(number, number / fps, tracker(photo, number / fps)))
        for earlier, hand in back.add(number, photo, number / fps, frames[-1].hands):
            frames[earlier] = frames[earlier].with_hand(hand)
    return frames


def seen_in(frames: list[FrameHands]) -> list[int]:
    seen = [frame.number for frame in frames if any(hand.result is not None for hand in frame.hands)]
    for number in seen:
        (hand,) = frames[number].hands
        assert hand.track == 1
        np.testing.assert_allclose(hand.result.keypoints.mean(axis=0), place(number) + SHAPE.mean(axis=0) * 90, atol=1)
    return seen


def test_a_hand_that_was_found_late_was_there_before() -> None:
    assert seen_in(run(Moving(found_from=20))) == list(range(FIRST, LAST))


def test_a_hand_that_comes_out_is_followed_back_to_where_it_was_hidden() -> None:
    looker = Moving(found_from=0, hidden=range(25, 32), not_found=range(25, 45))
    expected = [number for number in range(FIRST, LAST) if number not in looker.hidden]
    assert seen_in(run(looker)) == expected


def test_no_further_back_than_frames_are_kept() -> None:
    seen = seen_in(run(Moving(found_from=50)))
    assert seen[-1] == LAST - 1 and 50 - 31 <= seen[0] <= 50 - 25


@pytest.mark.parametrize("is_wrong", [False, True])
def test_a_window_that_had_slid_off_is_read_again(is_wrong: bool) -> None:
    """Windows of some frames show, hardly, something that stays in one place."""
    looker = Moving(found_from=0)
    truly, astray = looker.at, range(20, 24)

    def read(photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        frame = int(photo.image[0, 0, 0])
        if is_wrong and frame in astray and box[0] < place(frame)[0] + 5 and not looker.is_found:
            return sight_at(place(18) - [40, 0], 0.5)
        return Moving.read(looker, photo, box, is_left)

    def find(photo: Photo) -> list[Sight]:
        frame = int(photo.image[0, 0, 0])
        looker.is_found = frame >= astray.stop
        if frame in astray:
            raise UnusableImage("none")
        return [sight] if (sight := truly(photo)) is not None else []

    looker.read, looker.find, looker.is_found = read, find, False
    assert seen_in(run(looker)) == list(range(FIRST, LAST))


@pytest.mark.parametrize("away", [(-90.0, 0.0), (0.0, 130.0)])
def test_what_was_elsewhere_before_the_hand_was_hidden_is_another_hand(away: tuple[float, float]) -> None:
    """A sleeve looks like a hand while the hand is hidden, and a bit before: too far away to be the same one."""
    looker = Moving(found_from=0, hidden=range(25, 40))
    truly, shown, where = looker.at, range(23, 36), place(24) + away

    def read(photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        is_there = photo.image[0, 0, 0] in shown and np.linalg.norm(box[:2] - where) < 30
        return sight_at(where, 0.6) if is_there else Moving.read(looker, photo, box, is_left)

    looker.read = read
    looker.find = lambda photo: (
        [sight_at(where, 0.6)] if photo.image[0, 0, 0] in range(29, 36) else [one for one in [truly(photo)] if one]
    )
    frames = run(looker)
    first = [frame.number for frame in frames for hand in frame.hands if hand.track == 1 and hand.result is not None]
    assert first == [number for number in range(FIRST, LAST) if number not in looker.hidden]


@pytest.mark.parametrize("blurred", [22, 23])
def test_a_window_that_slid_off_takes_no_hand_from_its_track(blurred: int) -> None:
    """Six frames show, hardly, something beside the hand; in one of them the hand itself cannot be read either."""
    looker = Moving(found_from=0)
    truly, astray, where = looker.at, range(20, 26), place(18) - [80, 0]

    def read(photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        frame = int(photo.image[0, 0, 0])
        if frame in astray and not looker.is_found:
            return sight_at(where + [60 * (frame == 20), 0], 0.4)
        return None if frame == blurred else Moving.read(looker, photo, box, is_left)

    def find(photo: Photo) -> list[Sight]:
        looker.is_found = photo.image[0, 0, 0] >= astray.stop
        return [] if photo.image[0, 0, 0] in astray or truly(photo) is None else [truly(photo)]

    looker.read, looker.find, looker.is_found = read, find, False
    assert {hand.track for frame in run(looker) for hand in frame.hands} == {1}


def test_a_fist_that_waves_is_one_hand() -> None:
    """22 sides of its box a second, and blurred frames that show nothing."""
    for seed in range(3):
        looker = Moving(found_from=0)
        blurred = set(np.random.default_rng(seed).choice(LAST, 10, replace=False).tolist()) - set(range(7))

        def at(photo: Photo, blurred: set[int] = blurred) -> Sight | None:
            frame = int(photo.image[0, 0, 0])
            where = np.array([320 + 126 * np.sin(2 * np.pi * 2.5 * frame / 30), 240.0])
            return None if frame in blurred else sight_at(where)

        looker.at, looker.find = at, lambda photo, at=at: [one for one in [at(photo)] if one is not None]
        assert {hand.track for frame in run(looker) for hand in frame.hands} == {1}, seed


def test_what_was_never_confirmed_hides_no_hand() -> None:
    """Found once, a hand is followed, doubted and given up before it counts; found again it was there all the while."""
    looker, said = Moving(found_from=0), iter([False, False])
    looker.is_hand = lambda *_: next(said, True)
    looker.find = lambda photo: (
        [] if FIRST < photo.image[0, 0, 0] < 20 or looker.at(photo) is None else [looker.at(photo)]
    )
    frames = run(looker)
    shown = [[hand.track for hand in frame.hands if hand.result is not None] for frame in frames]
    assert all(1 in tracks for tracks in shown[FIRST : FIRST + 4])
    assert [frame for frame, tracks in enumerate(shown) if 2 in tracks] == list(range(FIRST, LAST))
