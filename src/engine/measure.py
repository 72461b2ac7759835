"""The numbers of an evaluation, for predictions of every kind, and how they are printed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from src.engine.points import hand_points, predicted_points, true_points
from src.evaluation.metrics import Evaluation, evaluate_predictions, point_errors
from src.evaluation.shape import rest_hand, zero_pose_mpvpe
from src.models.mesh_joints import mesh_hand
from template import HandAssets, HandModel
from utils.artifacts import Predictions
from utils.camera import project_numpy

#: Columns of the printed table: key in the summary, heading.
COLUMNS = (
    ("mpjpe_mm", "MPJPE"),
    ("mpvpe_mm", "MPVPE"),
    ("pa_mpjpe_mm", "PA-MPJPE"),
    ("auc", "AUC"),
    ("f5", "F@5"),
    ("f15", "F@15"),
    ("zero_pose_mpvpe_mm", "zero-pose MPVPE"),
    ("keypoints_px", "2D error, px"),
)


def evaluate_hands(
    hand: HandModel,
    predictions: Predictions,
    truth: dict[str, np.ndarray],
    f_scores: bool = True,
    left: HandAssets | None = None,
) -> Evaluation:
    """All metrics of predictions against the annotations of the same samples.

    Joints and vertices of both come from the same hand layer, so they share every definition; only annotated left
    hands of a model that is not the right one's mirror image come from that model, ``left`` (`points.true_points`).
    Absolute errors are there if the predictions carry a translation. ``zero_pose_mpvpe_mm`` compares
    the shapes alone.
    """
    absolute = predictions.transl is not None
    is_left = predictions.is_left
    joints, vertices = hand_points(hand, predictions.pose, predictions.betas, predictions.transl, is_left)
    true_joints, true_vertices = true_points(hand, truth, is_left, left)
    result = evaluate_predictions(
        joints,
        true_joints,
        vertices,
        true_vertices,
        image_id=predictions.image_id,
        f_scores=f_scores,
        absolute=absolute,
    )
    shape = _shape_errors(hand, predictions, truth, left)
    result.per_sample["zero_pose_mpvpe_mm"] = shape
    result.summary["zero_pose_mpvpe_mm"] = float(shape.mean())
    return result


def _shape_errors(
    hand: HandModel, predictions: Predictions, truth: dict[str, np.ndarray], left: HandAssets | None
) -> np.ndarray:
    """`zero_pose_mpvpe` (N,), mm, from the flat hands of the annotations' own hand models."""
    if "label_betas" not in truth:
        return zero_pose_mpvpe(hand, predictions.betas, truth["betas"])
    flat = {"pose": np.broadcast_to(np.eye(3), truth["pose"].shape), "transl": np.zeros_like(truth["transl"])}
    joints, vertices = true_points(hand, truth | flat, predictions.is_left, left)
    return point_errors(rest_hand(hand, predictions.betas)[0], vertices - joints[:, :1]).mean(axis=1) * 1000


def evaluate_meshes(
    hand: HandModel,
    predictions: Predictions,
    truth: dict[str, np.ndarray],
    f_scores: bool = True,
    left: HandAssets | None = None,
) -> Evaluation:
    """All metrics of predicted meshes; ``hand`` gives the true ones, with the joints that the predictions have."""
    points = predicted_points(predictions, hand)
    true_joints, true_vertices = true_points(hand, truth, predictions.is_left, left)
    return evaluate_predictions(
        points.joints,
        true_joints,
        points.vertices,
        true_vertices,
        image_id=predictions.image_id,
        f_scores=f_scores,
        absolute=points.in_camera,
    )


def keypoint_error(
    predictions: Predictions, truth: dict[str, np.ndarray], joints: np.ndarray | None = None
) -> np.ndarray:
    """Mean 2D distance (N,) of predicted keypoints, px of the full image, from ``joints`` (default: kinematic ones)."""
    joints = truth["joints"] if joints is None else joints
    true = project_numpy(joints.astype(np.float64), predictions.K.astype(np.float64))
    return np.linalg.norm(predictions.keypoints_2d - true, axis=-1).mean(1)


def measure(
    predictions: Predictions,
    truth: dict[str, np.ndarray],
    assets: HandAssets,
    device: torch.device,
    left: HandAssets | None = None,
) -> dict[str, float]:
    """Means of all metrics that predictions of any kind have; ``left`` as of `evaluate_hands`."""
    meshes = predictions.vertices is not None
    hand = (mesh_hand(assets, predictions.dataset) if meshes else HandModel(assets)).to(device)
    summary: dict[str, float] = {}
    if meshes:
        summary |= evaluate_meshes(hand, predictions, truth, left=left).summary
    elif predictions.pose is not None:
        summary |= evaluate_hands(hand, predictions, truth, left=left).summary
    if predictions.keypoints_2d is not None:
        true_joints = true_points(hand, truth, predictions.is_left, left)[0] if meshes else None
        summary["keypoints_px"] = float(keypoint_error(predictions, truth, true_joints).mean())
    return summary


def format_table(rows: dict[str, dict[str, float]]) -> str:
    """A table for the terminal: one line a row, lengths in mm."""
    names = [(key, title) for key, title in COLUMNS if any(key in row for row in rows.values())]
    width = max(len(name) for name in rows)
    lines = [" " * width + "".join(f"{title:>17}" for _, title in names)]
    for name, row in rows.items():
        cells = "".join(f"{row[key]:>17.3f}" if key in row else " " * 17 for key, _ in names)
        lines.append(f"{name:<{width}}{cells}")
    return "\n".join(lines)


def format_scores(scores: dict[str, Any] | None) -> str:
    """Official scores in one line, under the evaluators' own names; FreiHAND's and HO-3D's means are in cm."""
    if scores is None:
        return "none, the labels are not published"
    flat = {
        f"{row} {key}" if isinstance(value, dict) else row: number
        for row, value in scores.items()
        for key, number in (value.items() if isinstance(value, dict) else [("", value)])
    }
    return ", ".join(f"{name} {value:.4f}" for name, value in flat.items())
