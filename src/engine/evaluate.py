"""Predictions against annotations: the numbers that are printed, and the JSON that keeps them."""

from __future__ import annotations

import argparse
import logging

import numpy as np
import torch

from src.engine import setup
from src.engine.predict import predict
from src.evaluation.metrics import Evaluation, evaluate_predictions
from src.evaluation.shape import zero_pose_mpvpe
from src.personalization.ground_truth import annotations_of
from src.personalization.pairing import apart_from_calibration
from src.personalization.shape_source import load_identities
from template import HandAssets, HandModel
from utils.artifacts import Predictions, load_predictions
from utils.camera import project_numpy
from utils.device import choose_device
from utils.files import write_json

logger = logging.getLogger(__name__)

#: Columns of the printed table: key in the summary, heading.
COLUMNS = (
    ("mpjpe_mm", "MPJPE"),
    ("mpvpe_mm", "MPVPE"),
    ("pa_mpjpe_mm", "PA-MPJPE"),
    ("auc", "AUC"),
    ("f5", "F@5"),
    ("f15", "F@15"),
    ("zero_pose_mpvpe_mm", "zero-pose MPVPE"),
)


@torch.no_grad()
def hand_points(
    hand: HandModel, pose: np.ndarray, betas: np.ndarray, transl: np.ndarray | None, batch: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Joints (N,21,3) and vertices (N,778,3), metres, of poses (N,16,3,3), betas (N,10), transl (N,3) or None."""
    device = hand.faces.device

    def part(array: np.ndarray | None, rows: slice) -> torch.Tensor | None:
        return None if array is None else torch.as_tensor(array[rows], dtype=torch.float32, device=device)

    outputs = [
        hand(*(part(array, slice(start, start + batch)) for array in (pose, betas, transl)))
        for start in range(0, len(pose), batch)
    ]
    return (
        torch.cat([output.joints for output in outputs]).cpu().numpy(),
        torch.cat([output.vertices for output in outputs]).cpu().numpy(),
    )


def evaluate_hands(
    hand: HandModel, predictions: Predictions, truth: dict[str, np.ndarray], f_scores: bool = True
) -> Evaluation:
    """All metrics of predictions against the annotations of the same samples.

    Joints and vertices of both come from the same hand layer, so they share every definition.
    Absolute errors are there if the predictions carry a translation. ``zero_pose_mpvpe_mm`` compares
    the shapes alone.
    """
    absolute = predictions.transl is not None
    joints, vertices = hand_points(hand, predictions.pose, predictions.betas, predictions.transl)
    true_joints, true_vertices = hand_points(hand, truth["pose"], truth["betas"], truth["transl"])
    result = evaluate_predictions(
        joints,
        true_joints,
        vertices,
        true_vertices,
        image_id=predictions.image_id,
        f_scores=f_scores,
        absolute=absolute,
    )
    shape = zero_pose_mpvpe(hand, predictions.betas, truth["betas"])
    result.per_sample["zero_pose_mpvpe_mm"] = shape
    result.summary["zero_pose_mpvpe_mm"] = float(shape.mean())
    return result


def keypoint_error(predictions: Predictions, truth: dict[str, np.ndarray]) -> np.ndarray:
    """Mean 2D distance (N,) of predicted keypoints, px of the full image."""
    true = project_numpy(truth["joints"].astype(np.float64), predictions.K.astype(np.float64))
    return np.linalg.norm(predictions.keypoints_2d - true, axis=-1).mean(1)


def leave_out_calibration(predictions: Predictions, identity: str, assets: HandAssets) -> Predictions:
    """The rows whose images did not serve to calibrate their own subject; says how many did.

    Args:
        predictions: any rows.
        identity: identity file or folder, as of ``--identity``.
        assets: the hand model in use.
    """
    identities = load_identities(identity, predictions.subject_id, assets)
    apart = apart_from_calibration(predictions, identities)
    logger.info("%d images that served the calibration are left out of the evaluation", int((~apart).sum()))
    return predictions.select(np.flatnonzero(apart))


def format_table(rows: dict[str, dict[str, float]]) -> str:
    """A table for the terminal: one line a row, lengths in mm."""
    names = [(key, title) for key, title in COLUMNS if any(key in row for row in rows.values())]
    width = max(len(name) for name in rows)
    lines = [" " * width + "".join(f"{title:>17}" for _, title in names)]
    for name, row in rows.items():
        cells = "".join(f"{row[key]:>17.3f}" if key in row else " " * 17 for key, _ in names)
        lines.append(f"{name:<{width}}{cells}")
    return "\n".join(lines)


def evaluate(args: argparse.Namespace) -> dict[str, float]:
    """``run.py --phase eval``: from a checkpoint or from a predictions file; writes --results if given.

    Raises:
        ValueError: predictions of another hand model or split.
    """
    device = choose_device(args.device, args.threads)
    hand, assets = setup.hand_model(args, device)
    predictions = load_predictions(args.predictions) if args.predictions else predict(args)
    if args.identity is not None:
        predictions = leave_out_calibration(predictions, args.identity, assets)
    split = args.split or predictions.split or f"{args.setup}_test"
    dataset = setup.open_dataset(args, split, args.crop_size or 128)
    truth = annotations_of(dataset, predictions)
    if predictions.pose is None:
        summary = {"keypoints_px": float(keypoint_error(predictions, truth).mean())}
        table = f"mean 2D error: {summary['keypoints_px']:.2f} px of the full image"
    else:
        predictions.check_hand(assets)
        summary = evaluate_hands(hand, predictions, truth).summary
        table = format_table({predictions.model_name: summary})
        if predictions.keypoints_2d is not None:
            summary["keypoints_px"] = float(keypoint_error(predictions, truth).mean())
    summary["n_images"] = len(predictions)
    logger.info("%s, %d images (millimetres, relative to the wrist)\n%s", split, len(predictions), table)
    if args.results:
        write_json(args.results, {"split": split, "model": predictions.model_name, **summary})
        logger.info("metrics written to %s", args.results)
    return summary
