"""What the data sets of single hands share: columns in memory, crops from pictures or from the crop cache."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from datasets.bad_files import BadFileError
from datasets.crop_cache import CropCache, one_builder
from datasets.crop_placement import place_crops, unusable_boxes, whole_image_box
from datasets.image_crop import crop_image
from datasets.usable_cores import usable_cores
from template import HandAssets, HandModel
from template.assets import SIDES
from template.sides import labelled_hands

logger = logging.getLogger(__name__)


class CropDataset(Dataset):
    """Samples (`datasets.sample`) that are rows of columns, each with one square crop of one picture.

    A data set derives from it, reads its labels, calls this constructor last (it may read pictures), and
    says where its pictures are: `full_image`, and `full_mask` if it has masks.

    Attributes:
        columns: dict of arrays, one row a sample, of every key of the sample but image, mask and vertices.
        assets: hand models in use, by side.
        num_bad_boxes: samples whose crop would show nothing of the picture; they are not valid and show all of it.
        bad_images: image ids whose picture could not be read so far (with ``skip_bad``), as a set. They are
            counted where they are found: in this process, or while the crop cache is built.
    """

    #: How the official joints were made, as options of `template.HandModel`. The sample's ``joints`` are
    #: kinematic with manopth's tips in every data set; where the official ones differ, they are ``label_joints``.
    label_hand: ClassVar[dict[str, str]] = {"tips": "manopth", "joint_type": "kinematic"}

    def __init__(
        self,
        root: Path,
        split: str,
        columns: dict[str, np.ndarray],
        boxes: np.ndarray,
        assets: dict[str, HandAssets],
        *,
        image_size: tuple[int, int],
        crop_size: int,
        with_vertices: bool = False,
        with_mask: bool = False,
        skip_bad: bool = False,
        cache: Path | None = None,
        cache_key: str = "",
        workers: int | None = None,
    ) -> None:
        """Place the crops and open the crop cache.

        Args:
            root: the data set's folder.
            split: name of the split.
            columns: as `datasets.crop_placement.place_crops` takes them.
            boxes: (N, 3) centre x, centre y, side of the crops, px of the full image.
            assets: hand models by side.
            image_size: width and height of the full images, pixels.
            crop_size: side of the crops, pixels.
            with_vertices: add ``vertices`` to batches.
            with_mask: add ``mask`` to batches.
            skip_bad: mark samples whose picture is unusable with ``valid`` False instead of raising.
            cache: folder of the crop cache, or None.
            cache_key: names the state of the data that the crops show.
            workers: threads that build the cache; None: one a core.
        """
        self.root, self.split, self.crop_size, self.with_mask = root, split, crop_size, with_mask
        self.skip_bad, self.bad_images = skip_bad, set()
        self.assets, self._boxes = assets, self._usable_boxes(boxes, columns, image_size)
        self.columns = place_crops(columns, self._boxes, crop_size)
        self._models = {name: HandModel(hand) for name, hand in assets.items()} if with_vertices else None
        self._cache = None if cache is None else self._open_cache(cache, cache_key, workers)

    def __len__(self) -> int:
        return len(self._boxes)

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
        if self.with_mask:
            batch["image"], batch["mask"] = np.ascontiguousarray(images[..., :3]), images[..., 3].copy()
        if self._models is not None:
            batch["vertices"] = labelled_vertices(self._models, batch)
        return batch

    @property
    def betas_by_hand(self) -> dict[tuple[int, str], np.ndarray]:
        """Betas (10,) of every hand of the split, by subject number and side ("right", "left")."""
        rows = np.flatnonzero(self.columns["valid"])
        hands = np.stack([self.columns["subject_id"][rows], self.columns["is_left"][rows]], axis=1)
        different, first = np.unique(hands, axis=0, return_index=True)
        return {
            (int(subject), SIDES[is_left]): self.columns["betas"][rows[row]]
            for (subject, is_left), row in zip(different, first, strict=True)
        }

    @property
    def subject_betas(self) -> dict[int, np.ndarray]:
        """Betas (10,) of every subject, by number: of the right hand, or of the left one where that is all there is.

        The two differ where the left hand model is not the right one's mirror image (`template.sides`).
        """
        hands = self.betas_by_hand
        return {subject: hands.get((subject, "right"), betas) for (subject, _), betas in hands.items()}

    def full_image(self, index: int) -> np.ndarray:
        """The whole image (H, W, 3) uint8 RGB that ``K_image`` belongs to: mirrored if ``is_left``."""
        raise NotImplementedError

    def full_mask(self, index: int) -> np.ndarray:
        """The whole image's mask (H, W) uint8: 255 on the hand, 0 elsewhere."""
        raise NotImplementedError

    def _usable_boxes(
        self, boxes: np.ndarray, columns: dict[str, np.ndarray], image_size: tuple[int, int]
    ) -> np.ndarray:
        """``boxes``, with the whole image in place of those that show none of it; such samples become invalid."""
        unusable = unusable_boxes(boxes, *image_size)
        self.num_bad_boxes = int(unusable.sum())
        if self.num_bad_boxes == 0:
            return boxes
        first = int(np.argmax(unusable))
        logger.warning(
            "%s: %d samples of %d are not valid: their keypoints or boxes lie outside the image or are absurdly large "
            "(first: image %d, box centre %.4g, %.4g, side %.4g px)",
            self.root, self.num_bad_boxes, len(boxes), columns["image_id"][first], *boxes[first],
        )  # fmt: skip
        columns["valid"] = columns["valid"] & ~unusable
        columns["image_keypoints"] = np.where(unusable[:, None, None], 0, columns["image_keypoints"])
        return np.where(unusable[:, None], whole_image_box(*image_size), boxes)

    def _picture(self, index: int) -> np.ndarray:
        """The whole image, with its mask as fourth channel if masks are wanted."""
        image = self.full_image(index)
        return np.dstack([image, self.full_mask(index)]) if self.with_mask else image

    def _make_crop(self, index: int) -> tuple[np.ndarray, bool]:
        try:
            return crop_image(self._picture(index), self._boxes[index], self.crop_size), True
        except BadFileError as error:
            if not self.skip_bad:
                raise
            self.bad_images.add(int(self.columns["image_id"][index]))
            logger.warning("skipped (%d so far): %s", len(self.bad_images), error)
            return np.zeros((self.crop_size, self.crop_size, 4 if self.with_mask else 3), dtype=np.uint8), False

    def _open_cache(self, folder: Path, key: str, workers: int | None) -> CropCache:
        cache = CropCache(folder, self.split, key, len(self), self.crop_size, 4 if self.with_mask else 3)
        with one_builder(cache.array_path):
            usable = cache.open() and (self.skip_bad or cache.readable.all())
            if not usable:
                cache.build(self._make_crop, usable_cores() if workers is None else workers)
        self.bad_images.update(self.columns["image_id"][~cache.readable].tolist())
        self.columns["valid"] &= cache.readable
        if self.bad_images:
            logger.warning("%s: %d unusable images of %d", self.root, len(self.bad_images), len(self))
        return cache


def labelled_vertices(models: Mapping[str, HandModel], batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """The labels' meshes (B, 778, 3) of a batch of samples, each posed by its own side's model (mirrored if left)."""
    values = (batch[key] for key in ("pose", "betas", "transl", "is_left"))
    return labelled_hands(models, *values, batch.get("label_betas"))[1]


def refuse_other_hands(name: str, side: str, paper_filter: bool = False) -> None:
    """Check the options that mean something to DexYCB only, for a data set that labels right hands only.

    Raises:
        ValueError: if left hands, or DexYCB's filter, are asked for.
    """
    if side not in ("right", "both"):
        raise ValueError(f"{name} labels right hands only, but side is {side!r}; use right (or both)")
    if paper_filter:
        raise ValueError(f"paper_filter is the paper's selection of DexYCB images; leave it out for {name}")
