"""Rows of predictions from what a mesh network returns, placed in the camera by registration."""

from __future__ import annotations

import numpy as np
import torch

from src.models.mesh_joints import mesh_joints
from src.personalization.registration.register import register_mesh
from template import HandModel


def mesh_rows(
    output: dict[str, torch.Tensor], keypoints: torch.Tensor, batch: dict[str, torch.Tensor], hand: HandModel
) -> dict[str, np.ndarray]:
    """``vertices``, ``joints``, ``root`` and its ``status`` of a batch (`utils.artifacts.Predictions`).

    Args:
        output: of a network of `src.models.cmr`; its ``mask``, if there is one, helps to find the place.
        keypoints: (B, 21, 2) its keypoints, px of the full image.
        batch: of `prepare_batch`: ``K_image``, ``crop_to_image`` and ``image`` are read.
        hand: layer whose regressor gives the mesh's joints.
    """
    vertices = output["vertices"].float()
    joints = mesh_joints(vertices, hand)
    vertices, joints = vertices - joints[:, :1], joints - joints[:, :1]
    mask = output.get("mask")
    found = register_mesh(
        vertices,
        joints,
        batch["K_image"],
        keypoints,
        output["keypoint_confidence"],
        None if mask is None else mask[:, 0].float(),
        mask_to_image=None if mask is None else _map_to_image(batch, mask.shape[-1]),
    )
    rows = {"vertices": vertices, "joints": joints, "root": found.transl, "status": found.status}
    return {name: value.cpu().numpy() for name, value in rows.items()}


def _map_to_image(batch: dict[str, torch.Tensor], map_size: int) -> torch.Tensor:
    """Affines (B, 2, 3) from px of a map of that side to px of the full image (pixel centres at integers)."""
    scale = batch["image"].shape[-1] / map_size
    affine = batch["crop_to_image"]
    linear, shift = affine[:, :, :2] * scale, affine[:, :, 2] + affine[:, :, :2].sum(2) * (0.5 * scale - 0.5)
    return torch.cat([linear, shift[..., None]], dim=2)
