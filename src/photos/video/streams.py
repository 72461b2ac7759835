"""Tracks smoothed as their frames come, with a lag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from src.personalization.fitting.fit import FitResult
from src.personalization.fitting.fixed_lag import DEFAULTS as CAUSAL
from src.personalization.fitting.fixed_lag import FixedLagSmoother
from src.personalization.solver.status import usable
from src.photos.result import Result
from src.photos.video.smoothing import CARRIED, FrameHands, TrackFitter, fitted_hand
from src.photos.video.tracker import TrackedHand


class LaggedTracks:
    """Each track smoothed as it comes; a frame is given back ``lag`` frames later.

    Args:
        fitter: as for `fit_tracks`; lag: frames, 0 for live use.
    """

    def __init__(self, fitter: TrackFitter, lag: int) -> None:
        self.fitter, self.lag = fitter, lag
        self._smoothers: dict[int, _Stream] = {}
        self._waiting: list[tuple[FrameHands, Any]] = []

    def push(self, frame: FrameHands, extra: Any = None) -> Iterator[tuple[FrameHands, Any]]:
        """Take in a frame and whatever belongs to it; gives those that are settled."""
        self._waiting.append((frame, extra))
        there = {hand.track for hand in frame.hands}
        for number in [one for one in self._smoothers if one not in there]:
            self._settle(self._smoothers.pop(number).end())
        for hand in frame.hands:
            self._settle(self._update(frame, hand))
        while len(self._waiting) > self.lag:
            yield self._waiting.pop(0)

    def flush(self) -> Iterator[tuple[FrameHands, Any]]:
        """The frames that still wait."""
        for stream in self._smoothers.values():
            self._settle(stream.end())
        self._smoothers = {}
        yield from self._waiting
        self._waiting = []

    def _update(self, frame: FrameHands, hand: TrackedHand) -> list[tuple[int, TrackedHand]]:
        stream = self._smoothers.get(hand.track)
        settled: list[tuple[int, TrackedHand]] = []
        if stream is not None and stream.is_left != hand.is_left:  # voted otherwise: another motion
            settled, stream = stream.end(), None
        if stream is None:
            if self.fitter.observed(hand, hand.is_left) is None:
                return settled
            stream = self._smoothers[hand.track] = _Stream(self.fitter, hand.is_left, self.lag)
        return settled + stream.update(frame, hand)

    def _settle(self, hands: list[tuple[int, TrackedHand]]) -> None:
        for number, settled in hands:
            for place, (frame, extra) in enumerate(self._waiting):
                if frame.number == number:
                    kept = [settled if one.track == settled.track else one for one in frame.hands]
                    self._waiting[place] = (replace(frame, hands=kept), extra)


class _Stream:
    """One track's `FixedLagSmoother`, and the frames that wait in it."""

    def __init__(self, fitter: TrackFitter, is_left: bool, lag: int) -> None:
        self.fitter, self.is_left = fitter, is_left
        options = replace(CAUSAL, frame=fitter.frame)
        self._smoother = FixedLagSmoother(fitter.exact, torch.zeros(10), options, lag)
        self._inside: dict[int, tuple[int, TrackedHand, Result | None]] = {}
        self._like: Result | None = None
        self._count, self._seen_at = 0, 0.0

    def update(self, frame: FrameHands, hand: TrackedHand) -> list[tuple[int, TrackedHand]]:
        """Take in a frame; gives the numbers of those settled, and their hands."""
        seen = self.fitter.observed(hand, self.is_left)
        if seen is not None:
            self._like, self._seen_at = seen, frame.seconds
        elif frame.seconds - self._seen_at > CARRIED:
            return []
        rows = {name: value[0] for name, value in self.fitter.rows([seen], self._like).items()}
        betas = torch.as_tensor(self._like.betas)
        self._smoother.betas = betas.to(self.fitter.exact.device, self.fitter.exact.dtype)
        self._inside[self._count] = (frame.number, hand, seen)
        self._count += 1
        given = rows["pose"], rows["K"], rows["keypoints"], frame.seconds, rows["confidence"], rows.get("world")
        return self._named(self._smoother.update(*given))

    def end(self) -> list[tuple[int, TrackedHand]]:
        """The frames that still wait."""
        return self._named(self._smoother.flush())

    def _named(self, settled: list[tuple[int, FitResult]]) -> list[tuple[int, TrackedHand]]:
        named = []
        for count, fit in settled:
            number, hand, seen = self._inside.pop(count)
            if not bool(usable(fit.status)[0]):
                continue
            named.append((number, fitted_hand(self.fitter, fit, 0, seen, self._like, hand, self.is_left, "lag")))
        return named
