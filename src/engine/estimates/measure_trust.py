"""How far an estimator errs, measured on labelled data: the trust file that ``--trust`` takes.

``python -m src.engine.estimates.measure_trust --estimates PATH --format NAME --labels LABELS.npz --output FILE``,
labels in the format of plain joints (docs/estimators.md): keypoints_2d (N,21,2) px, joints_3d (N,21,3) m, image,
is_left, subject, K, image_size. Five people or more; the more, the better it knows what repeats and what does not.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np

from options.command_line import CommandParser, run_command
from options.estimate_options import FORMATS
from src.estimators import read_estimates
from src.estimators.pictures import picture_parts, same_picture
from src.personalization.estimates.measure import measure_trust
from src.personalization.estimates.people import people_of
from src.personalization.landmarks.model import find_landmarks
from src.personalization.solver.status import CalibrationError
from template import load_hand_assets
from utils.artifacts import Predictions
from utils.camera import mirror_intrinsics
from utils.files import writable_file

logger = logging.getLogger(__name__)


def paired(estimates: Predictions, labels: Predictions) -> tuple[Predictions, Predictions]:
    """The hands that both know, row by row, by picture and side; the labels' subjects in both.

    Names agree if all folders that both have do. Two hands of one side in a picture cannot be told apart so: they are
    left out, and counted in the log.
    """
    assert estimates.image_name is not None and labels.image_name is not None
    theirs, ours = (
        list(zip(map(picture_parts, one.image_name.tolist()), one.is_left.tolist(), strict=True))
        for one in (estimates, labels)
    )
    called: dict[tuple[str, bool], list[int]] = {}  # rows of a picture's name without its folders, and side
    for row, (parts, left) in enumerate(ours):
        called.setdefault((parts[0], left), []).append(row)
    fitting = [
        [row for row in called.get((parts[0], left), ()) if same_picture(parts, ours[row][0])] for parts, left in theirs
    ]
    claims = Counter(row for rows in fitting for row in rows)
    partner = np.array([rows[0] if len(rows) == 1 and claims[rows[0]] == 1 else -1 for rows in fitting])
    if left_out := sum(map(bool, fitting)) - int((partner >= 0).sum()):
        logger.warning(
            "%d hands left out: two of one side in a picture, or pictures of one name, who is who is not known",
            left_out,
        )
    if not (partner >= 0).any():
        raise CalibrationError(
            f"{labels.source} and {estimates.source} have no picture in common: {labels.image_name[0]} is in the one, "
            f"{estimates.image_name[0]} in the other"
        )
    kept, other = estimates.select(partner >= 0), labels.select(partner[partner >= 0])
    kept.subject_id = other.subject_id.copy()
    return kept, other


def main(words: Sequence[str] | None = None) -> int:
    parser = CommandParser("Measure how far an estimator is to be trusted.")
    parser.add_argument("--estimates", required=True, help="file or folder that the estimator wrote")
    parser.add_argument("--format", required=True, choices=FORMATS, help="of which estimator")
    parser.add_argument("--labels", required=True, help="npz of plain joints: what is true of the same pictures")
    parser.add_argument("--output", required=True, help="trust file to write")
    parser.add_argument("--images", help="folder of the pictures, where the format does not say their size")
    parser.add_argument("--landmarks", action="store_true", help="its landmark model is used (mediapipe, sam3d_body)")
    parser.add_argument("--mano_dir", help="folder with MANO; default: the stand-in hand where there is none")
    return run_command(parser, measure, words)


def camera_of(labels: Predictions) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The one K (3,3) px of labelled pictures as they are, and their size where it is known.

    Raises:
        CalibrationError: several cameras or sizes, or left hands without a size.
    """
    size = None if labels.image_size is None else tuple(labels.image_size[0].tolist())
    if labels.image_size is not None and (labels.image_size != labels.image_size[0]).any():
        raise CalibrationError(f"{labels.source}: pictures of several sizes; give those of each camera alone")
    if labels.is_left.any() and size is None:
        raise CalibrationError(f"{labels.source}: image_size is needed where hands are left ones")
    cameras = np.array(labels.K, dtype=np.float64)
    if size is not None:  # of left hands they are mirrored
        cameras[labels.is_left] = mirror_intrinsics(cameras[labels.is_left], size[0])
    if np.abs(cameras - cameras[0]).max() > 1e-3:
        raise CalibrationError(f"{labels.source}: K of several cameras; give those of each alone")
    return cameras[0], size


def measure(args: argparse.Namespace) -> None:
    """Read, measure, write.

    Raises:
        ArtifactError, CalibrationError, FileNotFoundError: see the functions called.
    """
    read = {"--estimates": args.estimates, "--labels": args.labels}
    writable_file(args.output, "--output", read)  # before the work, not after it
    assets = load_hand_assets(args.mano_dir, side="right")
    labels = read_estimates(args.labels, "joints")
    camera, size = camera_of(labels)
    estimates = read_estimates(args.estimates, args.format, K=camera, image_size=size, images=args.images)
    estimates, labels = paired(estimates, labels)
    landmarks = find_landmarks(args.format, assets) if args.landmarks else None
    basis = f"{len(labels)} hands of {len(np.unique(labels.subject_id))} people in {args.labels}"
    found = measure_trust(estimates, labels, assets, people_of(assets), basis, landmarks)
    found.save(args.output)
    logger.info("%s: %s", args.output, found)


if __name__ == "__main__":
    raise SystemExit(main())
