"""Which betas a fit is given: the network's own, the annotated ones, or a calibrated identity's."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import opened_identity
from template import HandAssets
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)

SHAPE_SOURCES = ("predicted", "gt", "calibrated")


def load_identities(
    path: str | Path, subjects: np.ndarray, assets: HandAssets, is_left: np.ndarray | None = None
) -> dict[int, Identity]:
    """Identity of each subject number in ``subjects``.

    Args:
        path: one file, used for its own subject (or for everybody, if it names none), or a folder with
            ``identity_subject-NN.json``.
        subjects: (N,) of the images; is_left: (N,) bool, the side they show; None: not checked.

    Raises:
        FileNotFoundError, CalibrationError, ArtifactError: missing, of another subject, hand, side or schema.
    """
    path = Path(path)
    numbers = [int(number) for number in np.unique(subjects)]
    if path.is_dir():
        found = {number: opened_identity(path / f"identity_subject-{number:02d}.json", assets) for number in numbers}
        for number, identity in found.items():
            if identity.subject_id not in (None, number):
                raise CalibrationError(
                    f"{identity.source}: its name says subject {number}, its content subject {identity.subject_id}; "
                    "calibrate anew or rename it"
                )
    else:
        identity = opened_identity(path, assets)
        if identity.subject_id is not None and numbers != [identity.subject_id]:
            raise CalibrationError(
                f"{path} is of subject {identity.subject_id}, but the predictions are of {numbers}; give a folder with "
                "an identity file for each"
            )
        if len(numbers) > 1:
            logger.warning("%s names no subject: all of %s are given its shape", path, numbers)
        found = dict.fromkeys(numbers, identity)
    if is_left is not None:
        for number, identity in found.items():
            check_side(identity, number, is_left[np.asarray(subjects) == number])
    return found


def check_side(identity: Identity, subject: int, is_left: np.ndarray) -> None:
    """Refuse an identity of one side for images of the other side only; warn where both are."""
    other = is_left if identity.side == "right" else ~is_left
    if identity.side == "both" or not other.any():
        return
    if other.all():
        raise CalibrationError(
            f"{identity.source} is of a {identity.side} hand, but all {len(other)} images of subject {subject} show "
            "the other hand; calibrate from images of that hand"
        )
    logger.warning(
        "subject %d: identity of a %s hand, %d of %d images show the other hand",
        subject,
        identity.side,
        int(other.sum()),
        len(other),
    )


def betas_of(
    source: str, predictions: Predictions, truth: dict[str, np.ndarray] | None, identities: dict[int, Identity]
) -> np.ndarray:
    """Betas (N,10) float32 of every row.

    Raises:
        CalibrationError: the source asked for is not there.
    """
    if source == "predicted":
        if predictions.betas is None:
            raise CalibrationError(f"{predictions.source} holds no betas; use --shape_source gt or calibrated")
        return predictions.betas
    if source == "gt":
        if truth is None:
            raise CalibrationError("--shape_source gt needs the annotations: give --data_root")
        if not truth["valid"].any():  # as the evaluation parts of FreiHAND and HO-3D: betas are zeros there
            raise CalibrationError(
                f"{predictions.source}: none of its images has an annotated shape for --shape_source gt"
            )
        return truth["betas"]
    if source == "calibrated":
        if not identities:
            raise CalibrationError("--shape_source calibrated needs --identity FILE_OR_FOLDER")
        return np.stack([identities[int(number)].betas for number in predictions.subject_id]).astype(np.float32)
    raise ValueError(f"shape source {source!r} is unknown; choose one of {SHAPE_SOURCES}")
