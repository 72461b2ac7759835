"""What lies in a folder of shards.

    SPLIT/index.json   what was written, of `INDEX_KEYS`: settings, hands, counts, sha256; written last
    SPLIT/000000.tar   samples in WebDataset's format: KEY.png or KEY.jpg (the crop), KEY.npy (its labels: one record
                       with the keys of `datasets.sample`) and, with masks, KEY.mask.png
    SPLIT/000000.npy   the labels of all its samples again, and where the pictures lie in the tar (`PLACE`)

Why not WebDataset's own reader: it streams (release 1.0 has no random access any more), and exact resuming, equal
shares of ranks and any shuffled order need a sample by its number. Any WebDataset reader can read the tars, though.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from datasets.bad_files import bad_file, read_json, reading

SCHEMA = 2
INDEX_NAME = "index.json"
#: ``shards`` are dicts of file, count, bytes, sha256 and table_sha256; ``left_out`` counts unreadable pictures.
INDEX_KEYS = {"schema", "dataset", "split", "count", "settings", "hands", "label_hand", "left_out", "command", "shards"}
#: Behind the labels in a row of a table: where a picture's bytes start in the tar, and how many; mask_size 0: none.
PLACE = [("offset", "<i8"), ("size", "<i8"), ("crc32", "<u4"), ("mask_offset", "<i8"), ("mask_size", "<i8")]
PLACE_NAMES = [name for name, _ in PLACE]


class ShardSettingsError(ValueError):
    """Shards are not what they are asked to be; the message says what they are."""


def sample_key(split: str, image_id: int) -> str:
    """Name of a sample's members in the tar, without ending."""
    return f"{split}_{image_id:09d}"


def read_table(tar: Path, sha256: str | None = None) -> np.ndarray:
    """The table beside a tar, (count,): labels and `PLACE`. FileNotFoundError or BadFileError if it is not whole."""
    path = tar.with_suffix(".npy")
    with reading(path, "a table of samples", can_skip=False):
        rows = np.load(path, allow_pickle=False)
        if list(rows.dtype.names[-len(PLACE) :]) != PLACE_NAMES:
            raise ValueError("of another version")
    if sha256 not in (None, sha256_of(path)):
        raise bad_file(path, "is not what was written (its sha256 differs)", can_skip=False)
    return rows


def read_index(folder: Path) -> dict[str, Any]:
    """Read ``index.json``.

    Raises:
        FileNotFoundError: there is none; names the splits that are there.
        BadFileError: it is damaged, or of another version.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        there = [other.parent.name for other in sorted(folder.parent.glob(f"*/{INDEX_NAME}"))] or ["none"]
        raise FileNotFoundError(
            f"{path} is missing: no finished shards of split {folder.name} there (of others: {', '.join(there)}); "
            "write them, or let an interrupted writing finish, with python -m datasets.write_shards"
        )
    with reading(path, "an index of shards", can_skip=False):
        content = read_json(path, can_skip=False)
        if content["schema"] != SCHEMA or set(content) != INDEX_KEYS:
            raise ValueError(f"schema {content['schema']} instead of {SCHEMA}: of another version, write them again")
        return content


def split_folders(root: str | Path, split: str) -> list[Path]:
    """Folders of a split: shards may be spread over disks, ``root`` then lists folders with ':' between."""
    return [Path(part) / split for part in str(root).split(":") if part]


def has_shards(root: str | Path) -> bool:
    """Whether ``root`` (one folder, or several with ':' between) holds shards of any split."""
    return any(any(folder.glob(f"*/{INDEX_NAME}")) for folder in split_folders(root, ""))


def dataset_of(root: str | Path) -> str:
    """Name of the data set whose shards ``root`` holds; FileNotFoundError if it holds none."""
    for folder in split_folders(root, ""):
        for path in sorted(folder.glob(f"*/{INDEX_NAME}")):
            return read_index(path.parent)["dataset"]
    raise FileNotFoundError(
        f"{root}: no shards there (SPLIT/{INDEX_NAME}); write them with python -m datasets.write_shards"
    )


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
