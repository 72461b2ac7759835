"""Options of ``optimization_dex_ycb.py``."""

from __future__ import annotations

import argparse

from options.command_line import CommandParser
from options.run_options import add_device_arguments

#: Options that only one of the two solvers reads.
_OF_SOLVER = {
    "lm": {"--max_steps", "--root_std", "--finger_std", "--keypoint_std", "--loss", "--depth_mean", "--depth_std",
           "--fit_shape", "--video", "--evidence_rounds"},
    "adam": {"--use_confidence"},
}  # fmt: skip
#: Options that mean something only beside one of others.
_NEEDS = {
    "--depth_std": ("--depth_mean",),
    **dict.fromkeys(("--dataset", "--split", "--cache"), ("--data_root",)),
}


class _Parser(CommandParser):
    """Refuses options that the solver does not use."""

    def check(self, args: argparse.Namespace) -> None:
        other = "adam" if args.solver == "lm" else "lm"
        self.refuse_unused(args, args.given_options - _OF_SOLVER[other], f"--solver {args.solver}")
        if args.shape_source != "calibrated":
            unused = {"--identity", "--include_calibration_images"}
            self.refuse_unused(args, args.given_options - unused, f"--shape_source {args.shape_source}")
        self.refuse_without(args, _NEEDS)
        if args.predictions is not None and args.output is None:
            self.error("--predictions needs --output, the file to write")


def get_args_parser() -> argparse.ArgumentParser:
    """Parser of ``optimization_dex_ycb.py``."""
    parser = _Parser("Fit pose and translation to 2D keypoints at test time; the shape stays as given.")
    parser.add_argument(
        "--predictions",
        help="npz of run.py --phase predict: poses (and shapes); without, these files are those of scripts/fit_*.sh",
    )
    parser.add_argument("--keypoints", help="npz of the pose_2d network (default: those in --predictions)")
    parser.add_argument("--shape_source", default="predicted", choices=("predicted", "gt", "calibrated"))
    parser.add_argument("--identity", help="identity file, or folder of identity_subject-NN.json (calibrated)")
    parser.add_argument("--output", help="npz to write: fitted pose, betas, transl (needed with --predictions)")
    parser.add_argument("--results", help="JSON for the table")
    parser.add_argument("--include_calibration_images", action="store_true", help="also fit images used to calibrate")
    data = parser.add_argument_group("ground truth (for --shape_source gt and the errors; optional otherwise)")
    data.add_argument("--dataset", default="dex_ycb")
    data.add_argument("--data_root", help="the data set's folder")
    data.add_argument("--split", help="default: the split written in --predictions")
    data.add_argument("--cache", help="folder for the label cache")
    solver = parser.add_argument_group("solver")
    solver.add_argument("--solver", default="lm", choices=("lm", "adam"))
    solver.add_argument("--max_steps", type=int, default=10, help="of lm")
    solver.add_argument("--chunk", type=int, default=256, help="frames solved together")
    solver.add_argument("--root_std", type=float, default=0.2, help="rad, trust in the network's hand orientation")
    solver.add_argument("--finger_std", type=float, default=0.2, help="rad, trust in the network's finger rotations")
    solver.add_argument(
        "--evidence_rounds",
        type=int,
        default=0,
        help="2: estimate each frame's noise and trust in the network (of one that nobody measured)",
    )
    solver.add_argument("--prior", help="npz of ….calibration.measure_population: error covariance, depth")
    solver.add_argument("--keypoint_std", type=float, help="px (default: a fraction of each hand's box)")
    solver.add_argument("--loss", default="geman_mcclure", choices=("none", "huber", "geman_mcclure"))
    solver.add_argument("--min_confidence", type=float, default=0.05, help="keypoints at or below it do not count")
    solver.add_argument("--depth_mean", type=float, help="m, weak prior on the wrist's depth")
    solver.add_argument("--depth_std", type=float, default=0.07)
    solver.add_argument("--use_confidence", action="store_true", help="adam: weight keypoints by confidence")
    solver.add_argument("--fit_shape", action="store_true", help="lm: also fit the betas of each frame")
    solver.add_argument(
        "--video",
        action="store_true",
        help="lm: all frames of a video together, smoothly, each carried by its neighbours",
    )
    add_device_arguments(parser)
    return parser
