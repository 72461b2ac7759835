"""``python -m benchmarks.reproduce.closing_gap --root DIR --reference FILE.npz ...``: what closes the gap to real ones.

The table-top keypoint network is trained on as many crops of the world as ``--steps`` says: once with everything that
they vary, then with one thing taken away at a time. Each row of ``DIR/VARIANT.json`` is the share of keypoints within a
tenth of the box: of held-back renders (with everything), and of mediapipe's on real pictures (a yardstick only, see
`benchmarks.world_agreement`; of the signs the half that choices are made on). What exists is not made again, so a run
goes on; ``--variants`` shares the work between processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.world_agreement import DATA, Reference, measure, part, read_reference
from datasets.synthetic.world import hands, mixing, photography
from datasets.synthetic.world.bank import ResidentBank, write_bank
from datasets.synthetic.world.skin import paint_skin
from src.engine.checkpoint import load_network
from src.engine.world import train as world_train
from src.engine.world.calibration import calibrate_keypoints
from src.photos.detector.own_hands import RatedReader
from utils.files import write_json

WEIGHTS = Path(__file__).resolve().parents[2] / "weights" / "pose_2d.safetensors"
SEED = 961
VALIDATION_PEOPLE, FIRST_VALIDATION = 60, 1_000_000


class FlatWalls(ResidentBank):
    """Backgrounds of one colour each."""

    def wall(self, index: torch.Tensor) -> torch.Tensor:
        walls = super().wall(index)
        return walls.mean(dim=(2, 3), keepdim=True).expand_as(walls).contiguous()


class NoForearm(ResidentBank):
    """Hands that end at the wrist."""

    def cut(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, keypoints = super().cut(index)
        return pixels - mixing._without_hand(pixels, *mixing._box(keypoints)), keypoints


def _all_but_expose(image: torch.Tensor) -> torch.Tensor:
    with mock.patch.object(photography, "expose", lambda image, strength: image):
        return photography.photograph(image)


def _grasp_alone(generator: np.random.Generator) -> np.ndarray:
    return hands.clip_angles(hands._posture("grasp", generator) + np.radians(5) * generator.normal(size=21))


def _one_skin(places: Any, _: np.random.Generator, **options: Any) -> Any:
    return paint_skin(places, np.random.default_rng(3), **options)


@dataclass(frozen=True)
class Variant:
    """What is another than in the shipped training."""

    words: str
    rendering: Mapping[str, Callable] = field(default_factory=dict)  # functions of `hands` while its bank is rendered
    mixing: Mapping[str, Callable] = field(default_factory=dict)  # functions of `mixing` in training
    bank: type[ResidentBank] = ResidentBank
    size: int = 128  # px, of the crops
    people: float = 1.0  # part of them that is used
    seed: int = 0
    starts: bool = True  # from the table-top network


VARIANTS = {
    "everything": Variant("everything"),
    "everything_again": Variant("everything, other random numbers", seed=1),
    "from_nothing": Variant("everything, from random weights", starts=False),
    "tenth": Variant("a tenth of the renders", people=0.1),
    "grasps": Variant("grasps alone", rendering={"random_angles": _grasp_alone}),
    "one_skin": Variant("one person's skin", rendering={"paint_skin": _one_skin}),
    "no_forearm": Variant("hands without a forearm", bank=NoForearm),
    "flat_walls": Variant("backgrounds of one colour", bank=FlatWalls),
    "nothing_beside": Variant(
        "nothing in front or beside",
        mixing={
            "_other_hand": lambda bank, count, size: torch.zeros(count, 4, size, size, device=bank.device),
            "_blobs": lambda picture, bank, share: picture,
        },
    ),
    "sharp": Variant(
        "no blur, lower resolution, noise or JPEG",
        mixing={"photograph": lambda image: photography.expose(image).clamp(0, 1)},
    ),
    "one_light": Variant("no white balance, exposure or contrast", mixing={"photograph": _all_but_expose}),
    "small": Variant("crops of 64 px", size=64),
}


@contextlib.contextmanager
def replaced(module: Any, functions: Mapping[str, Callable]) -> Iterator[None]:
    """Functions of a module, for a while."""
    with contextlib.ExitStack() as stack:
        for name, function in functions.items():
            stack.enter_context(mock.patch.object(module, name, function))
        yield


def train_one(name: str, args: argparse.Namespace) -> Path:
    """Render what a variant needs, unless it is there, and train it; its weights."""
    variant = VARIANTS[name]
    bank = args.root / ("bank_" + name if variant.rendering else "bank")
    write_bank(args.root / "validation", VALIDATION_PEOPLE, SEED, first=FIRST_VALIDATION)
    with replaced(hands, variant.rendering):
        write_bank(bank, args.people, SEED)
    people = max(20, round(args.people * variant.people))
    options = {"bank": bank, "out": args.root / name, "max_steps": args.steps, "size": variant.size, "lr": args.lr,
               "max_cutouts": people * hands.PER_PERSON, "batch_size": args.batch_size, "left": 0.3, "device": "cpu",
               "threads": args.threads, "seed": variant.seed, "validation_pictures": 256, "minutes": 600}  # fmt: skip
    if variant.starts:
        options["init_from"] = args.init_from
    listed = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    with replaced(world_train, {"ResidentBank": variant.bank}), replaced(mixing, variant.mixing):
        world_train.main(world_train.get_args_parser().parse_args(["--task", "keypoints", *listed]))
    return args.root / name / "keypoints.safetensors"


def measure_one(weights: Path, args: argparse.Namespace) -> dict[str, float]:
    """Shares of keypoints within a tenth, and of sides that are right."""
    model, card = load_network(weights)[:2]
    reader = RatedReader(model, card)
    result = {}
    for path in args.reference:
        reference = read_reference(path, args.data)
        options = argparse.Namespace(part=(1, 2) if "signs" in path.stem else None, mirror=True)
        reference = part(reference, options)
        result[path.stem] = measure(reference, reader, None)["at_reference_box"]
        result[f"{path.stem}_side"] = side_right(reference, reader)
    bank = ResidentBank(args.root / "validation", "cpu", VALIDATION_PEOPLE * hands.PER_PERSON)
    bank.refresh()
    torch.manual_seed(20261129)
    held_back = calibrate_keypoints(model.eval(), bank, 2048, card.input_size)
    return result | {"renders": held_back["right"]}


def side_right(reference: Reference, reader: RatedReader) -> float:
    """Share of hands that look less like the other hand than their mirror image does."""
    right = [
        float(reader.read(image, box[None], bool(left)).is_left[0] - reader.read(image, box[None], not left).is_left[0])
        for image, box, left in zip(reference.images, reference.boxes, reference.is_left, strict=True)
    ]
    return float(np.mean(np.array(right) < 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of renders, weights and results")
    parser.add_argument(
        "--reference", type=Path, nargs="+", required=True, help="mediapipe_answers.py's files; signs*.npz: the signs"
    )
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--people", type=int, default=600, help="rendered, 30 cut-outs each")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch_size", type=int, default=192)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--init_from", type=Path, default=WEIGHTS)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with pictures/signs and video/hand.mp4")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in args.variants:
        path = args.root / f"{name}.json"
        if not path.is_file():
            write_json(path, measure_one(train_one(name, args), args))
        print(f"{VARIANTS[name].words:42s}", json.dumps(json.loads(path.read_text(encoding="utf-8"))), flush=True)


if __name__ == "__main__":
    main()
