"""What the data sets share: how they are opened, columns in memory, crops from pictures or from the crop cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from datasets.bad_files import BadFileError
from datasets.crop_cache import CropCache, one_builder, usable_cores
from datasets.image_crop import crop_image, place_crops, unusable_boxes, whole_image_box
from datasets.sample import warn_of_another_hand
from template import HandAssets, HandModel
from template.assets import SIDES
from template.sides import labelled_hands
from utils.camera import project_numpy

logger = logging.getLogger(__name__)

FARTHEST = 20.0  # metres: no data set's hand is as far from the camera
_WRIST_TO_ORIGIN = 0.5  # metres: no rest hand's wrist is as far from its model's origin
LARGEST_BETA = 50.0  # people's lie within some 5 standard deviations
_LONGEST_HAND = 0.5  # metres: no joint is as far from its wrist
_APART = 0.05  # of a box's side, twice the hand's: published keypoints lie nearer to the joints in the picture
_OF_JOINTS = 80  # percent of a hand's joints that do: two fingers that are exchanged are more than the rest

#: Options that only some data sets know.
_SPECIAL = ("with_mask", "include_invalid", "paper_filter", "crop", "versions")


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """Keyword arguments of every data set (`datasets.build_dataset`).

    Attributes:
        side: "right", "left" or "both"; left hands are mirrored into right ones, ``is_left`` is kept.
        crop_size: side of the crops, pixels.
        with_vertices: add ``vertices``, posed by the hand model of the sample's own side.
        with_mask: add ``mask`` (FreiHAND's training part).
        include_invalid: keep frames without annotation; ``valid`` is False and the image shows everything (DexYCB).
        paper_filter: the paper's selection: right hands with all joints inside the image (DexYCB; docs/facts.md 1.8).
        skip_bad: leave out samples whose labels are unusable, and mark those whose picture is unusable with ``valid``
            False (black image), instead of raising. Both are counted and logged.
        allow_missing_subjects: accept a root that lacks subjects of the split; image ids then count the present ones
            only (DexYCB; elsewhere it means nothing).
        crop: "joints" for the rule of all data sets (twice the box of the joints), "image" for the whole image, as the
            CMR networks see it (FreiHAND).
        versions: backgrounds of FreiHAND's training images, one or several names, or several in a string with commas.
        mano_dir: folder or file of the hand model, as in `template.load_hand_assets`.
        cache: folder for labels and crops; made on first use. None: read the files.
        labels_only: make no crops in ``cache``: nobody looks at the pictures.
        workers: processes or threads that build the cache; None: one a core.
    """

    side: str = "right"
    crop_size: int = 128
    with_vertices: bool = False
    with_mask: bool = False
    include_invalid: bool = False
    paper_filter: bool = False
    skip_bad: bool = False
    allow_missing_subjects: bool = False
    crop: str = "joints"
    versions: str | Sequence[str] | None = None
    mano_dir: str | Path | None = None
    cache: str | Path | None = None
    labels_only: bool = False
    workers: int | None = None

    def refuse(self, name: str, known: Sequence[str], right_only: bool = True) -> None:
        """Check the options for the data set ``name``, of whose special ones it knows ``known``.

        Raises:
            ValueError: naming an option that it does not know, or a side that it does not label.
        """
        if right_only and self.side not in ("right", "both"):
            raise ValueError(f"{name} labels right hands only, but side is {self.side!r}; use right (or both)")
        for option in fields(self):
            if option.name in _SPECIAL and option.name not in known and getattr(self, option.name) != option.default:
                raise ValueError(f"{option.name} means nothing to {name}; leave it out")


class ColumnDataset(Dataset):
    """Samples (`datasets.sample`) that are rows of columns in memory, each with one picture, read when asked for.

    Attributes:
        columns: dict of arrays, one row a sample, of every key of the sample but image, mask and vertices.
        assets: hand models in use, by side.
        bad_images: image ids whose picture could not be read so far (with ``skip_bad``), as a set. They are
            counted where they are found: in this process, or while the crop cache is built.
    """

    #: How the official joints were made, as options of `template.HandModel`. The sample's ``joints`` are
    #: kinematic with manopth's tips in every data set; where the official ones differ, they are ``label_joints``.
    label_hand: ClassVar[dict[str, str]] = {"tips": "manopth", "joint_type": "kinematic"}

    def __init__(
        self,
        root: str | Path,
        split: str,
        columns: dict[str, np.ndarray],
        assets: dict[str, HandAssets],
        options: DatasetOptions,
    ) -> None:
        self.root, self.split, self.crop_size, self.with_mask = Path(root), split, options.crop_size, options.with_mask
        self.skip_bad, self.bad_images = options.skip_bad, set()
        self.columns, self.assets = columns, assets
        self._models = {name: HandModel(hand) for name, hand in assets.items()} if options.with_vertices else None

    def __len__(self) -> int:
        return len(self.columns["image_id"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample, as `datasets.sample` documents it.

        Raises:
            BadFileError: if the picture is truncated or unreadable (unless ``skip_bad``).
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        batch = self.gather(np.array([index % len(self)]))
        return {key: value[0] for key, value in batch.items()}

    def __getitems__(self, indices: list[int] | np.ndarray) -> dict[str, np.ndarray]:
        """`gather`, under the name by which PyTorch's loader asks for a batch."""
        return self.gather(np.asarray(indices))

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """A batch of samples, the quick way: the same as stacking ``self[i]``, (B,) indices -> (B, ...) arrays."""
        indices = np.asarray(indices, dtype=np.int64)
        batch = {key: column[indices] for key, column in self.columns.items()}
        images, readable = self._pictures(indices)
        batch = {"image": images, **batch, "valid": batch["valid"] & readable, "readable": readable}
        if self.with_mask:
            batch["image"], batch["mask"] = np.ascontiguousarray(images[..., :3]), images[..., 3].copy()
        if self._models is not None:
            values = (batch[key] for key in ("pose", "betas", "transl", "is_left"))
            batch["vertices"] = labelled_hands(self._models, *values, batch.get("label_betas"))[1]
        return batch

    @property
    def betas_by_hand(self) -> dict[tuple[int, str], np.ndarray]:
        """Betas (10,) of every hand of the split, by subject number and side ("right", "left")."""
        rows = np.flatnonzero(self.columns["valid"])
        hands = np.stack([self.columns["subject_id"][rows], self.columns["is_left"][rows]], axis=1)
        different, first = np.unique(hands, axis=0, return_index=True)
        betas = self.columns["betas"][rows[first]]
        return {(int(subject), SIDES[is_left]): row for (subject, is_left), row in zip(different, betas, strict=True)}

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

    def _make_picture(self, index: int) -> np.ndarray:
        """The crop (C, C, 3) uint8 RGB, with its mask as fourth channel if masks are wanted."""
        raise NotImplementedError

    def _pictures(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Crops (B, C, C, 3 or 4), and which of them could be read (B,)."""
        crops = [self._make_crop(index) for index in indices]
        return np.stack([crop for crop, _ in crops]), np.array([readable for _, readable in crops])

    def _make_crop(self, index: int) -> tuple[np.ndarray, bool]:
        try:
            return self._make_picture(index), True
        except BadFileError as error:
            if not self.skip_bad:
                raise
            self.bad_images.add(int(self.columns["image_id"][index]))
            logger.warning("skipped (%d so far): %s", len(self.bad_images), error)
            return np.zeros((self.crop_size, self.crop_size, 4 if self.with_mask else 3), dtype=np.uint8), False


class CropDataset(ColumnDataset):
    """A data set whose pictures are square crops of whole images, or come from the crop cache.

    A data set derives from it, reads its labels, calls this constructor last (it may read pictures), and
    says where its pictures are: `full_image`, and `full_mask` if it has masks.

    Attributes:
        num_outliers: samples that no hand in the picture can have; they are not valid, their crop shows all of it.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        options: DatasetOptions,
        columns: dict[str, np.ndarray],
        keypoints: np.ndarray,
        boxes: np.ndarray,
        assets: dict[str, HandAssets],
        image_size: tuple[int, int],
        cache_key: str,
    ) -> None:
        """Place the crops and open the crop cache.

        Args:
            root: the data set's folder.
            split: name of the split.
            options: how it is opened.
            columns: of the sample (`datasets.sample`), all but those that `place_crops` adds; ``K_image`` is float64.
            keypoints: (N, 21, 2) float64, px of the full image (mirrored if left).
            boxes: (N, 3) centre x, centre y, side of the crops, px of the full image.
            assets: hand models by side.
            image_size: width and height of the full images, pixels.
            cache_key: names the state of the data that the crops show.
        """
        outlier = unusable_boxes(boxes, *image_size) | _impossible_labels(columns)
        with np.errstate(all="ignore"):  # of samples without labels
            apart = np.linalg.norm(project_numpy(columns["joints"], columns["K_image"]) - keypoints, axis=-1)
            most = np.percentile(apart, _OF_JOINTS, axis=1)
            outlier |= columns["valid"] & ~(most < _APART * boxes[:, 2])
        self.num_outliers = int(outlier.sum())
        if self.num_outliers:
            first = int(np.argmax(outlier))
            logger.warning(
                "%s: %d samples of %d are not valid: their keypoints or boxes lie outside the image or are absurdly "
                "large, or their joints or betas are, or joints, K and keypoints contradict each other (first: image "
                "%d, box centre %.4g, %.4g, side %.4g px)",
                root, self.num_outliers, len(boxes), columns["image_id"][first], *boxes[first],
            )  # fmt: skip
        boxes = np.where(outlier[:, None], whole_image_box(*image_size), boxes)
        columns = columns | {key: np.where(outlier[:, None], 0, columns[key]) for key in ("betas", "transl")}
        columns["joints"] = np.where(outlier[:, None, None], 0, columns["joints"])
        columns["valid"] = columns["valid"] & ~outlier
        warn_of_another_hand(root, columns, assets, self.label_hand)
        columns = place_crops(columns, keypoints, boxes, options.crop_size)
        self._boxes = boxes
        super().__init__(root, split, columns, assets, options)
        # The data's state, and which rows were chosen from it.
        shown = columns["image_id"].astype(np.int64).tobytes() + np.ascontiguousarray(boxes, np.float64).tobytes()
        key = hashlib.sha256(cache_key.encode() + shown).hexdigest()[:16]
        cache = None if options.labels_only else options.cache
        self._cache = None if cache is None else self._open_cache(Path(cache), key, options.workers)

    def full_mask(self, index: int) -> np.ndarray:
        """The whole image's mask (H, W) uint8: 255 on the hand, 0 elsewhere."""
        raise NotImplementedError

    def _make_picture(self, index: int) -> np.ndarray:
        image = self.full_image(index)
        image = np.dstack([image, self.full_mask(index)]) if self.with_mask else image
        return crop_image(image, self._boxes[index], self.crop_size)

    def _pictures(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._cache is None:
            return super()._pictures(indices)
        return self._cache.crops[indices], self._cache.readable[indices]

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


def _impossible_labels(columns: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) bool: joints or translation beyond `FARTHEST` or of different places, joints beyond `_LONGEST_HAND` from the
    wrist, betas beyond `LARGEST_BETA`, or not finite."""
    joints, transl, betas = (np.abs(columns[key]) for key in ("joints", "transl", "betas"))
    plausible = (joints < FARTHEST).all(axis=(1, 2)) & (transl < FARTHEST).all(axis=1)
    others = [columns["transl"], *([columns["label_joints"][:, 0]] if "label_joints" in columns else [])]
    for other in others:
        apart = np.linalg.norm(columns["joints"][:, 0].astype(np.float64) - other, axis=1)
        plausible &= (apart < _WRIST_TO_ORIGIN) | ~columns["valid"]
    for points in (columns[key].astype(np.float64) for key in ("joints", "label_joints") if key in columns):
        reach = np.linalg.norm(points - points[:, :1], axis=2).max(axis=1)
        plausible &= (reach < _LONGEST_HAND) | ~columns["valid"]
    return ~(plausible & (betas < LARGEST_BETA).all(axis=1))
