"""Bringing together what is said of the same images, by official number: predictions, keypoints, annotations."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from src.personalization.solver.status import CalibrationError
from template import HandAssets, HandModel
from template.sides import hand_points, labelled_hands
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)

#: Columns of a data set that are a prediction's annotations.
KEYS = ("pose", "betas", "transl", "joints", "valid", "subject_id", "label_betas")


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


def check_confidence(predictions: Predictions, args: argparse.Namespace) -> None:
    """See whether given options that read the keypoints' confidence find one in ``predictions``, of these files.

    Raises:
        CalibrationError: they do not.
    """
    unread = sorted({"--min_confidence", "--use_confidence"} & args.given_options)
    if unread and predictions.keypoint_confidence is None:
        raise CalibrationError(
            f"{args.keypoints or args.predictions}: has no keypoint_confidence, without which {' and '.join(unread)} "
            f"{'has' if len(unread) == 1 else 'have'} no effect; leave it out, or give --keypoints of a pose_2d network"
        )


def content_ids(*arrays: np.ndarray | None) -> np.ndarray:
    """(N,) numbers of images without official ones, made of what arrays (N,...) hold: the same wherever they are."""
    rows = zip(*(np.ascontiguousarray(array) for array in arrays if array is not None), strict=True)
    digests = (hashlib.blake2b(b"".join(part.tobytes() for part in row), digest_size=8).digest() for row in rows)
    return np.array([int.from_bytes(digest, "little") >> 1 for digest in digests], dtype=np.int64)


def named_by_content(rows: Predictions) -> Predictions:
    """Rows of a source that numbers them from 0, by what they hold: two sources' do not seem to be the same images.

    Copies within a source get the numbers after their first one's.
    """
    ids, before = content_ids(rows.keypoints_2d, rows.joints_3d, rows.is_left), Counter[int]()
    for row, number in enumerate(ids.tolist()):
        ids[row] += before[number]
        before[number] += 1
    return replace(rows, image_id=ids)


def apart_from_calibration(predictions: Predictions, identities: dict[int, Identity]) -> np.ndarray:
    """Mask (N,) of rows whose image did not serve to calibrate its own subject.

    Images are numbered within a split: those of an identity from another one cannot be told, which is said.
    """
    apart, here = np.ones(len(predictions), dtype=bool), predictions.images_of
    for subject, identity in identities.items():
        images = identity.images()
        elsewhere = sorted({of for _, of in images if here and of not in ("", here)})
        if elsewhere:
            logger.warning(
                "%s: subject %d was calibrated on images of %s, these are of %s: the same ones are not left out",
                *(identity.source, subject, " and ".join(elsewhere), here),
            )
        rows = predictions.subject_id == subject
        apart[rows] = ~np.isin(predictions.image_id[rows], [image for image, of in images if of not in elsewhere])
    return apart


def annotations_of(dataset: Any, predictions: Predictions) -> dict[str, np.ndarray]:
    """Columns `KEYS` of the data set (`datasets/sample.py`), (N,...) each, a row (m, rad) for each prediction.

    ``label_betas`` as well, if the data set has them: left hands whose model is not the right one's mirror image.

    Args:
        dataset: one with the attribute ``columns`` (no image is read).

    Raises:
        CalibrationError: an image id that the split lacks, or one of another subject, side or camera.
    """
    rows = rows_of(dataset, predictions)
    return {key: dataset.columns[key][rows] for key in KEYS if key in dataset.columns}


def rows_with(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Row (M,) of each wanted number (M,) among different ones (N,) in any order; of one that is missing, any row."""
    order = np.argsort(ids)
    return order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]


def rows_of(dataset: Any, predictions: Predictions) -> np.ndarray:
    """Row (N,) of each prediction in the data set, by official image id.

    Raises:
        CalibrationError: a split without images, an image id that it lacks, or one of another subject, side or camera.
    """
    ids = dataset.columns["image_id"]
    if len(ids) == 0:
        raise CalibrationError(f"{predictions.source}: split {predictions.split!r} of this data root has no image")
    rows = rows_with(ids, predictions.image_id)
    missing = predictions.image_id[ids[rows] != predictions.image_id]
    if len(missing):
        raise CalibrationError(
            f"{predictions.source}: image {missing[0]} ({len(missing)} in all) is not in split "
            f"{predictions.split!r} of this data root; give the root, --split and --side that the predictions were "
            "made with"
        )
    for name, column in (("subject_id", "subject_id"), ("is_left", "is_left"), ("K", "K_image")):
        check_same(name, predictions, dataset.columns[column][rows], f"the data set at {dataset.root}")
    return rows


def true_points(
    hand: HandModel, truth: dict[str, np.ndarray], is_left: np.ndarray, left: HandAssets | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Joints and vertices, as of `hand_points`, of annotations: each as the hand model of its label makes it.

    Args:
        hand: right hand layer; it decides the joints.
        truth: of `annotations_of`; is_left: (N,) bool.
        left: the left hand model of the data set, needed where it is not the right one's mirror image.

    Raises:
        ValueError: annotations with ``label_betas``, and no left hand model.
    """
    if "label_betas" not in truth or not is_left.any():
        return hand_points(hand, truth["pose"], truth["betas"], truth["transl"], is_left)
    if left is None:
        raise ValueError("annotated left hands belong to a model of their own; give it: left=dataset.assets['left']")
    models = {"right": hand, "left": HandModel(left, hand.tips, hand.joint_type).to(hand.faces.device)}
    values = (truth[key] for key in ("pose", "betas", "transl"))
    return labelled_hands(models, *values, is_left, truth["label_betas"])
