"""From predictions of people's images to their identities: average of predicted shapes, or multi-frame calibration."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from src.personalization.calibration.images import AVERAGES, Images, average_betas, average_weights, choose_images
from src.personalization.calibration.multi_frame import (
    CalibrationOptions,
    MultiFrameResult,
    calibrate_frames,
    default_options,
    image_information,
    in_common,
)
from src.personalization.calibration.multi_view import ViewGroups
from src.personalization.calibration.views import Repeats
from src.personalization.landmarks.model import joints_model
from src.personalization.pairing import rows_by_subject
from src.personalization.solver.status import CalibrationError, Status, count_status, usable
from src.personalization.terms.hand_size import lengths_mm
from src.personalization.terms.shape_terms import HAND_RANGE, cue_conflict
from template import HandAssets
from template.kinematics import JointsModel
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)

METHODS = (*AVERAGES, "multi_frame")
#: What a method was called before.
ALIASES = {"joint": "multi_frame"}
#: A cue further than this from what the images say, in standard deviations of the difference, is refused.
MAX_CONFLICT = 4.0


@dataclass(frozen=True)
class Found:
    """What was found out of one person.

    Attributes:
        betas: (10,); covariance: (10,10) or None; used: mask (N,) of images.
        scale_evidence, evidence: see `Identity`.
    """

    betas: np.ndarray
    covariance: np.ndarray | None
    used: np.ndarray
    scale_evidence: str
    evidence: dict[str, Any] = field(default_factory=dict)


def calibrate_predictions(
    predictions: Predictions,
    assets: HandAssets,
    options: CalibrationOptions | None = None,
    *,
    method: str = "multi_frame",
    num_images: int | None = 20,
    select: str = "random",
    seed: int = 0,
    top_k: int = 10,
    temperature: float = 1.0,
    wrist_depth: np.ndarray | None = None,
    views: ViewGroups | None = None,
    subject: int | None = None,
    device: torch.device | str = "cpu",
    created_by: str = "",
) -> dict[int, Identity]:
    """One identity of every subject (or of one subject) in the predictions, by subject number.

    Args:
        predictions: with betas; for ``multi_frame`` with poses and 2D keypoints (`pairing.pair_keypoints`).
        assets: the hand model that the predictions were made with.
        options: priors, noise and measured lengths of ``multi_frame``; None: `default_options`.
        method: one of `METHODS`, or an alias.
        num_images, select, seed: images to use (None: all), see `images.choose_images`; where there are fewer,
            all are used, with a warning, and the identity says how many.
        top_k, temperature: see `images.average_weights`.
        wrist_depth: (N,) m measured depth of the wrist in each row, NaN where unknown.
        views: which rows are views of one instant, and where their cameras stand; None: every row alone.

    Raises:
        CalibrationError: what a method needs is missing, or cannot be. HandMismatchError: another hand model.
        ValueError: an unknown method.
    """
    method = ALIASES.get(method, method)
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; choose one of {METHODS}")
    predictions.check_hand(assets)
    if method == "multi_frame" and (predictions.pose is None or predictions.keypoints_2d is None):
        raise CalibrationError(f"{predictions.source} lacks poses or 2D keypoints; multi-frame calibration needs both")
    if options is None:
        options = default_options(assets, predictions.model_name, predictions.dataset)
    model = joints_model(assets, options.landmarks, device)
    images, identities = Images(predictions, wrist_depth, views), {}
    for number, rows in rows_by_subject(predictions, subject).items():
        own = images.rows(without_copies(predictions, rows))
        there = len(own.predictions)
        if num_images is not None and there < num_images:
            logger.warning(
                "subject %d has %d images, fewer than the %d asked for: all are used", number, there, num_images
            )
        wanted, information, prior = there if num_images is None else num_images, None, None
        if select == "informative" and method == "multi_frame" and views is None:
            person = (None if value is None else value[0] for value in own.tensors()[:5])
            information = image_information(model, *person, options).cpu().numpy()
            prior = np.linalg.inv(options.population.betas_covariance)
        instant = None if own.views is None or method != "multi_frame" else own.views.instant
        confidence = own.predictions.confidence
        chosen = choose_images(there, wanted, select, seed, confidence, information, prior, instant)
        if method == "multi_frame":
            own = own.in_videos(model, options.same_video).rows(chosen)
            found = _solve_person(model, own, options, number)
        else:
            own = own.rows(chosen)
            found = _average(own, method, top_k, temperature)
        identities[number] = package(assets, found, own.predictions, method, number, created_by)
    return identities


def without_copies(predictions: Predictions, rows: np.ndarray) -> np.ndarray:
    """``rows`` without those whose pose, shape and keypoints are another row's to the bit: the same image again."""
    arrays = [getattr(predictions, name) for name in ("pose", "betas", "keypoints_2d", "confidence")]
    content = [array[rows].reshape(len(rows), -1).astype(np.float32) for array in arrays if array is not None]
    if not content:
        return rows
    _, first = np.unique(np.concatenate(content, axis=1), axis=0, return_index=True)
    if len(first) < len(rows):
        copies = np.delete(predictions.image_id[rows], first)
        logger.warning("%d images are copies of others (e.g. image %d) and do not count again", len(copies), copies[0])
    return rows[np.sort(first)]


