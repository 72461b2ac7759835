"""``python -m benchmarks.studies.choose_shared_error``: the trial behind `population.SHARED_ERROR_FACTOR`.

And, with ``--interval_correlations`` and ``--prior``, behind `population.INTERVAL_CORRELATION` (benchmarks/README.md).

People of a split that no test subject is in are divided: priors are measured on most of them (`population`), and the
others are calibrated and fitted with keypoints' standard deviation multiplied by each factor tried. Intervals
of the right width hold 68% and 95% of the truth.

With the weights of that day (``--data_root data/training_dex_ycb --cache data/cache --predictions
out/dex_ycb/predictions/training.npz --keypoints training_keypoints.npz``, the latter of ``run.py --phase predict
--split s1_train --max_images 4960 --checkpoint weights/pose_2d.safetensors``) it printed, 2026-11-22::

    60 of 247 people of s1_train left out, 20 images each, keypoints 0.0262 of the box
    factor  betas 68/95%   lengths 68/95%  zero-pose MPVPE  position of the fit
         1  59.0% 84.3%    66.1% 88.1%          2.54 mm          39.8 mm
       1.5  60.5% 89.2%    67.8% 89.7%          2.51 mm          39.2 mm
         2  62.7% 91.3%    70.8% 90.3%          2.50 mm          39.1 mm
         3  64.7% 92.5%    72.8% 90.8%          2.48 mm          40.3 mm
         4  66.3% 92.8%    74.4% 91.7%          2.47 mm          43.3 mm

Calibration would take more than 2, which costs next to nothing there; the fit's position gets worse beyond it. The
networks have been trained on these people, so both are a little too good.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.scenes.calibration_cases import standardised
from datasets import open_labels
from src.evaluation.shape import zero_pose_mpvpe
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.measure_population import measure_network, people_of
from src.personalization.calibration.population import (
    INTERVAL_CORRELATION,
    Population,
    calibration_options,
    load_population,
    with_population,
)
from src.personalization.fitting.batch import fit_predictions
from src.personalization.fitting.fit import FitOptions
from src.personalization.pairing import annotations_of, pair_keypoints
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import HALF_95, LengthCue, lengths_mm
from template import HandAssets, HandModel, load_hand_assets
from template.kinematics import JointsModel
from utils.artifacts import Predictions, load_predictions
from utils.device import choose_device

#: Splits whose people may decide a choice.
ALLOWED = ("train", "val")


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Try factors on the keypoints' standard deviation on left-out people.")
    parser.add_argument("--dataset", default="dex_ycb")
    parser.add_argument("--data_root", required=True)
    parser.add_argument("--cache")
    parser.add_argument("--predictions", required=True, help="npz of mano_baseline_conf on a train or val split")
    parser.add_argument("--keypoints", help="npz of pose_2d, same images")
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0, 4.0])
    parser.add_argument("--interval_correlations", type=float, nargs="+", help="each tried with each factor")
    parser.add_argument("--prior", help="of other people; without: the priors of those that are not left out")
    parser.add_argument("--ruler_mm", type=float, help="each hand is measured once too, with such an error")
    parser.add_argument("--left_out", type=int, default=60, help="people to calibrate; the others give the priors")
    parser.add_argument("--num_images", type=int, default=20, help="images a person")
    parser.add_argument("--seed", type=int, default=0, help="of who is left out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--mano_dir")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser


def population_of(predictions: Predictions, truth: dict[str, np.ndarray], assets: HandAssets) -> Population:
    """Everything that `measure_population` measures, on the people of these rows.

    Args:
        predictions: with pose, betas and keypoints; truth: their `annotations_of`, all valid.
    """
    _, first = np.unique(predictions.subject_id, return_index=True)
    people = people_of(
        truth["betas"][first].astype(np.float64), truth["joints"][:, 0, 2].astype(np.float64), assets.hash
    )
    return replace(people, **measure_network(predictions, truth))


def try_factor(
    factor: float,
    own: Predictions,
    truth: dict[str, np.ndarray],
    population: Population,
    assets: HandAssets,
    num_images: int,
    device: Any,
    correlation: float = INTERVAL_CORRELATION,
    ruler_mm: float | None = None,
) -> dict[str, float]:
    """Coverage and error of the left-out people's calibration and fitting with one factor and interval correlation."""
    options = replace(calibration_options(population, shared_error=factor), interval_correlation=correlation)
    people, first = np.unique(own.subject_id, return_index=True)
    betas = {int(number): truth["betas"][row].astype(np.float64) for number, row in zip(people, first, strict=True)}
    identities, draws = {}, np.random.default_rng(0)
    for number, true in betas.items():
        cues: tuple[LengthCue, ...] = ()
        if ruler_mm is not None:
            length = lengths_mm(assets, true, None)["hand"][0] + ruler_mm * draws.normal()
            cues = (LengthCue("hand", length / 1000, ruler_mm / 1000),)
        measured = replace(options, cues=cues, accept_conflict=True)
        identities |= calibrate_predictions(own, assets, measured, subject=number, num_images=num_images, device=device)
    hand, model, true_betas = HandModel(assets), JointsModel(assets), np.stack(list(betas.values()))
    estimated = np.stack([identities[number].betas for number in betas])
    covariance = np.stack([identities[number].covariance for number in betas])
    z = standardised(model, *map(torch.as_tensor, (estimated, covariance, true_betas)))
    of_betas, of_lengths = np.abs(z["betas"]), np.abs(np.concatenate([z["hand length"], z["finger lengths"]]))
    fit_options = with_population(FitOptions(), population, shared_error=factor)
    fitted = fit_predictions(own, own.betas, assets, options=fit_options, device=device).predictions
    wrist = model.rest_points(torch.as_tensor(fitted.betas).double())[:, 0].numpy() + fitted.transl
    return {
        "factor": factor,
        "interval_correlation": correlation,
        "betas_68": float((of_betas < 1).mean()),
        "betas_95": float((of_betas < HALF_95).mean()),
        "lengths_68": float((of_lengths < 1).mean()),
        "lengths_95": float((of_lengths < HALF_95).mean()),
        "zero_pose_mpvpe_mm": float(zero_pose_mpvpe(hand, estimated, true_betas).mean()),
        "fit_position_mm": 1000 * float(np.linalg.norm(wrist - truth["joints"][:, 0], axis=1).mean()),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The trial.

    Raises:
        CalibrationError: predictions of a test split, or too few people.
    """
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    predictions = load_predictions(args.predictions)
    predictions.check_hand(assets)
    if not predictions.split.endswith(ALLOWED):
        raise CalibrationError(
            f"{args.predictions} is of split {predictions.split!r}; only splits ending in {ALLOWED} may decide a choice"
        )
    predictions = pair_keypoints(predictions, None if args.keypoints is None else load_predictions(args.keypoints))
    places = {"mano_dir": args.mano_dir, "cache": args.cache}
    truth = annotations_of(open_labels(args.dataset, args.data_root, predictions.split, **places), predictions)
    predictions, truth = predictions.select(truth["valid"]), {key: v[truth["valid"]] for key, v in truth.items()}
    people = np.unique(predictions.subject_id)
    chosen = people
    if args.prior is not None:
        population = load_population(args.prior, assets.hash)
    elif len(people) < args.left_out + 40:
        raise CalibrationError(
            f"{len(people)} people cannot spare {args.left_out}: 40 are needed to measure the priors"
        )
    else:
        chosen = np.random.default_rng(args.seed).permutation(people)[: args.left_out]
        rest = np.flatnonzero(~np.isin(predictions.subject_id, chosen))
        population = population_of(predictions.select(rest), {key: value[rest] for key, value in truth.items()}, assets)
    own = np.flatnonzero(np.isin(predictions.subject_id, chosen))
    given = predictions.select(own), {key: value[own] for key, value in truth.items()}, population, assets
    correlations = args.interval_correlations or [INTERVAL_CORRELATION]
    rows = [
        try_factor(factor, *given, args.num_images, device, correlation, args.ruler_mm)
        for factor in args.factors
        for correlation in correlations
    ]
    return {
        "split": predictions.split,
        "people": len(people),
        "left_out": len(chosen),
        "images_each": args.num_images,
        "keypoint_std_box": float(population.keypoint_std_box),
        "rows": rows,
    }


def main() -> int:
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.ERROR)
    try:
        found = run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(found))
        return 0
    print(
        f"{found['left_out']} of {found['people']} people of {found['split']} left out, "
        f"{found['images_each']} images each, keypoints {found['keypoint_std_box']:.4f} of the box"
    )
    print("factor  correlation  betas 68/95%   lengths 68/95%  zero-pose MPVPE  position of the fit")
    for row in found["rows"]:
        print(
            f"{row['factor']:>6g}  {row['interval_correlation']:>11g}  {row['betas_68']:.1%} {row['betas_95']:.1%}    "
            f"{row['lengths_68']:.1%} {row['lengths_95']:.1%}      {row['zero_pose_mpvpe_mm']:6.2f} mm      "
            f"{row['fit_position_mm']:8.1f} mm"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
