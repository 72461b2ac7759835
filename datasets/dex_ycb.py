"""DexYCB, read from its official layout as it is (FACTS 1); an optional crop cache makes it fast."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.bad_files import BadFileError
from datasets.crop_cache import CropCache, rows_key
from datasets.dex_ycb_decode import decode_labels, inside_image, place_crops, posed_vertices
from datasets.dex_ycb_files import HEIGHT, WIDTH, color_name
from datasets.dex_ycb_labels import load_label_table, usable_cores
from datasets.dex_ycb_splits import get_split
from datasets.image_crop import crop_image, read_image
from template import HandModel, load_hand_assets

logger = logging.getLogger(__name__)

SIDES = ("right", "left", "both")


class DexYCB(Dataset):
    """Samples (`datasets.sample`) of one DexYCB split, numbered by their official image ids.

    Attributes:
        columns: dict of arrays, one row a sample, of every key of the sample but image and vertices.
        num_bad_labels: labels files that were skipped (with ``skip_bad``).
        bad_images: image ids whose picture could not be read so far (with ``skip_bad``), as a set. They are
            counted where they are found: in this process, or while the crop cache is built.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "s1_train",
        *,
        side: str = "right",
        crop_size: int = 128,
        with_vertices: bool = False,
        include_invalid: bool = False,
        paper_filter: bool = False,
        skip_bad: bool = False,
        allow_missing_subjects: bool = False,
        mano_dir: str | Path | None = None,
        cache: str | Path | None = None,
        workers: int | None = None,
    ) -> None:
        """Open a split.

        Args:
            root: the folder with the subject folders and ``calibration/``.
            split: a key of `datasets.dex_ycb_splits.SPLITS`. Subjects beyond the official ten join the train
                splits of s0, s1 and the paper's hold-outs.
            side: "right", "left" or "both"; left hands are mirrored into right ones, ``is_left`` is kept.
            crop_size: side of the crops, pixels.
            with_vertices: add ``vertices``, posed by the hand model of the sample's own side.
            include_invalid: keep frames without annotation (``valid`` False, the image shows everything).
            paper_filter: the paper's selection: right hands with all joints inside the image (FACTS 1.8).
            skip_bad: leave out unusable labels files, and mark samples whose picture is unusable with
                ``valid`` False (black image) instead of raising. Both are counted and logged.
            allow_missing_subjects: accept a root that lacks subjects of the split; image ids then count the
                present ones only.
            mano_dir: folder or file of the hand model, as in `template.load_hand_assets`.
            cache: folder for the table of labels and the crops; made on first use. None: read the files.
            workers: processes or threads that build the table and the cache; None: one a core.

        Raises:
            FileNotFoundError: naming the missing file or folder.
            BadFileError: naming a labels file (or, with ``cache``, a picture) that is unusable.
            ValueError: unknown split or side, or no sample left.
        """
        if side not in SIDES:
            raise ValueError(f"side is {side!r}; choose one of {', '.join(SIDES)}")
        if paper_filter and side != "right":
            raise ValueError(f"paper_filter keeps right hands only, but side is {side!r}")
        self.root, self.split, self.crop_size = Path(root), split, crop_size
        self.skip_bad, self.bad_images = skip_bad, set()
        folder = None if cache is None else Path(cache)
        table, data_key = load_label_table(
            self.root,
            get_split(split),
            cache=folder,
            skip_bad=skip_bad,
            allow_missing_subjects=allow_missing_subjects,
            workers=workers,
        )
        self.num_bad_labels = int(table.bad.sum())
        is_left = table.is_left[table.sequence]
        keep = ~table.bad if include_invalid else table.annotated
        if side != "both":
            keep = keep & (is_left == (side == "left"))
        if paper_filter:
            keep = keep & inside_image(table)
        rows = np.flatnonzero(keep)
        if len(rows) == 0:
            raise ValueError(f"{root}: split {split} has no sample of side {side!r} ({len(table)} before filters)")
        self._image_files = (table.sequence_path[table.sequence[rows]], table.serial[table.camera[rows]])
        self._frames = table.frame[rows]
        self.assets = {"right": load_hand_assets(mano_dir, "right")}
        if is_left[rows].any():
            self.assets["left"] = load_hand_assets(mano_dir, "left")
        self.columns = decode_labels(table, rows, self.assets)
        placed, self._boxes = place_crops(self.columns, crop_size)
        del self.columns["image_keypoints"]
        self.columns.update(placed)
        self._models = {name: HandModel(assets) for name, assets in self.assets.items()} if with_vertices else None
        self._cache = None if folder is None else self._open_cache(folder, rows_key(data_key, rows), workers)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample, as `datasets.sample` documents it.

        Raises:
            BadFileError: if the picture is truncated or unreadable (unless ``skip_bad``).
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        batch = self.gather(np.array([index % len(self)]))
        return {key: value[0] for key, value in batch.items()}

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """A batch of samples, the quick way: the same as stacking ``self[i]``, (B,) indices -> (B, ...) arrays."""
        indices = np.asarray(indices, dtype=np.int64)
        batch = {key: column[indices] for key, column in self.columns.items()}
        if self._cache is None:
            crops = [self._make_crop(index) for index in indices]
            images, readable = np.stack([crop for crop, _ in crops]), np.array([good for _, good in crops])
        else:
            images, readable = self._cache.crops[indices], True  # columns["valid"] knows
        batch = {"image": images, **batch, "valid": batch["valid"] & readable}
        if self._models is not None:
            batch["vertices"] = self._vertices(batch)
        return batch

    @property
    def subject_betas(self) -> dict[int, np.ndarray]:
        """Betas (10,) of every subject of the split, by subject number."""
        subjects, first = np.unique(self.columns["subject_id"], return_index=True)
        return {int(subject): self.columns["betas"][row] for subject, row in zip(subjects, first, strict=True)}

    def image_path(self, index: int) -> Path:
        """The colour image's file (as it is on disk: a left hand's is not mirrored)."""
        sequences, serials = self._image_files
        return self.root / sequences[index] / serials[index] / color_name(int(self._frames[index]))

    def full_image(self, index: int) -> np.ndarray:
        """The whole image (480, 640, 3) uint8 RGB that ``K_image`` belongs to: mirrored if ``is_left``."""
        image = read_image(self.image_path(index), WIDTH, HEIGHT)
        return np.ascontiguousarray(image[:, ::-1]) if self.columns["is_left"][index] else image

    def _make_crop(self, index: int) -> tuple[np.ndarray, bool]:
        try:
            return crop_image(self.full_image(index), self._boxes[index], self.crop_size), True
        except BadFileError as error:
            if not self.skip_bad:
                raise
            self.bad_images.add(int(self.columns["image_id"][index]))
            logger.warning("skipped (%d so far): %s", len(self.bad_images), error)
            return np.zeros((self.crop_size, self.crop_size, 3), dtype=np.uint8), False

    def _open_cache(self, folder: Path, key: str, workers: int | None) -> CropCache:
        cache = CropCache(folder, self.split, key, len(self), self.crop_size)
        usable = cache.open() and (self.skip_bad or cache.readable.all())
        if not usable:
            cache.build(self._make_crop, usable_cores() if workers is None else workers)
        self.bad_images.update(self.columns["image_id"][~cache.readable].tolist())
        self.columns["valid"] &= cache.readable
        if self.bad_images:
            logger.warning("%s: %d unusable images of %d", self.root, len(self.bad_images), len(self))
        return cache

    def _vertices(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """The labels' meshes (B, 778, 3): each posed by its own side's model, left ones mirrored afterwards."""
        vertices = np.empty((len(batch["is_left"]), 778, 3), dtype=np.float32)
        for side, chosen in (("right", ~batch["is_left"]), ("left", batch["is_left"])):
            if chosen.any():
                values = (torch.from_numpy(batch[key][chosen]) for key in ("pose", "betas", "transl"))
                vertices[chosen] = posed_vertices(self._models, side, *values).numpy()
        return vertices
