"""The annotations of predicted images, looked up by official image id."""

from __future__ import annotations

from typing import Any

import numpy as np

from datasets import build_dataset
from src.personalization.pairing import check_same
from src.personalization.solver.status import CalibrationError
from utils.artifacts import Predictions

KEYS = ("pose", "betas", "transl", "joints", "valid", "subject_id")


def open_labels(name: str, root: Any, predictions: Predictions, split: str | None = None, **options: Any) -> Any:
    """The data set ``name`` at ``root`` that predictions are of (or its ``split``), both hands, whoever is there.

    Args:
        options: further ones of `datasets.build_dataset`.

    Raises:
        FileNotFoundError, ValueError: see `datasets.build_dataset`.
    """
    whole = {"side": "both", "allow_missing_subjects": True}
    return build_dataset(name, root, split or predictions.split, **whole, **options)


def annotations_of(dataset: Any, predictions: Predictions) -> dict[str, np.ndarray]:
    """Columns `KEYS` of the data set (`datasets/sample.py`), (N,...) each, a row (m, rad) for each prediction.

    ``label_betas`` as well, if the data set has them: left hands whose model is not the right one's mirror image.

    Args:
        dataset: one with the attribute ``columns`` (no image is read).

    Raises:
        CalibrationError: an image id that the split lacks, or one of another subject, side or camera.
    """
    rows = rows_of(dataset, predictions)
    return {key: dataset.columns[key][rows] for key in (*KEYS, "label_betas") if key in dataset.columns}


def rows_of(dataset: Any, predictions: Predictions) -> np.ndarray:
    """Row (N,) of each prediction in the data set, by official image id.

    Raises:
        CalibrationError: a split without images, an image id that it lacks, or one of another subject, side or camera.
    """
    ids = dataset.columns["image_id"]
    if len(ids) == 0:
        raise CalibrationError(f"{predictions.source}: split {predictions.split!r} of this data root has no image")
    order = np.argsort(ids)
    rows = order[np.minimum(np.searchsorted(ids, predictions.image_id, sorter=order), len(ids) - 1)]
    missing = predictions.image_id[ids[rows] != predictions.image_id]
    if len(missing):
        raise CalibrationError(
            f"{predictions.source}: image {missing[0]} ({len(missing)} in all) is not in split "
            f"{predictions.split!r} of this data root; give the root and --split the predictions were made with"
        )
    for name, column in (("subject_id", "subject_id"), ("is_left", "is_left"), ("K", "K_image")):
        check_same(name, predictions, dataset.columns[column][rows], f"the data set at {dataset.root}")
    return rows
