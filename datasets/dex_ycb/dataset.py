"""DexYCB, read from its official layout as it is (FACTS 1); an optional crop cache makes it fast."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.crop_cache import rows_key
from datasets.crop_dataset import CropDataset
from datasets.crop_placement import joint_boxes
from datasets.dex_ycb.decode import decode_labels, inside_image
from datasets.dex_ycb.files import HEIGHT, WIDTH, color_name
from datasets.dex_ycb.labels import load_label_table
from datasets.dex_ycb.splits import get_split
from datasets.image_crop import read_image
from template import load_hand_assets

SIDES = ("right", "left", "both")


class DexYCB(CropDataset):
    """Samples (`datasets.sample`) of one DexYCB split, numbered by their official image ids.

    Attributes:
        num_bad_labels: labels files that were skipped (with ``skip_bad``).
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
            split: a key of `datasets.dex_ycb.splits.SPLITS`. Subjects beyond the official ten join the train
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
        folder = None if cache is None else Path(cache)
        table, data_key = load_label_table(
            Path(root),
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
        assets = {"right": load_hand_assets(mano_dir, "right")}
        if is_left[rows].any():
            assets["left"] = load_hand_assets(mano_dir, "left")
        columns = decode_labels(table, rows, assets)
        super().__init__(
            Path(root),
            split,
            columns,
            joint_boxes(columns["image_keypoints"], columns["valid"], WIDTH, HEIGHT),
            assets,
            image_size=(WIDTH, HEIGHT),
            crop_size=crop_size,
            with_vertices=with_vertices,
            skip_bad=skip_bad,
            cache=folder,
            cache_key=rows_key(data_key, rows),
            workers=workers,
        )

    def image_path(self, index: int) -> Path:
        """The colour image's file (as it is on disk: a left hand's is not mirrored)."""
        sequences, serials = self._image_files
        return self.root / sequences[index] / serials[index] / color_name(int(self._frames[index]))

    def full_image(self, index: int) -> np.ndarray:
        """The whole image (480, 640, 3) uint8 RGB that ``K_image`` belongs to: mirrored if ``is_left``."""
        image = read_image(self.image_path(index), WIDTH, HEIGHT)
        return np.ascontiguousarray(image[:, ::-1]) if self.columns["is_left"][index] else image