def _average(own: Images, method: str, top_k: int, temperature: float) -> Found:
    """Average of the predicted betas; it has no covariance."""
    betas, count = own.predicted_betas, len(own.predictions)
    if betas is None:
        raise CalibrationError(
            f"{own.predictions.source} holds no betas that a network found by itself; predict with mano_baseline or "
            "mano_baseline_conf"
        )
    weights = average_weights(count, method, own.predictions.confidence, top_k, temperature)
    if method == "median":
        return Found(np.median(betas, axis=0), None, weights > 0, "network")
    return Found(average_betas(betas, weights), None, weights > 0, "network")


def _solve_person(model: JointsModel, own: Images, options: CalibrationOptions, subject: int) -> Found:
    """Solve with all cues, check the result, and each cue against everything else."""
    predicted, network, people = own.predicted_betas, options.population.network, options.population
    repeats, place = own.repeats(model, options.same_video)
    evidence: dict[str, Any] = {"prior": people.hash, "errors_repeat": options.errors_repeat}
    evidence["repeats"] = _describe(repeats, options, subject)
    if predicted is not None and network is not None:
        counts = repeats.weights(options.video_correlation)[place]
        mean, covariance = network.update(predicted, people.betas_mean, people.betas_covariance, counts)
        options = replace(options, population=replace(people, betas_mean=mean, betas_covariance=covariance))
        evidence["network"] = {"images": counts.sum(), "betas": np.average(predicted, 0, counts).round(6).tolist()}
    if options.cues:
        evidence["cues"] = [[cue.name, 1000 * cue.length, 1000 * cue.std] for cue in options.cues]
    pose, betas, K, keypoints, trust, depth = own.tensors()
    start = betas.double().mean(dim=1)
    less = [replace(options, cues=tuple(o for o in options.cues if o is not cue)) for cue in options.cues]
    results = (
        calibrate_frames(model, pose, start, K, keypoints, trust, believed, depth, own.views, repeats)
        for believed in (options, *less)
    )
    result = next(results)
    _check(result, own.predictions, subject, options.depths)
    for cue, without in zip(options.cues, results, strict=True):
        length, std, conflict = cue_conflict(model, without.betas[0], without.covariance[0], cue)
        said = (
            f"subject {subject}: {cue.name} was measured as {1000 * cue.length:.1f} ± {1000 * cue.std:.1f} mm, but the "
            f"images and the prior say {length:.1f} ± {std:.1f} mm: {abs(conflict):.1f} standard deviations apart"
        )
        if abs(conflict) > MAX_CONFLICT and not options.accept_conflict:
            raise CalibrationError(f"{said}. Measure again (wrist joint to fingertip, hand flat), or --accept_conflict")
        if abs(conflict) > MAX_CONFLICT / 2:
            logger.warning("%s", said)
    used = (result.frame_status[0] == Status.CONVERGED).cpu().numpy()
    if own.views is not None:  # that is of instants, not of images
        used = np.ones(len(own.predictions), dtype=bool)
    scale = ["ruler" if cue.name == "hand" else "known bone" for cue in options.cues]
    scale += ["cameras"] if own.views is not None else []
    scale += ["depth"] if own.wrist_depth is not None and np.isfinite(own.wrist_depth).any() else []
    scale = scale or ["prior", *(["network"] if "network" in evidence else [])]
    words = " + ".join(dict.fromkeys(scale))
    return Found(result.betas[0].cpu().numpy(), result.covariance[0].cpu().numpy(), used, words, evidence)


