"""FreiHAND (version 2), read from its official layout as it is (docs/facts.md 3).

Joints come twice. ``joints`` are what every data set of this repository gives: kinematic, tips of manopth,
so that pose, betas, transl, K and keypoints_2d agree with each other and with the hand layer's default.
``label_joints`` are the official ``xyz``: regressed from the posed vertices, other tip vertices; they lie some
millimetres off and are what the official evaluation compares with. `FreiHAND.label_hand` makes them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datasets.bad_files import possible_poses
from datasets.crop_dataset import CropDataset
from datasets.crop_placement import joint_boxes
from datasets.freihand.decode import decode_vectors
from datasets.freihand.files import (
    SIZE,
    VERSIONS,
    Annotations,
    check_images,
    check_masks,
    fingerprint,
    image_name,
    read_annotations,
    read_list,
)
from datasets.image_crop import read_image
from datasets.options import DatasetOptions
from template import HandAssets, load_hand_assets
from utils.camera import project_numpy

logger = logging.getLogger(__name__)

#: Split -> (part, share of its unique samples). The last tenth of the training samples is ours to validate on.
SPLITS = {
    "training": ("training", (0.0, 1.0)),
    "evaluation": ("evaluation", (0.0, 1.0)),
    "s0_train": ("training", (0.0, 0.9)),
    "s0_val": ("training", (0.9, 1.0)),
    "s0_test": ("evaluation", (0.0, 1.0)),
}

#: sequence_id of evaluation samples starts here; a training sample's is its number.
_EVALUATION_SEQUENCES = 1_000_000
_SAME_HAND = 1e-3  # metres: labels that are further off were made with another hand model


class FreiHAND(CropDataset):
    """Samples (`datasets.sample`) of a FreiHAND split; ``image_id`` is the number in the image's file name.

    FreiHAND does not say who is in an image: ``subject_id`` is 0, and betas are each sample's own. The four
    versions of a training sample share their ``sequence_id``.

    Where the MANO vectors are not published (the evaluation part), ``valid`` is False, and predicting is all
    that can be done. Crops are then placed by ``xyz`` if that is there, or show the whole image.

    Attributes:
        scale: (N,) float32 metres, the official length of the middle finger's first bone that comes with every
            image, or None if the list is missing.
    """

    label_hand: ClassVar[dict[str, str]] = {"tips": "freihand", "joint_type": "regressed"}

    def __init__(self, root: str | Path, split: str = "training", **options: Any) -> None:
        """Open a split.

        Args:
            root: the folder with ``training/``, ``evaluation/`` and the JSON lists.
            split: a key of `SPLITS`.
            options: of `datasets.options.DatasetOptions`; ``versions`` are names of `VERSIONS`, None is all four.

        Raises:
            FileNotFoundError: naming the missing file or folder.
            BadFileError: naming the JSON list (or, with ``cache``, the picture) that is unusable.
            ValueError: unknown split, version or crop; lists and images of different lengths (with both
                numbers); masks wanted of the evaluation part; no sample left.
        """
        settings = DatasetOptions(**options)
        settings.refuse("FreiHAND", ("with_mask", "crop", "versions"))
        if split not in SPLITS:
            raise ValueError(f"FreiHAND split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
        if settings.crop not in ("joints", "image"):
            raise ValueError(f"crop is {settings.crop!r}; choose joints or image")
        self._part, share = SPLITS[split]
        if settings.with_mask and self._part != "training":
            raise ValueError(f"split {split}: FreiHAND publishes masks of the training part only")
        root = Path(root)
        chosen = _version_numbers(settings.versions) if self._part == "training" else (0,)
        annotations = read_annotations(root, self._part)
        count = len(annotations)
        check_images(root, self._part, count, chosen)
        if settings.with_mask:
            check_masks(root, count)
        samples = np.arange(round(share[0] * count), round(share[1] * count))
        if len(samples) == 0:
            raise ValueError(f"{root}: split {split} has no sample; the {self._part} part has only {count}")
        assets = load_hand_assets(settings.mano_dir, "right")
        columns, keypoints, usable = _decode(annotations, samples, assets, self.label_hand)
        boxes = joint_boxes(keypoints, usable & (settings.crop == "joints"), SIZE, SIZE)
        # Versions are the slow index, as in the numbering of the files.
        columns = {key: np.concatenate([value] * len(chosen)) for key, value in columns.items()}
        columns["image_id"] = np.concatenate([samples + count * version for version in chosen])
        offset = _EVALUATION_SEQUENCES if self._part == "evaluation" else 0
        columns["sequence_id"] = np.tile(samples + offset, len(chosen))
        self._samples = np.tile(samples, len(chosen))
        self.scale = None if annotations.scale is None else annotations.scale[self._samples].astype(np.float32)
        state = f"{fingerprint(root, self._part)} {hashlib.sha256(boxes.tobytes()).hexdigest()}"
        keypoints, boxes = (np.concatenate([value] * len(chosen)) for value in (keypoints, boxes))
        super().__init__(root, split, settings, columns, keypoints, boxes, {"right": assets}, (SIZE, SIZE), state)

    @property
    def subject_betas(self) -> dict[int, np.ndarray]:
        """Not to be had here.

        Raises:
            ValueError: always: FreiHAND does not say who is in which image.
        """
        raise ValueError("FreiHAND does not say who is in which image, so it has no betas of a subject")

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self.root / self._part / "rgb" / image_name(int(self.columns["image_id"][index]))

    def full_image(self, index: int) -> np.ndarray:
        """The whole image (224, 224, 3) uint8 RGB that ``K_image`` belongs to."""
        return read_image(self.image_path(index), SIZE, SIZE)

    def full_mask(self, index: int) -> np.ndarray:
        """The whole image's mask (224, 224) uint8, 255 on the hand, 0 elsewhere: the JPEG cut at one half."""
        path = self.root / "training" / "mask" / image_name(int(self._samples[index]))
        return np.where(read_image(path, SIZE, SIZE)[..., 0] >= 128, np.uint8(255), np.uint8(0))

    def official_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Official joints (N, 21, 3) and vertices (N, 778, 3), float64 metres, camera frame, as published.

        Read from ``<part>_xyz.json`` and ``<part>_verts.json``; the latter is large for the training part.

        Raises:
            FileNotFoundError: if the part's labels are not there (the original release of the evaluation part).
        """
        xyz, vertices = (read_list(self.root, self._part, name) for name in ("xyz", "verts"))
        return xyz[self._samples], vertices[self._samples]


def _version_numbers(versions: str | Sequence[str] | None) -> tuple[int, ...]:
    given = versions.split(",") if isinstance(versions, str) else versions
    names = VERSIONS if given is None else tuple(name.strip() for name in given)
    unknown = [name for name in names if name not in VERSIONS]
    if unknown or not names or len(set(names)) != len(names):
        raise ValueError(f"versions are {versions!r}; choose one or several of {', '.join(VERSIONS)}")
    return tuple(sorted(VERSIONS.index(name) for name in names))


def _decode(
    annotations: Annotations, samples: np.ndarray, assets: HandAssets, label_hand: dict[str, str]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Columns of the chosen unique samples, keypoints (N, 21, 2) px, and which rows have these (N,) bool."""
    count, K = len(samples), annotations.K[samples]
    xyz = None if annotations.xyz is None else annotations.xyz[samples]
    usable = np.full(count, xyz is not None or annotations.mano is not None)
    columns: dict[str, np.ndarray] = {
        "K_image": K,
        "subject_id": np.zeros(count, dtype=np.int64),
        "is_left": np.zeros(count, dtype=bool),
        "valid": np.full(count, annotations.mano is not None),
    }
    if annotations.mano is None:
        joints = np.zeros((count, 21, 3)) if xyz is None else xyz
        columns["joints"] = np.zeros((count, 21, 3), dtype=np.float32)
        columns["pose"] = np.tile(np.eye(3, dtype=np.float32), (count, 16, 1, 1))
        columns |= {key: np.zeros((count, n), dtype=np.float32) for key, n in (("betas", 10), ("transl", 3))}
        logger.warning("FreiHAND's labels of this part are not published in full: samples are not valid")
    else:
        decoded = decode_vectors(annotations.mano[samples], K, assets, label_hand)
        joints, regressed = decoded["joints"], decoded.pop("label_joints")
        columns |= decoded | {"joints": joints.astype(np.float32)}
        columns["valid"] = possible_poses(annotations.mano[samples, :48], "FreiHAND's mano")
        xyz = regressed if xyz is None else xyz
        _compare(regressed, xyz, assets)
    if xyz is not None:
        columns["label_joints"] = xyz.astype(np.float32)
    keypoints = project_numpy(joints, K) if usable.any() else np.zeros((count, 21, 2))
    return columns, keypoints, usable


def _compare(regressed: np.ndarray, xyz: np.ndarray, assets: HandAssets) -> None:
    """Say so if the hand model in use is not the one the labels were made with."""
    distance = float(np.median(np.linalg.norm(regressed - xyz, axis=-1)))
    if distance > _SAME_HAND:
        logger.warning(
            "FreiHAND's xyz lie %.1f mm (median) from the joints that the hand model %s (%s) gives: the labels were "
            "made with another one. Give MANO_RIGHT.pkl of version 1.2 with --mano_dir",
            distance * 1000, assets.name, assets.hash,
        )  # fmt: skip
