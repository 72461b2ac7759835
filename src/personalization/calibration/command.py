"""What ``calibrate_from_shape_params.py --predictions FILE`` does."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from src.personalization.calibration.data_set_evidence import view_groups, wrist_depths
from src.personalization.calibration.from_keypoints import shapes_of
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.images import Images
from src.personalization.calibration.merging import merge_identities
from src.personalization.calibration.multi_frame import (
    CalibrationOptions,
    calibration_options,
    correlated,
    default_options,
)
from src.personalization.calibration.multi_view import group_views
from src.personalization.calibration.population import load_population
from src.personalization.default_files import IDENTITIES, KEYPOINTS, PREDICTIONS, fill_in
from src.personalization.fitting.fit import PosePriorOptions
from src.personalization.ground_truth import open_labels
from src.personalization.pairing import pair_keypoints, rows_by_subject
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import check_stated_length, describe_lengths
from src.personalization.terms.shape_terms import LengthCue, parse_known_bone
from template import HandAssets, load_hand_assets
from utils.artifacts import Identity, Predictions, load_identity, load_predictions, save_identity
from utils.device import choose_device
from utils.files import writable_folder

logger = logging.getLogger(__name__)

#: Images of a person to calibrate from unless --num_images says otherwise; of own photos: all.
NUM_IMAGES = 20
#: Standard deviation of a breadth or a finger's length by ruler, mm.
RULER_STD_MM = 2.0


def run(args: argparse.Namespace) -> dict[int, Identity]:
    """Calibrate every subject of the predictions; writes one identity file each (the first draw's).

    Raises:
        ArtifactError, CalibrationError, FileNotFoundError, ValueError: see the functions called.
    """
    if args.predictions is None:
        fill_in(
            args,
            {
                "predictions": (PREDICTIONS / "confidence.npz", "scripts/predict_with_confidence.sh"),
                "keypoints": KEYPOINTS,
            },
        )
    fill_in(args, {"output": (IDENTITIES[0], None)})
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    predictions = load_predictions(args.predictions)
    if args.keypoints is not None or args.method == "multi_frame":
        keypoints = None if args.keypoints is None else load_predictions(args.keypoints)
        predictions = pair_keypoints(predictions, keypoints)
    images = gather_images(args, predictions)
    options = options_of(args, assets, predictions)
    return calibrate_and_write(args, images, options, assets, device)


def calibrate_and_write(
    args: argparse.Namespace, images: Images, options: CalibrationOptions, assets: HandAssets, device: torch.device
) -> dict[int, Identity]:
    """Calibrate, write and report as the command line says, one subject after the other: what is done is kept.

    Raises:
        ArtifactError, CalibrationError: see the functions called; of several subjects after all have been tried.
    """
    if args.draws < 1:
        raise CalibrationError(f"--draws is {args.draws}; at least one is needed")
    subjects = list(rows_by_subject(images.predictions, args.subject))
    if len(subjects) > 1 and (args.output.endswith(".json") or args.merge_with is not None):
        option = "--merge_with" if args.merge_with is not None else f"--output {args.output}"
        raise CalibrationError(f"{option} is one person's file, but there are subjects {subjects}; give --subject")
    path = Path(args.output)
    writable_folder(path.parent if args.output.endswith(".json") else path)  # before the work, not after it
    if args.output.endswith(".json") and path.is_dir():
        raise OSError(f"--output {path}: is a folder; name a file, or a folder whose name does not end in .json")
    earlier = None if args.merge_with is None else check_stated_length(load_identity(args.merge_with), assets)
    count = (None if args.images else NUM_IMAGES) if args.num_images is None else args.num_images
    written, errors = {}, {}
    for subject in subjects:
        try:
            draws = [
                calibrate_predictions(
                    images.predictions,
                    assets,
                    options,
                    method=args.method,
                    num_images=count,
                    select=args.select,
                    seed=args.seed + draw,
                    top_k=args.top_k,
                    temperature=args.temperature,
                    wrist_depth=images.wrist_depth,
                    views=images.views,
                    subject=subject,
                    device=device,
                    created_by=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                )[subject]
                for draw in range(args.draws)
            ]
            if earlier is not None:
                new = replace(draws[0], source=f"the new calibration of subject {subject}")
                draws[0] = merge_identities([earlier, new], assets, options.population, args.accept_conflict)
        except CalibrationError as error:
            if len(subjects) == 1:
                raise
            errors[subject] = error
            logger.error("subject %d: %s", subject, error)
            continue
        one_file = args.output.endswith(".json")
        path = Path(args.output) if one_file else Path(args.output) / f"identity_subject-{subject:02d}.json"
        save_identity(path, draws[0])
        written[subject] = draws[0]
        facts = (draws[0].method, draws[0].n_images, draws[0].scale_evidence, describe_lengths(draws[0], assets))
        logger.info("subject %d: %s, %d images, scale from %s; %s", subject, *facts)
        if len(draws) > 1:
            lengths = [draw.hand_length_mm for draw in draws]
            spread = (subject, len(draws), np.mean(lengths), np.std(lengths, ddof=1))
            logger.info("subject %d: hand length over %d draws %.1f ± %.1f mm", *spread)
    if errors:
        raise CalibrationError(
            f"{len(errors)} of {len(subjects)} subjects could not be calibrated ({list(errors)}, first: "
            f"{next(iter(errors.values()))}); identities of {list(written)} were written to {args.output}"
        )
    return written


def options_of(args: argparse.Namespace, assets: HandAssets, predictions: Predictions) -> CalibrationOptions:
    """Priors, noise (px) and length cues (m): what the command line says, else --prior, else `default_options`."""
    if args.method != "multi_frame":
        return CalibrationOptions()
    if args.prior is not None:
        options = calibration_options(load_population(args.prior, assets.hash))
    elif args.keypoint_std is not None and args.finger_std is not None:
        # How poses and keypoints err is said; people's shapes need not be.
        options = CalibrationOptions(population=shapes_of(assets))
    else:
        options = default_options(assets, predictions.model_name, predictions.dataset)
    return stated_options(args, options)


def stated_options(args: argparse.Namespace, options: CalibrationOptions) -> CalibrationOptions:
    """``options`` with the noise (px), spreads (rad), depth and length cues (m) that the command line states."""
    cues = [parse_known_bone(text) for text in args.known_bone]
    if args.hand_length_mm is not None:
        cues.append(LengthCue("hand", args.hand_length_mm / 1000, args.hand_length_std_mm / 1000))
    if args.hand_breadth_mm is not None:
        cues.append(LengthCue("breadth", args.hand_breadth_mm / 1000, RULER_STD_MM / 1000))
    cues += [parse_known_bone(f"{text}±{RULER_STD_MM}") for text in args.finger_length_mm]
    noise = replace(options.noise, std_px=args.keypoint_std, min_confidence=args.min_confidence, loss=args.loss)
    changes = {"noise": noise, "cues": tuple(cues), "accept_conflict": args.accept_conflict}
    if args.same_video is not None:
        changes["same_video"] = args.same_video
    if args.error_correlation is not None:
        changes |= correlated(args.error_correlation)
    if args.depth_mean is not None:
        changes |= {"depth_mean": args.depth_mean, "depth_std": args.depth_std}
    stds = {name: getattr(args, name) for name in ("root_std", "finger_std") if getattr(args, name) is not None}
    if stds:
        changes["prior"] = PosePriorOptions(**stds)
    return replace(options, wrist_depth_std=args.wrist_depth_std_mm / 1000, **changes)


def gather_images(args: argparse.Namespace, predictions: Predictions) -> Images:
    """The images and what the data set tells of them; with several cameras only rows that have them."""
    if args.cameras is None and not args.wrist_depth:
        return Images(predictions)
    if args.data_root is None:
        raise CalibrationError("--cameras and --wrist_depth need the data set: give --data_root")
    dataset = open_labels(args.dataset, args.data_root, predictions, mano_dir=args.mano_dir)
    views = None
    if args.cameras is not None:
        views = view_groups(dataset, predictions)
        rows = group_views(views, args.cameras, args.seed)
        predictions, views = predictions.select(rows), views.rows(rows)
    return Images(predictions, wrist_depths(dataset, predictions) if args.wrist_depth else None, views)
