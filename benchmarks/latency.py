"""Latency of the identity-aware network with its layer, end to end on a video, for several ways to run it.

``python benchmarks/latency.py`` prints a table; ``--json`` one JSON object with ``rows`` and ``frames_per_second``.

A synthetic sequence of an unseen person (72 frames of one camera, 640 x 480) is written as an MPEG-4 video. Each
frame is decoded, cropped around the keypoints found in the frame before (the first one around its label), given
to the network with the person's shape, posed by the hand layer and, with ``--fit``, fitted to the keypoints from
where the frame before ended. Every engine runs the whole video before any runs it again; times are medians and
95th percentiles over all frames of all runs. Errors against the labels stand beside the times: an engine that is
quick and loses the hand would show.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.latency_engines import NAMES, make_engines  # noqa: E402
from benchmarks.machine import CLOCKS, describe_machine, median_and_p95  # noqa: E402
from datasets import build_dataset  # noqa: E402
from datasets.image_crop import crop_image  # noqa: E402
from datasets.synthetic.data_set import SynthesisOptions, write_data_set  # noqa: E402
from src.engine.checkpoint import load_network  # noqa: E402
from src.personalization.fitting.fit import FitOptions, FitResult, fit_frames  # noqa: E402
from template import HandModel, load_hand_assets  # noqa: E402
from template.kinematics import JointsModel  # noqa: E402
from utils.camera import (  # noqa: E402
    crop_affine,
    invert_affine,
    project_numpy,
    square_box,
    transform_intrinsics,
    transform_points,
)

TARGET_FPS = 30
SUBJECT = 8
STAGES = ("decode", "crop", "network", "layer", "fit")


@dataclass
class Video:
    """A video file of one hand with what is known about it.

    Attributes:
        path: the file.
        K: (3, 3) px; betas: (1, 10) the person's shape.
        joints: (F, 21, 3) m, camera frame: the labels, for the first crop and for the errors.
    """

    path: Path
    K: np.ndarray
    betas: np.ndarray
    joints: np.ndarray


def make_video(folder: Path, frames: int, seed: int) -> Video:
    """Render a sequence of an unseen person and write its longest annotated stretch as a video.

    Raises:
        OSError: OpenCV can write no MPEG-4 video.
    """
    write_data_set(folder / "dex_ycb", SynthesisOptions(1, frames, seed=seed, left_fraction=0.0), [SUBJECT])
    data = build_dataset("dex_ycb", folder / "dex_ycb", "s1_test", allow_missing_subjects=True)
    rows = longest_stretch(data.columns["image_id"], frames)
    path = folder / "hand.mp4"
    first = data.full_image(rows[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, first.shape[1::-1])
    if not writer.isOpened():
        raise OSError(f"{path}: this OpenCV cannot write MPEG-4 video; install opencv-python-headless")
    for row in rows:
        writer.write(np.ascontiguousarray(data.full_image(row)[..., ::-1]))
    writer.release()
    columns = {name: data.columns[name][rows] for name in ("K_image", "betas", "joints")}
    return Video(path, columns["K_image"][0], columns["betas"][:1], columns["joints"])


def longest_stretch(image_id: np.ndarray, frames: int) -> np.ndarray:
    """Rows of the longest run of consecutive image ids of one camera (``frames`` ids each)."""
    begins = np.flatnonzero((np.diff(image_id, prepend=image_id[0] - 2) != 1) | (image_id % frames == 0))
    ends = np.append(begins[1:], len(image_id))
    longest = int(np.argmax(ends - begins))
    return np.arange(begins[longest], ends[longest])


class Tracker:
    """Follows one hand through a video: crops by the last keypoints, predicts, poses and, if wanted, fits."""

    def __init__(
        self,
        engine: Any,
        video: Video,
        size: int,
        crop_scale: float,
        fitting: JointsModel | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.engine, self.video, self.size, self.crop_scale, self.clock = engine, video, size, crop_scale, clock
        self.fitting, self.fitted = fitting, None
        self.keypoints = project_numpy(video.joints[0], video.K)

    def __call__(self, frame: np.ndarray) -> tuple[dict[str, np.ndarray], list[float]]:
        """Outputs for a frame (H, W, 3) BGR uint8, and the moments between the stages after decoding, seconds."""
        moments = [self.clock()]
        box = square_box(self.keypoints, self.crop_scale)
        affine = crop_affine(box, self.size)
        crop = crop_image(frame, box, self.size)[..., ::-1].transpose(2, 0, 1)
        image = np.ascontiguousarray(crop, dtype=np.float32)[None]
        image = (image / 255 - 0.5) / 0.5
        K = transform_intrinsics(self.video.K, affine).astype(np.float32)[None]
        moments.append(self.clock())
        output = self.engine.network_outputs(image, K)
        moments.append(self.clock())
        output = self.engine.layer_outputs(output)
        self.keypoints = transform_points(output["keypoints_2d"][0].astype(np.float64), invert_affine(affine))
        moments.append(self.clock())
        if self.fitting is not None:
            self.fitted = self._fit(output)
            moments.append(self.clock())
        return output, moments

    def _fit(self, output: dict[str, np.ndarray]) -> FitResult:
        given = (output["pose"], self.video.betas, self.video.K[None], self.keypoints[None])
        tensors = (torch.as_tensor(value, dtype=torch.float32) for value in given)
        start = None if self.fitted is None else (self.fitted.pose, self.fitted.transl)
        return fit_frames(self.fitting, *tensors, options=FitOptions(), start=start)


def run_video(tracker: Tracker, label_crops: bool = False) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds of every stage and frame, and mean errors against the labels.

    Args:
        tracker: at the beginning of its video.
        label_crops: crop around the labels of each frame instead of following the keypoints.
    """
    times: dict[str, list[float]] = defaultdict(list)
    video, errors = tracker.video, defaultdict(list)
    capture = cv2.VideoCapture(str(video.path))
    for truth in video.joints:
        started = tracker.clock()
        there, frame = capture.read()
        if not there:
            raise OSError(f"{video.path} ends before its {len(video.joints)} frames")
        if label_crops:
            tracker.keypoints = project_numpy(truth, video.K)
        output, moments = tracker(frame)
        for name, before, after in zip(STAGES, [started, *moments], moments, strict=False):
            times[name].append(1000 * (after - before))
        times["frame"].append(1000 * (moments[-1] - started))
        joints = output["joints"][0]
        errors["mpjpe_mm"].append(1000 * distance(joints - joints[0], truth - truth[0]))
        errors["keypoints_px"].append(distance(tracker.keypoints, project_numpy(truth, video.K)))
    return times, {name: round(float(np.mean(values)), 2) for name, values in errors.items()}


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Mean distance of points (N, D)."""
    return float(np.linalg.norm(first - second, axis=-1).mean())


def measure(args: argparse.Namespace) -> dict[str, Any]:
    assets = load_hand_assets(args.mano_dir)
    hand = HandModel(assets)
    network, card, _ = load_network(args.checkpoint, expect="mano_identity")
    fitting = JointsModel(assets, dtype=torch.float32) if args.fit else None
    with tempfile.TemporaryDirectory() as folder:
        video = make_video(Path(args.folder or folder), args.num_frames, args.seed)
        engines, missing = make_engines(args.engines, network, card, hand, video.betas)
        times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in engines}
        errors: dict[str, dict[str, float]] = {}
        for _ in range(args.repeats):
            for name, engine in engines.items():
                tracker = Tracker(engine, video, card.input_size, card.crop_scale, fitting, CLOCKS[args.clock])
                found, errors[name] = run_video(tracker, args.crops == "labels")
                for stage, values in found.items():
                    times[name][stage] += values
    rows = [
        {
            "engine": name,
            "stages": {stage: median_and_p95(values) for stage, values in times[name].items() if stage != "frame"},
            "frame": median_and_p95(times[name]["frame"]),
            "frames_per_second": round(1000 / float(np.median(times[name]["frame"])), 1),
            **errors[name],
        }
        for name in engines
    ]
    speeds = {row["engine"]: row["frames_per_second"] for row in rows}
    return {
        "frames_per_second": speeds,
        "target_frames_per_second": TARGET_FPS,
        "target_reached": max(speeds.values(), default=0.0) >= TARGET_FPS,
        "machine": describe_machine(),
        "clock": args.clock,
        "model": card.model,
        "backbone": card.options.get("backbone"),
        "input_size": card.input_size,
        "frames": len(video.joints),
        "repeats": args.repeats,
        "fit": args.fit,
        "crops": args.crops,
        "rows": rows,
        "not_run": missing,
    }


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Latency of the identity-aware network, end to end on a video.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--checkpoint", default="weights/mano_identity.safetensors")
    parser.add_argument("--engines", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--fit", action="store_true", help="also fit pose and translation to the keypoints")
    parser.add_argument(
        "--crops", default="tracked", choices=("tracked", "labels"), help="labels: crop each frame around its label"
    )
    parser.add_argument("--num_frames", type=int, default=72)
    parser.add_argument("--repeats", type=int, default=3, help="runs of the video by each engine")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic sequence")
    parser.add_argument("--folder", help="keep the synthetic sequence here (default: a temporary folder)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", default="wall", choices=tuple(CLOCKS), help="cpu: on a machine that is not idle, with --threads 1"
    )
    parser.add_argument("--mano_dir")
    return parser


def main() -> None:
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(result["machine"])
    print("{model}, {backbone}, {input_size} px; {frames} frames, {repeats} runs; ms are median / p95".format(**result))
    for row in result["rows"]:
        cells = {**row["stages"], "frame": row["frame"]}
        times = "  ".join(f"{name} {cell['median_ms']:.1f}/{cell['p95_ms']:.1f}" for name, cell in cells.items())
        print(f"{row['engine']:25s} {row['frames_per_second']:6.1f} frames/s  {times}  MPJPE {row['mpjpe_mm']} mm")
    for name, reason in result["not_run"].items():
        print(f"{name}: not run ({reason})")


if __name__ == "__main__":
    main()
