"""Bringing files together: shape predictions and keypoints of the same images; which of them served to calibrate."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from src.personalization.solver.status import CalibrationError
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)


def pair_keypoints(predictions: Predictions, keypoints: Predictions | None) -> Predictions:
    """The rows of ``predictions`` with the 2D keypoints (px) of the same images (by image_id) put in.

    Without ``keypoints`` the predictions' own are used. Rows that have none are dropped, with a warning.

    Raises:
        CalibrationError: no keypoints at all, no image in common, or different data sets or splits.
    """
    if keypoints is None:
        if predictions.keypoints_2d is None:
            raise CalibrationError(
                f"{predictions.source} holds no 2D keypoints; give a file of the pose_2d network with --keypoints"
            )
        return predictions
    if keypoints.keypoints_2d is None:
        raise CalibrationError(f"{keypoints.source} holds no keypoints_2d; predict with the pose_2d network")
    if (predictions.dataset, predictions.split) != (keypoints.dataset, keypoints.split):
        raise CalibrationError(
            f"{predictions.source} is of {predictions.dataset} {predictions.split}, but {keypoints.source} is of "
            f"{keypoints.dataset} {keypoints.split}: their image numbers mean different images"
        )
    _, rows, partners = np.intersect1d(predictions.image_id, keypoints.image_id, return_indices=True)
    if len(rows) == 0:
        raise CalibrationError(f"{predictions.source} and {keypoints.source} have no image in common")
    if len(rows) < len(predictions):
        without = len(predictions) - len(rows)
        logger.warning("%d of %d images have no keypoints and are left out", without, len(predictions))
    for name in ("is_left", "K"):
        check_same(name, predictions.select(rows), getattr(keypoints, name)[partners], keypoints.source)
    order = np.argsort(rows, kind="stable")
    chosen, found = predictions.select(rows[order]), keypoints.select(partners[order])
    return replace(chosen, keypoints_2d=found.keypoints_2d, keypoint_confidence=found.keypoint_confidence)


def check_same(name: str, predictions: Predictions, values: np.ndarray, source: str) -> None:
    """Refuse predictions whose array ``name`` is not ``values`` (N,...), what ``source`` says of the same images.

    Raises:
        CalibrationError: naming the first image that differs.
    """
    ours = getattr(predictions, name)
    other = np.flatnonzero((np.abs(ours.astype(float) - values) > 0.5).reshape(len(ours), -1).any(axis=1))
    if len(other):
        raise CalibrationError(
            f"{name} of image {predictions.image_id[other[0]]} is {ours[other[0]].tolist()} in {predictions.source}, "
            f"but {values[other[0]].tolist()} in {source} ({len(other)} of {len(ours)} images): both must be of the "
            "same pictures. Predict again with the same options, or give the other file or data root"
        )


def apart_from_calibration(predictions: Predictions, identities: dict[int, Identity]) -> np.ndarray:
    """Mask (N,) of rows whose image did not serve to calibrate its own subject."""
    apart = np.ones(len(predictions), dtype=bool)
    for subject, identity in identities.items():
        rows = predictions.subject_id == subject
        apart[rows] = ~np.isin(predictions.image_id[rows], identity.image_ids)
    return apart
