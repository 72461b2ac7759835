"""From DexYCB's raw labels to the columns of our samples: hand decoded, left hands mirrored."""

from __future__ import annotations

import logging

import numpy as np
import torch

from datasets.bad_files import possible_poses
from datasets.dex_ycb.files import HEIGHT, WIDTH
from datasets.dex_ycb.labels import LabelTable
from template import HandAssets, mirror_pose, pca_to_pose
from template.sides import MIRROR, LeftHandShape, rest_wrist
from utils.camera import mirror_intrinsics

logger = logging.getLogger(__name__)

#: Subjects have far fewer sequences than this; sequence_id = subject number * this + place in the subject.
_SEQUENCE_ID_STRIDE = 100_000


def decode_labels(
    table: LabelTable, rows: np.ndarray, assets: dict[str, HandAssets]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of the sample (`datasets.sample`) that do not depend on the crop, and the keypoints.

    Left hands are decoded with the left hand's model and then mirrored. Where the left model is the right one's
    mirror image (the stand-in), their betas stay and ``transl`` is the label's with x negated. Where it is not
    (MANO_LEFT as released), ``betas`` are those of the closest right hand, ``label_betas`` the label's own, and
    ``transl`` keeps the mirrored wrist where it is under the *right* hand's model.

    Args:
        table: raw labels.
        rows: (M,) rows of the table.
        assets: hand models by side, for the sides that occur; "right" always.

    Returns:
        Arrays of M rows by key; keypoints (M, 21, 2) float64, px of the full image, mirrored if left. Samples without
        annotation get an identity pose, zero joints, keypoints and translation.
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
        if chosen.any():
            pose[chosen] = _decode_pose(pose_m[chosen], assets[side])
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


def inside_image(table: LabelTable) -> np.ndarray:
    """(N,) bool: all 21 joints lie in the image, 0 <= x <= 640, 0 <= y <= 480, the paper's rule (docs/facts.md 1.8)."""
    x, y = table.joint_2d[..., 0], table.joint_2d[..., 1]
    return ((x >= 0) & (x <= WIDTH) & (y >= 0) & (y <= HEIGHT)).all(axis=1)


def _decode_pose(pose_m: np.ndarray, assets: HandAssets, chunk: int = 65536) -> np.ndarray:
    parts = []
    for start in range(0, len(pose_m), chunk):
        part = torch.from_numpy(pose_m[start : start + chunk])
        parts.append(pca_to_pose(assets, part[:, :3], part[:, 3:48]).float().numpy())
    return np.concatenate(parts)
