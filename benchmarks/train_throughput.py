"""Training throughput: images a second of the model alone, the loader alone, and both together.

``python benchmarks/train_throughput.py`` prints tables; ``--json`` one JSON object with ``ratios`` first.

It times the trainer's own step (`src.engine.train.Trainer`), not a copy of it. *Model* is that step on a batch that
lies ready: augmentation on the device, forward, loss, backward, update. *Loader* is the reading of batches alone: from
the GPU's memory (*resident*, where there is one), from the crop cache (a memory map) or from the JPEG files. *Both* is
what training does. ``released`` is the paper's recipe as its code ran it (float32, default memory format, plain Adam);
``fast`` is the same step with bf16 and channels last (and on a GPU recorded as a graph), as this repository trains;
``launched``, on a GPU, is *fast* without the recording.

On a CPU, loader and model share the cores: with all of them in use the times add up, and *both* cannot be as quick as
the slower of the two. ``both_over_serial`` compares with that sum, 1 / (1/model + 1/loader); ``both_over_slower`` with
the slower one, which is what should be near 1 on a GPU with loader processes beside it.

Runs are interleaved: every measurement is made once before any is made again; numbers are medians over
the rounds. Without ``--data_root`` a small synthetic set is made in a temporary folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.machine import CLOCKS, describe_machine  # noqa: E402
from datasets.crop_cache import usable_cores  # noqa: E402
from datasets.loading import BatchLoader  # noqa: E402
from datasets.synthetic.data_set import SynthesisOptions, write_data_set  # noqa: E402
from options.recipes import apply_recipe  # noqa: E402
from options.run_options import get_args_parser as run_parser  # noqa: E402
from src.engine import config  # noqa: E402
from src.engine.train import Trainer  # noqa: E402

#: What ``--recipe`` stands for here: the network whose step is timed, its image size and batch.
RECIPES = {
    "paper": ["--recipe", "paper", "--backbone", "resnet18", "--input_size", "128", "--crop_size", "128"],
    "fair": ["--recipe", "fair"],
}
PRECISION = {
    "fast": ["--amp", "bf16", "--channels_last", "yes"],
    "launched": ["--amp", "bf16", "--channels_last", "yes", "--cuda_graph", "no"],
    "released": ["--amp", "no", "--channels_last", "no", "--cuda_graph", "no"],
}
WANTED = {"fast_over_released": 1.6, "both_over_slower_cache": 0.9, "both_over_slower_jpeg": 0.9}
#: Subjects of s1's train split and the one of its validation split.
SUBJECTS = (1, 2, 3, 4, 5, 6, 7, 10)

Batch = dict[str, torch.Tensor]


def make_data(root: Path) -> None:
    """A tiny synthetic data set with a train and a validation split."""
    write_data_set(root, SynthesisOptions(1, 5, left_fraction=0.0, render_scale=0.5), SUBJECTS)


class Bench:
    """The trainers of one recipe and what can be timed with them.

    Args:
        words: options of ``run.py`` for the trainers.
        released: time the float32 step too.
        batches: batches that one measurement takes.
        workers: loader processes of the JPEG loader; the cache is read by the training process itself.
        clock: a key of `CLOCKS`.
    """

    def __init__(self, words: list[str], released: bool, batches: int, workers: int, clock: str = "wall") -> None:
        kinds = ("fast", "released") if released else ("fast",)
        if run_parser().parse_args(words).device != "cpu" and torch.cuda.is_available():
            kinds = (*kinds, "launched")
        self.trainers = {kind: self._trainer([*words, *PRECISION[kind]], plain=kind == "released") for kind in kinds}
        first, self.clock = self.trainers["fast"], CLOCKS[clock]
        self.device, self.batches, self.batch_size = first.device, batches, first.args.batch_size
        split = first.args.split or f"{first.args.setup}_train"
        files = config.open_dataset(first.args, split, first.args.crop_size, cache=None)
        #: name -> data set and loader processes
        self.sources = {"cache": (first.data, 0), "jpeg": (files, workers)}
        if self.device.type == "cuda":
            self.sources = {"resident": (first.data, 0), **self.sources}
        self.ready = next(self._batches("cache"))

    @staticmethod
    def _trainer(words: list[str], plain: bool) -> Trainer:
        trainer = Trainer(apply_recipe(run_parser().parse_args(words)))
        trainer.model.train()
        if plain:
            trainable = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
            trainer.state.optimizer = torch.optim.Adam(trainable, lr=trainer.args.lr)
            trainer.state.scheduler = torch.optim.lr_scheduler.ConstantLR(trainer.state.optimizer, factor=1.0)
        return trainer

    def _batches(self, source: str) -> Iterator[Batch]:
        """As many shuffled batches as a measurement takes and one more, in one epoch, however small the data set."""
        data, workers = self.sources[source]
        needed = (self.batches + 1) * self.batch_size
        indices = np.resize(np.flatnonzero(data.columns["valid"]), needed)
        pinned = self.device.type == "cuda"
        loader = BatchLoader(
            data, self.batch_size, shuffle=True, indices=indices, num_workers=workers, pin_memory=pinned
        )
        if source == "resident":
            loader.keep_on(self.device)
        return iter(loader)

    def measurements(self) -> dict[str, Callable[[], float]]:
        """What is timed, by name: functions that return images a second."""
        found: dict[str, Callable[[], float]] = {}
        for kind, trainer in self.trainers.items():
            found[f"model_{kind}"] = lambda trainer=trainer: self._rate(itertools.repeat(self.ready), trainer._step)
        for source in self.sources:
            found[f"loader_{source}"] = lambda source=source: self._rate(self._batches(source), lambda batch: None)
            found[f"both_{source}"] = lambda source=source: self._rate(
                self._batches(source), self.trainers["fast"]._step
            )
        return found

    def _rate(self, batches: Iterator[Batch], use: Callable[[Batch], object]) -> float:
        """Images a second; the first batch, which starts loader processes, is not counted."""
        use(next(batches))
        self._wait()
        started, images = self.clock(), 0
        for _ in range(self.batches):
            batch = next(batches)
            use(batch)
            images += len(batch["image"])
        self._wait()
        return images / (self.clock() - started)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def ratios(rates: dict[str, float]) -> dict[str, float]:
    """What the numbers say, from images a second by name."""
    found = {}
    for kind in ("released", "launched"):
        if f"model_{kind}" in rates:
            found[f"fast_over_{kind}"] = rates["model_fast"] / rates[f"model_{kind}"]
    for source in ("resident", "cache", "jpeg"):
        if f"loader_{source}" not in rates:
            continue
        model, loader, both = rates["model_fast"], rates[f"loader_{source}"], rates[f"both_{source}"]
        found[f"both_over_slower_{source}"] = both / min(model, loader)
        found[f"both_over_serial_{source}"] = both * (1 / model + 1 / loader)
    return {name: round(value, 3) for name, value in found.items()}


def measure_recipe(recipe: str, root: Path, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Everything about one recipe; crop cache and run folders go to ``work``."""
    words = ["--phase", "train", "--model", args.model, *RECIPES[recipe], "--data_root", str(root)]
    words += ["--cache", str(args.cache or work / "cache"), "--out_dir", str(work / "out"), "--device", args.device]
    words += ["--allow_missing_subjects", *args.options]
    if args.threads:
        words += ["--threads", str(args.threads)]
    workers = 0 if args.clock == "cpu" else args.num_workers
    bench = Bench(words, recipe == "paper", args.batches, workers, args.clock)
    rounds: dict[str, list[float]] = {}
    for _ in range(args.repeats):
        for name, run in bench.measurements().items():
            rounds.setdefault(name, []).append(run())
    rates = {name: statistics.median(values) for name, values in rounds.items()}
    used = bench.trainers["fast"].args
    return {
        "recipe": recipe, "ratios": ratios(rates), "images_per_second": {n: round(v, 1) for n, v in rates.items()},
        "model": used.model, "backbone": used.backbone, "input_size": used.input_size, "batch_size": used.batch_size,
        "device": bench.device.type, "jpeg_workers": workers,
    }  # fmt: skip


