"""The same hand as `template.skinning`, with a backward pass written out by hand.

Why it is fast on a CPU: one product a level of the chain for all five fingers; the skinning of a
few dozen hands at a time, so that their (12, V) blended transforms stay in the cache; those
transforms are computed again in the backward pass instead of being kept; and few, large operations,
because at batch 1 the number of operations is all that counts.

Layout: joints are *level-major* (wrist, five first joints, five second, five third) and come before
the batch, so that a level is one contiguous block; coordinates are planar, (B, 3, V).
Second derivatives and `torch.func` need the plain form.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from template.skinning import FINGERS, LEVELS
from utils.joints import MANO_TO_STANDARD

#: MANO joint at each level-major place: wrist, then joint 1 + 3 * finger + level.
LEVEL_ORDER = (0, *(1 + LEVELS * finger + level for level in range(LEVELS) for finger in range(FINGERS)))

#: Bytes of blended transforms worked on at a time: about the second-level cache of two CPU cores.
CPU_CHUNK_BYTES = 2 * 2**20
#: On other devices only the peak memory is bounded.
DEVICE_CHUNK_BYTES = 512 * 2**20


class SkinTables(nn.Module):
    """Constants of a hand, or of some of its vertices, in the layout of this module.

    Args:
        joint_basis: (16, 3, 11) rest joints: template, then shape directions, metres.
        bone_basis: (16, 3, 11) the same for rest joint minus rest parent.
        directions: (V, 3, 146) vertices: template, shape and pose directions.
        weights: (V, 16) skinning weights.
        tips: places of the five fingertips among the V vertices.
    """

    def __init__(
        self, joint_basis: np.ndarray, bone_basis: np.ndarray, directions: np.ndarray, weights: np.ndarray,
        tips: Sequence[int], dtype: torch.dtype,
    ) -> None:
        super().__init__()
        order = list(LEVEL_ORDER)
        rest = np.concatenate([bone_basis[order], joint_basis[order]]).reshape(96, 11).T
        planar = directions.transpose(2, 1, 0).reshape(directions.shape[2], -1)
        # The factors are R, not R - I: the identity's share is taken off the template once.
        at_identity = np.tile(np.eye(3).ravel(), 15) @ planar[11:]
        for name, value in (
            ("rest_template", rest[0]), ("rest_directions", rest[1:]), ("template", planar[0] - at_identity),
            ("directions", planar[1:]), ("weights", weights.T[order]),
        ):
            self.register_buffer(name, torch.as_tensor(value.copy(order="C"), dtype=dtype), persistent=False)
        mano_order = np.argsort(order)
        standard = np.array([mano_order[joint] if joint < 16 else joint for joint in MANO_TO_STANDARD])
        for name, index in (
            ("order", order), ("mano_order", mano_order), ("tips", tips),
            ("standard_order", standard), ("from_standard", np.argsort(standard)),
        ):
            self.register_buffer(name, torch.as_tensor(np.array(index), dtype=torch.int64), persistent=False)

    def chunk(self) -> int:
        """How many hands are skinned at a time."""
        budget = CPU_CHUNK_BYTES if self.weights.device.type == "cpu" else DEVICE_CHUNK_BYTES
        return max(1, budget // (12 * self.weights.shape[1] * self.weights.element_size()))


class PosedHand(torch.autograd.Function):
    """pose (B, 16, 3, 3), betas (B, 10), transl (B, 3) or None, tables, whole -> vertices (B, 3, V),
    kinematic joints and tips (B, 21, 3) in standard order and, if whole (else None),
    transforms (B, 16, 3, 4) and rest joints (B, 16, 3)."""

    @staticmethod
    def forward(
        ctx: Any, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None, tables: SkinTables,
        whole: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        batch = len(pose)
        rest = torch.addmm(tables.rest_template, betas, tables.rest_directions).view(batch, 2, 16, 3)
        bones, rest_joints = rest.permute(1, 2, 0, 3).contiguous()  # (16, B, 3) each
        local = torch.cat([pose.transpose(0, 1).index_select(0, tables.order), bones[..., None]], dim=-1)
        world = _chain(local)
        relative = _relative(world, rest_joints)
        factors = torch.cat([betas, pose[:, 1:].reshape(batch, 135)], dim=1)
        unposed = torch.empty(batch, tables.template.numel(), dtype=pose.dtype, device=pose.device)
        vertices = torch.empty_like(unposed).view(batch, 3, -1)
        for rows in _chunks(batch, tables.chunk()):
            torch.addmm(tables.template, factors[rows], tables.directions, out=unposed[rows])
            _skin(relative[rows], unposed[rows].view(-1, *vertices.shape[1:]), tables.weights, vertices[rows])
        if transl is not None:
            vertices += transl[:, :, None]
            world[..., 3] += transl
        tips = vertices.permute(2, 0, 1).index_select(0, tables.tips)
        joints = torch.cat([world[..., 3], tips]).index_select(0, tables.standard_order).transpose(0, 1)
        ctx.save_for_backward(local, world, rest_joints, relative, unposed)
        ctx.tables = tables
        ctx.set_materialize_grads(False)
        if not whole:
            return vertices, joints, None, None
        transforms = world.index_select(0, tables.mano_order).transpose(0, 1)
        return vertices, joints, transforms, rest_joints.index_select(0, tables.mano_order).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g_vertices: torch.Tensor | None, g_joints: torch.Tensor | None, g_transforms: torch.Tensor | None,
        g_rest: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, ...]:
        local, world, rest_joints, relative, unposed = ctx.saved_tensors
        tables, batch = ctx.tables, relative.shape[0]
        only_transl = not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1])
        with full_precision(relative.device):
            g_tips = g_positions = None
            if g_joints is not None:
                g_joints = g_joints.transpose(0, 1).index_select(0, tables.from_standard)
                g_positions, g_tips = g_joints[:16], g_joints[16:].permute(1, 2, 0)
            g_relative, g_factors, g_transl = _skin_backward(g_vertices, g_tips, relative, unposed, tables, only_transl)
            if g_transforms is not None:
                g_transforms = g_transforms.transpose(0, 1).index_select(0, tables.order)
                g_transl += g_transforms[..., 3].sum(dim=0)
            if g_positions is not None:
                g_transl += g_positions.sum(dim=0)
            if only_transl:
                return None, None, g_transl, None, None
            g_world = g_relative.permute(3, 0, 1, 2).contiguous()
            g_offset = g_world[..., 3]
            g_rest_joints = torch.matmul(g_offset[..., None, :], world[..., :3])[..., 0, :].neg_()
            g_world[..., :3].addcmul_(g_offset[..., None], rest_joints[..., None, :], value=-1)
            if g_positions is not None:
                g_offset += g_positions
            if g_transforms is not None:
                g_world += g_transforms
            if g_rest is not None:
                g_rest_joints += g_rest.transpose(0, 1).index_select(0, tables.order)
            g_local = _chain_backward(local, world, g_world)
            g_pose = g_local[..., :3].index_select(0, tables.mano_order).transpose(0, 1).contiguous()
            g_pose[:, 1:] += g_factors[:, 10:].view(batch, 15, 3, 3)
            g_basis = torch.cat([g_local[..., 3], g_rest_joints]).transpose(0, 1).reshape(batch, 96)
            g_betas = torch.addmm(g_factors[:, :10], g_basis, tables.rest_directions.t())
        return g_pose, g_betas, g_transl if ctx.needs_input_grad[2] else None, None, None


def full_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """A context without autocast on ``device``: metres in half precision are millimetres off."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def _chunks(batch: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, batch, size)]


