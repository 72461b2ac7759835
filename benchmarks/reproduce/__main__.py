"""``python -m benchmarks.reproduce``: see ``scripts/reproduce_synthetic_results.sh``."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from dataclasses import replace
from pathlib import Path

logger = logging.getLogger(__name__)


def get_args_parser() -> argparse.ArgumentParser:
    """Parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduce",
        description="Train, calibrate, evaluate and fit every row of the results table. Goes on where it stopped.",
    )
    parser.add_argument("--quick", action="store_true", help="small data, short trainings: the same table in minutes")
    parser.add_argument("--train_only", action="store_true", help="data and trainings, no evaluation")
    parser.add_argument("--no_training", action="store_true", help="evaluate what is trained so far")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these seeds")
    parser.add_argument("--data_root", type=Path, help="the real DexYCB: train on s1_train, evaluate on s1_test")
    parser.add_argument("--body", type=Path, help="checkpoint that all networks start from")
    parser.add_argument("--workers", type=int, help="training processes (GPUs, or CPU cores)")
    parser.add_argument("--output", type=Path, help="folder of results.json and .md (default: benchmarks/, or out/)")
    return parser


def main() -> int:
    """Run it."""
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    from benchmarks.reproduce.sizes import FULL, QUICK
    from benchmarks.reproduce.training import make_data, train_all
    from utils.files import atomic_path, write_json

    size = QUICK if args.quick else FULL
    people = "synthetic people"
    if args.data_root is not None:
        people = "people of DexYCB's s1 test split"
        size = replace(
            size, name="dex_ycb", train_root=args.data_root, test_root=args.data_root, test_split="s1_test",
            train_data=None, test_data=None, evaluated=2000,
        )
    if args.body is not None:
        size = replace(size, body=args.body)
    if args.workers is not None:
        size = replace(size, workers=args.workers)
    if args.seeds is not None:
        size = replace(size, seeds=tuple(args.seeds))
    try:
        make_data(size)
        if not args.no_training:
            train_all(size)
        if args.train_only:
            return 0
        from benchmarks.reproduce.prior import make_prior
        from benchmarks.reproduce.scoring import Scores

        prior = make_prior(size)
        rows = [row for seed in size.seeds for row in Scores(size, seed, prior).all_rows()]
    except (ValueError, OSError) as error:
        logger.error("%s", error)
        return 2
    from benchmarks.machine import describe_machine
    from benchmarks.reproduce.report import flat_rows, markdown
    from benchmarks.reproduce.training import training_hours

    output = args.output or (Path("benchmarks") if size is FULL else size.folder)
    facts = {
        "command": shlex.join(["./scripts/reproduce_synthetic_results.sh", *sys.argv[1:]]),
        "machine": describe_machine(),
        "training_hours": round(training_hours(size), 2),
        "n_images": rows[0]["network"]["n_images"],
        "people": people,
    }
    write_json(output / "results.json", {**facts, "size": size.name, "seeds": size.seeds, "rows": flat_rows(rows)})
    with atomic_path(output / "results.md") as temporary:
        Path(temporary).write_text(markdown(size, rows, facts), encoding="utf-8")
    logger.info("written to %s and results.md", output / "results.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
