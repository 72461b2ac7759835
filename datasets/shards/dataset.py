"""Samples read from shards (`datasets.shards.index`), the same as from the data set that they were written from.

A shard is random access: the tables say where a sample lies. So order, shares of processes and workers, and resuming
are those of `datasets.loading`, with one difference: shuffled order visits shard after shard and mixes samples
within a window, so that disks and networks read mostly forwards (`Shards.shuffled`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from datasets.bad_files import BadFileError
from datasets.crop_dataset import labelled_vertices
from datasets.sample import SAMPLE_SPEC
from datasets.shards.files import LabelDecoder, ShardFiles, decode_image
from datasets.shards.index import ID_COLUMNS, ShardIndex, ShardSettingsError, read_index, read_table, split_folders
from template import HandAssets, HandModel, load_hand_assets

logger = logging.getLogger(__name__)

#: Samples among which a shuffled order mixes: with 128 px PNGs some 300 MB of the disk's pages.
SHUFFLE_WINDOW = 16384
SIDES = {"right": (False,), "left": (True,), "both": (False, True)}


class Shards(Dataset):
    """Samples (`datasets.sample`) of one split, from shards that ``python -m datasets.write_shards`` wrote.

    Labels stay on disk. `columns` gives those that tell samples apart at once; asked for any other, it reads the
    labels of the whole split once.

    Attributes:
        columns: arrays by key, one row a sample, as of `datasets.crop_dataset.CropDataset`.
        index: what ``index.json`` says; of the first folder, if there are several.
        assets: hand models in use, by side.
        bad_images: image ids of samples that could not be read so far (with ``skip_bad``), as a set.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        dataset: str | None = None,
        side: str = "right",
        crop_size: int | None = None,
        with_vertices: bool = False,
        with_mask: bool = False,
        skip_bad: bool = False,
        paper_filter: bool = False,
        include_invalid: bool = False,
        allow_missing_subjects: bool = False,
        crop: str | None = None,
        mano_dir: str | Path | None = None,
        cache: str | Path | None = None,
        workers: int | None = None,
        window: int = SHUFFLE_WINDOW,
    ) -> None:
        """Open a split.

        Args:
            root: folder with ``SPLIT/index.json``; several (shards over several disks) with ':' between.
            split: name of the split that was written.
            dataset: name of the data set that must have been written; None: any.
            side: "right", "left" or "both", of the hands that were written.
            crop_size, crop, paper_filter, include_invalid: must be what was written, where given.
            with_vertices: add ``vertices``, posed by the hand model of the sample's own side.
            with_mask: add ``mask``; they must have been written.
            skip_bad: mark samples that are cut off or damaged with ``valid`` False instead of raising, and count them.
            allow_missing_subjects, workers: of other data sets; mean nothing here.
            mano_dir: folder or file of the hand model, as in `template.load_hand_assets`.
            cache: of other data sets; shards hold crops already.
            window: samples among which a shuffled order mixes.

        Raises:
            FileNotFoundError: naming the missing index, table or shard.
            BadFileError: naming a shard that is cut short, and its first sample that is lost (unless ``skip_bad``).
            ShardSettingsError: the shards hold other crops, other hands or another hand model; says which.
        """
        folders = split_folders(root, split)
        indices = [read_index(folder) for folder in folders]
        self.root, self.split, self.index = root, split, indices[0]
        for folder, index in zip(folders[1:], indices[1:], strict=True):
            _refuse_mixture(self.index, index, folder)
        if dataset is not None and dataset != self.index.dataset:
            raise ShardSettingsError(f"{root}: these are shards of {self.index.dataset}, not of {dataset}")
        _check_settings(self.index, root, crop_size=crop_size, crop=crop)
        if paper_filter or include_invalid:
            _check_settings(self.index, root, paper_filter=paper_filter, include_invalid=include_invalid)
        if side not in SIDES:
            raise ShardSettingsError(f"side is {side!r}; choose one of {', '.join(SIDES)}")
        if with_mask and not self.index.settings["with_mask"]:
            raise ShardSettingsError(f"{root}: these shards hold no masks; write them with --with_mask")
        if cache is not None:
            logger.info("shards hold crops already: no crop cache is made in %s", cache)
        self.crop_size, self.label_hand = self.index.settings["crop_size"], self.index.label_hand
        self.with_mask, self.skip_bad, self.bad_images = with_mask, skip_bad, set()
        self.assets = {name: load_hand_assets(mano_dir, name) for name in self.index.hands}
        _check_hands(self.index, self.assets, root)
        self._models = {name: HandModel(hand) for name, hand in self.assets.items()} if with_vertices else None
        self._window, self._decode = window, LabelDecoder()

        shards = [
            (folder / shard.file, shard)
            for folder, index in zip(folders, indices, strict=True)
            for shard in index.shards
        ]
        tables = [read_table(path) for path, _ in shards]
        self._files = ShardFiles([path for path, _ in shards], split)
        numbers = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        rows = np.concatenate(tables)
        keep = np.isin(rows["is_left"], SIDES[side])
        if not keep.any():
            raise ShardSettingsError(
                f"{root}: these shards hold no {side} hand of split {split}; they were written with "
                f"--side {self.index.settings['side']}"
            )
        self._rows, self._shard = rows[keep], numbers[keep]
        self.columns = _Columns({name: self._rows[name].copy() for name in ID_COLUMNS}, self._read_labels)
        for number, (_, shard) in enumerate(shards):
            self._check_length(number, shard.bytes)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample, as `datasets.sample` documents it; BadFileError if it is damaged (unless ``skip_bad``)."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return {key: value[0] for key, value in self.gather(np.array([index % len(self)])).items()}

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """A batch of samples, the same as stacking ``self[i]``: (B,) indices -> (B, ...) arrays."""
        samples = [self._sample(int(index)) for index in indices]
        batch = {"image": np.stack([image for image, _, _ in samples])}
        records = np.array([labels for _, labels, _ in samples])
        batch |= {name: np.ascontiguousarray(records[name]) for name in records.dtype.names}
        batch["valid"] &= self.columns["valid"][indices]
        if self.with_mask:
            batch["mask"] = np.stack([mask for _, _, mask in samples])
        if self._models is not None:
            batch["vertices"] = labelled_vertices(self._models, batch)
        return batch

    def shuffled(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``indices`` (N,), each once, shard after shard in random order, then mixed within the window.

        At any time some shards are read from, as many as the window spans, instead of all of them.
        """
        if len(indices) <= self._window:
            return rng.permutation(indices)
        place = rng.permutation(len(self._files.paths))[self._shard[indices]]
        by_shard = indices[np.lexsort((rng.random(len(indices)), place))]
        return by_shard[np.argsort(np.arange(len(indices)) + rng.uniform(0, self._window, len(indices)))]

    @property
    def subject_betas(self) -> dict[int, np.ndarray]:
        """Betas (10,) of every subject of the split, by subject number."""
        subjects, first = np.unique(self.columns["subject_id"], return_index=True)
        return {int(subject): self.gather([row])["betas"][0] for subject, row in zip(subjects, first, strict=True)}

    def full_image(self, index: int) -> np.ndarray:
        """Not here.

        Raises:
            ShardSettingsError: shards hold crops.
        """
        raise ShardSettingsError(f"{self.root}: shards hold crops, not whole pictures; give the data set's own folder")

    def _sample(self, index: int) -> tuple[np.ndarray, np.void, np.ndarray | None]:
        """Picture, labels and mask."""
        try:
            picture, labels, mask = self._files.read(int(self._shard[index]), self._rows[index])
            return self._picture(index, picture), self._decode(labels), self._picture(index, mask) if mask else None
        except BadFileError as error:
            black = np.zeros((self.crop_size, self.crop_size, 3), np.uint8)
            return black, self._lost(index, error), black[..., 0].copy()

    def _picture(self, index: int, data: bytes) -> np.ndarray:
        image = decode_image(data)
        if image is None or image.shape[:2] != (self.crop_size, self.crop_size):
            reason = f"a picture of sample {{key}} is not one of {self.crop_size} px"
            raise self._files.bad(int(self._shard[index]), self._rows[index], reason)
        return image

    def _lost(self, index: int, error: BadFileError) -> np.void:
        """Labels of no hand, ``valid`` False, for a sample that is lost (with ``skip_bad``)."""
        if not self.skip_bad:
            raise error
        row = self._rows[index]
        if int(row["image_id"]) not in self.bad_images:
            self.bad_images.add(int(row["image_id"]))
            logger.warning("skipped (%d so far): %s", len(self.bad_images), error)
        labels = np.zeros((), [(name, SAMPLE_SPEC[name].dtype, SAMPLE_SPEC[name].shape) for name in self.index.labels])
        labels["pose"] = np.eye(3)
        for name in ID_COLUMNS:
            labels[name] = row[name]
        labels["valid"] = False
        return labels[()]

    def _check_length(self, shard: int, expected: int) -> None:
        path = self._files.paths[shard]
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, but index.json lists it: the shards are half copied")
        size, rows = path.stat().st_size, np.flatnonzero(self._shard == shard)
        lost = rows[self._rows["offset"][rows] + self._rows["length"][rows] > size]
        if size >= expected or len(lost) == 0:
            return
        error = self._files.cut_short(shard, self._rows[lost[0]])
        if not self.skip_bad:
            raise error
        self.bad_images.update(self._rows["image_id"][lost].tolist())
        self.columns["valid"][lost] = False
        logger.warning("skipped %d samples: %s", len(lost), error)

    def _read_labels(self) -> dict[str, np.ndarray]:
        logger.info("reading the labels of all %d samples of %s", len(self), self.root)
        records = np.array([self._labels(index) for index in range(len(self))])
        return {name: np.ascontiguousarray(records[name]) for name in records.dtype.names}

    def _labels(self, index: int) -> np.void:
        try:
            return self._decode(self._files.read(int(self._shard[index]), self._rows[index])[1])
        except BadFileError as error:
            return self._lost(index, error)


class _Columns(Mapping[str, np.ndarray]):
    """Arrays by name: some there, the others read together when one of them is asked for."""

    def __init__(self, there: dict[str, np.ndarray], read: Callable[[], dict[str, np.ndarray]]) -> None:
        self._there, self._read = there, read
        self._all: dict[str, np.ndarray] | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        return self._there[name] if name in self._there else self._complete()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._complete())

    def __len__(self) -> int:
        return len(self._complete())

    def _complete(self) -> dict[str, np.ndarray]:
        if self._all is None:
            self._all = self._read() | self._there
        return self._all


def _check_settings(index: ShardIndex, root: str | Path, **wanted: Any) -> None:
    for name, value in wanted.items():
        if value is not None and index.settings.get(name) != value:
            raise ShardSettingsError(
                f"{root}: these shards were written with --{name} {index.settings.get(name)}, not {value}; "
                "ask for that, or write them again"
            )


def _check_hands(index: ShardIndex, assets: Mapping[str, HandAssets], root: str | Path) -> None:
    for side, hand in assets.items():
        written = index.hands[side]
        if written["hash"] != hand.hash:
            raise ShardSettingsError(
                f"{root}: joints in these shards were made with the {side} {written['name']} hand {written['hash']}; "
                f"in use is {hand.name} {hand.hash}: give its folder with --mano_dir, or write the shards again"
            )


def _refuse_mixture(first: ShardIndex, other: ShardIndex, folder: Path) -> None:
    for name in ("dataset", "settings", "hands"):
        mine, theirs = getattr(first, name), getattr(other, name)
        if name == "settings":  # parts of one data set differ in nothing but the rows they hold
            mine, theirs = ({k: v for k, v in value.items() if k != "rows"} for value in (mine, theirs))
        if mine != theirs:
            raise ShardSettingsError(f"{folder}: shards of another kind than in the first folder ({name} differ)")