def _level(level: int) -> slice:
    return slice(1 + FINGERS * level, 1 + FINGERS * (level + 1))


def _chain(local: torch.Tensor) -> torch.Tensor:
    """World transforms (16, B, 3, 4) from local ones: SMPL eq. 4."""
    world = torch.empty_like(local)
    world[0] = local[0]
    parent = world[:1].expand(FINGERS, -1, -1, -1)
    for level in range(LEVELS):
        child = world[_level(level)]
        torch.bmm(parent[..., :3].reshape(-1, 3, 3), local[_level(level)].view(-1, 3, 4), out=child.view(-1, 3, 4))
        child[..., 3] += parent[..., 3]
        parent = child
    return world


def _chain_backward(local: torch.Tensor, world: torch.Tensor, g_world: torch.Tensor) -> torch.Tensor:
    """Gradient (16, B, 3, 4) of ``local``; ``g_world`` is used up."""
    g_local = torch.empty_like(local)
    for level in reversed(range(LEVELS)):
        mine = _level(level)
        above = slice(0, 1) if level == 0 else _level(level - 1)
        parent = world[above].expand(FINGERS, -1, -1, -1)[..., :3].reshape(-1, 3, 3)
        g_child = g_world[mine]
        torch.bmm(parent.transpose(1, 2), g_child.view(-1, 3, 4), out=g_local[mine].view(-1, 3, 4))
        g_rotation = torch.bmm(g_child.view(-1, 3, 4), local[mine].view(-1, 3, 4).transpose(1, 2)).view(FINGERS, -1, 3, 3)
        g_position = g_child[..., 3]
        if level == 0:
            g_rotation, g_position = g_rotation.sum(dim=0), g_position.sum(dim=0)
        g_world[above][..., :3] += g_rotation
        g_world[above][..., 3] += g_position
    g_local[0] = g_world[0]
    return g_local


