"""Samples read from shards (`datasets.shards.index`), the same as from the data set that they were written from.

A shard is random access: its table holds the labels and says where each picture lies. So order, shares of ranks and
workers, and resuming are those of `datasets.loading`, with one difference: shuffled order visits shard after shard and
mixes samples within a window, so that disks and networks read mostly forwards (`Shards.shuffled`).
"""

from __future__ import annotations

import functools
import logging
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from datasets.bad_files import BadFileError, bad_file
from datasets.crop_dataset import ColumnDataset
from datasets.shards.index import PLACE_NAMES, ShardSettingsError, read_index, read_table, sample_key, split_folders
from template import load_hand_assets

logger = logging.getLogger(__name__)

#: Samples among which a shuffled order mixes: with 128 px PNGs some 300 MB of the disk's pages.
SHUFFLE_WINDOW = 16384
SIDES = {"right": (False,), "left": (True,), "both": (False, True)}


class Shards(ColumnDataset):
    """Samples (`datasets.sample`) of one split, from shards that ``python -m datasets.write_shards`` wrote.

    Attributes:
        index: what ``index.json`` says; of the first folder, if there are several.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        dataset: str | None = None,
        side: str = "right",
        with_vertices: bool = False,
        with_mask: bool = False,
        skip_bad: bool = False,
        allow_missing_subjects: bool = False,
        mano_dir: str | Path | None = None,
        cache: str | Path | None = None,
        workers: int | None = None,
        window: int = SHUFFLE_WINDOW,
        **written: Any,
    ) -> None:
        """Open a split.

        Args:
            root: folder with ``SPLIT/index.json``; several (shards over several disks) with ':' between.
            split: name of the split that was written.
            dataset: name of the data set that must have been written; None: any.
            side: "right", "left" or "both", of the hands that were written.
            with_vertices: add ``vertices``, posed by the hand model of the sample's own side.
            with_mask: add ``mask``; they must have been written.
            skip_bad: mark samples that are cut off or damaged with ``valid`` False instead of raising, and count them.
            allow_missing_subjects, workers, cache: of other data sets; mean nothing here.
            mano_dir: folder or file of the hand model, as in `template.load_hand_assets`.
            window: samples among which a shuffled order mixes.
            written: ``crop_size``, ``crop``, ``paper_filter``, ``include_invalid``: must be as written, where given.

        Raises:
            FileNotFoundError: naming the missing index, table or shard.
            BadFileError: naming a shard that is cut short, and its first sample that is lost (unless ``skip_bad``).
            ShardSettingsError: the shards hold other crops, other hands or another hand model; says which.
        """
        folders = split_folders(root, split)
        indices = [read_index(folder) for folder in folders]
        self.index = index = indices[0]
        # Parts of one data set differ in nothing but the rows they hold.
        kinds = [(each["dataset"], each["settings"] | {"rows": None}, each["hands"]) for each in indices]
        for folder, kind in zip(folders, kinds, strict=True):
            differ = [
                name for name, mine, first in zip(("dataset", "settings", "hands"), kind, kinds[0]) if mine != first
            ]
            if differ:
                raise ShardSettingsError(f"{folder}: shards of another kind than in the first folder ({differ} differ)")
        settings, self.label_hand = index["settings"], index["label_hand"]
        if dataset not in (None, index["dataset"]):
            raise ShardSettingsError(f"{root}: these are shards of {index['dataset']}, not of {dataset}")
        for name, value in (written | ({"with_mask": True} if with_mask else {})).items():
            if value not in (None, False, settings.get(name)):
                raise ShardSettingsError(
                    f"{root}: these shards were written with --{name} {settings.get(name)}, not {value}; "
                    "ask for that, or write them again"
                )
        if side not in SIDES:
            raise ShardSettingsError(f"side is {side!r}; choose one of {', '.join(SIDES)}")
        if cache is not None:
            logger.info("shards hold crops already: no crop cache is made in %s", cache)
        assets = {name: load_hand_assets(mano_dir, name) for name in index["hands"]}
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
        super().__init__(root, split, columns, assets, settings["crop_size"], with_vertices, with_mask, skip_bad)
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


@functools.lru_cache(maxsize=64)
def _opened(path: Path) -> BinaryIO:
    """A shard's file, read with positions of their own, so that threads and forked loader processes may share it."""
    return open(path, "rb", buffering=0)
