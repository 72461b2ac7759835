"""What ``calibrate_from_shape_params.py --predictions FILE`` does."""

from __future__ import annotations

import argparse
import logging
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datasets import open_labels
from options.calibrate import NUM_IMAGES, source_of
from src.personalization.calibration.data_set_evidence import with_evidence
from src.personalization.calibration.identity import calibrate_person
from src.personalization.calibration.images import Images
from src.personalization.calibration.merging import merge_identities
from src.personalization.calibration.population import CalibrationOptions, default_options, load_population
from src.personalization.default_files import IDENTITIES, KEYPOINTS, PREDICTIONS, fill_in
from src.personalization.pairing import check_confidence, pair_keypoints, rows_of
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import (
    LengthCue,
    describe_lengths,
    opened_identity,
    parse_known_bone,
    ruler_cues,
)
from template import HandAssets, load_hand_assets
from template.kinematics import joints_model
from utils.artifacts import Identity, load_predictions, save_identity
from utils.device import choose_device
from utils.files import writable_folder
from utils.joints import FINGERS

logger = logging.getLogger(__name__)

#: Standard deviation of a breadth or a finger's length by ruler, mm.
RULER_STD_MM = 2.0


def run(args: argparse.Namespace) -> dict[int, Identity]:
    """Calibrate every subject of the predictions; writes one identity file each (the first draw's).

    Raises:
        ArtifactError, CalibrationError, FileNotFoundError, ValueError: see the functions called.
    """
    if args.predictions is None:
        confident = (PREDICTIONS / "confidence.npz", "scripts/predict_with_confidence.sh")
        fill_in(args, {"predictions": confident, "keypoints": KEYPOINTS})
    fill_in(args, {"output": (IDENTITIES[0], None)})
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    predictions = load_predictions(args.predictions)
    predictions.check_hand(assets)
    keypoints = None if args.keypoints is None else load_predictions(args.keypoints)
    dataset = None
    if args.cameras is not None or args.wrist_depth:
        if args.data_root is None:
            raise CalibrationError("--cameras and --wrist_depth need the data set: give --data_root")
        dataset = open_labels(args.dataset, args.data_root, predictions.split, mano_dir=args.mano_dir)
    if keypoints is not None or args.method == "multi_frame":
        predictions = pair_keypoints(predictions, keypoints)
        check_confidence(predictions, args)
    images = Images(predictions)
    if dataset is not None:
        rows = rows_of(dataset, predictions)
        images = with_evidence(predictions, dataset, rows, args.cameras, args.wrist_depth, args.seed)
    options = CalibrationOptions()
    if args.method == "multi_frame":
        population = None if args.prior is None else load_population(args.prior, assets.hash)
        stated = args.keypoint_std is not None and args.finger_std is not None
        known = default_options(assets, predictions.model_name, predictions.dataset, population, stated)
        options = stated_options(args, known)
    return calibrate_and_write(args, images, options, assets, device)


