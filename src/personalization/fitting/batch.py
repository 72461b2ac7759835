"""Fitting `Predictions`: arrays in, arrays out, with either solver."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from src.personalization.calibration.views import SHARED, design_effect
from src.personalization.fitting.adam import AdamOptions, fit_adam
from src.personalization.fitting.fit import FitOptions, FitResult, fit_frames, reprojection_rmse
from src.personalization.fitting.sequence import SequenceOptions, fit_sequence
from src.personalization.fitting.translation import wrist_at_depth
from src.personalization.solver.status import CalibrationError, Status, in_range, log_unusable, usable
from src.personalization.terms.inputs import FrameInputs, check_frames
from template import HandAssets, HandModel
from template.kinematics import JointsModel
from utils.artifacts import Predictions

logger = logging.getLogger(__name__)

SOLVERS = ("lm", "adam")
LM_DEFAULTS, ADAM_DEFAULTS = FitOptions(), AdamOptions()
#: Frames a second of DexYCB's and HO-3D's cameras (docs/facts.md).
FRAME_RATE = 30.0


@dataclass
class FittedPredictions:
    """What `fit_predictions` gives back.

    Attributes:
        predictions: the rows given, with fitted pose, transl and betas.
        status: (N,) int64 of `Status`; rows that are not `usable` carry the network's pose and a guessed depth.
        reprojection_px: (N,) root mean square distance to the keypoints.
        seconds: wall time of the solver.
    """

    predictions: Predictions
    status: np.ndarray
    reprojection_px: np.ndarray
    seconds: float

    @property
    def frames_per_second(self) -> float:
        """Frames fitted in a second."""
        return len(self.status) / max(self.seconds, 1e-9)


def fit_predictions(
    predictions: Predictions,
    betas: np.ndarray,
    assets: HandAssets,
    *,
    solver: str = "lm",
    options: FitOptions = LM_DEFAULTS,
    adam: AdamOptions = ADAM_DEFAULTS,
    device: torch.device | str = "cpu",
    video: bool = False,
) -> FittedPredictions:
    """Fit every row to its own 2D keypoints.

    Args:
        predictions: with pose, K (px), keypoints_2d (px; see `pairing.pair_keypoints`), right-hand convention.
        betas: (N,10) shape of every row.
        solver: "lm" or "adam"; options belong to the former, ``adam`` to the latter.
        video: "lm" only; the frames of a video together, smoothly (`sequence.py`); with a shape prior all of a person's
            videos, with one shape.

    Raises:
        CalibrationError: pose or keypoints are missing. ValueError: unknown solver.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver {solver!r} is unknown; choose one of {SOLVERS}")
    if predictions.pose is None or predictions.keypoints_2d is None:
        raise CalibrationError(f"{predictions.source} lacks pose or keypoints_2d; both are needed for fitting")
    arrays = (predictions.pose, betas, predictions.K, predictions.keypoints_2d)
    pose, shape, K, keypoints = (
        torch.as_tensor(np.asarray(value), dtype=torch.float32, device=device) for value in arrays
    )
    found = predictions.keypoint_confidence
    confidence = None if found is None else torch.as_tensor(found, device=device)
    started = time.perf_counter()
    if solver == "lm":
        model = JointsModel(assets, dtype=torch.float32, device=device)
        if video:
            result = _fit_apart(
                model, predictions, (pose, shape, K, keypoints), confidence, SequenceOptions(frame=options)
            )
        else:
            result = fit_frames(model, pose, shape, K, keypoints, confidence, options)
    else:
        least = options.noise.min_confidence if adam.use_confidence else 0
        inputs = check_frames(pose, shape, K, keypoints, confidence, least)
        result = _fit_with_adam(assets, inputs, adam, options.chunk)
    if pose.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    log_unusable(logger, result.status, "frames", "they keep the network's pose, and their depth is a guess")
    fitted = replace(
        predictions,
        pose=result.pose.cpu().numpy(),
        betas=result.betas.cpu().numpy(),
        transl=result.transl.cpu().numpy(),
        status=result.status.cpu().numpy(),
    )
    return FittedPredictions(fitted, result.status.cpu().numpy(), result.reprojection_px.cpu().numpy(), seconds)


