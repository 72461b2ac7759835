"""Options of both commands for other estimators' results."""

from __future__ import annotations

import argparse
from collections.abc import Callable

#: As in `src.estimators.FORMATS`, which is not imported to print a help text.
FORMATS = ("hamer", "wilor", "wilor_mini", "fasthamer", "hawor", "sam3d_body", "mediapipe", "frankmocap", "mmpose",
           "joints")  # fmt: skip
#: What reads and understands estimates, in either command.
ESTIMATE_OPTIONS = "estimates format images K fov image_size side_of sides unit subjects trust prior_from"
#: Cues and the like that calibration from estimates reads.
CUE_OPTIONS = "hand_length_mm hand_length_std_mm accept_conflict"


def add_estimate_arguments(parser: argparse.ArgumentParser) -> None:
    """What is known about another estimator's results; ``--K``, ``--fov`` and ``--images`` are the command's own."""
    add = parser.add_argument_group(
        "other estimators' results (docs/estimators.md); they need --K or --fov"
    ).add_argument
    add("--estimates", help="file, or folder of files, that the estimator wrote")
    add("--format", choices=FORMATS, help="of which estimator")
    add("--image_size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="px, where the files do not say")
    add("--side_of", choices=("left", "right"), help="side of hands whose file names none")
    add("--sides", choices=("mirror", "subject"), help="how MediaPipe named sides (as its version does)")
    add("--unit", choices=("m", "mm"), default="m", help="of plain 3D joints")
    add(
        "--subjects",
        default="column",
        help="who is who: column (as the file says, else one person), file (each file a person), one, tracks (each "
        "hand that is followed through the frames of a video), or a CSV with the columns image,subject",
    )
    add("--trust", help="JSON of src.engine.estimates.measure_trust (default: the format's own)")
    add(
        "--prior_from",
        metavar="BETAS.npz",
        help="people's shapes: betas (N,10) of the hand model, a row a person (default: the shipped population; of "
        "MANO a wide one)",
    )


def add_cue_arguments(add: Callable[..., argparse.Action], hand_length: str) -> None:
    """A person's measured lengths, and what to do where they or the images contradict each other."""
    add("--hand_length_mm", type=float, help=f"ruler: {hand_length}")
    add("--hand_length_std_mm", type=float, help="of that ruler (default: 3)")
    add(
        "--known_bone",
        action="append",
        default=[],
        metavar="NAME=MM±SD",
        help="e.g. index=72±2 (or +-), or a bone, thumb_cmc-thumb_mcp=45±2: the thumb begins at its base beside the "
        "wrist (CMC); repeatable",
    )
    add(
        "--accept_conflict",
        action="store_true",
        help="use a length even if it contradicts the images, images even if their hands seem to be several people's",
    )
