"""Tracks fitted over time: all frames together once the video is over, or each as it comes, with a lag."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from src.personalization.fitting.fit import FitOptions, FitResult
from src.personalization.fitting.fixed_lag import DEFAULTS as CAUSAL
from src.personalization.fitting.fixed_lag import FixedLagSmoother
from src.personalization.fitting.from_keypoints import world_direction
from src.personalization.fitting.sequence import SequenceOptions, fit_sequence
from src.personalization.fitting.shown_flat import with_flat_runs
from src.personalization.solver.status import usable
from src.photos.detector.refusal import check_depth
from src.photos.estimator import Estimator
from src.photos.image import UnusableImage
from src.photos.perspective import in_picture_pixels, in_view_pixels
from src.photos.result import Result
from src.photos.video.track import TrackedHand
from template import HandModel, HandOutput
from template.kinematics import JointsModel
from utils.camera import project_numpy, square_box

logger = logging.getLogger(__name__)

#: A hand that is not seen is carried by the frames about it, or, as it comes, by those before it, for so long, s.
CARRIED = 0.6
#: What is kept of a frame until the video is over has no mesh: that is made anew.
_NO_MESH = np.zeros((0, 3), np.float32)


@dataclass(frozen=True)
class FrameHands:
    """The hands of frame ``number``, taken at ``seconds``; reason: why there is none, where there is none."""

    number: int
    seconds: float
    hands: list[TrackedHand]
    reason: str = ""

    def with_hand(self, hand: TrackedHand) -> FrameHands:
        """With ``hand`` in place of what was known of its track."""
        others = [one for one in self.hands if one.track != hand.track]
        return replace(self, hands=sorted([*others, hand], key=lambda one: one.track))

    def light(self) -> FrameHands:
        """Without meshes and silhouettes."""
        hands = [
            hand if hand.result is None else replace(hand, result=replace(hand.result, vertices=_NO_MESH, mask=None))
            for hand in self.hands
        ]
        return replace(self, hands=hands)


class TrackFitter:
    """What fits a track: the estimator's own model and terms, the shape held, in the right-hand convention.

    Args:
        estimator: that found the hands; it must give rotations.
        betas: (10,) of all that it fits; None: of a track's last frame, which rest on the most.
    """

    def __init__(self, estimator: Estimator, betas: np.ndarray | None = None) -> None:
        self.betas = betas
        self.hand = HandModel(estimator.assets)
        self.model: JointsModel = estimator.joints_model
        is_exact = self.model.dtype == torch.float64
        self.exact = self.model if is_exact else JointsModel(estimator.assets)  # a stream keeps small differences
        # Evidence is estimated for single frames only, and flat hands are told when all frames are there.
        self.frame: FitOptions = replace(estimator.frame_options, evidence_rounds=0, shape_prior=None, flat=None)
        self.flat = estimator.frame_options.flat

    def observed(self, hand: TrackedHand, is_left: bool) -> Result | None:
        """What a frame says of a track whose side is ``is_left``, as a right hand; None: nothing."""
        result = hand.result
        if result is None or result.pose is None:
            return None
        other, result = (result.side == "left") != is_left, in_view_pixels(result)
        result = result.mirrored() if is_left else result
        if not other:
            return result
        # Taken for the other hand: its points stay, that hand's pose, 3D points and sureness say nothing of this one.
        sure = {name: value for name, value in result.certainty.items() if name != "side"}
        return replace(result, assets=self.hand.assets, pose=None, predicted_pose=None, world=None, certainty=sure)

    def rows(self, seen: list[Result | None], like: Result) -> dict[str, torch.Tensor]:
        """Pose, K, keypoints, confidence (and world) of T frames as `fit_sequence` takes them."""
        none = np.zeros(21)
        poses = [like.pose if one is None or one.pose is None
                 else one.pose if one.predicted_pose is None else one.predicted_pose for one in seen]  # fmt: skip
        arrays = {
            "pose": poses,
            "K": [like.K if one is None else one.K for one in seen],
            "keypoints": [like.keypoints if one is None else one.keypoints for one in seen],
            "confidence": [none if one is None else one.confidence for one in seen],
        }
        rows = {name: torch.as_tensor(np.stack(values), dtype=torch.float64) for name, values in arrays.items()}
        if any(one is not None and one.world is not None for one in seen):
            unknown = np.full((21, 3), np.nan)
            world = np.stack([unknown if one is None or one.world is None else one.world for one in seen])
            rows["world"] = world_direction(torch.as_tensor(world), rows["K"], rows["keypoints"])
        return rows

    def result(self, fit: FitResult, row: int, seen: Result | None, like: Result, how: str) -> Result:
        """The fitted right hand of a frame, without its mesh; of one that was not ``seen`` nothing was observed."""
        pose, betas, transl = (value[row].float().cpu().numpy() for value in (fit.pose, fit.betas, fit.transl))
        joints = self._posed(pose, betas, transl).joints[0].numpy()
        now = seen
        if now is None:
            pixels = project_numpy(joints.astype(np.float64), like.K)
            now = replace(like, box=square_box(pixels, 1.0), keypoints=pixels, confidence=np.zeros(21), certainty={},
                          notes={"observed": False})  # fmt: skip
        certainty = dict(now.certainty)
        certainty.pop("distance_std_m", None)  # of the frame alone
        if "misfit" in certainty:
            certainty["misfit"] *= float(fit.reprojection_px[row]) / max(now.reprojection_px, 1e-9)
        made = replace(
            now, vertices=_NO_MESH, joints=joints, pose=pose, transl=transl, betas=betas, length=like.length, mask=None,
            reprojection_px=float(fit.reprojection_px[row]), certainty=certainty, notes={**now.notes, "over_time": how},
        )  # fmt: skip
        return check_depth(made)

    def _posed(self, pose: np.ndarray, betas: np.ndarray, transl: np.ndarray) -> HandOutput:
        return self.hand(*(torch.as_tensor(value, dtype=torch.float32)[None] for value in (pose, betas, transl)))

    def with_meshes(self, frame: FrameHands) -> FrameHands:
        """The frame's hands with the meshes that their poses give."""
        return replace(frame, hands=[self._with_mesh(hand) for hand in frame.hands])

    def _with_mesh(self, hand: TrackedHand) -> TrackedHand:
        result = hand.result
        if result is None or len(result.vertices) or result.pose is None:
            return hand
        right = result.mirrored() if result.side == "left" else result
        vertices = self._posed(right.pose, right.betas, right.transl).vertices[0].numpy()
        right = replace(right, vertices=vertices)
        return replace(hand, result=right.mirrored() if result.side == "left" else right)


