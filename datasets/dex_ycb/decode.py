"""From DexYCB's raw labels to the columns of our samples: hand decoded, left hands mirrored."""

from __future__ import annotations

import numpy as np
import torch

from datasets.dex_ycb.files import HEIGHT, WIDTH
from datasets.dex_ycb.labels import LabelTable
from template import HandAssets, HandModel, mirror_pose, pca_to_pose
from utils.camera import mirror_intrinsics

#: Subjects have far fewer sequences than this; sequence_id = subject number * this + place in the subject.
_SEQUENCE_ID_STRIDE = 100_000
_MIRROR = np.array([-1.0, 1.0, 1.0])


def decode_labels(table: LabelTable, rows: np.ndarray, assets: dict[str, HandAssets]) -> dict[str, np.ndarray]:
    """Columns of the sample (`datasets.sample`) that do not depend on the crop, plus ``image_keypoints``.

    Left hands are decoded with the left hand's model and then mirrored. Their ``transl`` keeps the
    mirrored wrist where it is under the *right* hand's model; where the left model is the right one's
    mirror image (the stand-in), this is the label's translation with x negated.

    Args:
        table: raw labels.
        rows: (M,) rows of the table.
        assets: hand models by side, for the sides that occur; "right" always.

    Returns:
        Arrays of M rows. ``image_keypoints`` (M, 21, 2) float64: px of the full image, mirrored if left.
        Samples without annotation get an identity pose, zero joints, keypoints and translation.
    """
    sequence = table.sequence[rows]
    is_left, betas = table.is_left[sequence], table.betas[sequence]
    valid = table.annotated[rows]
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
    left = is_left & valid
    if left.any():
        difference = rest_wrist(assets["left"], betas[left]) * _MIRROR - rest_wrist(assets["right"], betas[left])
        pose[left] = mirror_pose(torch.from_numpy(pose[left])).numpy()
        transl[left] = transl[left] * _MIRROR + difference
        joints[left] *= _MIRROR
        keypoints[left, :, 0] = WIDTH - 1 - keypoints[left, :, 0]
    K_image = np.where(is_left[:, None, None], mirror_intrinsics(K_image, WIDTH), K_image)
    return {
        "K_image": K_image,
        "image_keypoints": keypoints,
        "joints": joints.astype(np.float32),
        "pose": pose,
        "betas": betas.astype(np.float32),
        "transl": transl.astype(np.float32),
        "image_id": table.image_id[rows],
        "subject_id": table.subject_id[sequence],
        "sequence_id": table.subject_id[sequence] * _SEQUENCE_ID_STRIDE + table.sequence_number[sequence],
        "is_left": is_left,
        "valid": valid,
    }


def rest_wrist(assets: HandAssets, betas: np.ndarray) -> np.ndarray:
    """Wrist J0 (M, 3), metres, of the rest pose for betas (M, 10): MANO turns the hand about it."""
    regressor = assets.J_regressor[0]
    return regressor @ assets.v_template + betas @ np.einsum("v,vck->kc", regressor, assets.shapedirs)


@torch.no_grad()
def posed_vertices(
    models: dict[str, HandModel], side: str, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor
) -> torch.Tensor:
    """Vertices (M, 778, 3), metres, of samples that were all of one ``side`` before mirroring.

    Left hands are posed by the left model, mirrored, and moved by the difference between the two models'
    rest wrists, the inverse of what `decode_labels` does to ``transl``.

    Args:
        models: by side.
        side: "right" or "left".
        pose, betas, transl: (M, 16, 3, 3), (M, 10), (M, 3) as in the sample, that is, mirrored if left.
    """
    if side == "right":
        return models["right"](pose, betas, transl).vertices
    mirror = torch.from_numpy(_MIRROR).to(pose.dtype)
    left = models["left"](mirror_pose(pose), betas)
    right_wrist = models["right"](pose, betas).rest_joints[:, 0]
    return left.vertices * mirror + (transl + right_wrist - left.rest_joints[:, 0] * mirror)[:, None]


def inside_image(table: LabelTable) -> np.ndarray:
    """(N,) bool: all 21 joints lie in the image by the paper's rule, 0 <= x <= 640 and 0 <= y <= 480 (FACTS 1.8)."""
    x, y = table.joint_2d[..., 0], table.joint_2d[..., 1]
    return ((x >= 0) & (x <= WIDTH) & (y >= 0) & (y <= HEIGHT)).all(axis=1)


def _decode_pose(pose_m: np.ndarray, assets: HandAssets, chunk: int = 65536) -> np.ndarray:
    parts = []
    for start in range(0, len(pose_m), chunk):
        part = torch.from_numpy(pose_m[start : start + chunk])
        parts.append(pca_to_pose(assets, part[:, :3], part[:, 3:48]).float().numpy())
    return np.concatenate(parts)
