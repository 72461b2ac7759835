"""``python -m benchmarks.reproduce``: see ``scripts/reproduce_synthetic_results.sh``."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.reproduce.sizes import Size

logger = logging.getLogger(__name__)


#: Options that say different things, and why.
CONTRADICTIONS = (
    ("--quick", "--whole", "each is a size"),
    ("--quick", "--shipped", "each is a size"),
    ("--whole", "--shipped", "each is a size"),
    ("--whole", "--body", "whole trainings have bodies of their own"),
    ("--shipped", "--body", "the networks of weights/ are trained"),
    ("--shipped", "--train_only", "the networks of weights/ are trained"),
    ("--no_training", "--train_only", "nothing would be done"),
    ("--train_only", "--output", "no table is written"),
)


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduce",
        description="Train, calibrate, evaluate and fit every row of the results table. Goes on where it stopped.",
    )
    parser.add_argument("--quick", action="store_true", help="small data, short trainings: the same table in minutes")
    parser.add_argument("--train_only", action="store_true", help="data and trainings, no evaluation")
    parser.add_argument("--no_training", action="store_true", help="evaluate what is trained so far")
    parser.add_argument("--shipped", action="store_true", help="evaluate the networks of weights/ alone, no training")
    parser.add_argument(
        "--on_shipped_body", action="store_true", help="METRO's table, from the shipped body; added to the others"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="only these seeds")
    parser.add_argument("--whole", action="store_true", help="seeds are whole trainings also without a GPU")
    parser.add_argument(
        "--networks", nargs="+", metavar="NAME", help="only these (networks.py) and what they start from"
    )
    parser.add_argument("--data_root", type=Path, help="the real DexYCB: train on s1_train, evaluate on s1_test")
    parser.add_argument("--body", type=Path, help="checkpoint that all networks start from")
    parser.add_argument("--workers", type=int, help="processes of a training (GPUs, or CPU cores)")
    parser.add_argument("--parallel", type=int, help="trainings and scorings side by side")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="cuda: a body for every seed, trained longer"
    )
    parser.add_argument("--output", type=Path, help="folder of results.json and .md (default: benchmarks/, or out/)")
    return parser


def make_rows(size: Size, train: bool) -> list[dict[str, Any]]:
    """Train and score every row of every seed."""
    from benchmarks.reproduce.training import make_test_data, train_all

    if train and size.parallel == 1:
        train_all(size)  # before what only the evaluation needs is loaded
    if train and size.parallel > 1:
        from benchmarks.reproduce.side_by_side import train_and_score

        return train_and_score(size)
    from benchmarks.reproduce.prior import make_prior
    from benchmarks.reproduce.scoring import Scores

    make_test_data(size)
    prior = make_prior(size)
    return [row for seed in size.seeds for row in Scores(size, seed, prior).all_rows()]


def main() -> int:
    parser = get_args_parser()
    args = parser.parse_args()
    if args.networks and not args.train_only:
        parser.error("--networks trains some of the networks and goes with --train_only: a table needs all")
    if args.on_shipped_body and (args.quick or args.whole or args.shipped or args.data_root or args.body):
        parser.error("--on_shipped_body is a size, body and data of its own; leave out what says another")
    for *pair, why in CONTRADICTIONS:
        if all(getattr(args, option.removeprefix("--")) for option in pair):
            parser.error(f"{' and '.join(pair)} do not go together ({why}); leave one out")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    for name in ("data_root", "body", "output"):
        if getattr(args, name) is not None:
            setattr(args, name, getattr(args, name).resolve())
    os.chdir(Path(__file__).parents[2])  # where data, runs and weights are
    from benchmarks.reproduce.sizes import FULL, ON_SHIPPED_BODY, QUICK, SHIPPED, WHOLE
    from benchmarks.reproduce.training import make_data, note_run, train_all
    from utils.device import choose_device
    from utils.files import write_json, write_text

    device = choose_device(args.device)
    size = QUICK if args.quick else WHOLE if args.whole or device.type == "cuda" else FULL
    size = SHIPPED if args.shipped else ON_SHIPPED_BODY if args.on_shipped_body else size
    size = replace(size, device=device.type)
    people = "synthetic people"
    if args.data_root is not None:
        people = "people of DexYCB's s1 test split"
        size = replace(
            size,
            name="dex_ycb",
            train_root=args.data_root,
            test_root=args.data_root,
            test_split="s1_test",
            train_data=None,
            test_data=None,
            evaluated=2000,
        )
    if args.body is not None:
        size = replace(size, body=args.body)
    if args.parallel is not None:
        size = replace(size, parallel=args.parallel)
    if args.workers is not None:
        size = replace(size, workers=args.workers)
    if args.networks is not None:
        size = replace(size, only=tuple(args.networks))
    if args.seeds is not None:
        size = replace(size, seeds=tuple(args.seeds))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # trainings beside us save and end too
    try:
        if not args.shipped:
            make_data(size)
        note_run(size)
        if args.train_only:
            train_all(size)
            return 0
        rows = make_rows(size, train=not args.no_training and not args.shipped)
    except (ValueError, OSError) as error:
        logger.error("%s", error)
        return 2
    from benchmarks.machine import describe_machine
    from benchmarks.reproduce.merge import merge
    from benchmarks.reproduce.report import flat_rows, markdown
    from benchmarks.reproduce.training import computed_on, training_hours

    is_full = not args.quick and not args.shipped and args.data_root is None
    output = args.output or (Path("benchmarks") if is_full else size.folder)
    facts = {
        "command": shlex.join(["./scripts/reproduce_synthetic_results.sh", *sys.argv[1:]]),
        "machine": describe_machine(size.device),
        "training_hours": round(training_hours(size), 2),
        "trained_on": computed_on(size),
        "n_images": rows[0]["network"]["n_images"],
        "people": people,
    }
    if args.on_shipped_body:
        merge(output, size, rows, facts)
        return 0
    write_json(output / "results.json", {**facts, "size": size.name, "seeds": size.seeds, "rows": flat_rows(rows)})
    write_text(output / "results.md", markdown(size, rows, facts))
    logger.info("written to %s and results.md", output / "results.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
