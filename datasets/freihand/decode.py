"""From FreiHAND's MANO vectors to posed hands in the camera frame (docs/facts.md 3.2)."""

from __future__ import annotations

import numpy as np
import torch

from template import HandAssets, HandModel, axis_angle_to_pose

ROOT_JOINT = 9  # the middle finger's knuckle, which the vectors place
_CHUNK = 4096


@torch.no_grad()
def decode_vectors(
    vectors: np.ndarray, K: np.ndarray, assets: HandAssets, label_hand: dict[str, str]
) -> dict[str, np.ndarray]:
    """Pose, shape and place of hands.

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
    for start in range(0, len(vectors), _CHUNK):
        rows = slice(start, start + _CHUNK)
        vector = torch.from_numpy(vectors[rows])
        fingers = vector[:, 3:48] + plain.hands_mean
        pose, betas = axis_angle_to_pose(torch.cat([vector[:, :3], fingers], dim=1)), vector[:, 48:58]
        label_joints = official.joints(pose, betas)
        transl = torch.from_numpy(root_position(vectors[rows], K[rows])) - label_joints[:, ROOT_JOINT]
        values = (pose, betas, transl, plain.joints(pose, betas, transl), label_joints + transl[:, None])
        for part, value in zip(parts.values(), values, strict=True):
            part.append(value.numpy())
    columns = {key: np.concatenate(part) for key, part in parts.items()}
    return columns | {key: columns[key].astype(np.float32) for key in ("pose", "betas", "transl")}


def root_position(vectors: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Root joints (N, 3), metres, camera frame, of MANO vectors (N, 61) and intrinsics (N, 3, 3)."""
    focal = (K[:, 0, 0] + K[:, 1, 1]) / 2
    along = vectors[:, 58:60] - K[:, :2, 2]
    return np.column_stack([along, focal]) / vectors[:, 60:61]
