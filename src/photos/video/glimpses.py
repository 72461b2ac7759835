"""What a recorded video shows of a hand for a moment only, and unclearly: something else that its window slid onto."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from src.photos.video.smoothing import FrameHands
from src.photos.video.track import TrackedHand

#: A hand that is seen for less than so long, s, between frames in which it is not, must be seen clearly,
MOMENT = 0.09
#: with this mean confidence of its keypoints. So many frames further it is still the same moment.
CLEARLY, NEXT = 0.6, 2


def without_glimpses(frames: list[FrameHands]) -> list[FrameHands]:
    """The frames of a whole video; at its ends nobody knows for how long a hand is seen."""
    pieces: dict[int, list[list[tuple[int, TrackedHand]]]] = {}
    for row, frame in enumerate(frames):
        for hand in [one for one in frame.hands if one.result is not None]:
            of_track = pieces.setdefault(hand.track, [])
            if not of_track or row - of_track[-1][-1][0] > NEXT:
                of_track.append([])
            of_track[-1].append((row, hand))
    kept = list(frames)
    for piece in [one for of_track in pieces.values() for one in of_track]:
        first, last = piece[0][0], piece[-1][0]
        is_short = first > 0 and last < len(frames) - 1 and frames[last].seconds - frames[first].seconds < MOMENT
        if is_short and np.mean([hand.result.confidence.mean() for _, hand in piece]) < CLEARLY:
            for row, hand in piece:
                reason = f"hand {hand.track} is seen for a moment only, and unclearly"
                kept[row] = kept[row].with_hand(replace(hand, result=None, reason=reason))
    return kept
