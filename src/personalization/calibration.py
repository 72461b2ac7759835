"""Calibration: predictions of one person's images to an `Identity`."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from src.personalization.averaging import AVERAGES, average_betas, average_weights
from src.personalization.hand_size import lengths_mm
from src.personalization.joints_model import HandArrays
from src.personalization.pairing import rows_by_subject
from src.personalization.selection import choose_images
from src.personalization.status import CalibrationError
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)

METHODS = (*AVERAGES, "joint")


@dataclass(frozen=True)
class CalibrationOptions:
    """What to calibrate from, and how.

    Attributes:
        method: one of `METHODS`.
        num_images: images to use; all, with a warning, where there are fewer.
        select, seed: see `selection.choose_images`.
        top_k, temperature: see `averaging.average_weights`.
    """

    method: str = "mean"
    num_images: int = 20
    select: str = "random"
    seed: int = 0
    top_k: int = 10
    temperature: float = 1.0


def calibrate_subjects(
    predictions: Predictions,
    assets: HandArrays,
    options: CalibrationOptions,
    subject: int | None = None,
    created_by: str = "",
) -> dict[int, Identity]:
    """One identity per subject (or of one subject) in the predictions, by subject number.

    Args:
        predictions: with betas; with 2D keypoints (`pairing.pair_keypoints`) for ``joint``.
        assets: the hand model that the predictions were made with.

    Raises:
        CalibrationError: what a method needs is missing. HandMismatchError: another hand model.
    """
    predictions.check_hand(assets)
    identities = {}
    for number, rows in rows_by_subject(predictions, subject).items():
        own = predictions.select(rows)
        warn_if_few(len(own), options.num_images, number)
        identities[number] = average_identity(own, assets, options, number, created_by)
    return identities


def warn_if_few(n: int, wanted: int, subject: int) -> None:
    """Log that a subject has fewer images than asked for; the identity file says how many were used."""
    if n < wanted:
        logger.warning("subject %d has %d images, fewer than the %d asked for: all are used", subject, n, wanted)


def average_identity(
    own: Predictions, assets: HandArrays, options: CalibrationOptions, subject: int, created_by: str = ""
) -> Identity:
    """Average the predicted betas of images of one subject; the file carries no covariance."""
    if own.betas is None:
        raise CalibrationError(f"{own.source} holds no betas; predict with mano_baseline or mano_baseline_conf")
    rows = choose_images(len(own), options.num_images, options.select, options.seed, own.confidence)
    own = own.select(rows)
    weights = average_weights(len(own), options.method, own.confidence, options.top_k, options.temperature)
    used = own.select(np.flatnonzero(weights > 0))
    betas = average_betas(own.betas, weights)
    return make_identity(
        betas, None, assets, used, method=options.method, subject=subject, scale_evidence="network", created_by=created_by
    )


def make_identity(
    betas: np.ndarray,
    covariance: np.ndarray | None,
    assets: HandArrays,
    images: Predictions,
    *,
    method: str,
    subject: int,
    scale_evidence: str,
    created_by: str,
) -> Identity:
    """An identity file's content, with the hand's length."""
    length, std = lengths_mm(assets, betas, covariance, ("hand",))["hand"]
    left = images.is_left
    return Identity(
        betas=betas,
        covariance=covariance,
        hand_name=assets.name,
        hand_hash=assets.hash,
        hand_length_mm=length,
        hand_length_std_mm=std,
        side="both" if left.any() and not left.all() else "left" if left.all() else "right",
        method=method,
        n_images=len(images),
        image_ids=images.image_id.tolist(),
        subject_id=subject,
        created_by=created_by,
        scale_evidence=scale_evidence,
    )
