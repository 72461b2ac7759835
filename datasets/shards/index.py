"""What lies in a folder of shards: ``index.json``, and beside each tar a table of its samples.

A shard is an ordinary tar in WebDataset's format: for every sample ``KEY.jpg`` or ``KEY.png`` (the crop), ``KEY.npy``
(its labels: one record with the keys of `datasets.sample`) and, with masks, ``KEY.mask.png``, one after the other.
The tables say where each sample lies, so that any sample can be read with one call: random order, shares of
processes and resuming need nothing of their own.

    SPLIT/index.json          what was written, counts, sha256; written last
    SPLIT/000000.tar          samples
    SPLIT/000000.samples.npy  `SAMPLE_ROW` of each
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datasets.bad_files import bad_file
from utils.files import atomic_path, write_json

SCHEMA = 1
INDEX_NAME = "index.json"
BLOCK = 512  # bytes: a tar consists of blocks, each member is one of header and then its own
#: One sample: ids, where its first header starts in the tar, how many bytes its members take, what they hold.
SAMPLE_ROW = np.dtype(
    [
        ("image_id", "<i8"),
        ("subject_id", "<i8"),
        ("sequence_id", "<i8"),
        ("is_left", "?"),
        ("valid", "?"),
        ("offset", "<i8"),
        ("length", "<i8"),
        ("crc32", "<u4"),
        ("image_size", "<i8"),
        ("labels_size", "<i8"),
        ("mask_size", "<i8"),  # 0 without
    ]
)
ID_COLUMNS = ("image_id", "subject_id", "sequence_id", "is_left", "valid")


class ShardSettingsError(ValueError):
    """Shards are not what they are asked to be; the message says what they are."""


@dataclass
class Shard:
    """One tar: its file name, number of samples, bytes and sha256."""

    file: str
    count: int
    bytes: int
    sha256: str


@dataclass
class ShardIndex:
    """What ``index.json`` says."""

    dataset: str
    split: str
    count: int
    settings: dict[str, Any]  # options of the data set, and how it was written
    hands: dict[str, dict[str, str]]  # side -> name, hash
    label_hand: dict[str, str]
    labels: list[str]  # keys in a sample's .npy, in its order
    left_out: int  # unreadable pictures (--skip_bad)
    command: str
    shards: list[Shard] = field(default_factory=list)
    schema: int = SCHEMA


def sample_key(split: str, image_id: int) -> str:
    """Name of a sample's members in the tar, without ending."""
    return f"{split}_{image_id:09d}"


def padded(size: int) -> int:
    """Bytes that ``size`` bytes take in a tar."""
    return -(-size // BLOCK) * BLOCK


def table_path(shard: Path) -> Path:
    """The table beside a tar."""
    return shard.with_suffix(".samples.npy")


def write_table(shard: Path, rows: np.ndarray) -> None:
    """Write the table of a shard's samples, `SAMPLE_ROW` (count,)."""
    with atomic_path(table_path(shard)) as temporary:
        np.save(temporary, rows)


def read_table(shard: Path) -> np.ndarray:
    """Read the table of a shard's samples, `SAMPLE_ROW` (count,).

    Raises:
        FileNotFoundError: it is missing.
        BadFileError: it is cut short or of another format.
    """
    path = table_path(shard)
    try:
        rows = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise bad_file(path, f"unreadable table of samples ({error})") from error
    if rows.dtype != SAMPLE_ROW:
        raise bad_file(path, "not a table of samples of this version")
    return rows


def write_index(folder: Path, index: ShardIndex) -> None:
    """Write ``index.json``."""
    write_json(folder / INDEX_NAME, dataclasses.asdict(index))


def read_index(folder: Path) -> ShardIndex:
    """Read ``index.json``.

    Raises:
        FileNotFoundError: there is none; names the splits that are there.
        BadFileError: it is damaged, or of another version.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        there = [found.parent.name for found in sorted(folder.parent.glob(f"*/{INDEX_NAME}"))] or ["none"]
        raise FileNotFoundError(
            f"{path} is missing: no finished shards of split {folder.name} there (of others: {', '.join(there)}); "
            "write them, or let an interrupted writing finish, with python -m datasets.write_shards"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        index = ShardIndex(**{**content, "shards": [Shard(**shard) for shard in content["shards"]]})
    except (ValueError, TypeError, KeyError) as error:
        raise bad_file(path, f"not an index of shards ({error})") from error
    if index.schema != SCHEMA:
        raise bad_file(path, f"schema {index.schema} instead of {SCHEMA}: written by another version")
    return index


def has_shards(root: str | Path) -> bool:
    """Whether ``root`` (one folder, or several with ':' between) holds shards of any split."""
    return any(any(folder.glob(f"*/{INDEX_NAME}")) for folder in split_folders(root, ""))


def split_folders(root: str | Path, split: str) -> list[Path]:
    """Folders of a split: shards may be spread over disks, ``root`` then lists folders with ':' between."""
    return [Path(part) / split for part in str(root).split(":") if part]


def dataset_of(root: str | Path) -> str:
    """Name of the data set whose shards ``root`` holds.

    Raises:
        FileNotFoundError: it holds none.
    """
    for folder in split_folders(root, ""):
        for path in sorted(folder.glob(f"*/{INDEX_NAME}")):
            return read_index(path.parent).dataset
    raise FileNotFoundError(
        f"{root}: no shards there (SPLIT/{INDEX_NAME}); write them with python -m datasets.write_shards"
    )


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
