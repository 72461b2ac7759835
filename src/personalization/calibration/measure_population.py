"""``python -m src.personalization.calibration.measure_population``: a population file from annotated people."""

from __future__ import annotations

import argparse
import logging
import sys

import numpy as np
import torch

from datasets import build_dataset
from src.personalization.calibration.population import (
    Population,
    pose_error_covariance,
    save_population,
    shrunk_covariance,
)
from src.personalization.calibration.shape_observation_model import MIN_PEOPLE, measure_network_shape
from src.personalization.ground_truth import annotations_of
from src.personalization.pairing import pair_keypoints
from template import load_hand_assets
from utils.artifacts import Predictions, load_predictions
from utils.camera import project_numpy

logger = logging.getLogger(__name__)


def get_args_parser() -> argparse.ArgumentParser:
    """Parser of the command."""
    parser = argparse.ArgumentParser(description="Measure the priors of joint calibration and fitting.")
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
    """Measure and write the population."""
    assets = load_hand_assets(args.mano_dir, side="right")
    options = {"side": "both", "mano_dir": args.mano_dir, "cache": args.cache}
    train = build_dataset(args.dataset, args.data_root, args.split, **options)
    betas = np.stack([train.subject_betas[number] for number in sorted(train.subject_betas)]).astype(np.float64)
    mean, covariance = shrunk_covariance(betas, np.eye(10), strength=10.0)
    depths = train.columns["joints"][train.columns["valid"], 0, 2].astype(np.float64)
    population = Population(
        mean, covariance, np.array([depths.mean(), depths.std()]), np.zeros((48, 48)), np.zeros(()), assets.hash
    )
    if args.predictions is not None:
        predictions = load_predictions(args.predictions)
        predictions.check_hand(assets)
        if args.keypoints is not None:
            predictions = pair_keypoints(predictions, load_predictions(args.keypoints))
        root = args.validation_root or args.data_root
        held_out = build_dataset(args.dataset, root, predictions.split, allow_missing_subjects=True, **options)
        truth = annotations_of(held_out, predictions)
        measure_errors(predictions, truth, population)
        measure_habits(predictions, truth, population)
    save_population(args.output, population)
    logger.info("%d people, depth %.3f ± %.3f m, keypoints %.4f of the box, poses %.3f rad", len(betas),
                *population.depth, float(population.keypoint_std_box), np.sqrt(np.trace(population.pose_error) / 48))
    return population


def measure_habits(predictions: Predictions, truth: dict[str, np.ndarray], population: Population) -> None:
    """Fill in how a network sees shapes, if it predicts any and there are people enough.

    On people that it was trained on a network is better than on others: habits measured there make the
    calibration trust it too much.

    Args:
        predictions: of people that the network was not trained on; truth: their `annotations_of`;
            population: changed in place.
    """
    people = len(np.unique(predictions.subject_id))
    if predictions.betas is None or people < MIN_PEOPLE:
        logger.warning("%d people: predicted shapes will not be evidence, %d are needed", people, MIN_PEOPLE)
        return
    true_betas = truth["betas"].astype(np.float64)
    network = measure_network_shape(predictions.betas.astype(np.float64), true_betas, predictions.subject_id)
    population.network_gain, population.network_offset = network.gain, network.offset
    population.network_systematic, population.network_noise = network.systematic, network.noise


def measure_errors(predictions: Predictions, truth: dict[str, np.ndarray], population: Population) -> None:
    """Fill in how wrong a network's poses are and, where there are any, its 2D keypoints.

    Args:
        predictions: with pose; truth: their `annotations_of`; population: changed in place.
    """
    valid = truth["valid"]
    population.pose_error = pose_error_covariance(
        torch.as_tensor(predictions.pose[valid]), torch.as_tensor(truth["pose"][valid])
    )
    if predictions.keypoints_2d is None:
        return
    keypoints = predictions.keypoints_2d[valid].astype(np.float64)
    true = project_numpy(truth["joints"][valid].astype(np.float64), predictions.K[valid].astype(np.float64))
    side = (keypoints.max(axis=1) - keypoints.min(axis=1)).max(axis=-1)
    scaled = np.linalg.norm(keypoints - true, axis=-1) / side[:, None]
    # Median of a Rayleigh variable is 1.1774 standard deviations: outliers do not count.
    population.keypoint_std_box = np.array(np.median(scaled) / 1.1774)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    measure(get_args_parser().parse_args())
    sys.exit(0)
