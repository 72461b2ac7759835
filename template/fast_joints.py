"""Joints and tips of the posed hand without its mesh, with a backward pass written out by hand.

The numbers of `template.fast_skinning` where only five vertices are asked for. With so few of them everything keeps the
batch last: what is linear in betas is one product, the tips' pose blend another, and nothing is laid out anew between
the input and the result. (`template.kinematics` is the same hand for solvers, with its Jacobian.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from template.fast_skinning import chain, chain_backward, relative_backward, relative_transforms
from template.large_products import full_precision
from utils.joints import MANO_TO_STANDARD, STANDARD_TO_MANO


class JointTables(nn.Module):
    """Constants of the joints and the five tips, rows by coordinate.

    Args:
        joint_basis: (16, 3, 11) rest joints: template, then shape directions, metres.
        bone_basis: (16, 3, 11) the same for rest joint minus rest parent.
        directions: (5, 3, 146) tips: template, shape and pose directions.
        weights: (5, 16) skinning weights of the tips.
    """

    rest_template: torch.Tensor
    rest_directions: torch.Tensor
    blend: torch.Tensor
    weights: torch.Tensor
    to_standard: torch.Tensor
    to_mano: torch.Tensor

    def __init__(
        self,
        joint_basis: np.ndarray,
        bone_basis: np.ndarray,
        directions: np.ndarray,
        weights: np.ndarray,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        # On whole local transforms (3, 4, 16): zero for the bones' column and for the wrist. Factors are R, not R - I.
        blend = np.zeros((3, 5, 3, 4, 16))
        blend[:, :, :, :3, 1:] = directions[:, :, 11:].reshape(5, 3, 15, 3, 3).transpose(1, 0, 3, 4, 2)
        tips = directions[:, :, :11].copy()
        tips[:, :, 0] -= np.einsum("ctaak->tc", blend[:, :, :, :3])
        rest = np.concatenate([v.transpose(1, 0, 2).reshape(-1, 11) for v in (bone_basis, joint_basis, tips)])
        for name, value in (
            ("rest_template", rest[:, :1]),
            ("rest_directions", rest[:, 1:]),
            ("blend", blend.reshape(15, 192)),
            ("weights", weights),
        ):
            self.register_buffer(name, torch.as_tensor(value.copy(order="C"), dtype=dtype), persistent=False)
        for name, index in (("to_standard", MANO_TO_STANDARD), ("to_mano", STANDARD_TO_MANO)):
            self.register_buffer(name, torch.as_tensor(np.array(index), dtype=torch.int64), persistent=False)


class PosedJoints(torch.autograd.Function):
    """pose (B, 16, 3, 3), betas (B, 10), transl (B, 3) m or None, tables -> joints and tips (B, 21, 3), m, standard
    order."""

    @staticmethod
    def forward(
        ctx: Any, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None, tables: JointTables
    ) -> torch.Tensor:
        batch = len(pose)
        rest = torch.addmm(tables.rest_template, tables.rest_directions, betas.t())
        rest_joints = rest[48:96].view(3, 16, batch)
        local = torch.empty(3, 4, 16, batch, dtype=pose.dtype, device=pose.device)
        local[:, :3] = pose.permute(2, 3, 1, 0)
        local[:, 3] = rest[:48].view(3, 16, batch)
        world = chain(local)
        x, y, z = corrected = torch.addmm(rest[96:], tables.blend, local.view(192, batch)).view(3, 5, batch)
        relative = relative_transforms(world, rest_joints)
        blended = torch.matmul(tables.weights, relative.view(12, 16, batch)).view(3, 4, 5, batch)
        tips = torch.addcmul(blended[:, 3], blended[:, 0], x).addcmul_(blended[:, 1], y).addcmul_(blended[:, 2], z)
        points = torch.cat([world[:, 3], tips], dim=1)
        if transl is not None:
            points += transl.t()[:, None]
        ctx.save_for_backward(local, world, rest_joints, corrected, blended)
        ctx.tables = tables
        return points.permute(2, 1, 0).index_select(1, tables.to_standard)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_joints: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        local, world, rest_joints, corrected, blended = ctx.saved_tensors
        tables, batch = ctx.tables, g_joints.shape[0]
        g_transl = g_joints.sum(dim=1) if ctx.needs_input_grad[2] else None
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            return None, None, g_transl, None
        with full_precision(world.device):
            points = g_joints.reshape(batch, 63).t().contiguous().view(21, 3, batch).index_select(0, tables.to_mano)
            g_positions, g_tips = points.transpose(0, 1).split([16, 5], dim=1)
            row_0, row_1, row_2 = blended[:, :3]
            g_corrected = (row_0 * g_tips[0]).addcmul_(row_1, g_tips[1]).addcmul_(row_2, g_tips[2])
            g_blended = torch.empty_like(blended)
            torch.mul(g_tips[:, None], corrected, out=g_blended[:, :3])
            g_blended[:, 3] = g_tips
            g_world = torch.matmul(tables.weights.t(), g_blended.view(12, 5, batch)).view(3, 4, 16, batch)
            g_rest = torch.empty(111, batch, dtype=world.dtype, device=world.device)
            relative_backward(world, rest_joints, g_world, g_rest[48:96].view(3, 16, batch))
            g_world[:, 3].add_(g_positions)
            g_local = chain_backward(local, world, g_world)
            g_rest[:48].view(3, 16, batch).copy_(g_local[:, 3])
            g_rest[96:] = g_corrected.view(15, batch)
            g_betas = g_rest.t() @ tables.rest_directions
            g_local.view(192, batch).addmm_(tables.blend.t(), g_corrected.view(15, batch))
            g_pose = g_local[:, :3].permute(3, 2, 0, 1).contiguous()
        return g_pose, g_betas, g_transl, None
