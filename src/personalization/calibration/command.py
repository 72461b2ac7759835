"""What ``calibrate_from_shape_params.py`` does."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from datasets import build_dataset
from src.personalization.calibration.choose import calibrate
from src.personalization.calibration.data_set_evidence import view_groups, wrist_depths
from src.personalization.calibration.merging import merge_identities
from src.personalization.calibration.multi_frame import JointOptions
from src.personalization.calibration.multi_frame_identity import Evidence
from src.personalization.calibration.multi_view import group_views
from src.personalization.calibration.population import Population, joint_with_population, load_population
from src.personalization.fitting.fit import PosePriorOptions
from src.personalization.pairing import pair_keypoints
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import describe_lengths
from src.personalization.terms.noise import KeypointNoise
from src.personalization.terms.shape_terms import LengthCue, parse_known_bone
from template import HandAssets, load_hand_assets
from utils.artifacts import Identity, Predictions, load_identity, load_predictions, save_identity
from utils.device import choose_device

logger = logging.getLogger(__name__)

#: Images of a person to calibrate from unless --num_images says otherwise; of own photos: all.
NUM_IMAGES = 20


def run(args: argparse.Namespace) -> dict[int, Identity]:
    """Calibrate every subject of the predictions; writes one identity file each (the first draw's).

    Raises:
        ArtifactError, CalibrationError, FileNotFoundError, ValueError: see the functions called.
    """
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    predictions = load_predictions(args.predictions)
    predictions.check_hand(assets)
    if args.keypoints is not None or args.method == "joint":
        keypoints = None if args.keypoints is None else load_predictions(args.keypoints)
        predictions = pair_keypoints(predictions, keypoints)
    population = None if args.prior is None else load_population(args.prior, assets.hash)
    return calibrate_and_write(args, *gather_evidence(args, predictions, population), assets, device)


def calibrate_and_write(
    args: argparse.Namespace, predictions: Predictions, evidence: Evidence, assets: HandAssets, device: torch.device
) -> dict[int, Identity]:
    """Calibrate, write and report as the command line says.

    Raises:
        ArtifactError, CalibrationError: see the functions called.
    """
    if args.draws < 1:
        raise CalibrationError(f"--draws is {args.draws}; at least one is needed")
    count = args.num_images or (len(predictions) if args.images else NUM_IMAGES)
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    draws = [
        calibrate(
            predictions, assets, method=args.method, num_images=count, select=args.select,
            seed=args.seed + draw, top_k=args.top_k, temperature=args.temperature, evidence=evidence,
            subject=args.subject, device=device, created_by=command,
        )
        for draw in range(args.draws)
    ]
    if args.merge_with is not None:
        draws[0] = merge_with_earlier(draws[0], args.merge_with, assets, evidence.joint)
    write_identities(args.output, draws[0])
    report(draws, assets)
    return draws[0]


def joint_options(args: argparse.Namespace, population: Population | None) -> JointOptions:
    """Priors, noise and length cues of the command line; a population file replaces the defaults."""
    cues = [parse_known_bone(text) for text in args.known_bone]
    if args.hand_length_mm is not None:
        cues.append(LengthCue("hand", args.hand_length_mm / 1000, args.hand_length_std_mm / 1000))
    noise = KeypointNoise(std_px=args.keypoint_std, min_confidence=args.min_confidence, loss=args.loss)
    options = JointOptions(
        PosePriorOptions(args.root_std, args.finger_std), noise, args.depth_mean, args.depth_std, cues=tuple(cues)
    )
    if population is None:
        return options
    return joint_with_population(options, population, keep_depth=args.depth_mean is not None)


def gather_evidence(
    args: argparse.Namespace, predictions: Predictions, population: Population | None
) -> tuple[Predictions, Evidence]:
    """The evidence of the command line; with several cameras also the rows that have them."""
    joint = joint_options(args, population)
    if args.cameras is None and not args.wrist_depth:
        return predictions, Evidence(joint, accept_conflict=args.accept_conflict)
    if args.data_root is None:
        raise CalibrationError("--cameras and --wrist_depth need the data set: give --data_root")
    dataset = build_dataset(
        args.dataset, args.data_root, predictions.split,
        side="both", mano_dir=args.mano_dir, allow_missing_subjects=True,
    )
    views = None
    if args.cameras is not None:
        views = view_groups(dataset, predictions)
        rows = group_views(views, args.cameras, args.seed)
        predictions, views = predictions.select(rows), views.rows(rows)
    depth = wrist_depths(dataset, predictions) if args.wrist_depth else None
    std = args.wrist_depth_std_mm / 1000
    return predictions, Evidence(joint, depth, std, views, args.accept_conflict)


def merge_with_earlier(
    identities: dict[int, Identity], path: str, assets: HandAssets, options: JointOptions
) -> dict[int, Identity]:
    """The one identity found, merged with an earlier file."""
    if len(identities) != 1:
        raise CalibrationError(
            f"--merge_with is one person's file, but there are subjects {list(identities)}; give --subject"
        )
    number, found = next(iter(identities.items()))
    earlier = load_identity(path)
    earlier.check_hand(assets)
    prior = options.prior_moments()
    return {number: merge_identities([earlier, found], assets, *prior)}


def write_identities(output: str, identities: dict[int, Identity]) -> None:
    """``identity_subject-NN.json`` in the folder ``output``, or the file itself for one subject."""
    if output.endswith(".json"):
        if len(identities) != 1:
            raise CalibrationError(
                f"--output {output} is one file, but there are {len(identities)} subjects ({list(identities)}); "
                "give a folder, or --subject"
            )
        save_identity(output, next(iter(identities.values())))
        return
    for number, identity in identities.items():
        save_identity(Path(output) / f"identity_subject-{number:02d}.json", identity)


def report(draws: list[dict[int, Identity]], assets: HandAssets) -> None:
    """Log each subject's hand and finger lengths, and their spread over the draws."""
    for number, identity in draws[0].items():
        logger.info("subject %d: %s, %d images, scale from %s; %s", number, identity.method, identity.n_images,
                    identity.scale_evidence, describe_lengths(identity, assets))
        if len(draws) > 1:
            values = [draw[number].hand_length_mm for draw in draws]
            logger.info("subject %d: hand length over %d draws %.1f ± %.1f mm",
                        number, len(draws), np.mean(values), np.std(values, ddof=1))
