"""DexYCB, read from its official layout as it is (docs/facts.md 1); an optional crop cache makes it fast."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.bad_files import possible_poses
from datasets.crop_dataset import CropDataset, DatasetOptions
from datasets.dex_ycb.files import HEIGHT, WIDTH, color_name
from datasets.dex_ycb.labels import LabelTable, load_label_table
from datasets.dex_ycb.splits import get_split
from datasets.image_crop import joint_boxes, read_image
from template import HandAssets, load_hand_assets, mirror_pose, pca_to_pose
from template.sides import MIRROR, LeftHandShape, rest_wrist
from utils.camera import mirror_intrinsics

logger = logging.getLogger(__name__)

SIDES = ("right", "left", "both")
#: Subjects have far fewer sequences than this; sequence_id = subject number * this + place in the subject.
_SEQUENCE_ID_STRIDE = 100_000
_POSES_AT_ONCE = 65536


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
            options: of `datasets.crop_dataset.DatasetOptions`.

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
        table, data_key = load_label_table(root, get_split(split), chosen)
        self.num_bad_labels = int(table.bad.sum())
        is_left = table.is_left[table.sequence]
        keep = ~table.bad if chosen.include_invalid else table.annotated
        if side != "both":
            keep = keep & (is_left == (side == "left"))
        if chosen.paper_filter:
            x, y = table.joint_2d[..., 0], table.joint_2d[..., 1]  # bounds included: the paper's rule
            keep = keep & ((x >= 0) & (x <= WIDTH) & (y >= 0) & (y <= HEIGHT)).all(axis=1)
        rows = np.flatnonzero(keep)
        if len(rows) == 0:
            raise ValueError(f"{root}: split {split} has no sample of side {side!r} ({len(table)} before filters)")
        self._image_files = (table.sequence_path[table.sequence[rows]], table.serial[table.camera[rows]])
        self._frames = table.frame[rows]
        assets = {"right": load_hand_assets(chosen.mano_dir, "right")}
        if is_left[rows].any():
            assets["left"] = load_hand_assets(chosen.mano_dir, "left")
        columns, keypoints = _decode_labels(table, rows, assets)
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


def _decode_labels(
    table: LabelTable, rows: np.ndarray, assets: dict[str, HandAssets]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of M samples (`datasets.sample`) that do not depend on the crop, of these rows (M,) of the table; and
    keypoints (M, 21, 2) float64, px of the full image, mirrored if left.

    Samples without annotation get an identity pose, zero joints, keypoints and translation. Left hands are decoded with
    the left hand's model, then mirrored. Where that is the right one's mirror image (the stand-in), their betas stay
    and ``transl`` is the label's with x negated. Where it is not (MANO_LEFT as released), ``betas`` are those of the
    closest right hand, ``label_betas`` the label's own, and ``transl`` keeps the mirrored wrist where it is under the
    *right* hand's model.
    """
    sequence = table.sequence[rows]
    is_left, betas = table.is_left[sequence], table.betas[sequence]
    valid = table.annotated[rows]
    valid &= possible_poses(np.where(valid[:, None], table.pose_m[rows, :48], 0), "labels")
    pose_m = np.where(valid[:, None], table.pose_m[rows], 0).astype(np.float64)
    joints = np.where(valid[:, None, None], table.joint_3d[rows], 0).astype(np.float64)
    keypoints = np.where(valid[:, None, None], table.joint_2d[rows], 0).astype(np.float64)
    K_image = table.intrinsics[table.camera[rows]]
    transl = pose_m[:, 48:].copy()
    pose = np.empty((len(rows), 16, 3, 3), dtype=np.float32)
    for side, chosen in (("right", ~is_left), ("left", is_left)):
        for start in range(0, chosen.sum(), _POSES_AT_ONCE):
            few = np.flatnonzero(chosen)[start : start + _POSES_AT_ONCE]
            vectors = torch.from_numpy(pose_m[few])
            pose[few] = pca_to_pose(assets[side], vectors[:, :3], vectors[:, 3:48]).float().numpy()
    pose[~valid] = np.eye(3)
    right_betas = _as_right_hands(betas, is_left, assets)
    left = is_left & valid
    if left.any():
        difference = rest_wrist(assets["left"], betas[left]) * MIRROR - rest_wrist(assets["right"], right_betas[left])
        pose[left] = mirror_pose(torch.from_numpy(pose[left])).numpy()
        transl[left] = transl[left] * MIRROR + difference
        joints[left] *= MIRROR
        keypoints[left, :, 0] = WIDTH - 1 - keypoints[left, :, 0]
    K_image = np.where(is_left[:, None, None], mirror_intrinsics(K_image, WIDTH), K_image)
    own_betas = {} if right_betas is betas else {"label_betas": betas.astype(np.float32)}
    columns = {
        "K_image": K_image,
        "joints": joints.astype(np.float32),
        "pose": pose,
        "betas": right_betas.astype(np.float32),
        "transl": transl.astype(np.float32),
        "image_id": table.image_id[rows],
        "subject_id": table.subject_id[sequence],
        "sequence_id": table.subject_id[sequence] * _SEQUENCE_ID_STRIDE + table.sequence_number[sequence],
        "is_left": is_left,
        "valid": valid,
    }
    return columns | own_betas, keypoints


def _as_right_hands(betas: np.ndarray, is_left: np.ndarray, assets: dict[str, HandAssets]) -> np.ndarray:
    """Betas (M, 10) of the right hand model: the same array where the left model is its mirror image."""
    if not is_left.any():
        return betas
    shape = LeftHandShape(assets["left"], assets["right"])
    if shape.is_mirror:
        return betas
    different, inverse = np.unique(betas[is_left], axis=0, return_inverse=True)
    converted = shape.to_right(different)
    logger.warning(
        "left hands: %s's left model is not the mirror image of its right one (docs/facts.md 1.6). Betas of %d left "
        "hands are taken to the closest right hands': %.1f mm off on average, %.1f mm the worst (mean vertex distance "
        "at rest)",
        assets["left"].name, len(different), converted.residual.mean() * 1000, converted.residual.max() * 1000,
    )  # fmt: skip
    right = betas.astype(np.float64)
    right[is_left] = converted.betas[inverse.reshape(-1)]
    return right
