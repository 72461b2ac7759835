"""Writes shards (`datasets.shards.index`) from any data set of this repository; goes on where it was stopped."""

from __future__ import annotations

import io
import json
import logging
import sys
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from datasets.shards.files import encode_image, encode_labels
from datasets.shards.index import (
    ID_COLUMNS,
    INDEX_NAME,
    SAMPLE_ROW,
    Shard,
    ShardIndex,
    ShardSettingsError,
    read_table,
    sample_key,
    sha256_of,
    table_path,
    write_index,
    write_table,
)
from datasets.usable_cores import usable_cores
from utils.files import atomic_path, write_json

logger = logging.getLogger(__name__)

#: What an unfinished folder is for; removed when its index is written.
_PLAN_NAME = "unfinished.json"
_NOT_LABELS = ("image", "mask", "vertices")
_ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class ShardPlan:
    """How to write a data set's split.

    Attributes:
        dataset, split: names.
        options: what the data set was opened with, kept in the index.
        image: "png" (exact) or "jpg".
        quality: of JPEGs, 1 to 100.
        shard_size: samples a shard.
        order: "shuffled" (so that neighbours in a shard are not neighbours in a video) or "official".
        rows: first and last+1 sample to write, in that order; for parts on several disks.
    """

    dataset: str
    split: str
    options: dict[str, Any]
    image: str = "png"
    quality: int = 95
    shard_size: int = 4096
    order: str = "shuffled"
    rows: tuple[int, int] | None = None

    def settings(self) -> dict[str, Any]:
        """As they are kept in the index."""
        how = {"image": self.image, "quality": self.quality if self.image == "jpg" else None, "order": self.order}
        return {**self.options, **how, "shard_size": self.shard_size, "rows": self.rows and list(self.rows)}

    def chosen(self, count: int) -> np.ndarray:
        """Indices of the samples to write, in order."""
        order = np.random.default_rng(0).permutation(count) if self.order == "shuffled" else np.arange(count)
        return order if self.rows is None else order[slice(*self.rows)]


def write_shards(data: Dataset, plan: ShardPlan, folder: Path, workers: int | None = None) -> ShardIndex:
    """Write a split. Stopped at any moment, the same call goes on after the last finished shard.

    Args:
        data: of `datasets.build_dataset`, opened as ``plan`` says, without vertices. Unreadable pictures that it
            skips are left out and counted.
        plan: what to write.
        folder: of the split.
        workers: threads; None: one a core.

    Raises:
        ShardSettingsError: the folder holds other shards, finished or not.
        BadFileError: a picture is unusable.
        OSError: the disk is full; what was written stays.
    """
    chosen = plan.chosen(len(data))
    if len(chosen) == 0:
        raise ShardSettingsError(f"--rows {plan.rows} of {len(data)} samples leaves nothing to write")
    _begin(folder, plan)
    shards, starts = [], range(0, len(chosen), plan.shard_size)
    with (
        tqdm(total=len(chosen), desc=f"shards of {plan.split}", unit="image", disable=None) as bar,
        ThreadPoolExecutor(workers or usable_cores()) as pool,
    ):
        for number, start in enumerate(starts):
            path, rows = folder / f"{number:06d}.tar", chosen[start : start + plan.shard_size]
            if not (path.is_file() and table_path(path).is_file()):
                _write_shard(data, plan, path, rows, pool)
            size, digest = path.stat().st_size, sha256_of(path)
            shards.append(Shard(path.name, len(read_table(path)), size, digest))
            bar.update(len(rows))
    labels = [key for key in data[int(chosen[0])] if key not in _NOT_LABELS]
    count = sum(shard.count for shard in shards)
    hands = {side: {"name": hand.name, "hash": hand.hash} for side, hand in data.assets.items()}
    index = ShardIndex(
        dataset=plan.dataset,
        split=plan.split,
        count=count,
        settings=plan.settings(),
        hands=hands,
        label_hand=dict(data.label_hand),
        labels=labels,
        left_out=len(chosen) - count,
        command=" ".join(sys.argv),
        shards=shards,
    )
    write_index(folder, index)
    (folder / _PLAN_NAME).unlink()
    logger.info("%s: %d samples in %d shards, %d left out", folder, count, len(shards), index.left_out)
    return index


def _begin(folder: Path, plan: ShardPlan) -> None:
    """Refuse a folder of other shards; note what this one is for."""
    if (folder / INDEX_NAME).is_file():
        raise ShardSettingsError(
            f"{folder / INDEX_NAME}: these shards are finished; delete the folder to write it again"
        )
    for leftover in folder.glob(".*.tmp.*"):  # of a writer that was killed
        leftover.unlink()
    path, settings = folder / _PLAN_NAME, json.loads(json.dumps({"dataset": plan.dataset, **plan.settings()}))
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != settings:
            raise ShardSettingsError(
                f"{path}: shards of other settings were begun here; finish those with the same options, "
                "or delete the folder"
            )
        return
    write_json(path, settings)


def _write_shard(data: Dataset, plan: ShardPlan, path: Path, rows: np.ndarray, pool: ThreadPoolExecutor) -> None:
    """One tar and its table; the table last, so that a tar without one is written again."""
    table = []
    with (
        atomic_path(path) as temporary,
        open(temporary, "wb") as handle,
        tarfile.open(fileobj=handle, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for ids, members in _encoded(data, plan, rows, pool):
            table.append(_add(tar, handle, sample_key(plan.split, ids["image_id"]), ids, members))
    write_table(path, np.array(table, dtype=SAMPLE_ROW))


def _add(
    tar: tarfile.TarFile, handle: BinaryIO, key: str, ids: dict[str, Any], members: dict[str, bytes]
) -> tuple[Any, ...]:
    """Append a sample; its row of the table."""
    start, checksum = handle.tell(), 0
    for ending, content in members.items():
        info = tarfile.TarInfo(f"{key}.{ending}")
        info.size = len(content)
        begin = handle.tell()
        tar.addfile(info, io.BytesIO(content))
        header = info.tobuf(tarfile.USTAR_FORMAT)
        padding = bytes(handle.tell() - begin - len(header) - len(content))
        checksum = zlib.crc32(header + content + padding, checksum)
    sizes = [len(content) for content in members.values()]
    mask_size = sizes[2] if len(sizes) > 2 else 0
    return (*ids.values(), start, handle.tell() - start, checksum, sizes[0], sizes[1], mask_size)


def _encoded(
    data: Dataset, plan: ShardPlan, rows: np.ndarray, pool: ThreadPoolExecutor
) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
    """Ids and encoded members of the samples that are readable, in order."""
    parts = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
    for encoded in pool.map(lambda part: _encode(data, plan, part), parts):
        yield from encoded


def _encode(data: Dataset, plan: ShardPlan, rows: np.ndarray) -> list[tuple[dict[str, Any], dict[str, bytes]]]:
    batch = data.gather(rows)
    lost = np.isin(batch["image_id"], list(data.bad_images))
    names = [key for key in batch if key not in _NOT_LABELS]
    records = np.empty(len(rows), [(name, batch[name].dtype, batch[name].shape[1:]) for name in names])
    for name in names:
        records[name] = batch[name]
    samples = []
    for number in np.flatnonzero(~lost):
        members = {
            plan.image: encode_image(batch["image"][number], plan.image, plan.quality),
            "npy": encode_labels(records[number]),
        }
        if "mask" in batch:
            members["mask.png"] = encode_image(batch["mask"][number], "png")
        ids = {name: batch[name][number] for name in ID_COLUMNS}
        samples.append((ids, members))
    return samples
