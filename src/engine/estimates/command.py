"""What ``calibrate_from_shape_params.py --estimates`` and ``run.py --phase personalise`` do."""

from __future__ import annotations

import argparse
import collections
import logging
import shlex
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from options.calibrate import NUM_IMAGES
from src.engine.distributed import DistributedContext, init_distributed, process_group
from src.engine.estimates.batches import BATCH, personalised_batches
from src.engine.estimates.outputs import ROWS, Outputs
from src.engine.estimates.shape_track import ShapeTrack
from src.engine.estimates.survey import survey
from src.engine.estimates.tracks import frames_of
from src.estimators import Reader
from src.estimators.files import check_written
from src.personalization.calibration.command import calibrate_and_write, stated_options
from src.personalization.calibration.images import Images
from src.personalization.calibration.population import Population
from src.personalization.estimates.evidence import Estimates, believed, landmarks_of, prepare
from src.personalization.estimates.one_hand import check_one_hand
from src.personalization.estimates.people import people_of
from src.personalization.estimates.personalise import (
    Personalised,
    calibrate_estimates,
    personalise_rows,
    usual_poses,
)
from src.personalization.estimates.trust import load_trust
from src.personalization.pairing import named_by_content
from src.personalization.shape_source import load_identities
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import ruler_cues
from src.photos.camera import parse_intrinsics
from src.photos.gallery import PAGE, PREDICTIONS
from template import HandAssets, load_hand_assets
from utils.artifacts import Identity, Predictions, save_identity
from utils.device import choose_device
from utils.files import writable_folder

logger = logging.getLogger(__name__)

#: Images of a person, at random, from which --select takes the surest or those that tell most.
CHOSEN_FROM = 1000
DEFAULT_IDENTITY = "out/estimates/identity.json"
#: ``--subjects`` where each hand that is followed through a video is taken for a person.
TRACKS = "tracks"


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
        "fov": args.fov,
        "image_size": None if args.image_size is None else tuple(args.image_size),
        "images": args.images,
        "side": args.side_of,
        "sides": args.sides,
        "unit": args.unit,
        "subjects": "one" if args.subjects == TRACKS else args.subjects,
    }


def by_tracks(args: argparse.Namespace, rows: Predictions) -> Predictions:
    """Rows of all hands, each track a person of its own where the options say so (``--subjects tracks``).

    Raises:
        ValueError: see `frames_of`.
    """
    return replace(rows, subject_id=frames_of(rows).track) if args.subjects == TRACKS else rows


def prepared(
    args: argparse.Namespace, rows: Predictions, assets: HandAssets, people: Population, device: torch.device
) -> Estimates:
    """Rows ready for the solvers, trusted as the options say."""
    trust = None if args.trust is None else load_trust(args.trust)
    landmarks = landmarks_of(args.format, assets)
    return prepare(rows, assets, people, trust, landmarks, device=device)


def calibrate(args: argparse.Namespace) -> dict[int, Identity]:
    """Estimates to identity files: one solved shape, or the mean or median of their betas.

    Raises:
        ArtifactError, CalibrationError, FileNotFoundError, ValueError: see the functions called.
    """
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    people = people_of(assets, args.prior_from)
    reader = Reader(args.estimates, args.format, **reading(args))
    most = max(args.num_images or 0, NUM_IMAGES["--estimates"] if args.select == "random" else CHOSEN_FROM)
    seen = survey(reader, sys.maxsize if args.subjects == TRACKS else most, DistributedContext())
    ready = prepared(args, by_tracks(args, seen.sample(reader)), assets, people, device)
    if args.output is None:
        one_person = len(np.unique(ready.rows.subject_id)) == 1
        args.output = DEFAULT_IDENTITY if one_person else str(Path(DEFAULT_IDENTITY).parent)
        logger.info("--output is not given: %s", args.output)
    if args.method != "multi_frame" and ready.rows.betas is None:
        raise CalibrationError(f"{args.estimates}: {args.format} has no betas and no 3D joints to average")
    if not args.accept_conflict:
        check_one_hand(ready.rows)
    if args.method == "multi_frame":
        ready = believed(ready, assets, people)
    options = stated_options(args, ready.calibration_options(assets, people, device))
    return calibrate_and_write(args, Images(named_by_content(ready.rows)), options, assets, device)


