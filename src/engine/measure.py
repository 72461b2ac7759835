"""Joints and vertices of predictions and annotations, in one definition and one frame each, and the numbers of both.

A row of predictions holds a pose and a shape (MANO networks, the fitting) or a mesh (CMR networks). Both become
joints and vertices here; where they are in the camera's frame comes from ``transl`` or ``root`` if they are
there, else from the row's 2D keypoints by camera-space registration.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
import torch

from datasets.bad_files import possible_intrinsics
from src.evaluation.metrics import Evaluation, evaluate_predictions, point_errors
from src.evaluation.shape import rest_hand, zero_pose_mpvpe
from src.models.mesh_joints import LABEL_TIPS, mesh_hand
from src.personalization.pairing import true_points
from src.personalization.registration.register import register_mesh
from src.personalization.solver.status import count_status, log_unusable
from template import HandAssets, HandModel
from template.sides import hand_points, put_tips
from utils.artifacts import ArtifactError, Predictions
from utils.camera import project_numpy

logger = logging.getLogger(__name__)

#: Data sets whose official joints are kinematic; those of the others are regressed (docs/facts.md 6).
KINEMATIC_LABELS = ("dex_ycb", "ho3d")


class Points(NamedTuple):
    """Hands as points, metres, axes of the camera, right-hand convention."""

    joints: np.ndarray  # (N, 21, 3) standard order
    vertices: np.ndarray  # (N, 778, 3)
    in_camera: bool  # False: only differences within a hand mean something
    status: np.ndarray | None = None  # (N,) `Status` of the place in the camera's frame, where it was looked for


def count_hands(status: np.ndarray | None) -> dict[str, int]:
    """Number of hands by `Status` (N,), for reports; a warning if some of them could not be placed."""
    if status is None:
        return {}
    log_unusable(logger, status, "hands", "where they are is a guess")
    return count_status(status)


def official_hand(assets: HandAssets, dataset: str) -> HandModel:
    """Hand layer whose joints are defined as a data set's official ones."""
    if dataset in KINEMATIC_LABELS:
        return HandModel(assets, tips=LABEL_TIPS[dataset])
    return mesh_hand(assets, dataset)


def predicted_points(predictions: Predictions, hand: HandModel) -> Points:
    """The hands of predictions as they are in the file.

    Args:
        predictions: with vertices and joints, or with pose and betas.
        hand: poses the latter; it decides their joints. Those of meshes were decided when they were predicted.

    Raises:
        ArtifactError: rows without a hand (2D keypoints alone).
    """
    if predictions.vertices is not None:
        joints, vertices = predictions.joints.copy(), predictions.vertices
        put_tips(joints, vertices, predictions.is_left, hand.tips)
        if predictions.root is None:
            return Points(joints, vertices, False)
        root = predictions.root[:, None]
        return Points(joints + root, vertices + root, True, predictions.status)
    if predictions.pose is None or predictions.betas is None:
        raise ArtifactError(
            f"{predictions.source}: holds neither meshes nor pose and betas (its network is "
            f"{predictions.model_name or 'unknown'}); predict with a MANO or CMR network"
        )
    joints, vertices = hand_points(hand, predictions.pose, predictions.betas, predictions.transl, predictions.is_left)
    return Points(joints, vertices, predictions.transl is not None, predictions.status)


def camera_points(predictions: Predictions, hand: HandModel) -> Points:
    """`predicted_points` in the camera's frame, found by registration where the file does not say where they are.

    Raises:
        ArtifactError: no hand, or neither a place nor 2D keypoints to find it by.
    """
    points = predicted_points(predictions, hand)
    if points.in_camera:
        return points
    if predictions.keypoints_2d is None:
        raise ArtifactError(
            f"{predictions.source}: says neither where the hands are (transl, root) nor where keypoints are seen; "
            "fit with optimization_dex_ycb.py, or predict with a network that has 2D keypoints"
        )
    possible = possible_intrinsics(predictions.K)
    if not possible.all():
        row = int(np.argmin(possible))
        raise ArtifactError(
            f"{predictions.source}: K of image {predictions.image_id[row]} is {predictions.K[row].tolist()}, which no "
            "camera has; predict again from a data set whose intrinsics are right"
        )
    relative, vertices = points.joints - points.joints[:, :1], points.vertices - points.joints[:, :1]
    confidence = predictions.keypoint_confidence
    found = register_mesh(
        *(torch.as_tensor(value) for value in (vertices, relative, predictions.K, predictions.keypoints_2d)),
        None if confidence is None else torch.as_tensor(confidence),
    )
    place = found.transl.numpy()[:, None]
    return Points(relative + place, vertices + place, True, found.status.numpy())


#: Columns of the printed table: key in the summary, heading.
COLUMNS = (
    ("mpjpe_mm", "MPJPE"),
    ("mpvpe_mm", "MPVPE"),
    ("pa_mpjpe_mm", "PA-MPJPE"),
    ("auc", "AUC"),
    ("f5", "F@5"),
    ("f15", "F@15"),
    ("zero_pose_mpvpe_mm", "zero-pose MPVPE"),
    ("abs_mpjpe_mm", "camera MPJPE"),  # in the camera's frame, of hands with a depth: fitted ones, registered meshes
    ("keypoints_px", "2D error, px"),
)


def evaluate_hands(
    hand: HandModel,
    predictions: Predictions,
    truth: dict[str, np.ndarray],
    f_scores: bool = True,
    left: HandAssets | None = None,
) -> Evaluation:
    """All metrics of predictions (poses or meshes) against the annotations of the same samples.

    Joints and vertices of both are defined by ``hand``; only annotated left hands of a model that is not the right
    one's mirror image come from that model, ``left`` (`true_points`). Absolute errors are there if the predictions
    say where the hands are. Of poses, ``zero_pose_mpvpe_mm`` compares the shapes alone.
    """
    points = predicted_points(predictions, hand)
    true_joints, true_vertices = true_points(hand, truth, predictions.is_left, left)
    result = evaluate_predictions(
        points.joints,
        true_joints,
        points.vertices,
        true_vertices,
        image_id=predictions.image_id,
        f_scores=f_scores,
        absolute=points.in_camera,
    )
    if predictions.vertices is None:
        if "label_betas" in truth:  # the flat hands of the annotations' own hand models
            flat = {"pose": np.broadcast_to(np.eye(3), truth["pose"].shape), "transl": np.zeros_like(truth["transl"])}
            joints, vertices = true_points(hand, truth | flat, predictions.is_left, left)
            error = point_errors(rest_hand(hand, predictions.betas)[0], vertices - joints[:, :1]).mean(axis=1) * 1000
        else:
            error = zero_pose_mpvpe(hand, predictions.betas, truth["betas"])
        result.per_sample["zero_pose_mpvpe_mm"] = error
        result.summary["zero_pose_mpvpe_mm"] = float(error.mean())
    return result


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
    if meshes or predictions.pose is not None:
        summary |= evaluate_hands(hand, predictions, truth, left=left).summary
    if predictions.keypoints_2d is not None:  # from the regressed joints of meshes, else from the kinematic ones
        joints = true_points(hand, truth, predictions.is_left, left)[0] if meshes else truth["joints"]
        seen = project_numpy(joints.astype(np.float64), predictions.K.astype(np.float64))
        summary["keypoints_px"] = float(np.linalg.norm(predictions.keypoints_2d - seen, axis=-1).mean(1).mean())
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
    unit = " (means in cm)" if any(name.endswith("mean3d") for name in flat) else ""
    return ", ".join(f"{name} {value:.4f}" for name, value in flat.items()) + unit
