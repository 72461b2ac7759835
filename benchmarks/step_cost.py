"""What a training step costs: time and memory of several networks on one body and batch.

``python benchmarks/step_cost.py`` prints a table; ``--json`` one JSON object. It times the trainer's own step
(`train_throughput`) on a batch that lies ready, fair recipe, bf16 and channels last. Runs are interleaved: every
network takes a step before any takes another; numbers are medians over the rounds, ratios are to the first network.
Memory is what a step adds at its peak: on a CPU to the resident set of a process of its own, on a GPU to what is
allocated.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from benchmarks.machine import CLOCKS, describe_machine, peak_growth  # noqa: E402
from benchmarks.train_throughput import PRECISION, Batch, make_data  # noqa: E402
from options.recipes import apply_recipe  # noqa: E402
from options.run_options import get_args_parser as run_parser  # noqa: E402
from src.engine.train import Trainer  # noqa: E402

MODELS = ("cmr_pg", "cmr_identity", "metro", "metro_identity")
_WARM = 2  # images of the step before the one whose memory is measured


def make_trainer(model: str, root: Path, args: argparse.Namespace) -> tuple[Trainer, Batch]:
    """A network's trainer and a batch."""
    words = ["--phase", "train", "--model", model, "--backbone", args.backbone, "--batch_size", str(args.batch_size)]
    words += ["--data_root", str(root), "--out_dir", str(root / "out"), "--device", args.device, *PRECISION["launched"]]
    words += ["--allow_missing_subjects", "--val_images", "1"]
    words += ["--threads", str(args.threads)] if args.threads else []
    trainer = Trainer(apply_recipe(run_parser().parse_args(words)))
    trainer.model.train()
    return trainer, next(iter(trainer.loader))


def measure_times(root: Path, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds a step by network."""
    trainers = {model: make_trainer(model, root, args) for model in args.models}
    clock, times = CLOCKS[args.clock], {model: [] for model in args.models}
    for number in range(args.repeats + 1):
        for model, (trainer, batch) in trainers.items():
            started = clock()
            trainer._step(batch)
            if trainer.device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first step prepares
                times[model].append(1000 * (clock() - started))
    return {model: statistics.median(values) for model, values in times.items()}


def measure_memory(model: str, root: Path, args: argparse.Namespace) -> float:
    """MB that a step adds at its peak, after a small one."""
    trainer, batch = make_trainer(model, root, args)
    trainer._step({name: value[:_WARM] for name, value in batch.items()})
    if trainer.device.type != "cuda":
        return peak_growth(lambda: trainer._step(batch))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    trainer._step(batch)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def memory_apart(model: str, root: Path, args: argparse.Namespace) -> float:
    """`measure_memory` in a process of its own."""
    command = [sys.executable, __file__, "--memory_of", model, "--data_root", str(root)]
    command += ["--backbone", args.backbone, "--batch_size", str(args.batch_size), "--device", args.device]
    command += ["--threads", str(args.threads)] if args.threads else []
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(args.data_root or folder)
        if not args.data_root:
            make_data(root)
        times = measure_times(root, args)
        memory = {model: memory_apart(model, root, args) for model in args.models}
    first = args.models[0]
    return {
        "machine": describe_machine("cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu"),
        "clock": args.clock,
        "backbone": args.backbone,
        "batch_size": args.batch_size,
        "rows": [
            {
                "model": model,
                "step_ms": round(times[model], 1),
                "images_per_second": round(1000 * args.batch_size / times[model], 1),
                f"time_over_{first}": round(times[model] / times[first], 2),
                "memory_mb": round(memory[model], 1),
                f"memory_over_{first}": round(memory[model] / memory[first], 2),
            }
            for model in args.models
        ],
    }


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="as of run.py; the first is compared with")
    parser.add_argument("--backbone", default="regnet_x_400mf", help="body of all of them")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=10, help="rounds; medians are over them")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own choice)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--clock", default="wall", choices=tuple(CLOCKS), help="cpu: with --threads 1, if not idle")
    parser.add_argument("--data_root", help="DexYCB's layout (default: a small synthetic set in a temporary folder)")
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.WARNING)
    if args.memory_of:
        print(measure_memory(args.memory_of, Path(args.data_root), args))
        return
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print("{machine}; {backbone}, batch {batch_size}, {clock} clock".format(**result))
    for row in result["rows"]:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
