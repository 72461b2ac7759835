"""The differentiable hand layer: pose, shape and translation to vertices and joints."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from template.assets import HandAssets
from template.fast_joints import JointTables, PosedJoints
from template.fast_skinning import PosedHand, SkinTables
from template.few_hands import MOST, FewHands
from template.large_products import full_precision
from template.reference import blend_features, forward_kinematics, skin
from utils.joints import MANO_TO_STANDARD, tip_vertices

JOINT_TYPES = ("kinematic", "regressed")
#: What `few_hands` can look at as NumPy's: neither bfloat16 nor, say, the fake tensors of a tracer.
_NUMPY_TYPES, _NUMPY_DTYPES = (torch.Tensor, nn.Parameter), (torch.float32, torch.float64)


class HandOutput(NamedTuple):
    """What `HandModel` returns; metres, in the frame that ``transl`` is in."""

    vertices: torch.Tensor  # (B, 778, 3)
    joints: torch.Tensor  # (B, 21, 3) standard order
    rest_joints: torch.Tensor  # (B, 16, 3) MANO order, before pose and translation
    transforms: torch.Tensor  # (B, 16, 3, 4) MANO order: world rotation and (translated) position


class HandModel(nn.Module):
    """MANO's hand (Romero et al. 2017) as a layer; the equations are SMPL's (Loper et al. 2015, eqs. 2-10).

    The wrist rotates about its own rest position J0(betas), so wrist = J0(betas) + transl whatever
    the global rotation (docs/facts.md 1.4). All buffers are non-persistent: a checkpoint never carries the
    hand, only its hash.

    Args:
        assets: of `load_hand_assets`.
        tips: name of a set in `utils.joints.TIP_VERTICES`.
        joint_type: "kinematic" (positions of the posed chain) or "regressed" (J_regressor applied
            to the posed vertices); they differ by some millimetres (docs/facts.md 6). Tips are vertices.
        dtype: of the buffers; move to a device with ``.to(device)``. Half precision input is raised
            to it, also under autocast: a metre in half precision is millimetres off.
        plain: differentiate by autograd alone (slower; for second derivatives and `torch.func`).

    Raises:
        ValueError: unknown tip set or joint type.
    """

    joint_basis: torch.Tensor
    blend: torch.Tensor
    weights: torch.Tensor
    hands_components: torch.Tensor
    hands_mean: torch.Tensor
    faces: torch.Tensor
    tip_index: torch.Tensor
    standard_order: torch.Tensor
    regressor: torch.Tensor
    few_regressor: torch.Tensor

    def __init__(
        self,
        assets: HandAssets,
        tips: str = "manopth",
        joint_type: str = "kinematic",
        dtype: torch.dtype = torch.float32,
        plain: bool = False,
    ) -> None:
        super().__init__()
        if joint_type not in JOINT_TYPES:
            raise ValueError(f"joint_type is {joint_type!r}; choose one of {JOINT_TYPES}")
        self.assets, self.joint_type, self.tips, self.plain = assets, joint_type, tips, plain
        self.tip_ids = tip_vertices(tips, assets.side)

        shape_basis = np.concatenate([assets.v_template[..., None], assets.shapedirs], axis=-1)  # (778, 3, 11)
        joint_basis = np.einsum("jv,vcs->jcs", assets.J_regressor, shape_basis)  # SMPL eq. 10, folded once
        directions = np.concatenate([shape_basis, assets.posedirs], axis=-1)  # (778, 3, 146)

        def keep(name: str, value: np.ndarray, kind: torch.dtype = dtype) -> None:
            self.register_buffer(name, torch.as_tensor(np.ascontiguousarray(value), dtype=kind), persistent=False)

        keep("joint_basis", joint_basis.reshape(48, 11).T)
        keep("blend", directions.transpose(2, 1, 0).reshape(146, -1))  # planar: (146, 3 * 778)
        keep("weights", assets.weights.T)
        keep("hands_components", assets.hands_components)
        keep("hands_mean", assets.hands_mean)
        keep("faces", assets.faces, torch.int64)
        keep("tip_index", np.array(self.tip_ids), torch.int64)
        keep("standard_order", np.array(MANO_TO_STANDARD), torch.int64)
        self.mesh_tables = SkinTables(joint_basis, directions, assets.weights, self.tip_ids, dtype)

        # Regressed joints and tips as one (778, 21) product, in the standard order.
        tip_rows = np.eye(len(assets.v_template))[list(self.tip_ids)]
        regressor = np.concatenate([assets.J_regressor, tip_rows])[list(MANO_TO_STANDARD)].T
        keep("regressor", regressor)
        # The vertices that the joints-only path needs: tips, and what the regressor looks at.
        regressed = np.flatnonzero((assets.J_regressor != 0).any(axis=0) & (joint_type == "regressed"))
        few = np.concatenate([self.tip_ids, np.setdiff1d(regressed, self.tip_ids)]).astype(np.int64)
        self.few_tables = SkinTables(joint_basis, directions[few], assets.weights[few], range(5), dtype)
        ends = list(self.tip_ids)
        quick = joint_type == "kinematic" and JointTables.follow_own_finger(assets.weights[ends])
        self.joint_tables = JointTables(joint_basis, directions[ends], assets.weights[ends], dtype) if quick else None
        keep("few_regressor", regressor[few])

    def forward(self, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None = None) -> HandOutput:
        """Pose the whole hand.

        Args:
            pose: (B, 16, 3, 3) rotation matrices relative to the parent, MANO order.
            betas: (B, 10) shape coefficients.
            transl: (B, 3) metres, or None for zero.

        Raises:
            ValueError: a shape or dtype is wrong or the batch sizes differ.
        """
        pose, betas, transl = checked_hands(pose, betas, transl, self.blend.dtype)
        with full_precision(pose.device):
            if self.plain:
                rest_joints = self.rest_joints(betas)
                transforms = forward_kinematics(pose, rest_joints)
                unposed = (blend_features(pose, betas) @ self.blend).view(-1, 3, self.weights.shape[1])
                vertices = skin(unposed, transforms, rest_joints, transl, self.weights)
                if transl is not None:
                    transforms = torch.cat(
                        [transforms[..., :3], transforms[..., 3:] + transl[:, None, :, None]], dim=-1
                    )
                joints = torch.cat([transforms[..., 3], vertices[:, :, self.tip_index].transpose(1, 2)], dim=1)
                joints = joints[:, self.standard_order]
            else:
                vertices, joints, transforms, rest_joints = self._fast(pose, betas, transl, self.mesh_tables, True)
            if self.joint_type == "regressed":
                joints = (vertices @ self.regressor).transpose(1, 2)
        return HandOutput(vertices.transpose(1, 2), joints, rest_joints, transforms)

    def joints(self, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None = None) -> torch.Tensor:
        """The 21 joints (B, 21, 3), m, of `forward`, posing only the vertices they need (five, when kinematic)."""
        if self.plain:
            return self(pose, betas, transl).joints
        pose, betas, transl = checked_hands(pose, betas, transl, self.blend.dtype)
        with full_precision(pose.device):
            if self.joint_tables is not None and not self._suits_few(pose, betas):
                return PosedJoints.apply(pose, betas, transl, self.joint_tables)
            few, joints, _, _ = self._fast(pose, betas, transl, self.few_tables, False)
            return joints if self.joint_type == "kinematic" else (few @ self.few_regressor).transpose(1, 2)

    def rest(self, betas: torch.Tensor) -> torch.Tensor:
        """Zero-pose vertices (B, 778, 3), metres: flat hand, identity rotations, no translation (SMPL eq. 8)."""
        betas = self._checked_betas(betas)
        with full_precision(betas.device):
            return torch.addmm(self.blend[0], betas, self.blend[1:11]).unflatten(1, (3, -1)).transpose(1, 2)

    def rest_joints(self, betas: torch.Tensor) -> torch.Tensor:
        """Zero-pose kinematic joints (B, 16, 3), metres, MANO order (SMPL eq. 10); [:, 0] is J0."""
        betas = self._checked_betas(betas)
        with full_precision(betas.device):
            return torch.addmm(self.joint_basis[0], betas, self.joint_basis[1:]).view(-1, 16, 3)

    def _fast(
        self, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None, tables: SkinTables, whole: bool
    ) -> tuple[torch.Tensor, ...]:
        if self._suits_few(pose, betas):
            return FewHands.apply(pose, betas, transl, tables)
        return PosedHand.apply(pose, betas, transl, tables, whole)

    @staticmethod
    def _suits_few(pose: torch.Tensor, betas: torch.Tensor) -> bool:
        plain = type(pose) in _NUMPY_TYPES and type(betas) in _NUMPY_TYPES and pose.dtype in _NUMPY_DTYPES
        return plain and len(pose) <= MOST and pose.device.type == "cpu" and not torch.compiler.is_compiling()

    def _checked_betas(self, betas: torch.Tensor) -> torch.Tensor:
        if betas.dim() != 2 or betas.shape[1] != 10:
            raise ValueError(f"betas has shape {tuple(betas.shape)}, expected (B, 10)")
        if betas.dtype == torch.float64 != self.blend.dtype:
            raise ValueError(f"float64 input to a {self.blend.dtype} hand layer; make it with dtype=torch.float64")
        return betas.to(self.blend.dtype)


def checked_hands(
    pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What `HandModel.forward` takes, as ``dtype``.

    Raises:
        ValueError: a shape or dtype is wrong or the batch sizes differ.
    """
    if pose.shape[1:] != (16, 3, 3):
        raise ValueError(f"pose has shape {tuple(pose.shape)}, expected (B, 16, 3, 3) rotation matrices")
    batch = pose.shape[0]
    if betas.shape != (batch, 10):
        raise ValueError(f"betas has shape {tuple(betas.shape)}, expected ({batch}, 10)")
    if transl is not None and transl.shape != (batch, 3):
        raise ValueError(f"transl has shape {tuple(transl.shape)}, expected ({batch}, 3)")
    if pose.dtype == betas.dtype == dtype and (transl is None or transl.dtype == dtype):
        return pose, betas, transl
    kinds = (pose.dtype, betas.dtype, pose.dtype if transl is None else transl.dtype)
    if dtype != torch.float64 and torch.float64 in kinds:
        raise ValueError(f"float64 input to a {dtype} hand layer; make it with dtype=torch.float64")
    return pose.to(dtype), betas.to(dtype), None if transl is None else transl.to(dtype)