def _describe(repeats: Repeats, options: CalibrationOptions, subject: int) -> dict[str, Any]:
    """What is assumed of images that repeat each other; said in the log where some do."""
    (everywhere, in_video), images, views = in_common(options), len(repeats.view), len(np.unique(repeats.view))
    videos = int((np.unique(repeats.video, return_counts=True)[1] > 1).sum())
    alone = repeats.weights(in_video).sum()
    worth = float(alone / (1 + everywhere * (alone - 1)))
    if views < images or videos:
        said = "as stated" if options.same_video else "told from how the hand is held"
        logger.info(
            "subject %d: %d images show %d views, of %d videos (%s), which tell as much as %.1f independent images; "
            "--no-same_video where that is wrong", subject, images, views, videos, said, worth,
        )  # fmt: skip
    shared = round(everywhere + in_video - everywhere * in_video, 3)
    return {"views": views, "videos": videos, "in_common": [everywhere, shared], "worth": round(worth, 2)}


def _check(result: MultiFrameResult, own: Predictions, subject: int, depths: tuple[float, float]) -> None:
    counts = count_status(result.frame_status)
    elsewhere = int((result.frame_status == Status.BEHIND_CAMERA).sum())
    if 2 * elsewhere > result.frame_status.shape[1]:
        raise CalibrationError(
            f"subject {subject}: keypoints and K place the hand nearer than {depths[0]} or further than {depths[1]} m "
            f"in {elsewhere} of {result.frame_status.shape[1]} images of {own.source} (K of the first is "
            f"{np.round(own.K[0], 1).tolist()}): give the K, in pixels, of the images that the keypoints belong to"
        )
    if int(result.status[0]) == Status.NO_KEYPOINTS:
        raise CalibrationError(
            f"subject {subject}: no usable frame among {len(own)} ({counts}); nothing to calibrate from"
        )
    if not bool(usable(result.status)[0]):
        name = Status(int(result.status[0])).name.lower()
        raise CalibrationError(f"subject {subject}: the calibration {name}; check K and keypoints of {own.source}")
    if int(result.status[0]) != Status.CONVERGED:
        logger.warning("subject %d: stopped before convergence (%s)", subject, count_status(result.status))
    if set(counts) != {"converged"}:
        logger.warning("subject %d: some frames were left out: %s", subject, counts)


def package(
    assets: HandAssets, found: Found, images: Predictions, method: str, subject: int, created_by: str
) -> Identity:
    """An identity file's content, with the hand's length (mm) and the numbers of the images used."""
    length, std = lengths_mm(assets, found.betas, found.covariance, ("hand",))["hand"]
    low, high = HAND_RANGE
    if not 1000 * low < length < 1000 * high:
        raise CalibrationError(
            f"subject {subject}: the hand came out {length:.1f} mm long, which no hand is "
            f"({1000 * low:g} to {1000 * high:g}); check keypoints and K of {images.source}, and what the options say"
        )
    left = images.is_left[found.used]
    return Identity(
        betas=found.betas,
        covariance=found.covariance,
        hand_name=assets.name,
        hand_hash=assets.hash,
        hand_length_mm=length,
        hand_length_std_mm=std,
        side="left" if left.all() else "both" if left.any() else "right",
        method=method,
        n_images=int(found.used.sum()),
        image_ids=images.image_id[found.used].tolist(),
        subject_id=subject,
        created_by=created_by,
        scale_evidence=found.scale_evidence,
        evidence=found.evidence,
    )
