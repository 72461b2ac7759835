"""A left and a right hand in one video: what a hand looks like against what its track and the other hand say."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from test_tracker import BLANK, Windows, with_windows

from src.photos.image import Photo
from src.photos.video.association import name_sides
from src.photos.video.look_back import LookBack
from src.photos.video.sights import Sight
from src.photos.video.tracker import HandTracker

RIGHT, LEFT = np.array([150.0, 200.0]), np.array([450.0, 200.0])
#: Frames in which both hands look like themselves; then, the left one hidden; then both look like right hands.
CLEAR, HIDDEN, LAST = 20, 26, 70


class BothRight(Windows):
    """Two hands at rest; from frame `CLEAR` the left one is hidden, and from `HIDDEN` it looks like a right one."""

    def __init__(self, there: tuple[np.ndarray, ...] = (RIGHT, LEFT)) -> None:
        super().__init__(0.0)
        self.there, self.frame = there, -1

    def look(self, place: np.ndarray) -> Sight:
        is_left = place is LEFT and self.frame < CLEAR
        return replace(self.sight(place), left=3.0 if is_left else -3.0)

    def find(self, photo: Photo) -> list[Sight]:
        self.frame = int(photo.image[0, 0, 0])
        return [self.look(place) for place in self.there if self.shows(place)]

    def shows(self, place: np.ndarray) -> bool:
        return place is RIGHT or not CLEAR <= self.frame < HIDDEN

    def read(self, photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        self.frame = int(photo.image[0, 0, 0])
        near = [place for place in self.there if np.linalg.norm(place - box[:2]) < 60 and self.shows(place)]
        sight = self.look(near[0]) if near else None
        return None if sight is None else replace(sight, is_others=(sight.left > 0) != is_left)


def picture(frame: int) -> Photo:
    image = BLANK.copy()
    image[0, 0, 0] = frame
    return Photo("clip", None, image)


@pytest.mark.parametrize("by_search", [False, True])
def test_who_looks_like_the_hand_that_is_followed_elsewhere_is_the_other_one(by_search: bool) -> None:
    """It is found again by its window, or by a search alone."""
    tracker = with_windows(looker := BothRight())
    read = looker.read

    def window(photo: Photo, box: np.ndarray, is_left: bool) -> Sight | None:
        is_lost = box[0] > 300 and tracker.tracks[-1].hits == CLEAR
        return None if by_search and is_lost else read(photo, box, is_left)

    looker.read = window
    for frame in range(LAST):
        hands = tracker(picture(frame), frame / 30)
        seen = [(hand.track, hand.is_left) for hand in hands if hand.result is not None]
        hidden = CLEAR <= frame < HIDDEN + 3
        assert seen == [(1, False), (2, True)] or (hidden and seen == [(1, False)]), frame


def test_one_hand_alone_may_be_the_other_one() -> None:
    """Nothing is known of where the right hand is: what looks like one is one."""
    tracker = with_windows(BothRight((LEFT,)))
    for frame in range(LAST):
        hands = tracker(picture(frame), frame / 30)
    assert [(hand.track, hand.is_left) for hand in hands if hand.result is not None] == [(2, False)]


def test_looking_back_knows_where_the_other_hand_was() -> None:
    """The left hand is found late, and then looked for in the frames since it came out."""
    looker = BothRight()
    find, read, late = looker.find, looker.read, range(HIDDEN, HIDDEN + 10)
    looker.find = lambda photo: [one for one in find(photo) if looker.frame not in late or one.region.box[0] < 300]
    looker.read = lambda photo, box, is_left: (
        None if box[0] > 300 and photo.image[0, 0, 0] == now and now in late else read(photo, box, is_left)
    )
    tracker, earlier = with_windows(looker), []
    back = LookBack(tracker)
    for now in range(LAST):
        earlier += back.add(now, picture(now), now / 30, tracker(picture(now), now / 30))
    assert {number for number, hand in earlier if hand.track == 2 and hand.is_left} == set(late)


def missing() -> tuple[HandTracker, Windows]:
    """A right hand that was followed, and is missing."""
    tracker = with_windows(looker := Windows(0.0))
    for frame in range(10):
        tracker(Photo("clip", None, BLANK), frame / 30)
    looker.read = lambda *_: None
    return tracker, looker


def at(looker: Windows, x: float, side: float = 90.0, **how: object) -> Sight:
    sight = looker.sight(np.array([x, 200.0]))
    return replace(sight, region=replace(sight.region, box=np.array([x, 200.0, side])), **how)


def test_a_sure_find_comes_before_a_nearer_unsure_one() -> None:
    tracker, looker = missing()
    looker.find = lambda _: [at(looker, 305.0, is_sure=False), at(looker, 330.0)]
    (hand,) = tracker(Photo("clip", None, BLANK), 10 / 30)
    assert hand.result is not None and hand.box[0] == pytest.approx(330.0)


@pytest.mark.parametrize(("side", "is_same"), [(90.0, True), (400.0, False)])
def test_a_hand_that_is_found_elsewhere_has_about_its_size(side: float, is_same: bool) -> None:
    """The only right hand, missing for a frame, is not what is four times as large."""
    tracker, looker = missing()
    looker.find = lambda _: [at(looker, 560.0, side)]
    hands = tracker(Photo("clip", None, BLANK), 10 / 30)
    assert {hand.track for hand in hands if hand.result is not None} == ({1} if is_same else {2})


def test_a_hand_is_named_the_other_one_once() -> None:
    """Two right hands: before, the weaker was named left, and voted back, in every other frame."""

    class Voted(SimpleNamespace):
        is_left = property(lambda self: self.left > 0)

    sure, weak = (Voted(left=left, is_confirmed=True, misses=0, is_named=False) for left in (-20.0, -2.0))
    name_sides([sure, weak])
    assert weak.is_left and not sure.is_left
    weak.left = -0.5  # what is seen says that it is a right one
    name_sides([sure, weak])
    assert not weak.is_left
