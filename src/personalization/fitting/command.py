"""What ``optimization_dex_ycb.py`` does."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets import open_labels
from src.evaluation.metrics import evaluate_predictions
from src.personalization.calibration.population import SHIPPED_PRIOR, Population, load_population, with_population
from src.personalization.default_files import IDENTITIES, KEYPOINTS, PREDICTIONS, fill_in
from src.personalization.fitting.adam import AdamOptions
from src.personalization.fitting.batch import FittedPredictions, fit_predictions
from src.personalization.fitting.fit import FitOptions
from src.personalization.pairing import (
    annotations_of,
    apart_from_calibration,
    check_confidence,
    pair_keypoints,
    true_points,
)
from src.personalization.shape_source import betas_of, load_identities
from src.personalization.solver.status import CalibrationError, count_status, usable
from src.personalization.terms.noise import KeypointNoise
from template import HandAssets, HandModel, load_hand_assets
from template.sides import hand_points
from utils.artifacts import Predictions, load_predictions, save_predictions
from utils.device import choose_device
from utils.files import writable_file, write_json

logger = logging.getLogger(__name__)

COLUMNS = ("mpjpe_mm", "mpvpe_mm", "pa_mpjpe_mm", "abs_mpjpe_mm")


def fit(args: argparse.Namespace) -> dict[str, Any]:
    """Fit every image, write the fitted predictions, log (and write, with --results) the table.

    Raises:
        ArtifactError, CalibrationError, FileNotFoundError: see the functions called.
    """
    if args.predictions is None:
        fill_in(args, scripts_files(args.shape_source, args.solver))
    read = {f"--{name}": getattr(args, name) for name in ("predictions", "keypoints", "identity", "prior")}
    writable_file(args.output, "--output", read)  # before the work, not after it
    if args.results is not None:
        writable_file(args.results, "--results", {**read, "--output": args.output})
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    predictions = load_predictions(args.predictions)
    predictions.check_hand(assets)
    if len(predictions) == 0:
        raise CalibrationError(f"{args.predictions} is empty; there is nothing to fit")
    if predictions.pose is None:
        raise CalibrationError(f"{args.predictions} holds no pose; predict with a mano network")
    if predictions.readable is not None:
        logger.warning("%d pictures could not be read, and are not fitted", (~predictions.readable).sum())
        predictions = predictions.select(np.flatnonzero(predictions.readable))
    predictions = pair_keypoints(predictions, None if args.keypoints is None else load_predictions(args.keypoints))
    check_confidence(predictions, args)
    identities = {}
    if args.identity is not None:
        identities = load_identities(args.identity, predictions.subject_id, assets, predictions.is_left)
    if args.shape_source == "calibrated" and not args.include_calibration_images:
        apart = apart_from_calibration(predictions, identities)
        logger.info("%d images that served to calibrate are left out", int((~apart).sum()))
        if not apart.any():
            raise CalibrationError(
                "every image served to calibrate: nothing is left to fit. Calibrate from fewer (--num_images), "
                "or pass --include_calibration_images"
            )
        predictions = predictions.select(np.flatnonzero(apart))
    truth = left = None
    if args.data_root is not None:
        options = {"mano_dir": args.mano_dir, "cache": args.cache}
        name = args.dataset or predictions.dataset or "dex_ycb"
        dataset = open_labels(name, args.data_root, args.split or predictions.split, **options)
        truth, left = annotations_of(dataset, predictions), dataset.assets.get("left")
    fitted = fit_predictions(
        predictions,
        betas_of(args.shape_source, predictions, truth, identities),
        assets,
        solver=args.solver,
        options=fit_options(args, assets, device),
        adam=AdamOptions(use_confidence=args.use_confidence),
        device=device,
        video=args.video,
    )
    counts = count_status(fitted.status)
    if not usable(torch.as_tensor(fitted.status)).any():
        raise CalibrationError(
            f"{args.predictions}: none of {len(predictions)} images could be fitted ({counts}), so nothing is written; "
            "do the keypoints and K belong to these images, in px of the full image?"
        )
    save_predictions(args.output, fitted.predictions)
    report = summarise(predictions, fitted, truth, assets, left)
    log_report(report)
    if args.results is not None:
        write_json(args.results, report)
    return report


def scripts_files(shape_source: str, solver: str = "lm") -> dict[str, tuple[Path, str | None]]:
    """What ``scripts/fit_*.sh`` fit and write, by option."""
    name = {"predicted": "baseline", "gt": "true_shape", "calibrated": "calibrated"}[shape_source]
    files: dict[str, tuple[Path, str | None]] = {
        "predictions": (PREDICTIONS / f"{name}.npz", f"scripts/eval_{name}.sh"),
        "keypoints": KEYPOINTS,
        "output": (Path(f"out/dex_ycb/fitted/{name}.npz"), None),
    }
    if shape_source == "calibrated":
        files["identity"] = IDENTITIES
    if SHIPPED_PRIOR.is_file() and solver == "lm":
        files["prior"] = (SHIPPED_PRIOR, None)
    return files


def fit_options(args: argparse.Namespace, assets: HandAssets, device: torch.device) -> FitOptions:
    """`FitOptions` of the command line; a population file replaces the defaults of prior, noise and depth."""
    options = FitOptions(
        noise=KeypointNoise(std_px=args.keypoint_std, min_confidence=args.min_confidence, loss=args.loss),
        depth_mean=args.depth_mean,
        depth_std=args.depth_std,
        lm=replace(FitOptions().lm, max_steps=args.max_steps),
        evidence_rounds=args.evidence_rounds,
        chunk=args.chunk,
    )
    population = Population()
    if args.prior is not None:
        population = load_population(args.prior, assets.hash)
        options = with_population(options, population, keep_depth=args.depth_mean is not None)
    stds = {name: value for name in ("root_std", "finger_std") if (value := getattr(args, name)) is not None}
    options = replace(options, prior=options.prior.stated(**stds)) if stds else options
    if args.fit_shape:
        options = replace(options, shape_prior=population.shape_prior.to(device, torch.float32))
    return options


def summarise(
    predictions: Predictions,
    fitted: FittedPredictions,
    truth: dict[str, np.ndarray] | None,
    assets: HandAssets,
    left: HandAssets | None = None,
) -> dict[str, Any]:
    """Speed, counts by status and reprojection error (px) of the fits; with truth also 3D errors (mm) of all rows,
    before and after; ``left``: as of `true_points`."""
    fitted_px = fitted.reprojection_px[usable(torch.as_tensor(fitted.status)).numpy()]
    seen_px = fitted_px[fitted_px > 0]  # frames of a video that their neighbours carry have no keypoints
    report: dict[str, Any] = {
        "n_images": len(fitted.status),
        "frames_per_second": fitted.frames_per_second,
        "status": count_status(fitted.status),
        "n_fitted": len(fitted_px),
        "reprojection_rmse_px": float(np.sqrt(np.mean(seen_px**2))) if len(seen_px) else None,
    }
    valid = np.flatnonzero([] if truth is None else truth["valid"])
    if truth is not None and len(valid):
        model = HandModel(assets)
        is_left = predictions.is_left[valid]
        target = true_points(model, {name: value[valid] for name, value in truth.items()}, is_left, left)
        for name, rows in (("network", predictions), ("fitted", fitted.predictions)):
            if rows.betas is None:
                continue
            part = rows.select(valid)
            points = hand_points(model, part.pose, part.betas, part.transl, is_left)
            result = evaluate_predictions(
                points[0], target[0], points[1], target[1], f_scores=False, absolute=part.transl is not None
            )
            report[name] = {key: result.summary[key] for key in COLUMNS if key in result.summary}
    elif truth is not None:
        logger.warning("%s: none of its images is annotated here, so there is no table of errors", predictions.source)
    return report


def log_report(report: dict[str, Any]) -> None:
    """The table (mm) on the log."""
    pixels = report["reprojection_rmse_px"]
    logger.info(
        "%d of %d images fitted, %.0f frames/s, reprojection %s px, %s",
        report["n_fitted"],
        report["n_images"],
        report["frames_per_second"],
        "-" if pixels is None else f"{pixels:.2f}",
        report["status"],
    )
    for name in ("network", "fitted"):
        if name in report:
            cells = "  ".join(f"{key} {value:7.2f}" for key, value in report[name].items())
            logger.info("%-8s %s", name, cells)
