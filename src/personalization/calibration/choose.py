"""One door to every way of calibrating: averages of predicted shapes, or the joint calibration."""

from __future__ import annotations

import logging

import numpy as np
import torch

from src.personalization.calibration.averaged_identity import average_identity
from src.personalization.calibration.averages import AVERAGES
from src.personalization.calibration.multi_frame_identity import Evidence, joint_identity
from src.personalization.calibration.selection import choose_images
from src.personalization.pairing import rows_by_subject
from template import HandAssets
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)

METHODS = (*AVERAGES, "joint")
#: Default priors and no cue.
NO_EVIDENCE = Evidence()


def calibrate(
    predictions: Predictions,
    assets: HandAssets,
    *,
    method: str = "joint",
    num_images: int = 20,
    select: str = "random",
    seed: int = 0,
    top_k: int = 10,
    temperature: float = 1.0,
    evidence: Evidence = NO_EVIDENCE,
    subject: int | None = None,
    device: torch.device | str = "cpu",
    created_by: str = "",
) -> dict[int, Identity]:
    """One identity of every subject (or of one subject) in the predictions, by subject number.

    Args:
        predictions: with betas; for ``joint`` with poses and 2D keypoints (`pairing.pair_keypoints`).
        assets: the hand model that the predictions were made with.
        method: one of `METHODS`.
        num_images, select, seed: images to use, see `selection.choose_images`; where there are fewer,
            all are used, with a warning, and the identity says how many.
        top_k, temperature: see `averaging.average_weights`.
        evidence: priors and metric cues of ``joint``.

    Raises:
        CalibrationError: what a method needs is missing, or cannot be. HandMismatchError: another hand model.
        ValueError: an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; choose one of {METHODS}")
    predictions.check_hand(assets)
    identities = {}
    for number, rows in rows_by_subject(predictions, subject).items():
        own = predictions.select(rows)
        if len(own) < num_images:
            logger.warning(
                "subject %d has %d images, fewer than the %d asked for: all are used", number, len(own), num_images
            )
        if method == "joint":
            identities[number] = joint_identity(
                own, assets, evidence.rows(rows), num_images=num_images, select=select, seed=seed,
                subject=number, device=device, created_by=created_by,
            )
            continue
        chosen = own.select(choose_images(len(own), num_images, select, seed, own.confidence))
        identities[number] = average_identity(
            chosen, assets, method, top_k=top_k, temperature=temperature, subject=number, created_by=created_by
        )
    return identities


def used_images(identity: Identity, predictions: Predictions) -> np.ndarray:
    """Mask (N,) of rows that served to make ``identity``."""
    return np.isin(predictions.image_id, identity.image_ids)
