"""A frame with our own networks for any picture, to the posed hand: ``python -m benchmarks.studies.own_frame``.

Pictures of `datasets.synthetic.world` (224 px). The keypoint network looks once, in the box of the labels, and says
the pose; the hand layer poses the mesh. The detector (both of its views) looks at every ``--every`` th picture.
Through ONNX Runtime, one thread; ms, median and 95th percentile; ``frame`` has the detector's share in it. On an idle
machine: ``--clock wall``; else time of the processor.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.latency import CLOCKS
from benchmarks.machine import describe_machine, median_and_p95
from datasets.freihand.files import VERSIONS, image_name, read_annotations
from datasets.synthetic.world.writer import write_world
from src.personalization.calibration.population import SHIPPED_PRIOR
from src.photos.detector.own_hands import open_own_hands
from src.photos.image import read_photo
from src.photos.onnx_network import through_onnx
from template import HandModel, load_hand_assets
from utils.camera import project_numpy, square_box


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Our own networks' frame, from picture to posed hand.")
    parser.add_argument("--num_images", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--every", type=int, default=10, help="the detector looks at every so many pictures")
    parser.add_argument("--clock", default="cpu", choices=tuple(CLOCKS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clock = CLOCKS[args.clock]
    hands, layer = open_own_hands(SHIPPED_PRIOR.parent), HandModel(load_hand_assets())
    hands.detector = through_onnx(hands.detector, hands.card)
    hands.reader.network = through_onnx(hands.reader.network, hands.reader.card)
    betas = torch.zeros(1, 10)  # the person's; whose is all the same to the clock
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder), args.num_images * len(VERSIONS), seed=5)
        labels = read_annotations(Path(folder), "training")
        images = [read_photo(Path(folder) / "training" / "rgb" / image_name(n)).image for n in range(args.num_images)]
    boxes = [square_box(project_numpy(*one), 1.0)[None] for one in zip(labels["xyz"], labels["K"], strict=True)]
    times = defaultdict(list)
    for repeat in range(args.repeats + 1):  # the first is to warm up
        for number, (image, box) in enumerate(zip(images, boxes, strict=True)):
            began = clock()
            read = hands.reader.read(image, box, False)
            seen = clock()
            with torch.inference_mode():
                layer(torch.as_tensor(read.pose), betas, None)
            posed = clock()
            if repeat:
                times["network"].append(1000 * (seen - began)), times["layer"].append(1000 * (posed - seen))
            if number % args.every == 0:
                began = clock()
                hands.proposals(image)
                if repeat:
                    times["detector"].append(1000 * (clock() - began))
    share = float(np.median(times["detector"])) / args.every
    times["frame"] = [a + b + share for a, b in zip(times["network"], times["layer"], strict=True)]
    print(describe_machine())
    for name, values in times.items():
        print(f"{name:9s}", "{median_ms:.1f} / {p95_ms:.1f} ms".format(**median_and_p95(values)))


if __name__ == "__main__":
    main()