def personalise(args: argparse.Namespace) -> None:
    """Their hands again with one shape, in their own files; see `outputs.Outputs` for what is left.

    Every file is read twice, first to see who is there and to calibrate from some of each person's hands, then batch by
    batch to fit and write: memory does not grow with their number. Under torchrun the processes share both.

    Raises:
        ArtifactError, CalibrationError, FileNotFoundError, ValueError: see the functions called.
    """
    if args.identity is not None and (args.hand_length_mm is not None or args.prior_from or args.accept_conflict):
        raise ValueError(
            "--hand_length_mm, --prior_from and --accept_conflict are for calibrating; --identity says what hand it is"
        )
    if args.identity is not None and args.subjects == TRACKS:
        raise ValueError("--subjects tracks makes a person of each track, --identity is of one; give one of both")
    output = Path(args.output if "--output" in args.given_options else "out/estimates/personalised")
    source, target = Path(args.estimates), output / "estimates"
    ours = (output, target, output / ROWS, output / PREDICTIONS)
    if source.resolve() in {path.resolve() for path in ours} or target.resolve() in source.resolve().parents:
        raise ValueError(
            f"--output {output}: --estimates {source} would be mixed with the results, or overwritten by them "
            f"({target}, {ROWS}, {PREDICTIONS}); give another folder"
        )
    writable_folder(output)  # before the work, not after it
    device = choose_device(args.device, args.threads)
    assets = load_hand_assets(args.mano_dir, side="right")
    track = ShapeTrack(output / "shape_track.json", assets) if args.submit else None  # before the work, not after it
    people = people_of(assets, args.prior_from)
    with process_group():
        context = init_distributed(device)
        reader = Reader(args.estimates, args.format, **reading(args))
        for file in reader.files:
            check_written(file)
        whole = args.fps is not None or args.subjects == TRACKS  # hands are followed through all frames
        if whole and context.world_size > 1:
            raise ValueError("--fps and --subjects tracks look at all frames together; run them in one process")
        seen = survey(reader, sys.maxsize if whole else NUM_IMAGES["--estimates"], context)
        started, busy = time.perf_counter(), time.process_time()
        some = prepared(args, by_tracks(args, seen.sample(reader)), assets, people, device)
        subjects, sides = seen.people()
        if args.identity is not None:
            identities = load_identities(args.identity, subjects, assets, sides)
            if args.subjects == "file" and Path(args.identity).is_dir():
                _tell_others(some.rows, identities, reader)
        else:
            cues = ruler_cues(args.hand_length_mm, args.hand_length_std_mm)
            one_video = True if args.fps is not None and not frames_of(some.rows).video.any() else None
            command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
            given = {"accept_conflict": args.accept_conflict, "device": device, "created_by": command}
            identities = calibrate_estimates(some, assets, people, cues, same_video=one_video, **given)
            for subject, identity in identities.items() if context.is_main else ():  # whatever stops what follows
                save_identity(output / f"identity_subject-{subject:02d}.json", identity)
        usual = usual_poses(some, identities, assets, device)

        def fit(rows: Predictions) -> Personalised:
            motion = None
            if whole:
                frames = frames_of(rows)
                rows = replace(by_tracks(args, rows), sequence_id=frames.track)
                motion = None if args.fps is None else (frames.track, frames.frame / args.fps)
                logger.info("%d hands are followed through %d videos", frames.track.max(), frames.video.max() + 1)
            evidence = {"trust": some.trust, "landmarks": some.landmarks, "device": device}
            ready = prepare(rows, assets, people, **evidence, sides_known=True)
            return personalise_rows(ready, identities, assets, device, motion, usual)

        if context.is_main:
            _tell_earlier(output, target, {file.name for file in reader.files}, args.identity is None, identities)
        target = target if source.is_dir() else target / source.name
        most = sys.maxsize if whole else BATCH
        found = personalised_batches(reader, seen, fit, target, context, most)
        if not context.is_main:
            collections.deque(found, maxlen=0)
            return
        with Outputs(args, output, seen, identities, assets, people) as outputs:
            for batch, changed in found:
                outputs.add(batch, changed)
                if track is not None:
                    track.add(batch)
        if track is not None:
            track.write()
        logger.info(
            "%d hands written to %s (%s, %s), %.1f s after reading, processor time %.1f s",
            seen.first[-1], output, PAGE, PREDICTIONS, time.perf_counter() - started, time.process_time() - busy,
        )  # fmt: skip


def _tell_others(rows: Predictions, identities: Mapping[int, Identity], reader: Reader) -> None:
    """Warn of identities that were calibrated from other files than the one whose place is their number."""
    ids = named_by_content(rows).image_id
    for subject, identity in identities.items():
        if identity.image_ids and not np.isin(ids[rows.subject_id == subject], identity.image_ids).any():
            logger.warning(
                "%s: was calibrated from other hands than those of %s. Is it the same person? --subjects file numbers "
                "people by their files' place; a CSV of image,subject does not", identity.source, reader.files[subject],
            )  # fmt: skip


def _tell_earlier(output: Path, target: Path, names: set[str], calibrated: bool, subjects: Collection[int]) -> None:
    """Warn of an earlier run's files beside those that this one writes."""
    own = {f"identity_subject-{subject:02d}.json" for subject in subjects} if calibrated else set()
    identities = [path.name for path in output.glob("identity_subject-*.json") if path.name not in own]
    files = [path.name for path in target.iterdir() if path.name not in names] if target.is_dir() else []
    for folder, earlier in ((output, identities), (target, files)):
        if earlier:
            logger.warning(
                "%s: of another run are %s%s, which stay beside this one's; remove them, or give another --output",
                folder, ", ".join(sorted(earlier)[:8]), ", ..." if len(earlier) > 8 else "",
            )  # fmt: skip