def calibrate_and_write(
    args: argparse.Namespace,
    images: Images,
    options: CalibrationOptions,
    assets: HandAssets,
    device: torch.device,
) -> dict[int, Identity]:
    """Calibrate, write and report as the command line says, one subject after the other: what is done is kept.

    Raises:
        ArtifactError, CalibrationError: see the functions called; of several subjects after all have been tried.
    """
    if args.draws < 1:
        raise CalibrationError(f"--draws is {args.draws}; at least one is needed")
    most = NUM_IMAGES[source_of(args)]
    if args.draws > 1 and args.num_images is None and most is None:
        raise CalibrationError("--draws draws among the photos: say how many each takes (--num_images)")
    model, output = joints_model(assets, options.landmarks, device), Path(args.output)
    one_file = args.output.endswith(".json")
    writable_folder(output.parent if one_file else output)  # before the work, not after it
    if one_file and output.is_dir():
        raise OSError(f"--output {output}: is a folder; name a file, or a folder whose name does not end in .json")
    subjects = images.people(args.subject, model, options.same_video)
    if len(subjects) > 1 and (one_file or args.merge_with is not None):
        option = "--merge_with" if args.merge_with is not None else f"--output {output}"
        raise CalibrationError(f"{option} is one person's file, but there are subjects {[*subjects]}; give --subject")
    if len(subjects) > 1 and options.cues:
        raise CalibrationError(f"a length is one person's, but there are subjects {[*subjects]}; give --subject")
    earlier = None if args.merge_with is None else opened_identity(args.merge_with, assets)
    choices = {name: getattr(args, name) for name in ("method", "select", "top_k", "temperature")}
    choices["num_images"] = most if args.num_images is None else args.num_images
    choices["created_by"] = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    written, errors = {}, {}
    for subject, own in subjects.items():
        if args.num_images is not None and len(own.predictions) < args.num_images:
            said = (subject, len(own.predictions), args.num_images)
            logger.warning("subject %d has %d images, fewer than the %d asked for: all are used", *said)
        try:
            draws = [
                calibrate_person(own, subject, assets, model, options, seed=args.seed + draw, **choices)
                for draw in range(args.draws)
            ]
            lengths = [draw.hand_length_mm for draw in draws]
            differ = any(draw.image_ids != draws[0].image_ids for draw in draws)
            if source_of(args) == "--images" and args.subject is None:  # whoever is in the photos
                draws[0] = replace(draws[0], subject_id=None)
            if earlier is not None:
                new = replace(draws[0], source=f"the new calibration of subject {subject}")
                draws[0] = merge_identities([earlier, new], assets, options.population, args.accept_conflict)
        except CalibrationError as error:
            if len(subjects) == 1:
                raise
            errors[subject] = error
            logger.error("subject %d: %s", subject, error)
            continue
        save_identity(output if one_file else output / f"identity_subject-{subject:02d}.json", draws[0])
        written[subject] = draws[0]
        facts = (draws[0].method, draws[0].n_images, draws[0].scale_evidence, describe_lengths(draws[0], assets))
        logger.info("subject %d: %s, %d images, scale from %s; %s", subject, *facts)
        if len(draws) > 1 and not differ:
            logger.warning("subject %d: every draw takes the same images, so --draws shows no spread", subject)
        elif len(draws) > 1:
            spread = (subject, len(draws), np.mean(lengths), np.std(lengths, ddof=1))
            logger.info("subject %d: hand length over %d draws %.1f ± %.1f mm", *spread)
    if errors:
        raise CalibrationError(
            f"{len(errors)} of {len(subjects)} subjects could not be calibrated ({list(errors)}, first: "
            f"{next(iter(errors.values()))}); identities of {list(written)} were written to {args.output}"
        )
    return written


def stated_options(args: argparse.Namespace, options: CalibrationOptions) -> CalibrationOptions:
    """``options`` with the noise (px), spreads (rad), depth and length cues (m) that the command line states."""
    cues = [parse_known_bone(text) for text in args.known_bone]
    cues += ruler_cues(args.hand_length_mm, args.hand_length_std_mm)
    if args.hand_breadth_mm is not None:
        cues.append(LengthCue("breadth", args.hand_breadth_mm / 1000, RULER_STD_MM / 1000))
    for text in args.finger_length_mm:
        name, _, length = text.partition("=")
        if name.strip() not in FINGERS or not re.fullmatch(r"\s*\d+\.?\d*\s*", length):
            raise CalibrationError(f"--finger_length_mm {text}: is not NAME=MM, NAME one of {', '.join(FINGERS)}")
        cues.append(LengthCue(name.strip(), float(length) / 1000, RULER_STD_MM / 1000))
    noise = replace(options.noise, std_px=args.keypoint_std, min_confidence=args.min_confidence, loss=args.loss)
    changes = {"noise": noise, "cues": tuple(cues), "accept_conflict": args.accept_conflict}
    if args.same_video is not None:
        changes["same_video"] = args.same_video
    if args.error_correlation is not None:
        share = args.error_correlation
        changes |= {"errors_repeat": False, "error_correlation": share, "video_correlation": share}
    if args.depth_mean is not None:
        changes |= {"depth_mean": args.depth_mean, "depth_std": args.depth_std}
    stds = {name: getattr(args, name) for name in ("root_std", "finger_std") if getattr(args, name) is not None}
    if stds:
        changes["prior"] = options.prior.stated(**stds)
    return replace(options, wrist_depth_std=args.wrist_depth_std_mm / 1000, **changes)
