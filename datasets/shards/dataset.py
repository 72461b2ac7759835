"""Samples read from shards, the same as from the data set that they were written from (`datasets.write_shards`).

    SPLIT/index.json   what was written, of `INDEX_KEYS`: settings, hands, counts, sha256; written last
    SPLIT/000000.tar   samples in WebDataset's format: KEY.png or KEY.jpg (the crop), KEY.npy (its labels: one record
                       with the keys of `datasets.sample`) and, with masks, KEY.mask.png
    SPLIT/000000.npy   the labels of all its samples again, and where the pictures lie in the tar (`PLACE`)

A shard is random access, so order, shares of ranks and workers, and resuming are those of `datasets.loading`, with one
difference: shuffled order visits shard after shard and mixes samples within a window, so that disks and networks read
mostly forwards (`Shards.shuffled`). Why not WebDataset's own reader: it streams (release 1.0 has no random access any
more), and exact resuming, equal shares of ranks and any shuffled order need a sample by its number. Any WebDataset
reader can read the tars, though.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from datasets import INDEX_NAME, split_folders
from datasets.bad_files import BadFileError, bad_file, read_json, reading
from datasets.crop_dataset import ColumnDataset, DatasetOptions
from template import load_hand_assets

logger = logging.getLogger(__name__)

SCHEMA = 2
#: ``shards`` are dicts of file, count, bytes, sha256 and table_sha256; ``left_out`` counts unreadable pictures.
INDEX_KEYS = {"schema", "dataset", "split", "count", "settings", "hands", "label_hand", "left_out", "command", "shards"}
#: Of all the samples that ``rows`` were chosen from: digest of what was read, and their count. Older ones lack these.
WHOLE_KEYS = ("labels", "of")
#: Behind the labels in a row of a table: where a picture's bytes start in the tar, and how many; mask_size 0: none.
PLACE = [("offset", "<i8"), ("size", "<i8"), ("crc32", "<u4"), ("mask_offset", "<i8"), ("mask_size", "<i8")]
PLACE_NAMES = [name for name, _ in PLACE]

#: Samples among which a shuffled order mixes: with 128 px PNGs some 300 MB of the disk's pages.
SHUFFLE_WINDOW = 16384
#: Options that decide what is in shards.
_WRITTEN = ("crop_size", "crop", "versions", "paper_filter", "include_invalid", "with_mask")
SIDES = {"right": (False,), "left": (True,), "both": (False, True)}


class ShardSettingsError(ValueError):
    """Shards are not what they are asked to be; the message says what they are."""


class Shards(ColumnDataset):
    """Samples (`datasets.sample`) of one split, from shards that ``python -m datasets.write_shards`` wrote.

    Attributes:
        index: what ``index.json`` says; of the first folder, if there are several.
    """

    def __init__(
        self, root: str | Path, split: str, *, dataset: str | None = None, window: int = SHUFFLE_WINDOW, **options: Any
    ) -> None:
        """Open a split.

        Args:
            root: folder with ``SPLIT/index.json``; several (shards over several disks) with ':' between.
            split: name of the split that was written.
            dataset: name of the data set that must have been written; None: any.
            window: samples among which a shuffled order mixes.
            options: of `datasets.crop_dataset.DatasetOptions`. What the shards hold (`_WRITTEN`) must be as written,
                where given; ``side`` None: those written. Subjects that are missing, the cache and workers mean nothing
                here.

        Raises:
            FileNotFoundError: naming the missing index, table or shard.
            BadFileError: naming a shard that is cut short, and its first sample that is lost (unless ``skip_bad``).
            ShardSettingsError: the shards hold other crops, other hands or another hand model, parts of different data
                sets, or the same samples twice; says which.
        """
        folders = split_folders(root, split)
        indices = [read_index(folder) for folder in folders]
        self.index = index = indices[0]
        # Parts of one data set differ in nothing but the rows they hold.
        noted = {name: each[name] for each in indices for name in WHOLE_KEYS if name in each}
        names = ("dataset", "settings", "hands", *WHOLE_KEYS)
        kinds = [{name: (noted | each).get(name) for name in names} for each in indices]
        for folder, kind in zip(folders, kinds, strict=True):
            kind["settings"] = kind["settings"] | {"rows": None}
            differ = ", ".join(name for name in kind if kind[name] != kinds[0][name])
            if differ:
                raise ShardSettingsError(
                    f"{folder}: shards of another kind than in the first folder ({differ} differ); give parts of one "
                    "data set that were written with the same options"
                )
        settings, self.label_hand = index["settings"], index["label_hand"]
        if dataset not in (None, index["dataset"]):
            raise ShardSettingsError(f"{root}: these are shards of {index['dataset']}, not of {dataset}")
        for name in _WRITTEN:
            value = options.get(name)
            if value not in (None, False, settings.get(name)):
                raise ShardSettingsError(
                    f"{root}: these shards were written with --{name} {settings.get(name)}, not {value}; "
                    "ask for that, or write them again"
                )
        side = options.pop("side", DatasetOptions.side) or settings["side"]
        chosen = DatasetOptions(**options | {"crop_size": settings["crop_size"], "side": side})
        if side not in SIDES:
            raise ShardSettingsError(f"side is {side!r}; choose one of {', '.join(SIDES)}")
        if side == "both" and settings["side"] != "both":
            raise ShardSettingsError(
                f"{root}: these shards were written with --side {settings['side']}, not both; ask for that, or write "
                "them again"
            )
        _tell_what_is_missing(root, indices)
        if chosen.cache is not None:
            logger.info("shards hold crops already: no crop cache is made in %s", chosen.cache)
        assets = {name: load_hand_assets(chosen.mano_dir, name) for name in index["hands"]}
        for name, hand in assets.items():
            made = index["hands"][name]
            if made["hash"] != hand.hash:
                raise ShardSettingsError(
                    f"{root}: these shards were made with the {name} {made['name']} hand {made['hash']}; in use is "
                    f"{hand.name} {hand.hash}: give its folder with --mano_dir, or write the shards again"
                )
        shards = [(folder / shard["file"], shard) for folder, part in zip(folders, indices, strict=True)
                  for shard in part["shards"]]  # fmt: skip
        tables = [read_table(path, shard["table_sha256"]) for path, shard in shards]
        rows, self._paths = np.concatenate(tables), [path for path, _ in shards]
        ids, times = np.unique(rows["image_id"], return_counts=True)
        if (times > 1).any():
            raise ShardSettingsError(
                f"{root}: {(times > 1).sum()} samples are there more than once, the first with image_id "
                f"{ids[times > 1][0]}; give each part once, written of --rows that do not overlap"
            )
        keep = np.isin(rows["is_left"], SIDES[side])
        if not keep.any():
            raise ShardSettingsError(
                f"{root}: these shards hold no {side} hand of split {split}; they were written with "
                f"--side {settings['side']}"
            )
        rows = rows[keep]
        self._shard = np.repeat(np.arange(len(tables)), [len(table) for table in tables])[keep]
        self._place, self._window = rows[PLACE_NAMES].copy(), window
        columns = {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names if name not in PLACE_NAMES}
        super().__init__(root, split, columns, assets, chosen)
        for number, (_, shard) in enumerate(shards):
            self._check_length(number, shard["bytes"])

    def shuffled(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``indices`` (N,), each once, shard after shard in random order, then mixed within the window.

        At any time some shards are read from, as many as the window spans, instead of all of them.
        """
        if len(indices) <= self._window:
            return rng.permutation(indices)
        place = rng.permutation(len(self._paths))[self._shard[indices]]
        by_shard = indices[np.lexsort((rng.random(len(indices)), place))]
        return by_shard[np.argsort(np.arange(len(indices)) + rng.uniform(0, self._window, len(indices)))]

    def full_image(self, index: int) -> np.ndarray:
        """Not here.

        Raises:
            ShardSettingsError: shards hold crops.
        """
        raise ShardSettingsError(f"{self.root}: shards hold crops, not whole pictures; give the data set's own folder")

    def _make_picture(self, index: int) -> np.ndarray:
        image = self._decoded(index, "offset", "size", self._place["crc32"][index])
        if not self.with_mask:
            return image
        return np.dstack([image, self._decoded(index, "mask_offset", "mask_size")])

    def _decoded(self, index: int, offset: str, size: str, checksum: int | None = None) -> np.ndarray:
        path, place = self._paths[self._shard[index]], self._place[index]
        data = os.pread(_opened(path).fileno(), int(place[size]), int(place[offset]))
        if len(data) < place[size]:
            raise self._cut_short(index)
        if checksum is not None and zlib.crc32(data) != checksum:
            raise bad_file(path, f"sample {self._name(index)} is not what was written (its checksum differs)")
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.shape[:2] != (self.crop_size, self.crop_size):
            raise bad_file(path, f"a picture of sample {self._name(index)} is not one of {self.crop_size} px")
        return pixels if pixels.ndim == 2 else pixels[..., ::-1]

    def _name(self, index: int) -> str:
        number = self.columns["image_id"][index]
        return f"{sample_key(self.split, number)} (image {number})"

    def _cut_short(self, index: int) -> BadFileError:
        path = self._paths[self._shard[index]]
        return bad_file(path, f"cut short: it ends at byte {path.stat().st_size}, before sample {self._name(index)}")

    def _check_length(self, shard: int, expected: int) -> None:
        path = self._paths[shard]
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, but index.json lists it: the shards are half copied")
        size, rows = path.stat().st_size, np.flatnonzero(self._shard == shard)
        lost = rows[self._place["offset"][rows] + self._place["size"][rows] > size]
        if size >= expected or len(lost) == 0:
            return
        error = self._cut_short(int(lost[0]))
        if not self.skip_bad:
            raise error
        self.bad_images.update(self.columns["image_id"][lost].tolist())
        self.columns["valid"][lost] = False
        logger.warning("skipped %d samples: %s", len(lost), error)


