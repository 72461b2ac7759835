"""``python -m datasets.write_shards``: a data set's splits as WebDataset tars; with ``--check``: are they whole?

Training reads them in place of the data set: ``run.py --dataset dex_ycb --data_root SHARDS``, or
``--dataset shards``, which takes the data set's name from the shards.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from datasets import DATASETS, build_dataset
from datasets.shards.index import read_index, sha256_of
from datasets.shards.writer import ShardPlan, write_shards

#: Options that one data set has.
OF_DATASET = {"crop": "freihand", "with_mask": "freihand", "include_invalid": "dex_ycb"}


def get_args_parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = argparse.ArgumentParser(
        description="Write splits of a data set as shards (WebDataset tars), or check them."
    )
    names = sorted(set(DATASETS) - {"shards"})
    parser.add_argument("--dataset", default="dex_ycb", choices=names)
    parser.add_argument("--data_root", help="the data set's folder")
    parser.add_argument("--split", nargs="+", help="names of splits, e.g. s1_train s1_val")
    parser.add_argument("--output", required=True, help="folder for SPLIT/000000.tar ... and SPLIT/index.json")
    parser.add_argument("--check", action="store_true", help="read all shards in --output again and compare sha256")
    parser.add_argument(
        "--image", default="png", choices=("png", "jpg"), help="png keeps every pixel; jpg is a third as large"
    )
    parser.add_argument("--quality", type=int, default=95, help="of JPEGs")
    parser.add_argument("--shard_size", type=int, default=4096, help="samples a shard")
    parser.add_argument("--order", choices=("shuffled", "official"), help="default: shuffled for training splits")
    parser.add_argument("--rows", help="A:B, write only these of the ordered samples (parts on several disks)")
    parser.add_argument("--side", default="right", choices=("right", "left", "both"))
    parser.add_argument("--crop_size", type=int, default=128, help="px of the crops")
    parser.add_argument("--crop", default="joints", choices=("joints", "image"), help="FreiHAND: what the crops show")
    parser.add_argument("--with_mask", action="store_true", help="FreiHAND: write masks too")
    parser.add_argument("--paper_filter", action="store_true", help="drop samples as the paper's code did (FACTS 1.8)")
    parser.add_argument("--include_invalid", action="store_true", help="DexYCB: keep frames without annotation")
    parser.add_argument("--skip_bad", action="store_true", help="leave unreadable pictures out and count them")
    parser.add_argument("--allow_missing_subjects", action="store_true", help="take a root with only some subjects")
    parser.add_argument("--mano_dir", help="folder of the hand model (default: as in run.py)")
    parser.add_argument("--cache", help="crop cache to read from, if there is one (else it is built)")
    parser.add_argument("--workers", type=int, help="threads (default: one a core)")
    return parser


def write(args: argparse.Namespace, split: str) -> None:
    """Write one split as the options say."""
    kept = {"side": args.side, "crop_size": args.crop_size, "paper_filter": args.paper_filter}
    plain = {"crop": "joints", "with_mask": False, "include_invalid": False}
    for name, default in plain.items():
        if getattr(args, name) != default and OF_DATASET[name] != args.dataset:
            raise ValueError(f"--{name} is for {OF_DATASET[name]}, not for {args.dataset}")
    special = {name: getattr(args, name) for name, dataset in OF_DATASET.items() if dataset == args.dataset}
    opening = {"skip_bad": args.skip_bad, "allow_missing_subjects": args.allow_missing_subjects}
    opening |= {"mano_dir": args.mano_dir, "cache": args.cache, "workers": args.workers}
    data = build_dataset(args.dataset, args.data_root, split, **kept, **special, **opening)
    order = args.order or ("shuffled" if "train" in split else "official")
    rows = tuple(int(part) for part in args.rows.split(":")) if args.rows else None
    options = {**plain, **kept, **special}
    plan = ShardPlan(args.dataset, split, options, args.image, args.quality, args.shard_size, order, rows)
    write_shards(data, plan, Path(args.output) / split, args.workers)


def damaged(folder: Path) -> list[str]:
    """What is wrong with the shards of a split; empty if they are what was written."""
    found = []
    for shard in read_index(folder).shards:
        path = folder / shard.file
        if not path.is_file():
            found.append(f"{path}: missing")
        elif path.stat().st_size != shard.bytes:
            found.append(f"{path}: {path.stat().st_size} bytes instead of {shard.bytes}")
        elif sha256_of(path) != shard.sha256:
            found.append(f"{path}: sha256 differs")
    return found


def main() -> int:
    """Known errors are lines on stderr and exit status 2."""
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    try:
        if args.check:
            splits = args.split or sorted(path.parent.name for path in Path(args.output).glob("*/index.json"))
            wrong = [line for split in splits for line in damaged(Path(args.output) / split)]
            print("\n".join(wrong) or f"{args.output}: {', '.join(splits)} are whole")
            return 2 if wrong or not splits else 0
        if not (args.data_root and args.split):
            raise ValueError("give --data_root and --split (or --check)")
        for split in args.split:
            write(args, split)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
