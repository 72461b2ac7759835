"""Options of ``calibrate_from_shape_params.py``."""

from __future__ import annotations

import argparse

from options.command_line import CommandParser
from options.estimate_options import ESTIMATE_OPTIONS, add_cue_arguments, add_estimate_arguments
from options.image_options import add_picture_arguments
from options.run_options import add_device_arguments, add_noise_arguments

#: Images of a person that a calibration takes at most where --num_images does not say, by their source; None: all.
#: Of estimates: what all images of a person share, more do not mend.
NUM_IMAGES = {"--predictions": 20, "--images": None, "--estimates": 200}
METHODS = ("mean", "median", "top_k", "confidence", "multi_frame")
#: Options that only some of the sources read.
_OF_SOURCE = {
    **dict.fromkeys(("--root_std", "--finger_std", "--dataset", "--data_root", "--cameras", "--wrist_depth",
                     "--wrist_depth_std_mm", "--predictions"), ("--predictions",)),
    **dict.fromkeys(("--" + name for name in ESTIMATE_OPTIONS.split()), ("--estimates",)),
    **dict.fromkeys(("--keypoints", "--prior"), ("--predictions", "--images")),
    **dict.fromkeys(("--K", "--fov", "--images"), ("--images", "--estimates")),
    **dict.fromkeys(("--hand", "--landmarker", "--card", "--paper", "--letter", "--corners", "--camera",
                     "--camera_name"), ("--images",)),
}  # fmt: skip
#: Options that only some methods read.
_OF_METHOD = {
    **dict.fromkeys(("--prior", "--root_std", "--finger_std", "--keypoint_std", "--loss", "--min_confidence",
                     "--depth_mean", "--depth_std", "--hand_length_mm", "--hand_length_std_mm", "--known_bone",
                     "--accept_conflict", "--same_video", "--error_correlation", "--cameras",
                     "--hand_breadth_mm", "--finger_length_mm", "--card", "--paper", "--letter", "--corners",
                     "--wrist_depth", "--wrist_depth_std_mm", "--merge_with"),
                    "multi_frame"),
    "--top_k": "top_k",
    "--temperature": "confidence",
}  # fmt: skip
#: Options that mean something only beside one of others.
_NEEDS = {
    "--hand_length_std_mm": ("--hand_length_mm",),
    "--depth_std": ("--depth_mean",),
    "--wrist_depth_std_mm": ("--wrist_depth",),
    "--data_root": ("--cameras", "--wrist_depth"),
    "--dataset": ("--cameras", "--wrist_depth"),
    "--accept_conflict": (
        "--hand_length_mm",
        "--known_bone",
        "--merge_with",
        "--estimates",
        "--hand_breadth_mm",
        "--finger_length_mm",
        "--card",
        "--paper",
        "--letter",
        "--images",
    ),
    "--corners": ("--card", "--paper", "--letter"),
    "--camera_name": ("--camera",),
}


def source_of(args: argparse.Namespace) -> str:
    """The option that says what is calibrated from; --images beside --estimates are their pictures."""
    return "--estimates" if args.estimates else "--images" if args.images else "--predictions"


class _Parser(CommandParser):
    """Refuses options that the source or the method does not use."""

    def check(self, args: argparse.Namespace) -> None:
        source = source_of(args)
        used = {option for option in args.given_options if source in _OF_SOURCE.get(option, (source,))}
        self.refuse_unused(args, used, source)
        if args.estimates and not args.format:
            self.error("--estimates needs --format, the estimator's name")
        if args.method == "median" and source != "--estimates":
            self.error("--method median is of --estimates; predictions take mean, top_k or confidence")
        used = {option for option in args.given_options if _OF_METHOD.get(option, args.method) == args.method}
        if args.estimates:  # an average as well must be of one hand
            used.add("--accept_conflict")
        self.refuse_unused(args, used, f"--method {args.method}")
        self.refuse_without(args, _NEEDS)


