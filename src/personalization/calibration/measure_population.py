"""``python -m src.personalization.calibration.measure_population``: a population file from annotated people."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import roma
import torch

from datasets import build_dataset, open_labels
from options.command_line import CommandParser, run_command
from src.personalization.calibration.population import NetworkShape, Population, save_population
from src.personalization.pairing import annotations_of, pair_keypoints
from src.personalization.registration.least_median_of_squares import RAYLEIGH_MEDIAN
from template import load_hand_assets
from utils.artifacts import Predictions, load_predictions
from utils.camera import project_numpy
from utils.files import writable_file

logger = logging.getLogger(__name__)

#: Fewer people cannot fix ten by ten numbers.
MIN_PEOPLE = 40
#: The unit normal that hand models are built to have counts as so many people: one for each coefficient.
SHAPE_STRENGTH = 10.0
#: What is believed of a rotation's error before any is seen, rad an axis: more than twice the shipped networks' 0.06.
#: It counts as one image for each of 48 unknowns and two more, so the covariance is never singular, and nothing to 480.
POSE_ERROR, POSE_STRENGTH = 0.15, 50.0
#: Larger errors of one rotation are outliers, not the spread, rad.
MAX_POSE_ERROR = 1.5


def get_args_parser() -> CommandParser:
    parser = CommandParser("Measure the priors of multi-frame calibration and fitting.")
    parser.add_argument("--dataset", default="dex_ycb")
    parser.add_argument("--data_root", required=True)
    parser.add_argument("--split", default="s1_train", help="whose people make the population")
    parser.add_argument(
        "--predictions",
        help="npz of a network on people that it was NOT trained on: how wrong its poses are and, with 40 people or "
        "more, how it sees their shapes",
    )
    parser.add_argument("--keypoints", help="npz of the pose_2d network on the same images")
    parser.add_argument("--validation_root", help="data set of those predictions (default: --data_root)")
    parser.add_argument("--cache")
    parser.add_argument("--mano_dir")
    parser.add_argument("--output", required=True)
    return parser


def measure(args: argparse.Namespace) -> Population:
    read = {"--predictions": args.predictions, "--keypoints": args.keypoints}
    writable_file(args.output, "--output", read)  # before the work, not after it
    assets = load_hand_assets(args.mano_dir, side="right")
    options = {"mano_dir": args.mano_dir, "cache": args.cache}
    train = build_dataset(args.dataset, args.data_root, args.split, side="both", **options)
    betas = np.stack([train.subject_betas[number] for number in sorted(train.subject_betas)]).astype(np.float64)
    depths = train.columns["joints"][train.columns["valid"], 0, 2].astype(np.float64)
    errors: dict[str, Any] = {}
    if args.predictions is not None:
        predictions = load_predictions(args.predictions)
        predictions.check_hand(assets)
        if predictions.pose is None or predictions.model_name.endswith("_identity"):
            raise ValueError(
                f"{predictions.source} is of {predictions.model_name}, which says no pose or was told the shape; give "
                "predictions of a mano_baseline"
            )
        if args.keypoints is not None:
            predictions = pair_keypoints(predictions, load_predictions(args.keypoints))
        root = args.validation_root or args.data_root
        held_out = open_labels(args.dataset, root, predictions.split, **options)
        errors = measure_network(predictions, annotations_of(held_out, predictions))
    population = replace(people_of(betas, depths, assets.hash), dataset=args.dataset, **errors)
    save_population(args.output, population)
    logger.info(
        "%d people, depth %.3f ± %.3f m, keypoints %.4f of the box, poses %.3f rad",
        len(betas),
        *population.depth,
        float(population.keypoint_std_box),
        np.sqrt(np.trace(population.pose_error) / 48),
    )
    return population


def people_of(betas: np.ndarray, depths: np.ndarray, hand_hash: str) -> Population:
    """Spread of the betas (N,10) of people and of wrist depths (M,), m; nothing of a network."""
    mean, covariance = shrunk_covariance(betas, np.eye(10), SHAPE_STRENGTH)
    return Population(mean, covariance, np.array([depths.mean(), depths.std()]), hand_hash=hand_hash)


def measure_network(predictions: Predictions, truth: dict[str, np.ndarray]) -> dict[str, Any]:
    """How wrong a network's poses (rad), keypoints (of the box) and shapes are, if predicted: fields of `Population`.

    On people that it was trained on a network is better than on others: what is measured there makes the
    calibration trust it too much.

    Args:
        predictions: with pose, of people that the network was not trained on; truth: their `annotations_of`.
    """
    valid = truth["valid"]
    found: dict[str, Any] = {
        "model_name": predictions.model_name,
        "pose_error": pose_error_covariance(
            torch.as_tensor(predictions.pose[valid]), torch.as_tensor(truth["pose"][valid])
        ),
    }
    if predictions.keypoints_2d is not None:
        keypoints = predictions.keypoints_2d[valid].astype(np.float64)
        true = project_numpy(truth["joints"][valid].astype(np.float64), predictions.K[valid].astype(np.float64))
        side = (keypoints.max(axis=1) - keypoints.min(axis=1)).max(axis=-1)
        scaled = np.linalg.norm(keypoints - true, axis=-1) / side[:, None]
        found["keypoint_std_box"] = np.array(np.median(scaled) / RAYLEIGH_MEDIAN)  # outliers do not count
    people = len(np.unique(predictions.subject_id))
    if predictions.betas is None or people < MIN_PEOPLE:
        logger.warning("%d people: predicted shapes will not be evidence, %d are needed", people, MIN_PEOPLE)
        return found
    shapes, true_betas = predictions.betas.astype(np.float64), truth["betas"].astype(np.float64)
    # A left hand that has betas of its own is another person here.
    _, hands = np.unique(np.column_stack([predictions.subject_id, true_betas.round(6)]), axis=0, return_inverse=True)
    network = measure_network_shape(shapes, true_betas, hands.reshape(-1))
    return found | {f"network_{name}": value for name, value in vars(network).items()}


def shrunk_covariance(samples: np.ndarray, prior: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of ``samples`` (N,D), pulled towards zero and ``prior`` (D,D), worth ``strength`` samples.

    The posterior mean of a normal-inverse-Wishart model: few people cannot fix ten dimensions.
    """
    n = len(samples)
    mean = samples.sum(axis=0) / (n + 1)
    centred = samples - mean
    return mean, (centred.T @ centred + strength * prior) / (n + strength)


