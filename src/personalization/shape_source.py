"""Which betas a fit is given: the network's own, the annotated ones, or a calibrated identity's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from src.personalization.status import CalibrationError
from template import HandAssets
from utils.artifacts import Identity, Predictions, load_identity

SHAPE_SOURCES = ("predicted", "gt", "calibrated")


def load_identities(path: str | Path, subjects: np.ndarray, assets: HandAssets) -> dict[int, Identity]:
    """Identity of each subject number in ``subjects``.

    Args:
        path: one file, used for its own subject (or for everybody, if it names none), or a folder with
            ``identity_subject-NN.json``.

    Raises:
        FileNotFoundError, CalibrationError, ArtifactError: missing, of another subject, hand or schema.
    """
    path = Path(path)
    numbers = [int(number) for number in np.unique(subjects)]
    if path.is_dir():
        found = {number: load_identity(path / f"identity_subject-{number:02d}.json") for number in numbers}
    else:
        identity = load_identity(path)
        if identity.subject_id is not None and numbers != [identity.subject_id]:
            raise CalibrationError(
                f"{path} is of subject {identity.subject_id}, but the predictions are of {numbers}; give a folder with "
                "an identity file for each"
            )
        found = dict.fromkeys(numbers, identity)
    for identity in found.values():
        identity.check_hand(assets)
    return found


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
        return truth["betas"]
    if source == "calibrated":
        if not identities:
            raise CalibrationError("--shape_source calibrated needs --identity FILE_OR_FOLDER")
        return np.stack([identities[int(number)].betas for number in predictions.subject_id]).astype(np.float32)
    raise ValueError(f"shape source {source!r} is unknown; choose one of {SHAPE_SOURCES}")
