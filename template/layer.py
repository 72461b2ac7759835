"""The differentiable hand layer: pose, shape and translation to vertices and joints."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from template.assets import HandAssets
from template.skinning import blend_features, forward_kinematics, skin
from utils.joints import MANO_PARENTS, MANO_TO_STANDARD, tip_vertices

JOINT_TYPES = ("kinematic", "regressed")


class HandOutput(NamedTuple):
    """What `HandModel` returns; metres, in the frame that ``transl`` is in."""

    vertices: torch.Tensor  # (B, 778, 3)
    joints: torch.Tensor  # (B, 21, 3) standard order
    rest_joints: torch.Tensor  # (B, 16, 3) MANO order, before pose and translation
    transforms: torch.Tensor  # (B, 16, 3, 4) MANO order: world rotation and (translated) position


class HandModel(nn.Module):
    """MANO's hand as a layer (Romero et al. 2017, eqs. 1-5; Loper et al. 2015, eqs. 2-10).

    The wrist rotates about its own rest position J0(betas), so wrist = J0(betas) + transl whatever
    the global rotation (FACTS 1.4). All buffers are non-persistent: a checkpoint never carries the
    hand, only its hash.

    Args:
        assets: of `load_hand_assets`.
        tips: name of a set in `utils.joints.TIP_VERTICES`.
        joint_type: "kinematic" (positions of the posed chain) or "regressed" (J_regressor applied
            to the posed vertices); they differ by some millimetres (FACTS 6). Tips are vertices.
        dtype: of the buffers; move to a device with ``.to(device)``.

    Raises:
        ValueError: unknown tip set or joint type.
    """

    def __init__(
        self, assets: HandAssets, tips: str = "manopth", joint_type: str = "kinematic",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if joint_type not in JOINT_TYPES:
            raise ValueError(f"joint_type is {joint_type!r}; choose one of {JOINT_TYPES}")
        self.assets, self.joint_type, self.tips = assets, joint_type, tips
        self.tip_ids = tip_vertices(tips, assets.side)

        joint_template = assets.J_regressor @ assets.v_template  # SMPL eq. 10, folded once
        joint_directions = np.einsum("jv,vcs->jcs", assets.J_regressor, assets.shapedirs)
        joint_basis = np.concatenate([joint_template[..., None], joint_directions], axis=-1)  # (16, 3, 11)
        bone_basis = joint_basis.copy()
        bone_basis[1:] -= joint_basis[list(MANO_PARENTS[1:])]
        directions = np.concatenate([assets.v_template[..., None], assets.shapedirs, assets.posedirs], axis=-1)

        def keep(name: str, value: np.ndarray, kind: torch.dtype = dtype) -> None:
            self.register_buffer(name, torch.as_tensor(np.ascontiguousarray(value), dtype=kind), persistent=False)

        keep("joint_basis", joint_basis.reshape(48, 11).T)
        keep("bone_basis", bone_basis.reshape(48, 11).T)
        keep("blend", directions.transpose(2, 1, 0).reshape(146, -1))  # planar: (146, 3 * 778)
        keep("weights", assets.weights.T)
        keep("regressor", assets.J_regressor.T)
        keep("hands_components", assets.hands_components)
        keep("hands_mean", assets.hands_mean)
        keep("faces", assets.faces, torch.int64)
        keep("tip_index", np.array(self.tip_ids), torch.int64)
        keep("standard_order", np.array(MANO_TO_STANDARD), torch.int64)

        # The vertices that the joints-only path needs: tips, and what the regressor looks at.
        used = np.zeros(len(assets.v_template), dtype=bool)
        if joint_type == "regressed":
            used = (assets.J_regressor != 0).any(axis=0)
        subset = np.concatenate([self.tip_ids, np.flatnonzero(used)]).astype(np.int64)
        keep("few_blend", directions[subset].transpose(2, 1, 0).reshape(146, -1))
        keep("few_weights", assets.weights[subset].T)
        keep("few_regressor", assets.J_regressor[:, subset[5:]].T)

    def forward(self, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None = None) -> HandOutput:
        """Pose the whole hand.

        Args:
            pose: (B, 16, 3, 3) rotation matrices relative to the parent, MANO order.
            betas: (B, 10) shape coefficients.
            transl: (B, 3) metres, or None for zero.

        Raises:
            ValueError: a shape is wrong or the batch sizes differ.
        """
        _check(pose, betas, transl)
        rest_joints, transforms = self._chain(pose, betas)
        vertices = skin(blend_features(pose, betas), transforms, rest_joints, transl, self.blend, self.weights)
        if transl is not None:
            transforms = torch.cat([transforms[..., :3], transforms[..., 3:] + transl[:, None, :, None]], dim=-1)
        inner = transforms[..., 3].transpose(1, 2) if self.joint_type == "kinematic" else vertices @ self.regressor
        joints = torch.cat([inner, vertices[:, :, self.tip_index]], dim=2)[:, :, self.standard_order]
        return HandOutput(vertices.transpose(1, 2), joints.transpose(1, 2), rest_joints, transforms)

    def joints(self, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None = None) -> torch.Tensor:
        """The 21 joints (B, 21, 3) of `forward`, posing only the vertices they need (five, when kinematic)."""
        _check(pose, betas, transl)
        rest_joints, transforms = self._chain(pose, betas)
        few = skin(blend_features(pose, betas), transforms, rest_joints, transl, self.few_blend, self.few_weights)
        if self.joint_type == "kinematic":
            inner = transforms[..., 3].transpose(1, 2)
            inner = inner if transl is None else inner + transl[..., None]
        else:
            inner = few[:, :, 5:] @ self.few_regressor
        return torch.cat([inner, few[:, :, :5]], dim=2)[:, :, self.standard_order].transpose(1, 2)

    def rest(self, betas: torch.Tensor) -> torch.Tensor:
        """Zero-pose vertices (B, 778, 3), metres: flat hand, identity rotations, no translation (SMPL eq. 8)."""
        factors = torch.cat([torch.ones_like(betas[:, :1]), betas], dim=1)
        return (factors @ self.blend[:11]).view(len(betas), 3, -1).transpose(1, 2)

    def rest_joints(self, betas: torch.Tensor) -> torch.Tensor:
        """Zero-pose kinematic joints (B, 16, 3), metres, MANO order (SMPL eq. 10); [:, 0] is J0."""
        factors = torch.cat([torch.ones_like(betas[:, :1]), betas], dim=1)
        return (factors @ self.joint_basis).view(-1, 16, 3)

    def _chain(self, pose: torch.Tensor, betas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        factors = torch.cat([torch.ones_like(betas[:, :1]), betas], dim=1)
        rest_joints = (factors @ self.joint_basis).view(-1, 16, 3)
        return rest_joints, forward_kinematics(pose, (factors @ self.bone_basis).view(-1, 16, 3))


def _check(pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None) -> None:
    batch = pose.shape[0]
    if pose.shape[1:] != (16, 3, 3):
        raise ValueError(f"pose has shape {tuple(pose.shape)}, expected (B, 16, 3, 3) rotation matrices")
    if betas.shape != (batch, 10):
        raise ValueError(f"betas has shape {tuple(betas.shape)}, expected ({batch}, 10)")
    if transl is not None and transl.shape != (batch, 3):
        raise ValueError(f"transl has shape {tuple(transl.shape)}, expected ({batch}, 3)")
