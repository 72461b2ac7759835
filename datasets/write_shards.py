"""``python -m datasets.write_shards``: a data set's splits as WebDataset tars; with ``--check``: are they whole?

Training reads them in place of the data set: ``run.py --dataset dex_ycb --data_root SHARDS``, or
``--dataset shards``, which takes the data set's name from the shards. Stopped at any moment, the same command goes on
after the last finished shard.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import sys
import tarfile
import zlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from datasets import DATASETS, build_dataset
from datasets.crop_cache import usable_cores
from datasets.crop_dataset import ColumnDataset
from datasets.shards.dataset import (
    INDEX_NAME,
    PLACE,
    SCHEMA,
    ShardSettingsError,
    read_index,
    read_table,
    sample_key,
    sha256_of,
)
from options.command_line import CommandParser, numbers_between, run_command
from utils.files import atomic_path, write_json

logger = logging.getLogger(__name__)

#: Options that one data set has, and what they are elsewhere.
OF_DATASET = {"crop": ("freihand", "joints"), "with_mask": ("freihand", False), "include_invalid": ("dex_ycb", False)}
#: What an unfinished folder is for; removed when its index is written.
_PLAN_NAME = "unfinished.json"
_SAMPLES_AT_ONCE = 32
#: Columns that are read and not computed: the same on every machine that writes a part.
_READ_COLUMNS = ("K", "betas", "image_id", "subject_id")


def get_args_parser() -> argparse.ArgumentParser:
    about = "Write splits of a data set as shards (WebDataset tars), or check them."
    parser = CommandParser(about)
    parser.add_argument("--dataset", default="dex_ycb", choices=sorted(set(DATASETS) - {"shards"}))
    parser.add_argument("--data_root", help="the data set's folder")
    parser.add_argument("--split", nargs="+", help="names of splits, e.g. s1_train s1_val")
    parser.add_argument("--output", required=True, help="folder for SPLIT/000000.tar ... and SPLIT/index.json")
    parser.add_argument("--check", action="store_true", help="read all shards in --output again and compare sha256")
    parser.add_argument(
        "--image", default="png", choices=("png", "jpg"), help="png keeps every pixel; jpg is a third as large"
    )
    parser.add_argument("--quality", type=int, help="of JPEGs (default: 95)")
    parser.add_argument("--shard_size", type=int, default=4096, help="samples a shard")
    parser.add_argument("--order", choices=("shuffled", "official"), help="default: shuffled for training splits")
    parser.add_argument(
        "--rows",
        type=numbers_between(":", 2),
        help="A:B, write only these of the ordered samples (parts on several disks)",
    )
    parser.add_argument("--side", default="right", choices=("right", "left", "both"))
    parser.add_argument("--crop_size", type=int, default=128, help="px of the crops")
    parser.add_argument("--crop", default="joints", choices=("joints", "image"), help="FreiHAND: what the crops show")
    parser.add_argument("--with_mask", action="store_true", help="FreiHAND: write masks too")
    parser.add_argument("--paper_filter", action="store_true", help="drop samples as the paper's code did")
    parser.add_argument("--include_invalid", action="store_true", help="DexYCB: keep frames without annotation")
    parser.add_argument("--skip_bad", action="store_true", help="leave unreadable pictures out and count them")
    parser.add_argument("--allow_missing_subjects", action="store_true", help="take a root with only some subjects")
    parser.add_argument("--mano_dir", help="folder of the hand model (default: as in run.py)")
    parser.add_argument("--cache", help="crop cache to read from, if there is one (else it is built)")
    parser.add_argument("--workers", type=int, help="threads (default: one a core)")
    return parser


def write(args: argparse.Namespace, split: str) -> None:
    """Write one split as the options say.

    Raises:
        ShardSettingsError: the folder holds other shards, finished or not; negative rows; or nothing is to be written.
        BadFileError: a picture is unusable (unless ``skip_bad``, which leaves it out and counts it).
        OSError: the disk is full; what was written stays.
    """
    options = {"side": args.side, "crop_size": args.crop_size, "paper_filter": args.paper_filter}
    special = {}
    for name, (dataset, default) in OF_DATASET.items():
        if dataset == args.dataset:
            special[name] = getattr(args, name)
        elif getattr(args, name) != default:
            raise ValueError(f"--{name} is for {dataset}, not for {args.dataset}")
    if args.allow_missing_subjects and args.dataset != "dex_ycb":
        raise ValueError(f"--allow_missing_subjects is for dex_ycb, not for {args.dataset}")
    if args.quality is not None and (args.image != "jpg" or not 1 <= args.quality <= 100):
        raise ValueError(f"--quality {args.quality} is for --image jpg, from 1 to 100")
    quality = (args.quality or 95) if args.image == "jpg" else None
    as_given = ("skip_bad", "allow_missing_subjects", "mano_dir", "cache", "workers")
    opening = {name: getattr(args, name) for name in as_given}
    data = build_dataset(args.dataset, args.data_root, split, **options, **special, **opening)
    order = args.order or ("shuffled" if "train" in split else "official")
    rows = args.rows
    if rows is not None and min(rows) < 0:
        raise ShardSettingsError(f"--rows {rows[0]}:{rows[1]}: rows are counted from 0, not from the end")
    settings = {name: default for name, (_, default) in OF_DATASET.items()} | options | special | {
        "image": args.image, "quality": quality, "order": order,
        "shard_size": args.shard_size, "rows": rows,
    }  # fmt: skip
    chosen = np.random.default_rng(0).permutation(len(data)) if order == "shuffled" else np.arange(len(data))
    chosen = chosen if rows is None else chosen[slice(*rows)]
    if len(chosen) == 0:
        raise ShardSettingsError(f"--rows {rows[0]}:{rows[1]} of {len(data)} samples leaves nothing to write")
    folder = Path(args.output) / split
    hands = {side: {"name": hand.name, "hash": hand.hash} for side, hand in data.assets.items()}
    labels = _digest(data, data.columns.keys() - {"valid"})  # which says whether a picture could be read, as of now
    source = {"dataset": args.dataset, "labels": labels, "hands": hands, "skip_bad": args.skip_bad}
    _begin(folder, source | settings)
    shards = []
    with (
        tqdm(total=len(chosen), desc=f"shards of {split}", unit="image", disable=None) as bar,
        ThreadPoolExecutor(args.workers or usable_cores()) as pool,
    ):
        for number, start in enumerate(range(0, len(chosen), args.shard_size)):
            path, part = folder / f"{number:06d}.tar", chosen[start : start + args.shard_size]
            if not (path.is_file() and path.with_suffix(".npy").is_file()):
                _write_shard(data, path, part, settings, pool)
            shards.append({
                "file": path.name, "count": len(read_table(path)), "bytes": path.stat().st_size,
                "sha256": sha256_of(path), "table_sha256": sha256_of(path.with_suffix(".npy")),
            })  # fmt: skip
            bar.update(len(part))
    count = sum(shard["count"] for shard in shards)
    write_json(folder / INDEX_NAME, {
        "schema": SCHEMA, "dataset": args.dataset, "split": split, "count": count, "settings": settings, "hands": hands,
        "label_hand": dict(data.label_hand), "left_out": len(chosen) - count, "command": " ".join(sys.argv),
        "shards": shards, "labels": _digest(data, _READ_COLUMNS), "of": len(data),
    })  # fmt: skip
    (folder / _PLAN_NAME).unlink()
    logger.info("%s: %d samples in %d shards, %d left out", folder, count, len(shards), len(chosen) - count)


def _digest(data: ColumnDataset, names: Collection[str]) -> str:
    """Of those columns of all samples."""
    labels = hashlib.blake2b(digest_size=8)
    for name in sorted(names):
        labels.update(name.encode() + data.columns[name].tobytes())
    return labels.hexdigest()


def _begin(folder: Path, plan: dict[str, Any]) -> None:
    """Refuse a folder of other shards; note what this one is for."""
    if (folder / INDEX_NAME).is_file():
        raise ShardSettingsError(f"{folder}: these shards are finished; delete the folder to write them again")
    for leftover in folder.glob(".*.tmp.*"):  # of a writer that was killed
        leftover.unlink()
    path = folder / _PLAN_NAME
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != plan:
        raise ShardSettingsError(
            f"{path}: shards of other settings or labels were begun here; finish those with the same options, or "
            "delete it all"
        )
    write_json(path, plan)


def _write_shard(
    data: ColumnDataset, path: Path, rows: np.ndarray, settings: dict[str, Any], pool: ThreadPoolExecutor
) -> None:
    """One tar and its table; the table last, so that a tar without one is written again."""
    table: list[np.void] = []
    parts = [rows[start : start + _SAMPLES_AT_ONCE] for start in range(0, len(rows), _SAMPLES_AT_ONCE)]
    with (
        atomic_path(path) as temporary,
        tarfile.open(temporary, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for encoded in pool.map(lambda part: _encode(data, part, settings), parts):
            for labels, members in encoded:
                key, places = sample_key(data.split, labels["image_id"]), {}
                for ending, content in members.items():
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(content)
                    places[ending] = tar.offset + tarfile.BLOCKSIZE  # behind the member's header
                    tar.addfile(info, io.BytesIO(content))
                image, mask = settings["image"], "mask.png"
                row = np.zeros((), labels.dtype.descr + PLACE)
                for name in labels.dtype.names:
                    row[name] = labels[name]
                row["crc32"] = zlib.crc32(members[image])
                row["offset"], row["size"] = places[image], len(members[image])
                if mask in members:
                    row["mask_offset"], row["mask_size"] = places[mask], len(members[mask])
                table.append(row[()])
    with atomic_path(path.with_suffix(".npy")) as temporary:
        np.save(temporary, np.array(table))


def _encode(
    data: ColumnDataset, rows: np.ndarray, settings: dict[str, Any]
) -> list[tuple[np.ndarray, dict[str, bytes]]]:
    """Labels (structured, shape ()) and encoded members of the samples that are readable, in order."""
    batch = data.gather(rows)
    lost = np.isin(batch["image_id"], list(data.bad_images))
    images, masks = batch.pop("image"), batch.pop("mask", None)
    labels = np.empty(len(rows), [(name, value.dtype, value.shape[1:]) for name, value in batch.items()])
    for name, value in batch.items():
        labels[name] = value
    samples, kind = [], settings["image"]
    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    how = [cv2.IMWRITE_JPEG_QUALITY, settings["quality"], *sampling] if kind == "jpg" else []
    for number in np.flatnonzero(~lost):
        handle = io.BytesIO()
        np.save(handle, labels[number])
        image = cv2.imencode(f".{kind}", np.ascontiguousarray(images[number][..., ::-1]), how)[1]
        members = {kind: image.tobytes(), "npy": handle.getvalue()}
        if masks is not None:
            members["mask.png"] = cv2.imencode(".png", masks[number])[1].tobytes()
        samples.append((labels[number], members))
    return samples


def damaged(folder: Path) -> list[str]:
    """What is wrong with the shards of a split; empty if they are what was written."""
    wrong = []
    for shard in read_index(folder)["shards"]:
        path = folder / shard["file"]
        for file, digest in ((path, shard["sha256"]), (path.with_suffix(".npy"), shard["table_sha256"])):
            if not file.is_file():
                wrong.append(f"{file}: missing")
            elif sha256_of(file) != digest:
                wrong.append(f"{file}: sha256 differs ({file.stat().st_size} bytes)")
    return wrong


def run(args: argparse.Namespace) -> int:
    """Write or check; 2 if a check found damage."""
    if args.check:
        splits = args.split or sorted(path.parent.name for path in Path(args.output).glob(f"*/{INDEX_NAME}"))
        wrong = [line for split in splits for line in damaged(Path(args.output) / split)]
        if not splits:
            raise FileNotFoundError(f"{args.output}: no finished shards there (SPLIT/{INDEX_NAME})")
        print("\n".join(wrong) or f"{args.output}: {', '.join(splits)} are whole")
        return 2 if wrong else 0
    if not (args.data_root and args.split):
        raise ValueError("give --data_root and --split (or --check)")
    for split in args.split:
        write(args, split)
    return 0


def main() -> int:
    """Known errors are lines on stderr and exit status 2."""
    return run_command(get_args_parser(), run)


if __name__ == "__main__":
    sys.exit(main())