def pose_error_covariance(predicted: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """Covariance (48,48) rad^2 of log(predicted^T truth), second moment, for rotations (N,16,3,3)."""
    errors = roma.rotmat_to_rotvec(predicted.double().mT @ truth.double())
    size = errors.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    errors = (errors * (MAX_POSE_ERROR / size).clamp_max(1.0)).flatten(1).numpy()
    return (errors.T @ errors + POSE_STRENGTH * POSE_ERROR**2 * np.eye(48)) / (len(errors) + POSE_STRENGTH)


def measure_network_shape(predicted: np.ndarray, truth: np.ndarray, subject: np.ndarray) -> NetworkShape:
    """Fit `NetworkShape` by ridge regression of each person's mean prediction on their betas.

    Args:
        predicted, truth: (N,10) betas; subject: (N,) whose image each row is.

    Raises:
        ValueError: fewer than 40 people, which cannot fix ten by ten numbers.
    """
    people, index, counts = np.unique(subject, return_inverse=True, return_counts=True)
    if len(people) < MIN_PEOPLE:
        raise ValueError(
            f"{len(people)} people are too few to measure how a network sees shapes; {MIN_PEOPLE} are needed"
        )
    means = np.stack([predicted[index == row].mean(axis=0) for row in range(len(people))])
    betas = np.stack([truth[index == row][0] for row in range(len(people))])
    centre = betas.mean(axis=0)
    spread = betas - centre
    # A ridge worth one person keeps weakly seen components from being fitted to noise.
    gain = np.linalg.solve(spread.T @ spread + np.eye(10), spread.T @ (means - means.mean(axis=0))).T
    offset = means.mean(axis=0) - gain @ centre
    within = predicted - means[index]
    noise = within.T @ within / max(1, len(predicted) - len(people))
    left = means - offset - betas @ gain.T
    shared = left.T @ left / (len(people) - 11) - noise * (1 / counts).mean()
    values, axes = np.linalg.eigh(shared)
    floor = 1e-3 * np.trace(noise) / 10  # the image noise may explain all of a component: keep it invertible
    return NetworkShape(gain, offset, (axes * np.maximum(values, floor)) @ axes.T, noise + floor * np.eye(10))


if __name__ == "__main__":
    sys.exit(run_command(get_args_parser(), measure))
