"""Official result files from predictions: written, read back, and scored where the labels are published."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np

from datasets.protocol import SampleDataset
from src.engine.measure import Points, camera_points, count_hands, official_hand
from src.engine.run_folder import run_path
from src.evaluation import submissions
from src.evaluation.official import ALIGNMENTS, dexycb_scores, list_scores
from src.evaluation.submission_checks import SubmissionError, check_sides
from src.personalization.pairing import rows_with
from template import HandAssets
from utils.artifacts import Predictions

logger = logging.getLogger(__name__)

_ROUNDING = 1e-8  # metres; the files keep nine decimals


def submit(
    args: argparse.Namespace, predictions: Predictions, dataset: SampleDataset, assets: HandAssets
) -> list[Path]:
    """Write the file of ``--submit`` into the run's folder and read it back.

    Args:
        predictions: every image of the split, in the official order; right-hand convention.
        dataset: the split, both sides and every frame.

    Returns:
        what was written: ``<exp_name>.json`` and ``.zip``, or ``<exp_name>_<split>.txt``.

    Raises:
        SubmissionError: what the server would not take, and why.
        ArtifactError: predictions that are no hands, or cannot be placed in the camera.
    """
    if len(predictions) == 0:
        raise SubmissionError("no prediction to submit")
    if args.submit == "dexycb" and (skipped := getattr(dataset, "num_bad_labels", 0)):
        raise SubmissionError(
            f"{skipped} labels files of {dataset.root} could not be read: the server wants every image of the split. "
            "Copy or extract them again"
        )
    points = camera_points(predictions, official_hand(assets, args.dataset))
    count_hands(points.status)
    folder = run_path(args)
    name, ids, count = folder.name, predictions.image_id, len(dataset)
    strict = bool(args.predictions)  # a file may be anything; this run's own units and axes are known
    if args.submit == "dexycb":
        path = folder / f"{name}_{dataset.split}.txt"
        valid = dataset.columns["image_id"][dataset.columns["valid"]]
        submissions.write_dexycb(path, points.joints, ids, predictions.is_left, valid, strict=strict)
        found = submissions.read_dexycb(path, valid, strict=strict)[1]
        _same(path, (found,), (submissions.unmirror(points.joints, predictions.is_left),))
        return [path]
    path = folder / f"{name}.json"
    kind, names, order = _kind(args, dataset), ids, np.arange(count)
    if args.submit == "ho3d":
        order = np.asarray(dataset.names)
        names = order[rows_with(dataset.columns["image_id"], ids)]
    files = submissions.write_lists(path, kind, points.joints, points.vertices, names, order, strict)
    _same(path, submissions.read_lists(files[1], kind, count, strict), points[:2])
    return list(files)


def _kind(args: argparse.Namespace, dataset: SampleDataset) -> str:
    """Name of a data set's result lists in `submissions.OFFICIAL_COUNTS`."""
    return f"ho3d_{dataset.version}" if args.dataset == "ho3d" else args.dataset


def _same(path: Path, found: tuple[np.ndarray, ...], meant: tuple[np.ndarray, ...]) -> None:
    """Raise SubmissionError unless what was read back is what was meant, to the decimals of the file."""
    worst = max(float(np.abs(one - other).max()) for one, other in zip(found, meant, strict=True))
    if worst > _ROUNDING:
        raise SubmissionError(f"{path}: read back, it differs by {worst:.3g} m from what was written")


def official_scores(
    args: argparse.Namespace, points: Points, image_id: np.ndarray, is_left: np.ndarray, dataset: SampleDataset
) -> dict[str, Any] | None:
    """What the data set's own evaluator prints, or None where its labels are not published.

    Args:
        points: in the camera frame, right-hand convention; one row for each of ``image_id`` (N,).
        is_left: (N,) bool.
    """
    if args.dataset == "dex_ycb":
        rows = rows_with(dataset.columns["image_id"], image_id)
        use = dataset.columns["valid"][rows]
        truth = submissions.unmirror(dataset.columns["joints"][rows], is_left)
        return dexycb_scores(submissions.unmirror(points.joints, is_left)[use], truth[use]) if use.any() else None
    if not hasattr(dataset, "official_labels"):  # shards, and data sets without an evaluator
        return None
    try:
        true_joints, true_vertices = dataset.official_labels()
    except FileNotFoundError as error:
        logger.info("not scored: %s", error)
        return None
    rows = rows_with(dataset.columns["image_id"], image_id)
    return list_scores(args.dataset, points.joints, points.vertices, true_joints[rows], true_vertices[rows])


def read_result_file(args: argparse.Namespace, dataset: SampleDataset) -> tuple[Points, np.ndarray, np.ndarray]:
    """An official result file given as ``--predictions``, checked: points, image ids (N,), which are left (N,).

    Raises:
        SubmissionError: what the server would not take, and why.
        ValueError: a data set without a server.
    """
    path, ids = Path(args.predictions), dataset.columns["image_id"]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such result file")
    if args.dataset == "dex_ycb":
        ids, joints = submissions.read_dexycb(path, ids[dataset.columns["valid"]])
        known = np.isin(ids, dataset.columns["image_id"])
        ids, joints = ids[known], joints[known]
        is_left = dataset.columns["is_left"][rows_with(dataset.columns["image_id"], ids)]
        joints = submissions.unmirror(joints, is_left)
        check_sides(joints, is_left, f"DexYCB {path}")
        return Points(joints, np.empty((len(ids), 0, 3)), True), ids, is_left
    if args.dataset not in ALIGNMENTS:
        raise ValueError(f"{path}: {args.dataset} has no official result file; give an .npz of --phase predict")
    found = submissions.read_lists(path, _kind(args, dataset), len(dataset))
    return Points(*found, True), ids, np.zeros(len(ids), dtype=bool)
