"""What calibration makes of 2D keypoints without a network: each hand fitted alone, and what is believed of all."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from src.personalization.calibration.population import (
    SHARED_ERROR_FACTOR,
    CalibrationOptions,
    Population,
    shipped_population,
)
from src.personalization.fitting.fit import PosePriorOptions
from src.personalization.fitting.from_keypoints import DETECTOR_NOISE, KeypointFit, KeypointFitOptions, fit_keypoints
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.pairing import content_ids
from src.personalization.solver.status import CalibrationError, Status, usable
from src.personalization.terms.noise import KeypointNoise
from src.personalization.terms.pose_prior import FlatHand, habit_prior
from template import HandAssets
from utils.artifact_checks import as_array
from utils.artifacts import Predictions
from utils.cameras.intrinsics import checked_intrinsics

logger = logging.getLogger(__name__)

#: Subject number of an identity where nobody gives one.
SOMEBODY = 1
#: A fit further from its keypoints than this, in standard deviations of a keypoint, explains no hand.
MAX_MISFIT = 3.0
#: What results of our 2D network say of their keypoints (`src.photos.result.Sources`).
KEYPOINT_NETWORK = "pose_2d"


@dataclass(frozen=True)
class KeypointHands:
    """N hands by their 2D keypoints, as of right hands.

    Attributes:
        keypoints: (N,21,2) px; K: (N,3,3) px; confidence: (N,21) in [0,1].
        is_left, image_id: (N,); names: for the log.
        world: (N,21,3) m `Detection.world`, NaN where there is none; or None. pose: (N,16,3,3) `Detection.pose`; or
            None.
    """

    keypoints: np.ndarray
    K: np.ndarray
    confidence: np.ndarray
    is_left: np.ndarray
    image_id: np.ndarray
    names: list[str]
    world: np.ndarray | None = None
    pose: np.ndarray | None = None

    def fit(
        self,
        assets: HandAssets,
        options: KeypointFitOptions,
        betas: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> KeypointFit:
        """`fit_keypoints` of each hand on its own; betas (10,) if the person is known."""
        keypoints, K, confidence = (torch.as_tensor(value) for value in (self.keypoints, self.K, self.confidence))
        known = (betas, self.world, self.pose)
        shape, world, pose = (None if value is None else torch.as_tensor(value) for value in known)
        return fit_keypoints(assets, keypoints, K, confidence, shape, world, options, device, pose)

    def explained(
        self,
        fit: KeypointFit,
        assets: HandAssets,
        options: KeypointFitOptions,
        subject: int,
        made_by: str = "keypoints",
    ) -> Predictions:
        """Poses, betas, places (m) and keypoints (px) of the hands whose fit explains the latter; the others are
        logged.

        Raises:
            CalibrationError: none is left.
        """
        kept, reasons = [], Counter[str]()
        for row, name in enumerate(self.names):
            off = float(fit.reprojection_px[row])
            shown = self.keypoints[row][self.confidence[row] > 0]
            size = float(np.ptp(shown, axis=0).max()) if len(shown) else 0.0
            std = options.noise.std_box * size if options.noise.std_px is None else options.noise.std_px
            if not bool(usable(fit.status[row])):
                reason = Status(int(fit.status[row])).name.lower().replace("_", " ")
                logger.warning("%s: left out, %s", name, reason)
                reasons[reason] += 1
            elif off > MAX_MISFIT * std:
                logger.warning("%s: left out, no hand fits its keypoints (%.1f px off)", name, off)
                reasons["no hand fits"] += 1
            else:
                kept.append(row)
        if not kept:
            why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            placed = reasons.keys() - {"keypoints not finite", "no keypoints", "keypoints coincide"}
            advice = "; are K or fov right?" if placed else ""
            raise CalibrationError(f"none of {len(self.names)} hands could be fitted to its keypoints: {why}{advice}")
        return Predictions(
            image_id=self.image_id[kept],
            subject_id=np.full(len(kept), subject),
            sequence_id=np.zeros(len(kept), dtype=np.int64),
            is_left=self.is_left[kept],
            K=self.K[kept],
            pose=fit.pose[kept].cpu().numpy(),
            betas=fit.betas[kept].cpu().numpy(),
            transl=fit.transl[kept].cpu().numpy(),
            keypoints_2d=self.keypoints[kept],
            keypoint_confidence=self.confidence[kept],
            model_name=made_by,
            hand_name=assets.name,
            hand_hash=assets.hash,
            dataset="own photos",
            source="own photos",
        )


def are_results(source: Any) -> bool:
    """Results of ``handid.load(...)``, of which calibration takes the keypoints."""
    return isinstance(source, Sequence) and bool(source) and hasattr(source[0], "keypoints")


def noise_of(source: Any, assets: HandAssets, population: Population | None) -> KeypointNoise:
    """A detector's, unless all keypoints are those of our network, whose errors were measured."""
    found = shipped_population(assets) if population is None else population
    ours = are_results(source) and all(one.sources.keypoints == KEYPOINT_NETWORK for one in source)
    if not ours or found is None or not found.keypoint_std_box > 0:
        return DETECTOR_NOISE
    return replace(DETECTOR_NOISE, std_box=float(found.keypoint_std_box))


