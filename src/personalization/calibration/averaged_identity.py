"""From betas to an identity file's content; the averages of predicted shapes."""

from __future__ import annotations

import numpy as np

from src.personalization.calibration.averages import average_betas, average_weights
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import lengths_mm
from template import HandAssets
from utils.artifacts import Identity, Predictions


def average_identity(
    own: Predictions,
    assets: HandAssets,
    method: str,
    *,
    top_k: int = 10,
    temperature: float = 1.0,
    subject: int,
    created_by: str = "",
) -> Identity:
    """Average the predicted betas of images of one subject (`averaging`); the result has no covariance.

    Raises:
        CalibrationError: the predictions lack betas, or the confidence that ``method`` needs.
    """
    if own.betas is None:
        raise CalibrationError(f"{own.source} holds no betas; predict with mano_baseline or mano_baseline_conf")
    weights = average_weights(len(own), method, own.confidence, top_k, temperature)
    return make_identity(
        average_betas(own.betas, weights),
        None,
        assets,
        own.select(np.flatnonzero(weights > 0)),
        method=method,
        subject=subject,
        scale_evidence="network",
        created_by=created_by,
    )


def make_identity(
    betas: np.ndarray,
    covariance: np.ndarray | None,
    assets: HandAssets,
    images: Predictions,
    *,
    method: str,
    subject: int,
    scale_evidence: str,
    created_by: str,
) -> Identity:
    """An identity file's content, with the hand's length and the numbers of the images used."""
    length, std = lengths_mm(assets, betas, covariance, ("hand",))["hand"]
    left = images.is_left
    return Identity(
        betas=betas,
        covariance=covariance,
        hand_name=assets.name,
        hand_hash=assets.hash,
        hand_length_mm=length,
        hand_length_std_mm=std,
        side="left" if left.all() else "both" if left.any() else "right",
        method=method,
        n_images=len(images),
        image_ids=images.image_id.tolist(),
        subject_id=subject,
        created_by=created_by,
        scale_evidence=scale_evidence,
    )