def get_args_parser() -> argparse.ArgumentParser:
    parser = _Parser("Many images of a person to one identity file (shape of the hand, with its uncertainty).")
    add = parser.add_argument_group("source").add_argument
    add(
        "--predictions",
        help="npz of run.py --phase predict: shapes and poses "
        "(default: what scripts/predict_with_confidence.sh and predict_2d.sh write)",
    )
    add("--images", help="folder of a person's own photos, read with a detector of hands; of --estimates: the pictures")
    add = parser.add_argument
    add(
        "--keypoints",
        help="npz of the pose_2d network, same images (multi_frame needs it); of --images: mediapipe, the default, or "
        "own: our own detector, which needs nothing installed and errs more often",
    )
    add(
        "--output",
        help="folder for identity_subject-NN.json, or one person's .json "
        "(default: out/dex_ycb/identities, of --images out/own_photos/identity.json)",
    )
    add(
        "--method",
        default="multi_frame",
        choices=METHODS,
        type=lambda text: "multi_frame" if text == "joint" else text,  # which it was called before
        help="averages of predicted shapes, or one shape solved for all images (also called joint)",
    )
    add("--subject", type=int, help="only this subject (official number)")
    add = parser.add_argument_group("images").add_argument
    most = ", ".join(f"of {source} {f'up to {count}' if count else 'all'}" for source, count in NUM_IMAGES.items())
    add("--num_images", type=int, help=f"images of a person to calibrate from (default: {most})")
    add("--select", default="random", choices=("random", "confidence", "informative"))
    add("--seed", type=int, default=0)
    add("--draws", type=int, default=1, help="repeat with seeds SEED, SEED+1, ... and show the spread")
    add("--top_k", type=int, default=10, help="of --method top_k")
    add("--temperature", type=float, default=1.0, help="of --method confidence (softmax)")
    add("--merge_with", help="an earlier identity file of the same person, merged by information")
    add = parser.add_argument_group("own photos (--images; each may have <name>_K.npy beside it, or EXIF)").add_argument
    add_picture_arguments(add)
    add("--hand", choices=("left", "right"), help="only hands of this side (default: both)")
    add_estimate_arguments(parser)
    add = parser.add_argument_group("multi-frame calibration: priors and noise").add_argument
    add(
        "--prior",
        help="npz of src.personalization.calibration.measure_population (default: weights/prior.npz where it fits)",
    )
    add("--root_std", type=float, help="rad, trust in the network's hand orientation (default: measured)")
    add("--finger_std", type=float, help="rad, trust in the network's finger rotations (measured)")
    add_noise_arguments(add)
    add(
        "--same_video",
        action=argparse.BooleanOptionalAction,
        help="all images are frames of one video, whose errors repeat; --no-same_video: no image repeats another "
        "(default: told from how the hand is held in them; docs/video.md)",
    )
    add(
        "--error_correlation",
        type=float,
        metavar="PART",
        help="of their errors that different images share, 0 to 1 (default: 0.3 in a video, else what is known of the "
        "images' source)",
    )
    add = parser.add_argument_group(
        "multi-frame calibration: metric cues (a single camera cannot see absolute size)"
    ).add_argument
    add_cue_arguments(add, "wrist crease to the middle finger's end, hand flat")
    add("--hand_breadth_mm", type=float, help="ruler: across the knuckles, without the thumb")
    add(
        "--finger_length_mm",
        action="append",
        default=[],
        metavar="NAME=MM",
        help="knuckle to the finger's end, of the thumb from its base beside the wrist (CMC); repeatable",
    )
    add("--card", metavar="PICTURE", help="of the flat hand beside a bank card (85.60 x 53.98 mm)")
    add("--paper", metavar="PICTURE", help="the same beside a sheet of A4 paper (297 x 210 mm)")
    add("--letter", metavar="PICTURE", help="the same beside a sheet of US Letter (279.4 x 215.9 mm)")
    add(
        "--corners",
        nargs=8,
        type=float,
        metavar=("X1", "Y1", "X2", "Y2", "X3", "Y3", "X4", "Y4"),
        help="of the card or paper in that picture, pixels, about its outline, a long side first (default: looked for)",
    )
    add("--data_root", help="data set's folder: for --cameras and --wrist_depth")
    add("--dataset", default="dex_ycb")
    add("--cameras", type=int, metavar="N", help="use N calibrated cameras of each instant together")
    add("--wrist_depth", action="store_true", help="read the wrist's depth in the data set's depth maps")
    add("--wrist_depth_std_mm", type=float, default=10.0)
    add_device_arguments(parser)
    return parser
