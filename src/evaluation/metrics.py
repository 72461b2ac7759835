"""Errors of predicted hands, one value a sample; means are over samples, never over batches.

Naming of the results: no prefix = each hand relative to its own wrist (joint 0 of the joints that
are given), `pa_` = Procrustes-aligned by the official rule (reflections allowed; joints to joints
and vertices to vertices separately), `abs_` = in the camera frame as predicted. Inputs are metres;
results are millimetres (`_mm`) or fractions (`auc`, `f5`, `f15`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from src.evaluation.alignment import WRIST, procrustes_align

#: The official 100 thresholds of the PCK curve, metres, both ends included (docs/facts.md 2, 3.4).
AUC_THRESHOLDS = np.linspace(0.0, 0.05, 100)
F_THRESHOLDS = {"f5": 0.005, "f15": 0.015}
_BATCH = 256  # samples measured at once, for memory


def to_array(values: Any) -> np.ndarray:
    """Float64 NumPy array of a tensor (any device), array or list."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def point_errors(predicted: Any, truth: Any) -> np.ndarray:
    """Euclidean distances (N,P) of corresponding points (N,P,3), in their unit: m of all that is measured here."""
    return np.linalg.norm(to_array(predicted) - to_array(truth), axis=-1)


def auc_of_each(errors: np.ndarray, thresholds: np.ndarray = AUC_THRESHOLDS) -> np.ndarray:
    """Area under the PCK curve that each single error would have alone, same shape as ``errors``, m.

    The normalised trapezoid is linear in the curve, and the curve is the mean of the single errors'
    steps; hence the AUC of any set is the mean of these values. That makes AUC a per-sample quantity,
    and shows that DexYCB's mean of per-joint AUCs equals the AUC of all errors (each joint has as many).
    """
    widths = np.diff(thresholds)
    weights = np.zeros(len(thresholds) + 1)  # one more: an error above every threshold gets nothing
    weights[:-2] += widths / 2
    weights[1:-1] += widths / 2
    tail = np.cumsum(weights[::-1])[::-1] / (thresholds[-1] - thresholds[0])
    return tail[np.searchsorted(thresholds, errors, side="left")]


def auc(errors: np.ndarray, thresholds: np.ndarray = AUC_THRESHOLDS) -> float:
    """Area under the PCK curve of ``errors`` (any shape), m, in [0, 1]: normalised trapezoid (docs/facts.md 3.4)."""
    return float(auc_of_each(errors, thresholds).mean())


