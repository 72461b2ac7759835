"""How well a hand's shape is known: zero-pose meshes and lengths, apart from any pose."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from src.evaluation.metrics import point_errors, to_array
from utils.joints import BONES


def rest_hand(model: Any, betas: Any) -> tuple[np.ndarray, np.ndarray]:
    """Zero-pose (flat hand) vertices (N,778,3) and joints (N,21,3) of ``betas`` (N,10), metres, wrist at 0.

    ``model`` is a `template.HandModel`. The model's own origin means nothing and its wrist moves with
    the betas (docs/facts.md 1.4), so the wrist is put at the origin.
    """
    betas = torch.as_tensor(betas)
    buffer = next(model.buffers())
    betas = betas.to(device=buffer.device, dtype=buffer.dtype if buffer.is_floating_point() else torch.float32)
    pose = torch.eye(3, dtype=betas.dtype, device=betas.device).expand(len(betas), 16, 3, 3)
    with torch.no_grad():
        vertices, joints = model.rest(betas), model.joints(pose, betas, None)
    wrist = joints[:, :1]
    return to_array(vertices - wrist), to_array(joints - wrist)


def zero_pose_mpvpe(model: Any, betas: Any, true_betas: Any) -> np.ndarray:
    """Mean vertex distance (N,), millimetres, of zero-pose meshes of ``betas`` and ``true_betas`` (N,10).

    The measure of personalisation of hand_tracking_toolkit's shape track; wrist on wrist.
    """
    predicted, truth = rest_hand(model, betas)[0], rest_hand(model, true_betas)[0]
    return point_errors(predicted, truth).mean(axis=1) * 1000


def bone_lengths(joints: Any) -> np.ndarray:
    """Lengths (...,20) of the bones in the order of `utils.joints.BONES`, of joints (...,21,3), both in m."""
    joints = to_array(joints)
    parents, children = (list(ends) for ends in zip(*BONES, strict=True))
    return np.linalg.norm(joints[..., children, :] - joints[..., parents, :], axis=-1)
