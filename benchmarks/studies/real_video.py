"""A real video of one hand, of which nothing is measured: does the hand keep its size, does it hold still, is it lost?

``python -m benchmarks.studies.real_video --json`` runs the video demo on it three times (``--video``: by default
``../shared/data/video/hand.mp4``; ``--keypoints mediapipe`` or ``own``) and prints one object:

* ``each_frame_alone``, ``lag_0``, ``together`` (the default): ``lost``, frames without a hand; ``wrist_mm`` and
  ``tips_mm``, jitter of the wrist and of the fingertips about it in the frames in which the keypoints hardly move;
  ``flat_tips_mm``, how far fingertips are from the palm's depth in the frames that the default tells as flat hands.
* ``flat``, ``flat_switches``: how many frames those are, and how often they begin or end.
* ``thirds``: hand length and its 95% interval, mm, from every twelfth frame of each third alone, without and with a
  ruler.

Jitter is the standard deviation of the noise that would, independent in each frame, have the second differences seen;
which frames are still is told from the keypoints of the detector, not from a fit.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from options.run_options import get_args_parser
from src.personalization.calibration.from_keypoints import keypoint_options
from src.personalization.calibration.online import OnlineCalibration
from src.personalization.calibration.population import shapes_of
from src.personalization.terms.pose_prior import PALM
from src.photos.detector.finders import landmarks_of, open_finder
from src.photos.video.run_video import video_demo
from template import load_hand_assets, mirror_pose
from utils.joints import TIP_JOINTS

VIDEO = Path(__file__).resolve().parents[3] / "shared" / "data" / "video" / "hand.mp4"
TREATMENTS = {"each_frame_alone": ["--each_frame_alone"], "lag_0": ["--lag", "0"], "together": []}
#: Frames on either side whose mean keypoints are compared, and how far they may be apart, in parts of the hand's box.
NEAR, STILL = 5, 0.02
#: Every so many frames count for the length: neighbours say the same.
EVERY = 12


def demo(video: Path, folder: Path, keypoints: str, fov: float, *options: str) -> list[dict[str, Any]]:
    """Lines of the demo's record, one a frame."""
    words = ["--phase", "demo", "--video", str(video), "--output", str(folder), "--keypoints", keypoints]
    video_demo(get_args_parser().parse_args([*words, "--fov", str(fov), "--device", "cpu", *options]))
    (file,) = folder.glob("*_frames.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[1:]]


def values(lines: list[dict[str, Any]], key: str) -> np.ndarray:
    """(F,21,D) of the first hand of each frame; NaN where there is none."""
    found = [line[key] if line["status"] == "ok" else None for line in lines]
    shape = np.shape(next(one for one in found if one is not None))
    return np.array([np.full(shape, np.nan) if one is None else one for one in found])


def still_frames(keypoints: np.ndarray) -> np.ndarray:
    """(F,) bool: the mean keypoints (F,21,2) px of the `NEAR` frames before and after lie within `STILL` of the box."""
    still = np.zeros(len(keypoints), dtype=bool)
    for frame in range(NEAR, len(keypoints) - NEAR):
        before, after = (
            keypoints[frame - NEAR : frame].mean(axis=0),
            keypoints[frame + 1 : frame + 1 + NEAR].mean(axis=0),
        )
        size = np.ptp(keypoints[frame], axis=0).max()
        still[frame] = np.linalg.norm(after - before, axis=1).max() < STILL * size  # false where one is NaN
    return still


def jitter(points: np.ndarray, still: np.ndarray) -> float:
    """Standard deviation a coordinate of the noise of points (F,P,3) in the frames ``still`` (F,), in their unit."""
    second = points[2:] - 2 * points[1:-1] + points[:-2]  # of independent noise with six times its variance
    return float(np.sqrt(np.nanmean(second[still[1:-1]] ** 2) / 6))


def third_lengths(lines: list[dict[str, Any]], keypoints: str, ruler_mm: float | None) -> list[dict[str, Any]]:
    """Hand length and 95% interval, mm, that each third of the frames says by itself."""
    assets = load_hand_assets()
    options = keypoint_options(assets, shapes_of(assets), landmarks=landmarks_of(open_finder(keypoints), assets))
    said = []
    for third in np.array_split(np.array(lines, dtype=object), 3):
        online = OnlineCalibration(options=options, assets=assets, hand_length_mm=ruler_mm)
        for line in third:
            if line["status"] != "ok":
                continue
            pose, side = np.array(line["pose"]), line["hand"]["side"]
            pose = mirror_pose(torch.as_tensor(pose)) if side == "left" else pose
            seen = (np.array(line[key]) for key in ("keypoints_2d", "keypoint_confidence"))
            online.add(*seen, K=np.array(line["camera"]["K"]), pose=pose, hand=side, instant=line["seconds"])
        identity = online.settle()
        interval = [round(value, 1) for value in identity.interval_mm]
        said.append({"length_mm": round(identity.length_mm, 1), "interval_95_mm": interval, "views": online.views})
    return said


def measure(video: Path, folder: Path, keypoints: str, fov: float, ruler_mm: float) -> dict[str, Any]:
    """What the docstring of this file lists."""
    runs = {name: demo(video, folder / name, keypoints, fov, *options) for name, options in TREATMENTS.items()}
    still = still_frames(values(runs["each_frame_alone"], "keypoints_2d"))
    flat = np.array(["shown_flat" in line for line in runs["together"]])
    rows: dict[str, Any] = {"frames": len(still), "still": int(still.sum())}
    rows |= {"flat": int(flat.sum()), "flat_switches": int((flat[1:] != flat[:-1]).sum())}
    for name, lines in runs.items():
        joints = 1000 * values(lines, "joints")
        tips = joints[:, list(TIP_JOINTS)] - joints[:, :1]
        depth = joints[:, list(TIP_JOINTS)[1:], 2] - joints[:, PALM, 2].mean(axis=1, keepdims=True)
        rows[name] = {
            "lost": sum(line["status"] != "ok" for line in lines),
            "wrist_mm": round(jitter(joints[:, :1], still), 2),
            "tips_mm": round(jitter(tips, still), 2),
            "flat_tips_mm": round(float(np.nanmean(np.abs(depth[flat]))) if flat.any() else 0.0, 1),
        }
    rows["thirds"] = {
        name: third_lengths(runs["each_frame_alone"][::EVERY], keypoints, length)
        for name, length in (("none", None), ("ruler", ruler_mm))
    }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, default=VIDEO)
    parser.add_argument("--keypoints", choices=("mediapipe", "own"), default="mediapipe")
    parser.add_argument(
        "--fov", type=float, default=66.0, help="degrees across the longer side; distances scale with it"
    )
    parser.add_argument("--ruler_mm", type=float, default=187.0, help="a length to fix the scale with, right or wrong")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    if not args.video.is_file():
        raise SystemExit(f"{args.video}: is not there; skipped. --video names another")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args.video, Path(folder), args.keypoints, args.fov, args.ruler_mm)
    print(json.dumps(rows, indent=None if args.json else 2))


if __name__ == "__main__":
    main()