def f_scores(predicted: np.ndarray, truth: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """F-scores (N,T) of point sets (N,P,3) and (N,Q,3), m: docs/facts.md 3.4, strict <, no correspondence used.

    Harmonic mean of the fraction of true points with a predicted one nearer than the threshold
    (recall) and the fraction of predicted points with a true one nearer (precision); 0 if both are 0.
    """
    limits = np.asarray(thresholds)
    scores = np.zeros((len(predicted), len(limits)))
    for row, (points, target) in enumerate(zip(predicted, truth, strict=True)):
        to_prediction = cKDTree(points).query(target)[0]
        to_truth = cKDTree(target).query(points)[0]
        recall = (to_prediction[:, None] < limits).mean(axis=0)
        precision = (to_truth[:, None] < limits).mean(axis=0)
        total = recall + precision
        scores[row] = np.divide(2 * recall * precision, total, out=np.zeros_like(total), where=total > 0)
    return scores


@dataclass
class Evaluation:
    """Per-sample values and their means.

    Attributes:
        per_sample: name -> (N,) float64; the names of ``summary``.
        summary: name -> mean over samples, plain float.
    """

    per_sample: dict[str, np.ndarray]
    summary: dict[str, float]


def evaluate_predictions(
    joints: Any,
    true_joints: Any,
    vertices: Any = None,
    true_vertices: Any = None,
    *,
    image_id: Any = None,
    f_scores: bool = True,
    absolute: bool = False,
) -> Evaluation:
    """All metrics of N samples.

    Args:
        joints, true_joints: (N,21,3) metres, standard order, same joint definition.
        vertices, true_vertices: (N,V,3) metres, same frame as the joints; both or neither.
        image_id: (N,) int, the samples' order, for messages.
        f_scores: also compute F-scores of the meshes (about 3 ms a sample).
        absolute: also compute the `abs_` metrics; the predictions must then carry a translation.

    Returns:
        Evaluation with mpjpe_mm, auc, pa_mpjpe_mm, pa_auc; with vertices also mpvpe_mm, pa_mpvpe_mm
        and (with ``f_scores``) f5, f15, pa_f5, pa_f15; with ``absolute`` also abs_mpjpe_mm, abs_auc,
        abs_mpvpe_mm, abs_f5, abs_f15.

    Raises:
        ValueError: on no sample, different shapes or a value that is not finite (the row is named).
    """
    if (vertices is None) != (true_vertices is None):
        raise ValueError("vertices and true_vertices must be given together")
    points = {"joints": joints, "true_joints": true_joints, "vertices": vertices, "true_vertices": true_vertices}
    lengths = {name: len(value) for name, value in points.items() if value is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"different numbers of samples: {lengths}")
    if image_id is not None and len(image_id) != len(joints):
        raise ValueError(f"{len(image_id)} image_id for {len(joints)} samples")
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(joints), _BATCH):
        part = slice(start, start + _BATCH)
        batch = {name: to_array(value[part]) for name, value in points.items() if value is not None}
        _check_points(batch, None if image_id is None else image_id[part])
        for name, values in _rows(batch, f_scores, absolute).items():
            parts.setdefault(name, []).append(values)
    if not parts:
        raise ValueError("no sample was evaluated")
    per_sample = {name: np.concatenate(values) for name, values in parts.items()}
    summary = {name: float(values.mean()) for name, values in per_sample.items()}
    return Evaluation(per_sample, summary)


def _rows(batch: dict[str, np.ndarray], with_f: bool, absolute: bool) -> dict[str, np.ndarray]:
    """Values (B,) of a batch of points, by name."""
    wrist, true_wrist = batch["joints"][:, [WRIST]], batch["true_joints"][:, [WRIST]]

    def pairs(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        points, truth = batch[name], batch[f"true_{name}"]
        found = {"": (points - wrist, truth - true_wrist), "pa_": (procrustes_align(points, truth), truth)}
        return found | {"abs_": (points, truth)} if absolute else found

    errors = {prefix: point_errors(*pair) for prefix, pair in pairs("joints").items()}
    rows = {f"{prefix}mpjpe_mm": value.mean(axis=1) * 1000 for prefix, value in errors.items()}
    rows |= {f"{prefix}auc": auc_of_each(value).mean(axis=1) for prefix, value in errors.items()}
    if "vertices" not in batch:
        return rows
    for prefix, pair in pairs("vertices").items():
        rows[f"{prefix}mpvpe_mm"] = point_errors(*pair).mean(axis=1) * 1000
        if with_f:
            scores = f_scores(*pair, list(F_THRESHOLDS.values()))
            rows |= {f"{prefix}{name}": scores[:, column] for column, name in enumerate(F_THRESHOLDS)}
    return rows


def _check_points(points: dict[str, np.ndarray], image_id: Any) -> None:
    for name, truth_name in (("joints", "true_joints"), ("vertices", "true_vertices")):
        if name in points and (points[name].shape != points[truth_name].shape or points[name].ndim != 3):
            raise ValueError(
                f"{name} {points[name].shape} and {truth_name} {points[truth_name].shape} must be alike, (B,P,3)"
            )
    for name, value in points.items():
        bad = np.flatnonzero(~np.isfinite(value).all(axis=(1, 2)))
        if len(bad):
            which = f"row {bad[0]}" if image_id is None else f"image {np.asarray(image_id).reshape(-1)[bad[0]]}"
            raise ValueError(f"{name} of {which} is not finite ({len(bad)} such samples); nothing was measured")
