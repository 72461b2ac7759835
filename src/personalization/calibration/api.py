"""`calibrate`: one person's predictions, or 2D keypoints alone, to an identity."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.multi_frame import CalibrationOptions, calibration_options, default_options
from src.personalization.calibration.population import (
    SHARED_ERROR_FACTOR,
    Population,
    load_population,
    shipped_population,
)
from src.personalization.fitting.fit import PosePriorOptions
from src.personalization.fitting.from_keypoints import (
    DETECTOR_NOISE,
    KeypointFit,
    KeypointFitOptions,
    fit_keypoints,
)
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.pairing import rows_by_subject
from src.personalization.solver.status import CalibrationError, Status, usable
from src.personalization.terms.noise import KeypointNoise
from src.personalization.terms.population_pose_prior import habit_prior
from src.personalization.terms.shape_terms import LengthCue
from template import HandAssets, load_hand_assets
from utils.artifact_checks import check_hand
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)

#: Subject number of an identity where nobody gives one.
SOMEBODY = 1
#: A fit further from its keypoints than this, in standard deviations of a keypoint, explains no hand.
MAX_MISFIT = 3.0
#: What results of our 2D network say of their keypoints (`src.photos.result.Sources`).
KEYPOINT_NETWORK = "pose_2d"


def calibrate(
    source: Any,
    *,
    K: Any = None,
    confidence: Any = None,
    hand: str | None = None,
    hand_length_mm: float | None = None,
    hand_length_std_mm: float = 3.0,
    prior: str | os.PathLike | Population | None = None,
    method: str = "multi_frame",
    subject: int | None = None,
    assets: HandAssets | None = None,
    device: torch.device | str = "cpu",
) -> Identity:
    """One person's hand shape, with its uncertainty, from many images. The more, and the more varied, the better.

    Args:
        source: `Predictions` of one person (or of several, and ``subject``); or 2D keypoints (N,21,2), px, standard
            order, one hand an image; or results of ``handid.load(...)``, of which the keypoints are taken.
        K: (3,3) or (N,3,3) px, of the image that keypoints belong to.
        confidence: (N,21) in [0,1] of keypoints, zero where unseen; None: all one.
        hand: "left": keypoints are of a left hand. None: right.
        hand_length_mm: ruler, wrist joint to middle fingertip of the stretched hand. One camera does not see absolute
            size: without it the size rests on what people's hands are like.
        hand_length_std_mm: of the ruler; 3 is careful measuring, 5 is not.
        prior: population file (or `Population`); None: the shipped one where it fits.
        method: "multi_frame" (or "joint"), or of predictions "mean", "top_k", "confidence": averages of their shapes.
        subject: its number.
        assets: hand model; None: `load_hand_assets`.

    Returns:
        `Identity`: ``betas``, ``covariance``, ``length_mm``, ``interval_mm`` (95%), ``save(path)``.

    Raises:
        CalibrationError: nothing usable, several people, a length that contradicts the images; says which.
        HandMismatchError: predictions or prior of another hand model.
    """
    if hand not in (None, "left", "right"):
        raise CalibrationError(f"hand is {hand!r}; it must be 'left', 'right' or None")
    if isinstance(source, Predictions) or _are_results(source):
        given = {"K": K, "confidence": confidence, "hand": hand}
        if known := [name for name, value in given.items() if value is not None]:
            raise CalibrationError(f"{', '.join(known)}: predictions and results bring their own; leave it out")
    assets = load_hand_assets(side="right") if assets is None else assets
    population = population_of(prior, assets)
    cues = () if hand_length_mm is None else (LengthCue("hand", hand_length_mm / 1000, hand_length_std_mm / 1000),)
    if isinstance(source, Predictions):
        people = list(rows_by_subject(source, subject))
        if len(people) > 1:
            raise CalibrationError(f"{source.source} is of the subjects {people}; say which one: subject={people[0]}")
        subject, rows = people[0], source
        options = (
            default_options(assets, rows.model_name, rows.dataset)
            if population is None
            else (calibration_options(population))
        )
    else:
        if method not in ("multi_frame", "joint"):
            raise CalibrationError(f"method {method!r} averages a network's shapes; keypoints take 'multi_frame'")
        subject = SOMEBODY if subject is None else subject
        options = keypoint_options(assets, shapes_of(assets, population), device, _noise_of(source, assets, population))
        rows = predictions_from_keypoints(*_keypoints_of(source, K, confidence, hand), assets, options, subject, device)
    return calibrate_predictions(
        rows,
        assets,
        replace(options, cues=cues),
        method=method,
        num_images=None,
        subject=subject,
        device=device,
        created_by="handid.calibrate",
    )[subject]


def population_of(prior: str | os.PathLike | Population | None, assets: HandAssets) -> Population | None:
    """What is meant by ``prior``: None stays None.

    Raises:
        HandMismatchError, CalibrationError: it is of another hand model; FileNotFoundError: no such file.
    """
    if prior is None:
        return None
    if not isinstance(prior, Population):
        return load_population(prior, assets.hash)
    if prior.hand_hash:
        check_hand("prior", prior.hand_hash, assets, "the population")
    return prior


def _are_results(source: Any) -> bool:
    return isinstance(source, Sequence) and bool(source) and hasattr(source[0], "keypoints")


def _noise_of(source: Any, assets: HandAssets, population: Population | None) -> KeypointNoise:
    """A detector's, unless all keypoints are those of our network, whose errors were measured."""
    found = shipped_population(assets) if population is None else population
    ours = _are_results(source) and all(one.sources.keypoints == KEYPOINT_NETWORK for one in source)
    if not ours or found is None or not found.keypoint_std_box > 0:
        return DETECTOR_NOISE
    return replace(DETECTOR_NOISE, std_box=float(found.keypoint_std_box))