def fit_tracks(
    frames: list[FrameHands], anybody: TrackFitter, person: TrackFitter | None = None, others: Collection[int] = ()
) -> list[FrameHands]:
    """Each track of a video fitted as one motion; frames in which it is not seen are carried by those about them.

    A track's side, and whose it is, are what was known in the end. Tracks that were never confirmed are left out.

    Args:
        person: fits all tracks but the ``others``; None: ``anybody`` fits all.
    """
    last = {hand.track: hand for frame in frames for hand in frame.hands}
    frames = [
        replace(frame, hands=[replace(hand, person=last[hand.track].person) for hand in frame.hands])
        for frame in frames
    ]
    found: dict[tuple[int, int], TrackedHand | None] = {}
    for number, end in last.items():
        places = [(row, hand) for row, frame in enumerate(frames) for hand in frame.hands if hand.track == number]
        if not end.is_confirmed:
            found |= {(row, number): None for row, _ in places}
            continue
        fitter = anybody if person is None or number in others else person
        seen = [fitter.observed(hand, end.is_left) for _, hand in places]
        bridged = _bridged([frames[row].seconds for row, _ in places], [one is not None for one in seen])
        places, seen = ([one for one, keep in zip(all_of, bridged, strict=True) if keep] for all_of in (places, seen))
        known = [one for one in seen if one is not None and one.pose is not None]
        if not known:
            continue
        rows = fitter.rows(seen, known[-1])
        seconds = torch.tensor([frames[row].seconds for row, _ in places], dtype=torch.float64)
        betas = torch.as_tensor(known[-1].betas if fitter.betas is None else fitter.betas, dtype=torch.float64)
        frame = fitter.frame
        if fitter.flat is not None:
            rows, frame, flat = with_flat_runs(fitter.model, rows, betas, seconds, frame, fitter.flat)
            seen = [replace(one, notes={**one.notes, "shown_flat": True}) if shown and one is not None else one
                    for one, shown in zip(seen, flat.tolist(), strict=True)]  # fmt: skip
        fit = fit_sequence(
            fitter.model, rows["pose"], betas, rows["K"], rows["keypoints"], seconds, rows["confidence"],
            SequenceOptions(frame=frame), world=rows.get("world"),
        )  # fmt: skip
        fit = FitResult(**{name: value.cpu() for name, value in vars(fit).items()})
        good = usable(fit.status)
        for place, ((row, hand), one) in enumerate(zip(places, seen, strict=True)):
            if bool(good[place]):
                found[row, number] = _fitted(fitter, fit, place, one, known[-1], hand, end.is_left, "sequence")
    return [
        replace(frame, hands=[hand for one in frame.hands if (hand := found.get((row, one.track), one)) is not None])
        for row, frame in enumerate(frames)
    ]


def _bridged(seconds: list[float], seen: list[bool]) -> list[bool]:
    """Frames in which a hand is seen, or that lie between two such that are at most `CARRIED` apart."""
    bridged, last = list(seen), None
    for row, there in enumerate(seen):
        if there:
            if last is not None and seconds[row] - seconds[last] <= CARRIED:
                bridged[last:row] = [True] * (row - last)
            last = row
    return bridged


def _fitted(
    fitter: TrackFitter, fit: FitResult, row: int, seen: Result | None, like: Result, hand: TrackedHand, is_left: bool,
    how: str,
) -> TrackedHand:  # fmt: skip
    """The hand with what a fit over time made of it; as the frame alone has it, where its neighbours pull it from its
    keypoints by more than is believed of a hand; none, where it is behind the camera."""
    try:
        result = fitter.result(fit, row, seen, like, how)
    except UnusableImage as error:
        return replace(hand, result=None, reason=str(error))
    alone = hand.result is not None and (hand.result.side == "left") == is_left
    if alone and result.certainty.get("misfit", 0.0) > 1:
        return replace(hand, is_left=is_left, failed=None)
    result = in_picture_pixels(result.mirrored() if is_left else result)
    return replace(hand, result=result, is_left=is_left, failed=None)


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
            first = self.fitter.observed(hand, hand.is_left)
            if first is None or first.pose is None:
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
        """Take in a frame; gives the numbers of those settled, and their hands: all, where the hand is gone."""
        seen = self.fitter.observed(hand, self.is_left)
        seen = None if seen is None or seen.pose is None else seen
        if seen is not None:
            self._like, self._seen_at = seen, frame.seconds
        elif frame.seconds - self._seen_at > CARRIED:
            return self.end()
        rows = {name: value[0] for name, value in self.fitter.rows([seen], self._like).items()}
        self._smoother.betas = torch.as_tensor(self._like.betas)
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
            named.append((number, _fitted(self.fitter, fit, 0, seen, self._like, hand, self.is_left, "lag")))
        return named