def _tell_what_is_missing(root: str | Path, indices: list[dict[str, Any]]) -> None:
    """Warn of samples of the split that are not in these shards."""
    left_out = sum(part["left_out"] for part in indices)
    if left_out:
        logger.warning("%s: %d samples, whose pictures could not be read, are not in these shards", root, left_out)
    if indices[0]["settings"]["paper_filter"]:
        logger.warning("%s: these shards were written with --paper_filter; the other samples are not there", root)
    parts = sorted((part["settings"]["rows"] or [0, None] for part in indices), key=lambda rows: rows[0])
    whole = [[part["of"], None] for part in indices[:1] if "of" in part]
    for (_, end), (start, _) in itertools.pairwise([[0, 0], *parts, *whole]):
        if end is not None and start > end:
            logger.warning("%s: rows %d to %d of the split are in none of these parts", root, end, start)


@functools.lru_cache(maxsize=64)
def _opened(path: Path) -> BinaryIO:
    """A shard's file, read with positions of their own, so that threads and forked loader processes may share it."""
    return open(path, "rb", buffering=0)


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
        if content["schema"] != SCHEMA or set(content).difference(WHOLE_KEYS) != INDEX_KEYS:
            raise ValueError(f"schema {content['schema']} instead of {SCHEMA}: of another version, write them again")
        return content


def dataset_of(root: str | Path) -> str:
    """Name of the data set whose shards ``root`` holds; FileNotFoundError if it holds none."""
    for folder in split_folders(root, ""):
        for path in sorted(folder.glob(f"*/{INDEX_NAME}")):
            return read_index(path.parent)["dataset"]
    raise FileNotFoundError(
        f"{root}: no shards there (SPLIT/{INDEX_NAME}); write them with python -m datasets.write_shards"
    )


def sha256_of(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
