"""Hands that a recorded video shows for a moment only, and unclearly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_tracker import HAND

from src.photos.video.glimpses import CLEARLY, MOMENT, without_glimpses
from src.photos.video.smoothing import FrameHands
from src.photos.video.track import TrackedHand

LAST, BOX = 40, np.array([300.0, 200.0, 90.0])


def frames_of(shown: list[range], confidence: float, fps: float = 30.0) -> list[FrameHands]:
    """Hand 1 is seen clearly all the while, hand 2 in some frames only."""
    clear, other = (replace(HAND, confidence=np.full(21, sure)) for sure in (0.9, confidence))

    def second(frame: int) -> TrackedHand:
        return TrackedHand(2, BOX, True, True, 0, other if any(frame in one for one in shown) else None)

    hands = [[TrackedHand(1, BOX, False, True, 0, clear), second(frame)] for frame in range(LAST)]
    return [FrameHands(frame, frame / fps, both) for frame, both in enumerate(hands)]


def seen(frames: list[FrameHands], track: int = 2) -> list[int]:
    return [frame.number for frame in frames for hand in frame.hands if hand.track == track and hand.result is not None]


@pytest.mark.parametrize(("most", "fps"), [(3, 30.0), (5, 50.0), (1, 5.0)])
def test_a_moment_in_which_a_hand_is_unclear_does_not_show_it(most: int, fps: float) -> None:
    """At any frame rate; longer, or clearly, it counts."""
    assert (most - 1) / fps < MOMENT <= most / fps
    short, longer = range(8, 8 + most), range(25, 25 + most + 1)
    frames = without_glimpses(frames_of([short, longer], CLEARLY - 0.05, fps))
    assert seen(frames) == list(longer) and seen(frames, 1) == list(range(LAST))
    assert all(hand.result is not None or hand.reason for frame in frames[8 : 8 + most] for hand in frame.hands)
    assert seen(without_glimpses(frames_of([short], CLEARLY + 0.05, fps))) == list(short)


def test_a_frame_that_misses_a_hand_ends_no_moment() -> None:
    """Two do."""
    for begin, is_one in ((16, True), (17, False)):
        there = [*range(8, 15), begin]
        frames = without_glimpses(frames_of([range(8, 15), range(begin, begin + 1)], CLEARLY - 0.05))
        assert seen(frames) == (there if is_one else there[:-1])


def test_at_a_videos_ends_nobody_knows_how_long_it_is_seen() -> None:
    ends = [range(2), range(LAST - 2, LAST)]
    assert seen(without_glimpses(frames_of(ends, CLEARLY - 0.1))) == [0, 1, LAST - 2, LAST - 1]