def _relative(world: torch.Tensor, joints: torch.Tensor) -> torch.Tensor:
    """(B, 3, 4, 16): world transforms with the rest pose taken off, SMPL eq. 3: [R | p - R J]."""
    relative = torch.empty(world.shape[1], 3, 4, 16, dtype=world.dtype, device=world.device)
    relative.copy_(world.permute(1, 2, 3, 0))
    relative[:, :, 3] -= torch.matmul(world[..., :3], joints[..., None])[..., 0].permute(1, 2, 0)
    return relative


def _skin(relative: torch.Tensor, unposed: torch.Tensor, weights: torch.Tensor, out: torch.Tensor) -> None:
    """SMPL eq. 2 into ``out`` (C, 3, V)."""
    blended = (relative.view(-1, 16) @ weights).view(-1, 3, 4, weights.shape[1])
    torch.addcmul(blended[:, :, 3], blended[:, :, 0], unposed[:, :1], out=out)
    out.addcmul_(blended[:, :, 1], unposed[:, 1:2])
    out.addcmul_(blended[:, :, 2], unposed[:, 2:])


def _skin_backward(
    g_vertices: torch.Tensor | None, g_tips: torch.Tensor | None, relative: torch.Tensor, unposed: torch.Tensor,
    tables: SkinTables, only_transl: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of `_relative`'s result, of the blend factors (B, 145) and of the translation (B, 3)."""
    batch, count = relative.shape[0], tables.weights.shape[1]
    seen = g_vertices is not None or g_tips is not None
    make = torch.Tensor.new_empty if seen else torch.Tensor.new_zeros
    g_relative, g_transl = make(relative, relative.shape), make(relative, (batch, 3))
    g_factors = make(relative, (batch, len(tables.directions)))
    for rows in _chunks(batch, tables.chunk()) if seen else ():
        points = unposed[rows].view(-1, 3, count)
        # a copy in planar layout: autograd's own tensor must not change
        g_points = torch.empty_like(points).copy_(g_vertices[rows]) if g_vertices is not None else (
            torch.zeros_like(points))
        if g_tips is not None:
            g_points.index_add_(2, tables.tips, g_tips[rows])
        torch.sum(g_points, dim=2, out=g_transl[rows])
        if only_transl:
            continue
        blended = (relative[rows].view(-1, 16) @ tables.weights).view(-1, 3, 4, count)
        g_unposed = blended[:, 0, :3] * g_points[:, :1]
        g_unposed.addcmul_(blended[:, 1, :3], g_points[:, 1:2]).addcmul_(blended[:, 2, :3], g_points[:, 2:])
        torch.mul(g_points[:, :, None], points[:, None], out=blended[:, :, :3])
        blended[:, :, 3] = g_points
        torch.mm(blended.view(-1, count), tables.weights.t(), out=g_relative[rows].view(-1, 16))
        torch.mm(g_unposed.view(-1, 3 * count), tables.directions.t(), out=g_factors[rows])
    return g_relative, g_factors, g_transl
