"""Fitting `Predictions`: arrays in, arrays out, with either solver."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from src.personalization.fitting.adam import AdamOptions, fit_adam
from src.personalization.fitting.fit import FitOptions, FitResult, fit_frames, reprojection_rmse
from src.personalization.fitting.sequence import SequenceOptions
from src.personalization.fitting.translation import wrist_at_depth
from src.personalization.fitting.video import fit_videos, video_order
from src.personalization.solver.status import CalibrationError, Status, in_range, log_unusable, usable
from src.personalization.terms.inputs import check_frames
from template import HandAssets, HandModel
from template.kinematics import JointsModel
from utils.artifacts import Predictions

logger = logging.getLogger(__name__)

SOLVERS = ("lm", "adam")
LM_DEFAULTS, ADAM_DEFAULTS = FitOptions(), AdamOptions()


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
    full_layer: bool = True,
    video: bool = False,
) -> FittedPredictions:
    """Fit every row to its own 2D keypoints.

    Args:
        predictions: with pose, K (px), keypoints_2d (px; see `pairing.pair_keypoints`), right-hand convention.
        betas: (N,10) shape of every row.
        solver: "lm" or "adam"; options belong to the former, ``adam`` to the latter.
        full_layer: Adam poses all 778 vertices, as the paper's code did; no effect on the result.
        video: "lm" only; the frames of a video together, smoothly (`sequence.py`).

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
            order = video_order(predictions.image_id, predictions.sequence_id, predictions.K)
            together = SequenceOptions(frame=options)
            result = fit_videos(model, (pose, shape, K, keypoints), confidence, *order, together)
        else:
            result = fit_frames(model, pose, shape, K, keypoints, confidence, options)
    else:
        result = _fit_with_adam(assets, pose, shape, K, keypoints, confidence, adam, options, full_layer)
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


def _fit_with_adam(
    assets: HandAssets,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None,
    adam: AdamOptions,
    options: FitOptions,
    full_layer: bool,
) -> FitResult:
    """The reference solver in chunks, with the same checks and the same result as `fit_frames`."""
    hand = HandModel(assets).to(pose.device)
    least = options.noise.min_confidence if adam.use_confidence else 0
    inputs = check_frames(pose, betas, K, keypoints, confidence, least)

    def joints_of(rotations: torch.Tensor, shape: torch.Tensor, transl: torch.Tensor) -> torch.Tensor:
        return hand(rotations, shape, transl).joints if full_layer else hand.joints(rotations, shape, transl)

    parts = []
    for start in range(0, len(pose), options.chunk):
        part = inputs.rows(slice(start, start + options.chunk))
        given = (part.pose, part.betas, part.K, part.keypoints, part.confidence)
        parts.append(fit_adam(joints_of, *given, adam))
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
