"""Frames of a video in other estimators' results: when each was taken, and which hand is which over them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from src.estimators.pictures import without_ending
from utils.artifacts import Predictions

#: How far from its last place a hand may be, in sides of its box: in the next frame, more with each without it.
REACH, REACH_A_FRAME, LONGEST_REACH = 0.7, 0.13, 4.0
#: Factor of its size within which it is the same hand.
SIZE = 1.7
#: Frames without a hand after which it is another track.
GONE = 30
_NUMBER = re.compile(r"^(.*?)(\d+)$")


@dataclass(frozen=True)
class Frames:
    """Of N hands: the video that each is of, its frame there, and its track (from 1, one hand of one side)."""

    video: np.ndarray
    frame: np.ndarray
    track: np.ndarray


def frames_of(rows: Predictions) -> Frames:
    """By the number at the end of the pictures' names; what is before it, folders included, names the video.

    Raises:
        ValueError: no 2D keypoints, a name without a number, or numbers that count no frames.
    """
    if rows.keypoints_2d is None:
        raise ValueError(f"{rows.source}: no 2D keypoints, by which hands are followed; leave out --fps and --subjects")
    names = np.array([""] * len(rows)) if rows.image_name is None else rows.image_name
    found = [_NUMBER.match(str(Path(name).parent / without_ending(name))) for name in map(str, names)]
    for name, number in zip(names, found, strict=True):
        if number is None:
            raise ValueError(
                f"{rows.source}: the picture {str(name)!r} has no number at the end of its name, so nobody knows which "
                "frame of a video it is; name them as frame_0001, or leave out --fps and --subjects tracks"
            )
    video = np.unique([one[1] for one in found if one], return_inverse=True)[1].reshape(-1)
    numbers = [int(one[2]) for one in found if one]
    if max(numbers) >= 2**53:  # whose neighbours a time in seconds does not tell apart
        raise ValueError(
            f"{rows.source}: {str(names[int(np.argmax(numbers))])!r} ends in a number that counts no frames; name "
            "pictures as frame_0001"
        )
    frame, videos = np.array(numbers), int(video.max()) + 1
    if videos > 1 and len(np.unique(np.stack([video, frame]), axis=1).T) <= 2 * videos:
        raise ValueError(
            f"{rows.source}: by their names, such as {str(names[0])!r}, these are {videos} videos of a frame or two: "
            "the number at the end does not count frames. Name pictures as frame_0001"
        )
    if len(rows) > 2 and len(np.unique(frame)) == 1:
        raise ValueError(
            f"{rows.source}: all {len(rows)} hands are of one frame by their pictures' names, such as "
            f"{str(names[0])!r}; name pictures as frame_0001, or leave out --fps and --subjects tracks"
        )
    for one in range(videos):
        steps = np.diff(np.unique(frame[video == one]))
        if len(steps) and steps.min() > GONE:
            raise ValueError(
                f"{rows.source}: the numbers at the end of the pictures' names, such as {str(names[0])!r}, are at "
                f"least {steps.min()} apart: they are times, or too few frames are left to follow a hand. Number "
                "frames one by one, frame_0001, frame_0002, and say how many there are a second (fps)"
            )
    return Frames(video, frame, _tracks(rows, video, frame))


def _tracks(rows: Predictions, video: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """(N,) numbers; hands of one person, video and side in neighbouring frames are paired at least total cost."""
    assert rows.keypoints_2d is not None
    seen = np.ones((len(rows), 21), bool) if rows.keypoint_confidence is None else rows.keypoint_confidence > 0
    seen = (seen | ~seen.any(axis=1, keepdims=True))[..., None]  # of a hand without any, all
    low = np.where(seen, rows.keypoints_2d, np.inf).min(axis=1)
    high = np.where(seen, rows.keypoints_2d, -np.inf).max(axis=1)
    middle, side = (low + high) / 2, (high - low).max(axis=1).clip(1)
    track, count = np.zeros(len(rows), dtype=np.int64), 0
    whose = np.column_stack([video, rows.subject_id, rows.is_left])
    for one in np.unique(whose, axis=0):
        own = np.flatnonzero((whose == one).all(axis=1))
        last: dict[int, int] = {}  # track -> row that showed it last
        for number in np.unique(frame[own]):
            now = own[frame[own] == number]
            last = {name: row for name, row in last.items() if number - frame[row] <= GONE}
            names, before = list(last), np.array(list(last.values()), dtype=np.int64)
            if len(before):
                away = np.linalg.norm(middle[before, None] - middle[now], axis=-1)
                away = away / np.maximum(side[before, None], side[now])
                grown = np.abs(np.log(side[before, None] / side[now]))
                reach = (REACH + REACH_A_FRAME * (number - frame[before] - 1)).clip(max=LONGEST_REACH)
                possible = (away < reach[:, None]) & (grown < np.log(SIZE))
                for old, new in zip(*linear_sum_assignment(np.where(possible, away + grown, 1e6)), strict=True):
                    if possible[old, new]:
                        track[now[new]] = names[old]
            for row in now:
                if not track[row]:
                    count += 1
                    track[row] = count
                last[int(track[row])] = row
    return track
