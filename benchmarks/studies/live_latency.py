"""A stream from picture to hand, PyTorch beside ONNX Runtime: ``python -m benchmarks.studies.live_latency``.

The synthetic video of ``benchmarks/latency.py``: each frame is decoded, cut out around its label (no hand is searched
or followed), read by the shipped keypoint and identity-aware networks and taken in by `FixedLagSmoother`. Engines take
turns with whole videos; ms a frame, median / 95th percentile. Idle machine: ``--clock wall``; else time of the
processor. What the hands differ by stands beside the times. ``--engines onnx`` is what a program that uses one engine
sees: networks of the other do not push its weights out of the processor's cache.

``--own``: a frame with our own networks for any picture instead, from picture to posed hand. Pictures of
`datasets.synthetic.world` (224 px). The keypoint network looks once, in the box of the labels, says the pose and poses
the mesh of the person's betas, as ``--phase export`` writes it. The detector (both of its views) looks at every
``--every`` th picture, and ``frame`` has its share. Through ONNX Runtime.

Cut out around the keypoints of the frame before, the two engines come apart, by millimetres after ten frames: boxes
that differ by 1e-5 px give crops of which a pixel is rounded to another grey level, and whoever follows its own box
makes that larger frame by frame, most of all where it loses the hand.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.latency import Video, make_video
from benchmarks.machine import CLOCKS, describe_machine, median_and_p95
from datasets.freihand.files import VERSIONS, image_name, read_annotations
from datasets.image_crop import crop_image
from datasets.synthetic.world.writer import write_world
from src.engine.checkpoint import load_network
from src.engine.export import ExportGraph, onnx_bytes
from src.personalization.calibration.population import SHIPPED_PRIOR
from src.personalization.fitting.fixed_lag import FixedLagSmoother
from src.photos.detector.own_hands import open_own_hands
from src.photos.detector.search import KeypointReader, network_input
from src.photos.estimator import HandEstimator
from src.photos.image import read_photo
from src.photos.onnx_network import OnnxNetwork, through_onnx
from template import HandModel, load_hand_assets
from template.assets import STAND_IN_PATH
from template.kinematics import JointsModel
from utils.camera import crop_affine, project_numpy, square_box, transform_intrinsics

WEIGHTS = SHIPPED_PRIOR.parent
STAGES = ("decode", "keypoints", "identity", "stream")


class Live:
    """One hand followed, frame by frame."""

    def __init__(self, engine: str, lag: int) -> None:
        cpu, assets = torch.device("cpu"), load_hand_assets()
        self.reader = KeypointReader(*load_network(WEIGHTS / "pose_2d.safetensors")[:2], cpu)
        told, card, _ = load_network(WEIGHTS / "mano_identity.safetensors")
        self.told = HandEstimator(told, card, assets, self.reader)
        if engine == "onnx":
            for part in (self.reader, self.told):
                part.network = through_onnx(part.network, part.card)
        self.exact, self.lag = JointsModel(assets), lag

    @torch.inference_mode()
    def run(self, video: Video, clock: Callable[[], float]) -> tuple[dict[str, list[float]], np.ndarray]:
        """Milliseconds of each stage and frame, and wrist positions (F-lag,3) m."""
        times: dict[str, list[float]] = defaultdict(list)
        capture, card = cv2.VideoCapture(str(video.path)), self.told.card
        betas = torch.from_numpy(video.betas).float()
        stream = FixedLagSmoother(self.exact, betas[0].double(), lag=self.lag)
        wrists = []
        for number in range(len(video.joints)):
            moments = [clock()]
            image = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
            moments.append(clock())
            box = square_box(project_numpy(video.joints[number], video.K), 1.0)
            read, sure = self.reader.read(image, box[None])
            moments.append(clock())
            window = box * [1, 1, card.crop_scale]
            crop = network_input([crop_image(image, window, card.input_size)], "cpu")
            K = transform_intrinsics(video.K, crop_affine(window, card.input_size))
            pose = self.told.network(crop, betas=betas, K=torch.as_tensor(K[None], dtype=torch.float32))["pose"][0]
            moments.append(clock())
            given = (torch.as_tensor(value).double() for value in (pose, video.K, read[0]))
            fits = stream.update(*given, number / 30, torch.as_tensor(sure[0]))
            wrists += [fit.transl[0].numpy() for _, fit in fits]
            moments.append(clock())
            for name, before, after in zip(STAGES, moments, moments[1:], strict=False):
                times[name].append(1000 * (after - before))
            times["frame"].append(1000 * (moments[-1] - moments[0]))
        return times, np.array(wrists)


def own_frame(args: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of the network with its hand layer, of the detector, and of all of a frame."""
    clock, count = CLOCKS[args.clock], args.num_frames
    hands = open_own_hands(WEIGHTS)
    hands.detector = through_onnx(hands.detector, hands.card)
    with tempfile.TemporaryDirectory() as folder:
        graph = ExportGraph(hands.reader.network, HandModel(load_hand_assets(STAND_IN_PATH)), True).eval()
        file = Path(folder) / "hand.onnx"
        file.write_bytes(onnx_bytes(graph, hands.reader.card.input_size, {}))
        betas = torch.zeros(1, 10)  # the person's; whose is all the same to the clock
        hands.reader.network = partial(OnnxNetwork(hands.reader.network, file), betas=betas)
        write_world(Path(folder), count * len(VERSIONS), seed=5)
        labels = read_annotations(Path(folder), "training")
        images = [read_photo(Path(folder) / "training" / "rgb" / image_name(n)).image for n in range(count)]
    boxes = [square_box(project_numpy(*one), 1.0)[None] for one in zip(labels["xyz"], labels["K"], strict=True)]
    times: dict[str, list[float]] = defaultdict(list)
    for repeat in range(args.repeats + 1):  # the first is to warm up
        for number, (image, box) in enumerate(zip(images, boxes, strict=True)):
            moments = [clock()]
            assert "vertices" in hands.reader.look(image, box, False)[1]
            moments.append(clock())
            names = ["network"]
            if number % args.every == 0:
                hands.proposals(image)
                moments.append(clock())
                names.append("detector")
            for name, before, after in zip(names, moments, moments[1:], strict=False):
                times[name] += [1000 * (after - before)] if repeat else []
    share = float(np.median(times["detector"])) / args.every
    times["frame"] = [one + share for one in times["network"]]
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description="A live stream from picture to hand, one hand, its place known.")
    parser.add_argument("--own", action="store_true", help="a frame of our own networks for any picture instead")
    parser.add_argument("--every", type=int, default=10, help="--own: the detector looks at every so many pictures")
    parser.add_argument("--engines", nargs="+", default=["torch", "onnx"], choices=("torch", "onnx"))
    parser.add_argument("--lag", type=int, default=0)
    parser.add_argument("--num_frames", type=int, default=72)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", default="cpu", choices=tuple(CLOCKS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    print(describe_machine())
    if args.own:
        cells = {name: median_and_p95(values) for name, values in own_frame(args).items()}
        print(*(f"{name} {c['median_ms']:.1f}/{c['p95_ms']:.1f}" for name, c in cells.items()), sep="  ")
        return
    with tempfile.TemporaryDirectory() as folder:
        video = make_video(Path(folder), args.num_frames, 0)
        engines = {name: Live(name, args.lag) for name in args.engines}
        times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in engines}
        wrists = {}
        for repeat in range(args.repeats + 1):  # the first is to warm up
            for name, engine in engines.items():
                found, wrists[name] = engine.run(video, CLOCKS[args.clock])
                for stage, values in found.items():
                    times[name][stage] += values if repeat else []
    for name, stages in times.items():
        cells = {stage: median_and_p95(values) for stage, values in stages.items()}
        print(
            f"{name:6s}", *(f"{stage} {c['median_ms']:.1f}/{c['p95_ms']:.1f}" for stage, c in cells.items()), sep="  "
        )
    if len(wrists) == 2:
        off = 1000 * np.linalg.norm(wrists["torch"] - wrists["onnx"], axis=1).max()
        print(f"wrists differ by {off:.2g} mm at most")


if __name__ == "__main__":
    main()
