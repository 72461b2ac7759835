"""Options of both commands for other estimators' results."""

from __future__ import annotations

import argparse

#: As in `src.estimators.FORMATS`, which is not imported to print a help text.
FORMATS = ("hamer", "wilor", "wilor_mini", "fasthamer", "hawor", "sam3d_body", "mediapipe", "frankmocap", "mmpose",
           "joints")  # fmt: skip
#: What reads and understands estimates, in either command.
ESTIMATE_OPTIONS = "estimates format images K fov image_size side_of sides unit subjects trust prior_from"
#: Cues and the like that calibration from estimates reads.
CUE_OPTIONS = "hand_length_mm hand_length_std_mm accept_conflict"


def add_estimate_arguments(parser: argparse.ArgumentParser) -> None:
    """What is known about another estimator's results; ``--K``, ``--fov`` and ``--images`` are the command's own."""
    group = parser.add_argument_group("other estimators' results (docs/estimators.md); they need --K or --fov")
    group.add_argument("--estimates", help="file, or folder of files, that the estimator wrote")
    group.add_argument("--format", choices=FORMATS, help="of which estimator")
    group.add_argument(
        "--image_size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="px, where the files do not say"
    )
    group.add_argument("--side_of", choices=("left", "right"), help="side of hands whose file names none")
    group.add_argument("--sides", choices=("mirror", "subject"), help="how MediaPipe named sides (as its version does)")
    group.add_argument("--unit", choices=("m", "mm"), default="m", help="of plain 3D joints")
    group.add_argument(
        "--subjects",
        default="column",
        help="who is who: column (as the file says, else one person), file (each file a person), one, tracks (each "
        "hand that is followed through the frames of a video), or a CSV with the columns image,subject",
    )
    group.add_argument("--trust", help="JSON of src.engine.estimates.measure_trust (default: the format's own)")
    group.add_argument(
        "--prior_from",
        metavar="BETAS.npz",
        help="people's shapes: betas (N,10) of the hand model, a row a person (default: the shipped population; of "
        "MANO a wide one)",
    )
