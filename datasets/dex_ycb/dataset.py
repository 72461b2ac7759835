"""DexYCB, read from its official layout as it is (docs/facts.md 1); an optional crop cache makes it fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datasets.crop_dataset import CropDataset
from datasets.crop_placement import joint_boxes
from datasets.dex_ycb.decode import decode_labels, inside_image
from datasets.dex_ycb.files import HEIGHT, WIDTH, color_name
from datasets.dex_ycb.labels import load_label_table
from datasets.dex_ycb.splits import get_split
from datasets.image_crop import read_image
from datasets.options import DatasetOptions
from template import load_hand_assets

SIDES = ("right", "left", "both")


class DexYCB(CropDataset):
    """Samples (`datasets.sample`) of one DexYCB split, numbered by their official image ids.

    Attributes:
        num_bad_labels: labels files that were skipped (with ``skip_bad``).
    """

    def __init__(self, root: str | Path, split: str = "s1_train", **options: Any) -> None:
        """Open a split.

        Args:
            root: the folder with the subject folders and ``calibration/``.
            split: a key of `datasets.dex_ycb.splits.SPLITS`. Subjects beyond the official ten join the train
                splits of s0, s1 and the paper's hold-outs.
            options: of `datasets.options.DatasetOptions`.

        Raises:
            FileNotFoundError: naming the missing file or folder.
            BadFileError: naming a labels file (or, with ``cache``, a picture) that is unusable.
            ValueError: unknown split or side, or no sample left.
        """
        chosen = DatasetOptions(**options)
        chosen.refuse("DexYCB", ("include_invalid", "paper_filter"), right_only=False)
        root, side = Path(root), chosen.side
        if side not in SIDES:
            raise ValueError(f"side is {side!r}; choose one of {', '.join(SIDES)}")
        if chosen.paper_filter and side != "right":
            raise ValueError(f"paper_filter keeps right hands only, but side is {side!r}")
        table, data_key = load_label_table(
            root,
            get_split(split),
            cache=None if chosen.cache is None else Path(chosen.cache),
            skip_bad=chosen.skip_bad,
            allow_missing_subjects=chosen.allow_missing_subjects,
            workers=chosen.workers,
        )
        self.num_bad_labels = int(table.bad.sum())
        is_left = table.is_left[table.sequence]
        keep = ~table.bad if chosen.include_invalid else table.annotated
        if side != "both":
            keep = keep & (is_left == (side == "left"))
        if chosen.paper_filter:
            keep = keep & inside_image(table)
        rows = np.flatnonzero(keep)
        if len(rows) == 0:
            raise ValueError(f"{root}: split {split} has no sample of side {side!r} ({len(table)} before filters)")
        self._image_files = (table.sequence_path[table.sequence[rows]], table.serial[table.camera[rows]])
        self._frames = table.frame[rows]
        assets = {"right": load_hand_assets(chosen.mano_dir, "right")}
        if is_left[rows].any():
            assets["left"] = load_hand_assets(chosen.mano_dir, "left")
        columns, keypoints = decode_labels(table, rows, assets)
        boxes = joint_boxes(keypoints, columns["valid"], WIDTH, HEIGHT)
        super().__init__(root, split, chosen, columns, keypoints, boxes, assets, (WIDTH, HEIGHT), data_key)

    def image_path(self, index: int) -> Path:
        """The colour image's file (as it is on disk: a left hand's is not mirrored)."""
        sequences, serials = self._image_files
        return self.root / sequences[index] / serials[index] / color_name(int(self._frames[index]))

    def full_image(self, index: int) -> np.ndarray:
        """The whole image (480, 640, 3) uint8 RGB that ``K_image`` belongs to: mirrored if ``is_left``."""
        image = read_image(self.image_path(index), WIDTH, HEIGHT)
        return np.ascontiguousarray(image[:, ::-1]) if self.columns["is_left"][index] else image
