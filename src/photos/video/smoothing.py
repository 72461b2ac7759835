"""Tracks fitted over time, all frames of a video together."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch

from src.personalization.fitting.fit import FitOptions, FitResult
from src.personalization.fitting.from_keypoints import world_direction
from src.personalization.fitting.sequence import SequenceOptions, fit_sequence
from src.personalization.solver.status import usable
from src.photos.camera import Camera
from src.photos.detector.refusal import check_depth
from src.photos.estimator import Estimator
from src.photos.image import UnusableImage
from src.photos.result import Result
from src.photos.video.tracker import TrackedHand
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
        estimator: that found the hands; it must give rotations. camera: of all frames.
    """

    def __init__(self, estimator: Estimator, camera: Camera) -> None:
        self.hand, self.camera = HandModel(estimator.assets), camera
        self.model: JointsModel = estimator.joints_model
        is_exact = self.model.dtype == torch.float64
        self.exact = self.model if is_exact else JointsModel(estimator.assets)  # a stream keeps small differences
        # Evidence is estimated for single frames only.
        self.frame: FitOptions = replace(estimator.frame_options, evidence_rounds=0, shape_prior=None)

    def observed(self, hand: TrackedHand, is_left: bool) -> Result | None:
        """What a frame says of a track whose side is ``is_left``, as a right hand; None: nothing."""
        result = hand.result
        if result is None or result.pose is None or (result.side == "left") != is_left:
            return None
        if self.camera.lens is not None:  # a fit knows pinhole cameras; what lies beside one's view was not seen
            points = self.camera.model.undistort(result.keypoints)
            there = np.isfinite(points).all(axis=1)
            confidence = np.where(there, result.confidence, 0)
            result = replace(result, keypoints=np.where(there[:, None], points, 0), confidence=confidence)
        return result.mirrored() if is_left else result

    def rows(self, seen: list[Result | None], like: Result) -> dict[str, torch.Tensor]:
        """Pose, K, keypoints, confidence (and world) of T frames as `fit_sequence` takes them."""
        none = np.zeros(21)
        poses = [like.pose if one is None else one.pose if one.predicted_pose is None else one.predicted_pose
                 for one in seen]  # fmt: skip
        arrays = {
            "pose": poses,
            "K": [like.K for _ in seen],
            "keypoints": [like.keypoints if one is None else one.keypoints for one in seen],
            "confidence": [none if one is None else one.confidence for one in seen],
        }
        rows = {name: torch.as_tensor(np.stack(values), dtype=torch.float64) for name, values in arrays.items()}
        if any(one is not None and one.guess_3d is not None for one in seen):
            unknown = np.full((21, 3), np.nan)
            world = np.stack([unknown if one is None or one.guess_3d is None else one.guess_3d for one in seen])
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
        made = replace(
            now, vertices=_NO_MESH, joints=joints, pose=pose, transl=transl, betas=betas, length=like.length, mask=None,
            reprojection_px=float(fit.reprojection_px[row]), notes={**now.notes, "over_time": how},
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
        made = right.mirrored() if result.side == "left" else right
        if made.close is None:
            return replace(hand, result=made)
        view, seen = made.close  # the view turns with the camera: what was seen through it is where it is now
        there = made.moved(view.rotation.T)
        places = {name: getattr(there, name) for name in ("vertices", "joints", "pose", "transl")}
        return replace(hand, result=replace(made, close=(view, replace(seen, **places))))


def fit_tracks(frames: list[FrameHands], fitter: TrackFitter) -> list[FrameHands]:
    """Each track of a video fitted as one motion; frames in which it is not seen are carried by those about them.

    A track has the side that it had in the end, and the shape of its last frame, which rests on the most. Tracks that
    were never confirmed are left out.
    """
    last = {hand.track: hand for frame in frames for hand in frame.hands}
    found: dict[tuple[int, int], TrackedHand | None] = {}
    for number, end in last.items():
        places = [(row, hand) for row, frame in enumerate(frames) for hand in frame.hands if hand.track == number]
        if not end.is_confirmed:
            found |= {(row, number): None for row, _ in places}
            continue
        seen = [fitter.observed(hand, end.is_left) for _, hand in places]
        bridged = _bridged([frames[row].seconds for row, _ in places], [one is not None for one in seen])
        places, seen = ([one for one, keep in zip(all_of, bridged, strict=True) if keep] for all_of in (places, seen))
        known = [one for one in seen if one is not None]
        if not known:
            continue
        rows = fitter.rows(seen, known[-1])
        seconds = torch.tensor([frames[row].seconds for row, _ in places], dtype=torch.float64)
        betas = torch.as_tensor(known[-1].betas, dtype=torch.float64)
        options = SequenceOptions(frame=fitter.frame)
        fit = fit_sequence(
            fitter.model, rows["pose"], betas, rows["K"], rows["keypoints"], seconds, rows["confidence"], options,
            world=rows.get("world"),
        )  # fmt: skip
        fit = FitResult(**{name: value.cpu() for name, value in vars(fit).items()})
        good = usable(fit.status)
        for place, ((row, hand), one) in enumerate(zip(places, seen, strict=True)):
            if bool(good[place]):
                found[row, number] = fitted_hand(fitter, fit, place, one, known[-1], hand, end.is_left, "sequence")
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


def fitted_hand(
    fitter: TrackFitter, fit: FitResult, row: int, seen: Result | None, like: Result, hand: TrackedHand, is_left: bool,
    how: str,
) -> TrackedHand:  # fmt: skip
    """The hand with what a fit over time made of it; as it was, where that is behind the camera."""
    try:
        result = fitter.result(fit, row, seen, like, how)
    except UnusableImage as error:
        return replace(hand, result=None, reason=str(error))
    result = result.mirrored() if is_left else result
    if fitter.camera.lens is not None:  # keypoints are px of the picture as it was taken
        pixels = fitter.camera.project(result.joints.astype(np.float64)) if seen is None else hand.result.keypoints
        confidence = result.confidence if seen is None else hand.result.confidence
        result = replace(result, keypoints=np.nan_to_num(pixels, nan=-1.0), confidence=confidence)
    return replace(hand, result=result, is_left=is_left, failed=None)
