"""What ``calibrate_from_shape_params.py`` does."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from src.personalization.calibration import CalibrationOptions, calibrate_subjects
from src.personalization.hand_size import lengths_mm
from src.personalization.pairing import pair_keypoints
from src.personalization.status import CalibrationError
from template import HandAssets, load_hand_assets
from utils.artifacts import Identity, load_predictions, save_identity

logger = logging.getLogger(__name__)


def calibrate(args: argparse.Namespace) -> dict[int, Identity]:
    """Calibrate every subject of the predictions; writes one identity file each (the first draw's).

    Raises:
        ArtifactError, CalibrationError, FileNotFoundError: see the functions called.
    """
    if args.draws < 1:
        raise CalibrationError(f"--draws is {args.draws}; at least one is needed")
    assets = load_hand_assets(args.mano_dir, side="right")
    predictions = load_predictions(args.predictions)
    predictions.check_hand(assets)
    if args.keypoints is not None or args.method == "joint":
        keypoints = None if args.keypoints is None else load_predictions(args.keypoints)
        predictions = pair_keypoints(predictions, keypoints)
    options = CalibrationOptions(
        args.method, args.num_images, args.select, args.seed, args.top_k, args.temperature
    )
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    draws = [
        calibrate_subjects(predictions, assets, replace(options, seed=args.seed + draw), args.subject, command)
        for draw in range(args.draws)
    ]
    write_identities(args.output, draws[0])
    report(draws, assets)
    return draws[0]


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
        lengths = lengths_mm(assets, identity.betas, identity.covariance)
        text = ", ".join(f"{name} {value:.1f}" + ("" if std is None else f" ± {std:.1f}") for name, (value, std) in lengths.items())
        logger.info("subject %d: %s, %d images, scale from %s; mm: %s",
                    number, identity.method, identity.n_images, identity.scale_evidence, text)
        if len(draws) > 1:
            values = [draw[number].hand_length_mm for draw in draws]
            logger.info("subject %d: hand length over %d draws %.1f ± %.1f mm",
                        number, len(draws), np.mean(values), np.std(values, ddof=1))
