"""Options of ``optimization_dex_ycb.py``."""

from __future__ import annotations

import argparse

from options.command_line import CommandParser
from options.run_options import add_device_arguments, add_noise_arguments

#: Options that only one of the two solvers reads.
_OF_SOLVER = {
    "lm": {"--max_steps", "--root_std", "--finger_std", "--keypoint_std", "--loss", "--depth_mean", "--depth_std",
           "--fit_shape", "--video", "--evidence_rounds", "--prior"},
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
        if args.fit_shape and args.shape_source != "predicted":
            self.refuse_unused(
                args, args.given_options - {"--shape_source"}, "--fit_shape, which finds the shape itself,"
            )
        self.refuse_without(args, _NEEDS)
        if args.evidence_rounds < 0:
            self.error(f"--evidence_rounds is {args.evidence_rounds}; it must be at least 0")
        if args.video:
            self.refuse_unused(args, args.given_options - {"--max_steps", "--chunk"}, "--video")
        if args.solver == "adam" and not args.use_confidence:
            self.refuse_unused(
                args, args.given_options - {"--min_confidence"}, "--solver adam without --use_confidence"
            )
        for option, given in (("--video", args.video), ("--fit_shape", args.fit_shape)):
            if given and args.evidence_rounds:
                self.error(f"{option} does not use --evidence_rounds, which is of single frames with a given shape")
        if args.predictions is not None and args.output is None:
            self.error("--predictions needs --output, the file to write")


def get_args_parser() -> argparse.ArgumentParser:
    parser = _Parser("Fit pose and translation to 2D keypoints at test time; the shape stays as given.")
    add = parser.add_argument
    add(
        "--predictions",
        help="npz of run.py --phase predict: poses (and shapes); without, these files are those of scripts/fit_*.sh",
    )
    add("--keypoints", help="npz of the pose_2d network (default: those in --predictions)")
    add("--shape_source", default="predicted", choices=("predicted", "gt", "calibrated"))
    add("--identity", help="identity file, or folder of identity_subject-NN.json (calibrated)")
    add("--output", help="npz to write: fitted pose, betas, transl (needed with --predictions)")
    add("--results", help="JSON for the table")
    add("--include_calibration_images", action="store_true", help="also fit images used to calibrate")
    add = parser.add_argument_group(
        "ground truth (for --shape_source gt and the errors; optional otherwise)"
    ).add_argument
    add("--dataset", help="default: the data set written in --predictions")
    add("--data_root", help="the data set's folder")
    add("--split", help="default: the split written in --predictions")
    add("--cache", help="folder for the label cache")
    add = parser.add_argument_group("solver").add_argument
    add("--solver", default="lm", choices=("lm", "adam"))
    add("--max_steps", type=int, default=10, help="of lm, for single frames")
    add("--chunk", type=int, default=256, help="frames solved together")
    add("--root_std", type=float, help="rad, trust in the network's hand orientation (default: --prior's, else 0.2)")
    add("--finger_std", type=float, help="rad, trust in the network's finger rotations (default: --prior's, else 0.2)")
    add(
        "--evidence_rounds",
        type=int,
        default=0,
        help="2: estimate each frame's noise and trust in the network (of one that nobody measured)",
    )
    add("--prior", help="npz of ….calibration.measure_population: error covariance, depth")
    add_noise_arguments(add)
    add("--use_confidence", action="store_true", help="adam: weight keypoints by confidence")
    add("--fit_shape", action="store_true", help="lm: also fit the betas, of each frame; with --video of each person")
    add(
        "--video",
        action="store_true",
        help="lm: all frames of a video together, smoothly, each carried by its neighbours",
    )
    add_device_arguments(parser)
    return parser
