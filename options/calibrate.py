"""Options of ``calibrate_from_shape_params.py``."""

from __future__ import annotations

import argparse

from options.command_line import CommandParser
from options.estimate_options import ESTIMATE_OPTIONS, add_estimate_arguments
from options.image_options import add_landmarker_argument
from options.run_options import add_device_arguments

METHODS = ("mean", "median", "top_k", "confidence", "multi_frame")
#: Options that only some of the sources read.
_OF_SOURCE = {
    **dict.fromkeys(("--root_std", "--finger_std", "--dataset", "--data_root", "--cameras", "--wrist_depth",
                     "--wrist_depth_std_mm", "--predictions"), ("--predictions",)),
    **dict.fromkeys(("--" + name for name in ESTIMATE_OPTIONS.split()), ("--estimates",)),
    **dict.fromkeys(("--keypoints", "--prior"), ("--predictions", "--images")),
    **dict.fromkeys(("--K", "--fov", "--images"), ("--images", "--estimates")),
    **dict.fromkeys(("--hand", "--landmarker", "--card", "--paper", "--corners", "--camera", "--camera_name"),
                    ("--images",)),
}  # fmt: skip
#: Options that only some methods read.
_OF_METHOD = {
    **dict.fromkeys(("--prior", "--root_std", "--finger_std", "--keypoint_std", "--loss", "--min_confidence",
                     "--depth_mean", "--depth_std", "--hand_length_mm", "--hand_length_std_mm", "--known_bone",
                     "--accept_conflict", "--same_video", "--error_correlation", "--cameras",
                     "--hand_breadth_mm", "--finger_length_mm", "--card", "--paper",
                     "--corners",
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
        "--images",
    ),
    "--corners": ("--card", "--paper"),
    "--camera_name": ("--camera",),
}


class _Parser(CommandParser):
    """Refuses options that the source or the method does not use."""

    def check(self, args: argparse.Namespace) -> None:
        source = "--estimates" if args.estimates else "--images" if args.images else "--predictions"
        used = {option for option in args.given_options if source in _OF_SOURCE.get(option, (source,))}
        self.refuse_unused(args, used, source)
        if args.estimates and not args.format:
            self.error("--estimates needs --format, the estimator's name")
        if args.method == "median" and source != "--estimates":
            self.error("--method median is of --estimates; predictions take mean, top_k or confidence")
        used = {option for option in args.given_options if _OF_METHOD.get(option, args.method) == args.method}
        self.refuse_unused(args, used, f"--method {args.method}")
        self.refuse_without(args, _NEEDS)


def method_name(text: str) -> str:
    """Name of a method: multi_frame was called joint before."""
    return "multi_frame" if text == "joint" else text


def get_args_parser() -> argparse.ArgumentParser:
    """Parser of ``calibrate_from_shape_params.py``."""
    parser = _Parser("Many images of a person to one identity file (shape of the hand, with its uncertainty).")
    source = parser.add_argument_group("source")
    source.add_argument(
        "--predictions",
        help="npz of run.py --phase predict: shapes and poses "
        "(default: what scripts/predict_with_confidence.sh and predict_2d.sh write)",
    )
    source.add_argument(
        "--images", help="folder of a person's own photos, read with a detector of hands; of --estimates: the pictures"
    )
    parser.add_argument(
        "--keypoints",
        help="npz of the pose_2d network, same images (multi_frame needs it); of --images: mediapipe, the default, or "
        "own: our own detector, which needs nothing installed and errs more often",
    )
    parser.add_argument(
        "--output",
        help="folder for identity_subject-NN.json, or one person's .json "
        "(default: out/dex_ycb/identities, of --images out/own_photos/identity.json)",
    )
    parser.add_argument(
        "--method",
        default="multi_frame",
        choices=METHODS,
        type=method_name,
        help="averages of predicted shapes, or one shape solved for all images (also called joint)",
    )
    parser.add_argument("--subject", type=int, help="only this subject (official number)")
    images = parser.add_argument_group("images")
    images.add_argument("--num_images", type=int, help="images to calibrate from (default: 20, of --images all)")
    images.add_argument("--select", default="random", choices=("random", "confidence", "informative"))
    images.add_argument("--seed", type=int, default=0)
    images.add_argument("--draws", type=int, default=1, help="repeat with seeds SEED, SEED+1, ... and show the spread")
    images.add_argument("--top_k", type=int, default=10, help="of --method top_k")
    images.add_argument("--temperature", type=float, default=1.0, help="of --method confidence (softmax)")
    images.add_argument("--merge_with", help="an earlier identity file of the same person, merged by information")
    add_photo_arguments(parser)
    add_estimate_arguments(parser)
    add_multi_frame_arguments(parser)
    add_device_arguments(parser)
    return parser


def add_photo_arguments(parser: argparse.ArgumentParser) -> None:
    """What is known about own photos."""
    photos = parser.add_argument_group("own photos (--images; each may have <name>_K.npy beside it, or EXIF)")
    photos.add_argument("--K", help="intrinsics: FX,FY,CX,CY in pixels, or a .npy file with a (3,3) matrix")
    photos.add_argument("--fov", type=float, help="degrees of view across the image's longer side, if K is not known")
    photos.add_argument(
        "--camera",
        metavar="FILE",
        help="camera file with distortion (.json, .yaml of OpenCV, ROS or Kalibr) or its numbers",
    )
    photos.add_argument("--camera_name", help="which camera of a --camera file with several, e.g. cam0")
    add_landmarker_argument(photos)
    photos.add_argument("--hand", choices=("left", "right"), help="only hands of this side (default: both)")


def add_multi_frame_arguments(parser: argparse.ArgumentParser) -> None:
    """Priors, noise and metric cues of the multi-frame calibration."""
    prior = parser.add_argument_group("multi-frame calibration: priors and noise")
    prior.add_argument(
        "--prior",
        help="npz of src.personalization.calibration.measure_population (default: weights/prior.npz where it fits)",
    )
    prior.add_argument(
        "--root_std", type=float, help="rad, trust in the network's hand orientation (default: measured)"
    )
    prior.add_argument("--finger_std", type=float, help="rad, trust in the network's finger rotations (measured)")
    prior.add_argument("--keypoint_std", type=float, help="px (default: a fraction of each hand's box)")
    prior.add_argument("--loss", default="geman_mcclure", choices=("none", "huber", "geman_mcclure"))
    prior.add_argument("--min_confidence", type=float, default=0.05, help="keypoints at or below it do not count")
    prior.add_argument(
        "--same_video",
        action=argparse.BooleanOptionalAction,
        help="all images are frames of one video, whose errors repeat; --no-same_video: no image repeats another "
        "(default: told from how the hand is held in them; docs/video.md)",
    )
    prior.add_argument(
        "--error_correlation",
        type=float,
        metavar="PART",
        help="of their errors that different images share, 0 to 1 (default: 0.3 in a video, else what is known of the "
        "images' source)",
    )
    prior.add_argument("--depth_mean", type=float, help="m, weak prior on the wrist's depth, e.g. 0.85")
    prior.add_argument("--depth_std", type=float, default=0.07, help="m, of that prior")
    cues = parser.add_argument_group("multi-frame calibration: metric cues (a single camera cannot see absolute size)")
    cues.add_argument("--hand_length_mm", type=float, help="ruler: wrist crease to the middle finger's end, hand flat")
    cues.add_argument("--hand_length_std_mm", type=float, default=3.0)
    cues.add_argument(
        "--known_bone", action="append", default=[], metavar="NAME=MM±SD", help="e.g. index=72±2 (or +-); repeatable"
    )
    cues.add_argument("--hand_breadth_mm", type=float, help="ruler: across the knuckles, without the thumb")
    cues.add_argument(
        "--finger_length_mm",
        action="append",
        default=[],
        metavar="NAME=MM",
        help="knuckle to the finger's end; repeatable",
    )
    cues.add_argument("--card", metavar="PICTURE", help="of the flat hand beside a bank card (85.60 x 53.98 mm)")
    cues.add_argument("--paper", metavar="PICTURE", help="the same beside a sheet of A4 paper (297 x 210 mm)")
    cues.add_argument(
        "--corners",
        nargs=8,
        type=float,
        metavar=("X1", "Y1", "X2", "Y2", "X3", "Y3", "X4", "Y4"),
        help="of the card or paper in that picture, pixels, about its outline, a long side first (default: looked for)",
    )
    cues.add_argument(
        "--accept_conflict",
        action="store_true",
        help="use a length even if it contradicts the images, photos even if their hands seem to be several people's",
    )
    cues.add_argument("--data_root", help="data set's folder: for --cameras and --wrist_depth")
    cues.add_argument("--dataset", default="dex_ycb")
    cues.add_argument("--cameras", type=int, metavar="N", help="use N calibrated cameras of each instant together")
    cues.add_argument("--wrist_depth", action="store_true", help="read the wrist's depth in the data set's depth maps")
    cues.add_argument("--wrist_depth_std_mm", type=float, default=10.0)