def _keypoints_of(
    source: Any, K: Any, confidence: Any, hand: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints (N,21,2), K (N,3,3), confidence (N,21), all in the right-hand convention, and is_left (N,)."""
    if _are_results(source):
        keypoints, K, confidence = (
            np.stack([getattr(one, n) for one in source]) for n in ("keypoints", "K", "confidence")
        )
        left = np.array([one.side == "left" for one in source])
    else:
        keypoints = np.asarray(source, dtype=np.float64)
        if keypoints.ndim != 3 or keypoints.shape[1:] != (21, 2):
            raise CalibrationError(f"keypoints have shape {keypoints.shape}; (N,21,2) px is meant, one hand an image")
        left = np.full(len(keypoints), hand == "left")
    if not len(keypoints):
        raise CalibrationError("no keypoints at all; there is nothing to calibrate from")
    if K is None:
        raise CalibrationError("keypoints need K, the (3,3) intrinsics in pixels of the images that they belong to")
    K, count = np.asarray(K, dtype=np.float64), len(keypoints)
    if K.shape not in ((3, 3), (count, 3, 3)):
        raise CalibrationError(f"K has shape {K.shape}; (3,3) or ({count},3,3) px is meant, as there are keypoints")
    K = np.array(np.broadcast_to(K, (count, 3, 3)))
    confidence = np.ones(keypoints.shape[:2]) if confidence is None else np.asarray(confidence, dtype=np.float64)
    if confidence.shape != keypoints.shape[:2] or not ((confidence >= 0) & (confidence <= 1)).all():
        raise CalibrationError(
            f"confidence has shape {confidence.shape} and spans [{confidence.min():g}, {confidence.max():g}]; "
            f"({count},21) in [0,1] is meant, zero where unseen"
        )
    keypoints = np.where(left[:, None, None], keypoints * [-1.0, 1.0], keypoints)  # mirrored about x = 0
    K[left, 0, 1:] *= -1
    return keypoints, K, confidence, left


def shapes_of(assets: HandAssets, population: Population | None = None) -> Population:
    """People's shapes alone: of the population given, of the shipped one if it is of this hand, or unit normal."""
    found = shipped_population(assets) if population is None else population
    return Population() if found is None else found.shapes_only()


def keypoint_options(
    assets: HandAssets,
    people: Population,
    device: torch.device | str = "cpu",
    noise: KeypointNoise = DETECTOR_NOISE,
    landmarks: LandmarkModel | None = None,
) -> CalibrationOptions:
    """What is believed of keypoints (px) without a network: usual poses, people's shapes, and noise of a detector.

    Of a source with a landmark model its noise is taken, and how much of it repeats from image to image. Else the noise
    is doubled, as for a network's keypoints (benchmarks/own_photos.py shows what the intervals hold). There is no prior
    on the depth.
    """
    if landmarks is not None:
        return CalibrationOptions(
            prior=PosePriorOptions(torch.inf, torch.inf),
            noise=landmarks.noise(),
            extra_priors=(habit_prior(assets, device=device, spread=landmarks.pose_spread),),
            population=people,
            landmarks=landmarks,
            error_correlation=landmarks.correlation,
        )
    return CalibrationOptions(
        prior=PosePriorOptions(torch.inf, torch.inf),
        noise=replace(noise, std_box=SHARED_ERROR_FACTOR * noise.std_box),
        extra_priors=(habit_prior(assets, device=device),),
        population=people,
    )


def fit_options(options: CalibrationOptions) -> KeypointFitOptions:
    """For each image on its own, what `keypoint_options` believes of all together: a single error is not doubled."""
    people, noise = options.population, options.noise
    moments = (torch.as_tensor(people.betas_mean), torch.as_tensor(people.betas_covariance))
    if options.landmarks is not None:
        shapes = {"shape_mean": moments[0], "shape_covariance": moments[1]}
        return KeypointFitOptions.of_source(options.landmarks, noise=noise, **shapes)
    return KeypointFitOptions(replace(noise, std_box=noise.std_box / SHARED_ERROR_FACTOR), *moments)


def predictions_from_keypoints(
    keypoints: np.ndarray,
    K: np.ndarray,
    confidence: np.ndarray,
    is_left: np.ndarray,
    assets: HandAssets,
    options: CalibrationOptions,
    subject: int,
    device: torch.device | str = "cpu",
) -> Predictions:
    """Each hand fitted alone; arguments (keypoints and K in px) as `_keypoints_of` returns them.

    Raises:
        CalibrationError: none could be fitted.
    """
    names, alone = [f"image {row}" for row in range(len(keypoints))], fit_options(options)
    points, camera, trust = (torch.as_tensor(value) for value in (keypoints, K, confidence))
    fit = fit_keypoints(assets, points, camera, trust, options=alone, device=device)
    return explained(keypoints, K, confidence, is_left, np.arange(len(keypoints)), names, fit, assets, alone, subject)


def explained(
    keypoints: np.ndarray,
    K: np.ndarray,
    confidence: np.ndarray,
    is_left: np.ndarray,
    image_id: np.ndarray,
    names: list[str],
    fit: KeypointFit,
    assets: HandAssets,
    options: KeypointFitOptions,
    subject: int,
    made_by: str = "keypoints",
) -> Predictions:
    """Poses, betas, places (m) and keypoints (px) of the hands whose fit explains the latter; the others are logged.

    Raises:
        CalibrationError: none is left.
    """
    kept = []
    for row, name in enumerate(names):
        off = float(fit.reprojection_px[row])
        size = float((keypoints[row].max(axis=0) - keypoints[row].min(axis=0)).max())
        std = options.noise.std_box * size if options.noise.std_px is None else options.noise.std_px
        if not bool(usable(fit.status[row])):
            logger.warning("%s: left out, %s", name, Status(int(fit.status[row])).name.lower().replace("_", " "))
        elif off > MAX_MISFIT * std:
            logger.warning("%s: left out, no hand fits its keypoints (%.1f px off)", name, off)
        else:
            kept.append(row)
    if not kept:
        raise CalibrationError(f"none of {len(names)} hands could be fitted to its keypoints; are K or --fov right?")
    return Predictions(
        image_id=image_id[kept],
        subject_id=np.full(len(kept), subject),
        sequence_id=np.zeros(len(kept), dtype=np.int64),
        is_left=is_left[kept],
        K=K[kept],
        pose=fit.pose[kept].cpu().numpy(),
        betas=fit.betas[kept].cpu().numpy(),
        transl=fit.transl[kept].cpu().numpy(),
        keypoints_2d=keypoints[kept],
        keypoint_confidence=confidence[kept],
        model_name=made_by,
        hand_name=assets.name,
        hand_hash=assets.hash,
        dataset="own photos",
        source="own photos",
    )