def measure(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        root = Path(args.data_root) if args.data_root else work / "dex_ycb"
        if not args.data_root:
            make_data(root)
        rows = [measure_recipe(recipe, root, work, args) for recipe in args.recipes]
    return {
        "ratios": rows[0]["ratios"],
        "wanted": WANTED,
        "machine": describe_machine(rows[0]["device"]),
        "clock": args.clock,
        "rows": rows,
    }


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Training throughput: model alone, loader alone, both.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=tuple(RECIPES))
    parser.add_argument("--model", default="mano_baseline", help="as of run.py")
    parser.add_argument("--data_root", help="DexYCB's layout (default: a small synthetic set in a temporary folder)")
    parser.add_argument("--cache", help="folder of the crop cache (default: a temporary one)")
    parser.add_argument("--batches", type=int, default=8, help="batches that a measurement takes")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; medians are over them")
    parser.add_argument("--num_workers", type=int, default=usable_cores(), help="processes of the JPEG loader")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own choice)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--clock", default="wall", choices=tuple(CLOCKS), help="cpu: on a machine that is not idle, with --threads 1"
    )
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="last: further options for run.py")
    return parser


def main() -> None:
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.WARNING)
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(result["machine"])
    for row in result["rows"]:
        print("--recipe {recipe}: {model}, {backbone}, {input_size} px, batch {batch_size}, {device}".format(**row))
        print(*(f"  {name:16s} {rate:9.1f} images/s" for name, rate in row["images_per_second"].items()), sep="\n")
        print(*(f"  {name:24s} {ratio:5.2f}" for name, ratio in row["ratios"].items()), sep="\n")


if __name__ == "__main__":
    main()