def keypoints_of(source: Any, K: Any = None, confidence: Any = None, hand: str | None = None) -> KeypointHands:
    """Of results, or of keypoints (N,21,2) px with K (3,3) or (N,3,3) px, confidence (N,21) or None, and their side.

    Copies of a hand are left out, as copies of a photo are.
    """
    if are_results(source):
        keypoints, K, confidence = (np.stack(part) for part in zip(*map(_pinhole, source), strict=True))
        left = np.array([one.side == "left" for one in source])
    else:
        try:
            keypoints = np.asarray(as_array(source), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise CalibrationError(f"a {type(source).__name__} is no folder, photos, results or keypoints") from error
        if not keypoints.size:
            raise CalibrationError("there are no photos, results or keypoints at all to calibrate from")
        if keypoints.ndim != 3 or keypoints.shape[1:] != (21, 2):
            raise CalibrationError(f"keypoints have shape {keypoints.shape}; (N,21,2) px is meant, one hand an image")
        left = np.full(len(keypoints), hand == "left")
    if K is None:
        raise CalibrationError("keypoints need K, the (3,3) intrinsics in pixels of the images that they belong to")
    K, count = np.asarray(as_array(K)), len(keypoints)
    if K.shape not in ((3, 3), (count, 3, 3)):
        raise CalibrationError(f"K has shape {K.shape}; (3,3) or ({count},3,3) px is meant, as there are keypoints")
    K = np.array(np.broadcast_to(checked_intrinsics(K, "of the keypoints"), (count, 3, 3)))
    confidence = np.ones(keypoints.shape[:2]) if confidence is None else np.asarray(confidence, dtype=np.float64)
    if confidence.shape != keypoints.shape[:2] or not ((confidence >= 0) & (confidence <= 1)).all():
        raise CalibrationError(
            f"confidence has shape {confidence.shape} and spans [{confidence.min():g}, {confidence.max():g}]; "
            f"({count},21) in [0,1] is meant, zero where unseen"
        )
    keypoints, ids = as_right(keypoints, confidence, left)
    turn = np.array([-1.0, 1.0, 1.0])
    K[left] *= turn[:, None] * turn
    is_kept = ~(np.isfinite(keypoints).all(axis=(1, 2)) & (confidence > 0).any(axis=1))  # named later, each
    is_kept[np.unique(ids, return_index=True)[1]] = True
    rows = np.flatnonzero(is_kept)
    if len(rows) < count:
        logger.warning("%d of %d hands are the same as one before; left out", count - len(rows), count)
    names = [f"image {row}" for row in rows]
    return KeypointHands(keypoints[rows], K[rows], confidence[rows], left[rows], ids[rows], names)


def as_right(keypoints: np.ndarray, confidence: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N,21,2) px of left (N,) hands mirrored about x = 0, zero where confidence (N,21) is; and the images'
    numbers (N,), see `content_ids`."""
    keypoints = np.where(confidence[..., None] > 0, keypoints, 0.0)  # what is not seen may be anywhere
    keypoints = np.where(left[:, None, None], keypoints * [-1.0, 1.0], keypoints)
    return keypoints, content_ids(keypoints, left)


def _pinhole(result: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints (21,2) px of a result, K (3,3) px and confidence (21,): of a lens with distortion those of its view."""
    if getattr(result, "lens", None) is None:
        return result.keypoints, result.K, result.confidence
    points = result.view.to_view(result.keypoints)
    return points, result.view.K, np.where(np.isfinite(points).all(axis=1), result.confidence, 0.0)


def keypoint_options(
    assets: HandAssets,
    people: Population,
    device: torch.device | str = "cpu",
    noise: KeypointNoise = DETECTOR_NOISE,
    landmarks: LandmarkModel | None = None,
) -> CalibrationOptions:
    """What is believed of keypoints (px) without a network: usual poses and hands shown flat, people's shapes, and
    noise of a detector.

    Of a source with a landmark model its noise is taken, how much of it repeats from image to image, and a calibration
    solves for where its points lie on this hand. Else the noise is doubled, as for a network's keypoints
    (benchmarks/own_photos.py shows what the intervals hold). There is no prior on the depth.
    """
    doubled = replace(noise, std_box=SHARED_ERROR_FACTOR * noise.std_box)
    spread, correlation = (1.0, 0.0) if landmarks is None else (landmarks.pose_spread, landmarks.correlation)
    return CalibrationOptions(
        prior=PosePriorOptions(torch.inf, torch.inf),
        noise=doubled if landmarks is None else landmarks.noise(),
        extra_priors=(habit_prior(assets, device=device, spread=spread),),
        flat=FlatHand.of(assets, device, spread),
        population=people,
        landmarks=landmarks,
        error_correlation=correlation,
        own_points=True,
        laplace=True,
    )


def fit_options(options: CalibrationOptions) -> KeypointFitOptions:
    """For each image on its own, what `keypoint_options` believes of all together: a single error is not doubled."""
    more: dict[str, Any] = {"noise": options.noise, "people": options.population, "flat": options.flat is not None}
    if options.landmarks is None:
        more["noise"] = replace(options.noise, std_box=options.noise.std_box / SHARED_ERROR_FACTOR)
        more |= {"world_std": options.world_std, "prediction": options.prediction}
    return KeypointFitOptions.of_source(options.landmarks, **more)


def predictions_from_keypoints(
    hands: KeypointHands,
    assets: HandAssets,
    options: CalibrationOptions,
    subject: int,
    device: torch.device | str = "cpu",
    made_by: str = "keypoints",
) -> Predictions:
    """Each hand fitted alone.

    Raises:
        CalibrationError: none could be fitted.
    """
    alone = fit_options(options)
    return hands.explained(hands.fit(assets, alone, device=device), assets, alone, subject, made_by)
