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
import torch

from datasets.bad_files import possible_poses
from datasets.crop_dataset import CropDataset, DatasetOptions
from datasets.freihand.files import SIZE, VERSIONS, check_pictures, fingerprint, image_name, read_annotations, read_list
from datasets.image_crop import joint_boxes, read_image
from template import HandAssets, HandModel, axis_angle_to_pose, load_hand_assets
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

ROOT_JOINT = 9  # the middle finger's knuckle, which the vectors place
_HANDS_AT_ONCE = 4096

#: sequence_id of evaluation samples starts here; a training sample's is its number.
_EVALUATION_SEQUENCES = 1_000_000


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
            options: of `datasets.crop_dataset.DatasetOptions`; ``versions`` are names of `VERSIONS`, None is all four.

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
        count = len(annotations["K"])
        check_pictures(root, self._part, count, chosen, settings.with_mask)
        samples = np.arange(round(share[0] * count), round(share[1] * count))
        if len(samples) == 0:
            raise ValueError(f"{root}: split {split} has no sample; the {self._part} part has only {count}")
        assets = load_hand_assets(settings.mano_dir, "right")
        rows = {name: array[samples] for name, array in annotations.items()}
        columns, keypoints, usable = _decode(rows, assets, self.label_hand)
        boxes = joint_boxes(keypoints, usable & (settings.crop == "joints"), SIZE, SIZE)
        # Versions are the slow index, as in the numbering of the files.
        columns = {key: np.concatenate([value] * len(chosen)) for key, value in columns.items()}
        columns["image_id"] = np.concatenate([samples + count * version for version in chosen])
        offset = _EVALUATION_SEQUENCES if self._part == "evaluation" else 0
        columns["sequence_id"] = np.tile(samples + offset, len(chosen))
        self._samples = np.tile(samples, len(chosen))
        scale = annotations.get("scale")
        self.scale = None if scale is None else scale[self._samples].astype(np.float32)
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
    rows: dict[str, np.ndarray], assets: HandAssets, label_hand: dict[str, str]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Columns of unique samples (of `read_annotations`), keypoints (N, 21, 2) px, which rows have these (N,) bool."""
    K, xyz, mano = rows["K"], rows.get("xyz"), rows.get("mano")
    count = len(K)
    usable = np.full(count, xyz is not None or mano is not None)
    columns = {
        "K_image": K,
        "subject_id": np.zeros(count, dtype=np.int64),
        "is_left": np.zeros(count, dtype=bool),
        "valid": np.zeros(count, dtype=bool),
    }
    if mano is None:
        joints = np.zeros((count, 21, 3)) if xyz is None else xyz
        columns |= {
            "joints": np.zeros((count, 21, 3), dtype=np.float32),
            "pose": np.tile(np.eye(3, dtype=np.float32), (count, 16, 1, 1)),
            "betas": np.zeros((count, 10), dtype=np.float32),
            "transl": np.zeros((count, 3), dtype=np.float32),
        }
        logger.warning("FreiHAND's labels of this part are not published in full: samples are not valid")
    else:
        columns |= decode_vectors(mano, K, assets, label_hand)
        joints, regressed = columns["joints"], columns.pop("label_joints")
        columns |= {"joints": joints.astype(np.float32), "valid": possible_poses(mano[:, :48], "FreiHAND's mano")}
        xyz = regressed if xyz is None else xyz
    if xyz is not None:
        columns["label_joints"] = xyz.astype(np.float32)
    keypoints = project_numpy(joints, K) if usable.any() else np.zeros((count, 21, 2))
    return columns, keypoints, usable


@torch.no_grad()
def decode_vectors(
    vectors: np.ndarray, K: np.ndarray, assets: HandAssets, label_hand: dict[str, str]
) -> dict[str, np.ndarray]:
    """Pose, shape and place of hands in the camera frame (docs/facts.md 3.2).

    A vector is 3 numbers of global rotation and 45 of finger rotations (axis-angles, to which the mean pose is
    added), 10 betas, the root's pixel (u, v) and a scale s. With f = (K00 + K11) / 2 the root lies at
    ((u - cx) / s, (v - cy) / s, f / s); the root is the official, that is regressed, joint 9.

    Args:
        vectors: (N, 61) float64.
        K: (N, 3, 3) float64, px.
        assets: the right hand.
        label_hand: options of `template.HandModel` that give the official joints.

    Returns:
        float32 arrays: ``pose`` (N, 16, 3, 3), ``betas`` (N, 10), ``transl`` (N, 3); metres, camera frame:
        ``joints`` (N, 21, 3) kinematic, ``label_joints`` (N, 21, 3) by the official rule. The last two are float64.
    """
    plain = HandModel(assets, dtype=torch.float64)
    official = HandModel(assets, dtype=torch.float64, **label_hand)
    parts: dict[str, list[np.ndarray]] = {key: [] for key in ("pose", "betas", "transl", "joints", "label_joints")}
    for start in range(0, len(vectors), _HANDS_AT_ONCE):
        rows = slice(start, start + _HANDS_AT_ONCE)
        vector = torch.from_numpy(vectors[rows])
        fingers = vector[:, 3:48] + plain.hands_mean
        pose, betas = axis_angle_to_pose(torch.cat([vector[:, :3], fingers], dim=1)), vector[:, 48:58]
        label_joints = official.joints(pose, betas)
        focal = (K[rows, 0, 0] + K[rows, 1, 1]) / 2
        root = np.column_stack([vectors[rows, 58:60] - K[rows, :2, 2], focal]) / vectors[rows, 60:61]
        transl = torch.from_numpy(root) - label_joints[:, ROOT_JOINT]
        values = (pose, betas, transl, plain.joints(pose, betas, transl), label_joints + transl[:, None])
        for part, value in zip(parts.values(), values, strict=True):
            part.append(value.numpy())
    columns = {key: np.concatenate(part) for key, part in parts.items()}
    return columns | {key: columns[key].astype(np.float32) for key in ("pose", "betas", "transl")}
