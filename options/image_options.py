"""Options of ``run.py --phase demo`` for a person's own pictures and videos."""

from __future__ import annotations

import argparse
from collections.abc import Callable

NETWORK, DETECTOR, OWN = "network", "mediapipe", "own"
KEYPOINT_SOURCES = (NETWORK, DETECTOR, OWN)
#: A skinned mesh posed by its bones alone, or also by morph targets.
GLB_KINDS = ("animated", "animated_correctives")


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """``--images``, ``--video`` and what is known about them."""
    group = parser.add_argument_group("demo on own images (--phase demo --images DIR or --video FILE)")
    add = group.add_argument
    add("--images", help="folder of images, or one image; each may have <name>_K.npy, <name>_bbox.json")
    add(
        "--video",
        help="video to annotate: every hand in it is followed. camera:0: the first camera, live, its newest frames, "
        "smoothed as they come, on a page of this machine; camera:FILE: a file played as a camera",
    )
    add("--port", type=int, default=0, help="of the page of --video camera:0 (default: a free one)")
    add_picture_arguments(add)
    add(
        "--world_from_camera",
        metavar="FILE",
        help="where the camera is in each frame or picture (.json, .npz, or lines of TUM's format; docs/video.md): "
        "hands come out in the world too, and meshes and motion there",
    )
    add("--world_axes", default="y_down", choices=("y_down", "y_up", "z_up"), help="of --world_from_camera: what is up")
    add("--hand", choices=("left", "right"), help="default: what the detector says, else right")
    add(
        "--bbox",
        nargs=4,
        type=float,
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="tight box of the hand in pixels, for every image (default: looked for)",
    )
    add(
        "--keypoints",
        choices=KEYPOINT_SOURCES,
        help="where the 2D keypoints come from (default: mediapipe, or, where --model or --checkpoint asks for a "
        "network, that network); own: our own detector of hands anywhere, which needs nothing installed and errs more "
        "often, above all in the side (say --hand if you know it); network: for pictures like its training's only",
    )
    add(
        "--engine",
        default="torch",
        choices=("torch", "onnx"),
        help="what computes our networks; onnx: ONNX Runtime on the CPU, some three times as fast there (of the extra "
        "export; each network is exported once and kept in ~/.cache/handid)",
    )
    add(
        "--glb",
        choices=GLB_KINDS,
        help="of a video: also NAME_hands.glb, a skinned mesh with its bones and the video's motion; "
        "animated_correctives: also the shape changes of bending, as morph targets (exact, more to load)",
    )
    add("--bvh", action="store_true", help="of a video: also NAME_hands.bvh, skeleton and motion, in cm")
    add("--joint_names", default="mano", choices=("mano", "webxr"), help="of the bones of --glb, --bvh")
    over_time = group.add_mutually_exclusive_group()
    over_time.add_argument(
        "--lag",
        type=int,
        metavar="FRAMES",
        help="of a video: smooth each frame as it comes, from those before it and so many after it (0: for live use); "
        "default: all frames are fitted together once the video is over",
    )
    over_time.add_argument("--each_frame_alone", action="store_true", help="of a video: do not fit frames together")
    people = group.add_mutually_exclusive_group()
    people.add_argument(
        "--one_person",
        action="store_true",
        help="all hands of a picture are one person's: they share the shape, also of --identity of the other hand "
        "(default in videos, until two hands of one side are seen at once)",
    )
    people.add_argument(
        "--two_shapes", action="store_true", help="of a video: each hand has a shape of its own, also one person's"
    )
    growing = parser.add_argument_group("an identity that grows while a video is watched (docs/video.md)")
    growing.add_argument(
        "--calibrate_online",
        action=argparse.BooleanOptionalAction,
        help="of a video: calibrate the person as the frames come, and leave NAME_identity.json once the hand is known "
        "well enough (default without --identity)",
    )
    growing.add_argument(
        "--calibrate_until_mm",
        type=float,
        default=40.0,
        help="well enough: so long is the 95%% interval of the hand length (networks alone: some 35, a ruler: 12)",
    )


def add_picture_arguments(add: Callable[..., argparse.Action]) -> None:
    """``--K``, ``--fov`` or ``--camera``, of the camera, and ``--landmarker``, of the detector."""
    add("--K", help="intrinsics: FX,FY,CX,CY in pixels, or a .npy file with a (3,3) matrix")
    add("--fov", type=float, help="degrees of view across the image's longer side, if K is not known")
    add(
        "--camera",
        metavar="FILE",
        help="camera file with distortion (.json, .yaml of OpenCV, ROS or Kalibr) or its numbers",
    )
    add("--camera_name", help="which camera of a --camera file with several, e.g. cam0")
    add(
        "--landmarker",
        metavar="FILE",
        help="hand_landmarker.task of mediapipe's makers, for its newer versions (Python 3.13), which carry no models",
    )
