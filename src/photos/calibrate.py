"""``calibrate_from_shape_params.py --images DIR --keypoints mediapipe``: photos to an identity, without a network."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace

import torch

from src.personalization.calibration.command import calibrate_and_write, people_of, stated_options
from src.personalization.calibration.identity import Images
from src.personalization.calibration.images import AVERAGES
from src.personalization.calibration.multi_frame import CalibrationOptions
from src.personalization.calibration.population import SHARED_ERROR_FACTOR
from src.personalization.fitting.fit import PosePriorOptions
from src.personalization.fitting.from_keypoints import DETECTOR_NOISE, KeypointFitOptions
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.population_pose_prior import habit_prior
from src.photos.camera import checked_fov, parse_intrinsics
from src.photos.detector import find_hands
from src.photos.hands import Finder, find_photo_hands, fit_photo_hands, photo_predictions
from template import HandAssets, load_hand_assets
from utils.artifacts import Identity
from utils.device import choose_device

logger = logging.getLogger(__name__)

#: Subject number of an identity made of photos, unless --subject says another.
SOMEBODY = 1


def calibrate_photos(args: argparse.Namespace, finder: Finder = find_hands) -> dict[int, Identity]:
    """Find the hands, fit each one alone, then all together with one shape; writes one identity file.

    Args:
        args: of `options.calibrate`; finder: the detector.

    Raises:
        ImportError: mediapipe is missing; says what to install.
        CalibrationError, FileNotFoundError, ValueError: options that do not go together, or nothing to calibrate from.
    """
    check_options(args)
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    together = photo_options(args, assets, device)
    people = together.population
    options = KeypointFitOptions(
        replace(together.noise, std_box=DETECTOR_NOISE.std_box),
        torch.as_tensor(people.betas_mean), torch.as_tensor(people.betas_covariance),
    )
    K, fov = parse_intrinsics(args.K) if args.K else None, checked_fov(args.fov)
    hands = find_photo_hands(args.images, args.hand, K, fov, finder)
    fit = fit_photo_hands(hands, assets, options=options, device=device)
    subject = SOMEBODY if args.subject is None else args.subject
    predictions = photo_predictions(hands, fit, assets, options, subject)
    logger.info("%d hands of %d found are used", len(predictions), len(hands))
    return calibrate_and_write(args, Images(predictions), together, assets, device)


def check_options(args: argparse.Namespace) -> None:
    """Refuse what needs a network or a data set.

    Raises:
        CalibrationError: naming the option.
    """
    if args.keypoints != "mediapipe":
        raise CalibrationError("--images needs --keypoints mediapipe: photos hold no predictions of a network")
    if args.method in AVERAGES:
        raise CalibrationError(f"--method {args.method} averages a network's shapes; photos take --method multi_frame")
    if args.select == "confidence":
        raise CalibrationError("--select confidence needs a network's confidence; take random or informative")
    if args.cameras is not None or args.wrist_depth:
        raise CalibrationError("--cameras and --wrist_depth read a data set; they do not go with --images")


def photo_options(args: argparse.Namespace, assets: HandAssets, device: torch.device) -> CalibrationOptions:
    """What is believed before the photos are seen: usual poses and shapes, and noise of the detector.

    Of a population file (--prior, or the shipped one) only the shapes are taken: its poses, depths and noise are a
    network's and its data set's. The noise is doubled, as for a network's keypoints, since much of the error repeats
    from photo to photo (benchmarks/own_photos.py shows what the intervals hold). There is no prior on the depth.
    """
    options = CalibrationOptions(
        prior=PosePriorOptions(torch.inf, torch.inf),
        noise=replace(DETECTOR_NOISE, std_box=SHARED_ERROR_FACTOR * DETECTOR_NOISE.std_box),
        extra_priors=(habit_prior(assets, device=device),),
        population=people_of(assets, args.prior),
    )
    return stated_options(args, options)
