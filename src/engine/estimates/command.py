"""What ``calibrate_from_shape_params.py --estimates`` and ``run.py --phase personalise`` do."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.engine.distributed import DistributedContext, init_distributed, process_group
from src.engine.estimates.outputs import write_identities, write_outputs
from src.estimators import read_estimates
from src.personalization.calibration.command import calibrate_and_write, stated_options
from src.personalization.calibration.identity import Images
from src.personalization.calibration.population import Population
from src.personalization.estimates.evidence import Estimates, believed, prepare
from src.personalization.estimates.one_hand import check_one_hand
from src.personalization.estimates.people import people_of
from src.personalization.estimates.personalise import (
    MOST_IMAGES,
    Personalised,
    calibrate_estimates,
    personalise_rows,
)
from src.personalization.estimates.trust import load_trust
from src.personalization.landmarks.model import find_landmarks
from src.personalization.shape_source import load_identities
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.shape_terms import LengthCue
from src.photos.camera import checked_fov, parse_intrinsics
from template import HandAssets, load_hand_assets
from utils.artifacts import Identity, Predictions
from utils.device import choose_device
from utils.files import writable_folder

logger = logging.getLogger(__name__)

#: Formats whose landmark models there are; of the others points are taken for the hand's joints.
LANDMARKS = ("mediapipe",)
DEFAULT_IDENTITY = "out/estimates/identity.json"


def reading(args: argparse.Namespace) -> dict[str, Any]:
    """Options of `read_estimates`.

    Raises:
        ValueError: neither K nor fov, or both.
    """
    if (args.K is None) == (args.fov is None) and args.format != "joints":
        raise ValueError(
            "give --K or --fov, one of both: the estimator's camera is made up, and the distance and size of a hand "
            "follow from the real one"
        )
    return {
        "K": None if args.K is None else parse_intrinsics(args.K).K,
        "fov": checked_fov(args.fov),
        "image_size": None if args.image_size is None else tuple(args.image_size),
        "images": args.images,
        "side": args.side_of,
        "sides": args.sides,
        "unit": args.unit,
        "subjects": args.subjects,
    }


def open_estimates(
    args: argparse.Namespace, assets: HandAssets, people: Population, device: torch.device
) -> tuple[Predictions, Estimates]:
    """The hands as they were read, and ready for the solvers."""
    read = read_estimates(args.estimates, args.format, **reading(args))
    trust = None if args.trust is None else load_trust(args.trust)
    landmarks = find_landmarks(args.format, assets) if args.format in LANDMARKS else None
    return read, prepare(read, assets, people, trust, landmarks, device=device)


def calibrate(args: argparse.Namespace) -> dict[int, Identity]:
    """Estimates to identity files: one solved shape, or the mean or median of their betas.

    Raises:
        ArtifactError, CalibrationError, FileNotFoundError, ValueError: see the functions called.
    """
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    people = people_of(assets, args.prior_from)
    _, ready = open_estimates(args, assets, people, device)
    if args.output is None:
        args.output = DEFAULT_IDENTITY if len(np.unique(ready.rows.subject_id)) == 1 else str(
            Path(DEFAULT_IDENTITY).parent
        )  # fmt: skip
        logger.info("--output is not given: %s", args.output)
    if args.num_images is None:
        args.num_images = min(len(ready.rows), MOST_IMAGES)
    if args.method != "multi_frame" and ready.rows.betas is None:
        raise CalibrationError(f"{args.estimates}: {args.format} has no betas and no 3D joints to average")
    if not args.accept_conflict:
        check_one_hand(ready.rows)
    if args.method == "multi_frame":
        ready = believed(ready, assets, people)
    options = stated_options(args, ready.options(assets, people))
    options = replace(options, noise=replace(options.noise, std_box=ready.trust.keypoint_std_box))
    return calibrate_and_write(args, Images(ready.rows), options, assets, device)


def personalise(args: argparse.Namespace) -> None:
    """Their hands again with one shape, in their own files; see `outputs.write_outputs` for what is left.

    Under torchrun the processes share the hands, and the leading one writes.

    Raises:
        ArtifactError, CalibrationError, FileNotFoundError, ValueError: see the functions called.
    """
    if args.submit not in (None, "shape_track"):
        raise ValueError(f"--submit {args.submit} is of --phase eval; personalise takes shape_track")
    if args.identity is not None and (args.hand_length_mm is not None or args.prior_from is not None):
        raise ValueError("--hand_length_mm and --prior_from are for calibrating; --identity says what hand it is")
    output = Path(args.output if "--output" in args.given_options else "out/estimates/personalised")
    if output.resolve() == Path(args.estimates).resolve():
        raise ValueError(
            f"--output {output}: is --estimates, which would be mixed with the results; give another folder"
        )
    writable_folder(output)  # before the work, not after it
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    people = people_of(assets, args.prior_from)
    with process_group():
        context = init_distributed(device)
        read, ready = open_estimates(args, assets, people, device)
        identities = identities_of(args, ready, assets, people, device)
        found = shared_out(ready, identities, assets, device, context)
        if found is None:
            return
        write_outputs(args, output, read, found, assets, reading(args))
        write_identities(output, identities, calibrated=args.identity is None)
        if args.submit:
            from src.engine.estimates.shape_track import write_shape_track

            write_shape_track(output / "shape_track.json", found, assets)


def identities_of(
    args: argparse.Namespace, ready: Estimates, assets: HandAssets, people: Population, device: torch.device
) -> dict[int, Identity]:
    """Of the file or folder given, else calibrated."""
    if args.identity is not None:
        return load_identities(args.identity, ready.rows.subject_id, assets, ready.rows.is_left)
    cues = ()
    if args.hand_length_mm is not None:
        cues = (LengthCue("hand", args.hand_length_mm / 1000, args.hand_length_std_mm / 1000),)
        if len(np.unique(ready.rows.subject_id)) > 1:
            raise CalibrationError("--hand_length_mm is one person's; calibrate each of several with --subject")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    given: dict[str, Any] = {"accept_conflict": args.accept_conflict, "device": device, "created_by": command}
    return calibrate_estimates(ready, assets, people, cues, **given)


def shared_out(
    ready: Estimates,
    identities: dict[int, Identity],
    assets: HandAssets,
    device: torch.device,
    context: DistributedContext,
) -> Personalised | None:
    """Every process's share of the rows; all of them in the leading one, None in the others."""
    count = len(ready.rows)
    share = np.arange(count)[context.rank :: context.world_size]
    part = replace(ready, rows=ready.rows.select(share), turn=ready.turn[share])
    own = {subject: identities[subject] for subject in identities}
    found = personalise_rows(part, own, assets, device)
    parts = context.gather((share, found))
    if parts is None:
        return None
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    every = [one for _, one in parts]
    return Personalised(
        identities,
        _joined([one.rows for one in every], order),
        np.concatenate([one.joints for one in every])[order],
        np.concatenate([one.reprojection_px for one in every])[order],
        _joined([one.released for one in every], order),
    )


def _joined(parts: list[Predictions], order: np.ndarray) -> Predictions:
    from utils.artifacts import ROW_ARRAYS

    whole = {
        name: None if getattr(parts[0], name) is None else np.concatenate([getattr(one, name) for one in parts])[order]
        for name in ROW_ARRAYS
    }
    return replace(parts[0], **whole)