def _fit_with_adam(assets: HandAssets, inputs: FrameInputs, adam: AdamOptions, chunk: int) -> FitResult:
    """The reference solver in chunks, with the same result as `fit_frames`.

    It poses all 778 vertices, as the paper's code did.
    """
    hand = HandModel(assets).to(inputs.pose.device)
    parts = []
    for start in range(0, len(inputs.pose), chunk):
        part = inputs.rows(slice(start, start + chunk))
        given = (part.pose, part.betas, part.K, part.keypoints, part.confidence)
        parts.append(fit_adam(lambda *posed: hand(*posed).joints, *given, adam))
    fitted, transl = torch.cat([part.pose for part in parts]), torch.cat([part.transl for part in parts])
    root = hand.rest_joints(inputs.betas)[:, 0]
    finite = torch.isfinite(fitted).flatten(1).all(1) & torch.isfinite(transl).all(1)
    status = torch.where(finite, int(Status.ITERATION_LIMIT), int(Status.DIVERGED))
    status = torch.where(finite & ~in_range(transl + root), int(Status.OUT_OF_RANGE), status)
    status = torch.where(inputs.good, status, inputs.status)
    solved = usable(status)
    fitted = torch.where(solved[:, None, None, None], fitted, inputs.pose)
    transl = torch.where(solved[:, None], transl, wrist_at_depth(inputs.middle, inputs.K) - root)
    with torch.no_grad():
        joints = hand.joints(fitted, inputs.betas, transl)
    rmse = reprojection_rmse(joints, inputs.K, inputs.keypoints, inputs.confidence)
    steps = torch.full_like(status, adam.translation_steps + adam.pose_steps)
    return FitResult(fitted, transl, inputs.betas, status, rmse, steps, rmse.square() / 2)


def _fit_apart(
    model: JointsModel,
    predictions: Predictions,
    arrays: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    confidence: torch.Tensor | None,
    options: SequenceOptions,
) -> FitResult:
    """`fit_videos` of each video, or of each person whose shape is free: none has a part in another's solution.

    The prior on a free shape weighs more by the frames' `design_effect`: a network errs alike in all of them, and
    smoothness, in metres, draws each of them towards a smaller hand nearer by. Without, hands of unknown depth shrink
    with the length of the video (from 190 to 150 mm in 480 frames of synthetic people).
    """
    order, video = video_order(predictions.image_id, predictions.sequence_id, predictions.K)
    whose = np.empty_like(video)
    whose[order] = video
    if len(video) > 1 and len(np.unique(video)) == len(video):
        logger.warning("no frame follows another (consecutive images of a sequence and camera), so none helps another")
    if options.frame.shape_prior is not None:
        whose = predictions.subject_id
    parts, rows = [], [np.flatnonzero(whose == one) for one in np.unique(whose)]
    for own in rows:
        index = torch.as_tensor(own, device=arrays[0].device)
        given = tuple(value[index] for value in arrays)
        sure = None if confidence is None else confidence[index]
        part, frame = predictions.select(own), options.frame
        if (prior := frame.shape_prior) is not None:
            precision = prior.precision * float(design_effect(len(own), SHARED))
            frame = replace(frame, shape_prior=replace(prior, precision=precision))
        videos = video_order(part.image_id, part.sequence_id, part.K)
        parts.append(fit_videos(model, given, sure, *videos, replace(options, frame=frame)))
    back = torch.argsort(torch.as_tensor(np.concatenate(rows), device=arrays[0].device))
    return FitResult(**{name: torch.cat([getattr(part, name) for part in parts])[back] for name in vars(parts[0])})


def video_order(image_id: np.ndarray, sequence_id: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N,) sorted into videos, and the number of each one's video (N,), from official numbers.

    Consecutive image ids of one sequence and one camera (equal K) are consecutive frames (docs/facts.md 1.7).
    """
    order = np.argsort(image_id, kind="stable")
    ids, cameras = image_id[order], K[order].reshape(len(order), -1)
    follows = (np.diff(ids) == 1) & (np.diff(sequence_id[order]) == 0) & (cameras[1:] == cameras[:-1]).all(axis=1)
    return order, np.concatenate([[0], np.cumsum(~follows)])[: len(order)]


def fit_videos(
    model: JointsModel,
    arrays: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    confidence: torch.Tensor | None,
    order: np.ndarray,
    video: np.ndarray,
    options: SequenceOptions,
    seconds: torch.Tensor | None = None,
) -> FitResult:
    """`fit_sequence` of every video, all in one system.

    Args:
        arrays: pose, betas (N,10), K, keypoints as in `fit_frames`; order, video: of `video_order`.
        seconds: (N,) when each row was taken; None: one after the other at `FRAME_RATE`.
    """
    rows = torch.as_tensor(order, device=arrays[0].device)
    pose, betas, K, keypoints = (value[rows] for value in arrays)
    chosen = None if confidence is None else confidence[rows]
    steady = torch.arange(len(rows), dtype=torch.float64) / FRAME_RATE
    seconds = steady if seconds is None else seconds[order]
    found = fit_sequence(model, pose, betas, K, keypoints, seconds, chosen, options, torch.as_tensor(video))
    back = torch.argsort(rows)
    return FitResult(**{name: value[back] for name, value in vars(found).items()})
