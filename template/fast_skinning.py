"""The same hand as `template.reference`, with a backward pass written out by hand.

Why it is fast on a CPU: one product a level of the chain for all five fingers; the skinning of a
few dozen hands at a time, so that their (12, V) blended transforms stay in the cache; those
transforms are computed again in the backward pass instead of being kept; and few, large operations,
because at batch 1 the number of operations is all that counts.

Layout: vertices are planar, (B, 3, V). The chain, whose matrices are tiny, has the batch last,
(3, 4, 16, B), so that a product of 3x3 matrices is elementwise work on long rows, and a level
of all five fingers is the slice of every third joint.
Additions are written ``x[...].add_(y)``: ``x[...] += y`` would copy the slice onto itself once more.
Second derivatives and `torch.func` need the plain form (`first_derivative`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from template.large_products import MOST, full_precision, large_product
from template.reference import LEVELS
from utils.joints import MANO_PARENTS, MANO_TO_STANDARD, STANDARD_TO_MANO

#: Bytes of blended transforms worked on at a time: about the second-level cache of two CPU cores.
CPU_CHUNK_BYTES = 2 * 2**20
#: On other devices only the peak memory is bounded.
DEVICE_CHUNK_BYTES = 512 * 2**20


def first_derivative(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass that refuses ``create_graph``: PyTorch's `once_differentiable` has second derivatives of zero.

    Raises:
        RuntimeError: the gradient is to be differentiated.
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, *gradients: torch.Tensor | None) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "this hand layer has first derivatives only; for create_graph=True (second ones) take "
                "HandModel(..., plain=True)"
            )
        return backward(ctx, *gradients)

    return refusing


class SkinTables(nn.Module):
    """Constants of a hand, or of some of its vertices, in the layout of this module.

    Args:
        joint_basis: (16, 3, 11) rest joints: template, then shape directions, metres.
        directions: (V, 3, 146) vertices: template, shape and pose directions.
        weights: (V, 16) skinning weights.
        tips: places of the five fingertips among the V vertices.
    """

    rest_template: torch.Tensor
    rest_directions: torch.Tensor
    template: torch.Tensor
    directions: torch.Tensor
    weights: torch.Tensor
    tips: torch.Tensor
    to_standard: torch.Tensor
    to_mano: torch.Tensor

    def __init__(
        self,
        joint_basis: np.ndarray,
        directions: np.ndarray,
        weights: np.ndarray,
        tips: Sequence[int],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        planar = directions.transpose(2, 1, 0).reshape(directions.shape[2], -1)
        # The factors are R, not R - I: the identity's share is taken off the template once.
        at_identity = np.tile(np.eye(3).ravel(), 15) @ planar[11:]
        bone_basis = joint_basis.copy()
        bone_basis[1:] -= joint_basis[list(MANO_PARENTS[1:])]
        rest = np.stack([bone_basis, joint_basis]).transpose(0, 2, 1, 3).reshape(96, 11)  # (2, 3, 16) rows
        for name, value in (
            ("rest_template", rest[:, :1]),
            ("rest_directions", rest[:, 1:]),
            ("template", planar[0] - at_identity),
            ("directions", planar[1:]),
            ("weights", weights.T),
        ):
            self.register_buffer(name, torch.as_tensor(value.copy(order="C"), dtype=dtype), persistent=False)
        for name, index in (("tips", tips), ("to_standard", MANO_TO_STANDARD), ("to_mano", STANDARD_TO_MANO)):
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
        ctx: Any,
        pose: torch.Tensor,
        betas: torch.Tensor,
        transl: torch.Tensor | None,
        tables: SkinTables,
        whole: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        batch = len(pose)
        bones, rest_joints = torch.addmm(tables.rest_template, tables.rest_directions, betas.t()).view(2, 3, 16, batch)
        local = torch.empty(3, 4, 16, batch, dtype=pose.dtype, device=pose.device)
        local[:, :3] = pose.permute(2, 3, 1, 0)
        local[:, 3] = bones
        world = chain(local)
        relative = world.clone()  # SMPL eq. 3: the rest pose taken off, [R | p - R J]
        for axis in range(3):
            relative[:, 3].addcmul_(world[:, axis], rest_joints[axis], value=-1)
        relative = relative.view(192, batch).t().contiguous().view(batch, 3, 4, 16)
        factors = torch.cat([betas, pose[:, 1:].reshape(batch, 135)], dim=1)
        size, count = max(1, min(tables.chunk(), batch)), tables.weights.shape[1]
        keep = any(ctx.needs_input_grad[:2])  # the backward pass reads the unposed mesh
        vertices, blended = pose.new_empty(batch, 3, count), pose.new_empty(size, 3, 4, count)
        unposed = pose.new_empty(0, 3, count)
        for some in _chunks(batch, max(batch if keep else MOST, size)):
            unposed = large_product(factors[some], tables.directions, tables.template).view(-1, 3, count)
            for rows in _chunks(len(unposed), size):
                out = vertices[some][rows]
                # SMPL eq. 2
                torch.mm(relative[some][rows].view(-1, 16), tables.weights, out=blended[: len(out)].view(-1, count))
                columns, (x, y, z) = blended[: len(out)].unbind(2), unposed[rows].unsqueeze(1).unbind(2)
                torch.addcmul(columns[3], columns[0], x, out=out).addcmul_(columns[1], y).addcmul_(columns[2], z)
                if transl is not None:
                    out += transl[some][rows, :, None]
        if transl is not None:
            world[:, 3].add_(transl.t()[:, None])
        tips = vertices.permute(2, 1, 0).index_select(0, tables.tips)
        joints = torch.cat([world[:, 3].transpose(0, 1), tips]).index_select(0, tables.to_standard)
        joints = joints.view(63, batch).t().contiguous().view(batch, 21, 3)
        ctx.save_for_backward(local, world, rest_joints, relative, unposed)
        ctx.tables = tables
        ctx.set_materialize_grads(False)
        if not whole:
            return vertices, joints, None, None
        return vertices, joints, world.permute(3, 2, 0, 1), rest_joints.permute(2, 1, 0)

    @staticmethod
    @first_derivative
    def backward(
        ctx: Any,
        g_vertices: torch.Tensor | None,
        g_joints: torch.Tensor | None,
        g_transforms: torch.Tensor | None,
        g_rest_joints: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, ...]:
        local, world, rest_joints, relative, unposed = ctx.saved_tensors
        tables, batch = ctx.tables, relative.shape[0]
        only_transl = not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1])
        with full_precision(relative.device):
            g_tips = g_positions = None
            if g_joints is not None:
                g_joints = g_joints.reshape(batch, 63).t().contiguous().view(21, 3, batch)
                g_joints = g_joints.index_select(0, tables.to_mano)
                g_positions, g_tips = g_joints[:16].transpose(0, 1), g_joints[16:].permute(2, 1, 0)
            g_relative, g_factors, g_transl = _skin_backward(g_vertices, g_tips, relative, unposed, tables, only_transl)
            if g_transforms is not None:
                g_transforms = g_transforms.permute(2, 3, 1, 0)
                g_transl += g_transforms[:, 3].sum(dim=1).t()
            if g_positions is not None:
                g_transl += g_positions.sum(dim=1).t()
            if only_transl:
                return None, None, g_transl, None, None
            g_world = g_relative.view(batch, 192).t().contiguous().view(3, 4, 16, batch)
            g_rest = torch.empty(2, 3, 16, batch, dtype=relative.dtype, device=relative.device)
            g_offset = g_world[:, 3]
            torch.sum(world[:, :3] * g_offset[:, None], dim=0, out=g_rest[1]).neg_()
            g_world[:, :3].addcmul_(g_offset[:, None], rest_joints, value=-1)
            if g_positions is not None:
                g_world[:, 3].add_(g_positions)
            if g_transforms is not None:
                g_world += g_transforms
            if g_rest_joints is not None:
                g_rest[1].add_(g_rest_joints.permute(2, 1, 0))
            g_local = chain_backward(local, world, g_world)
            g_pose = g_local[:, :3].permute(2, 0, 1, 3).reshape(144, batch).t().contiguous()
            g_pose[:, 9:].add_(g_factors[:, 10:])
            g_rest[0] = g_local[:, 3]
            g_betas = torch.addmm(g_factors[:, :10], g_rest.view(96, batch).t(), tables.rest_directions)
            g_pose = g_pose.view(batch, 16, 3, 3)
        return g_pose, g_betas, g_transl if ctx.needs_input_grad[2] else None, None, None


def _chunks(batch: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, batch, size)]


def _product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """``out`` = left @ right for (I, 3, n, B) and (3, J, n, B) matrices with the batch last."""
    return torch.sum(left.unsqueeze(2) * right, dim=1, out=out)


def _level(level: int) -> slice:
    """The five joints of a level among the 16; -1 is the wrist."""
    return slice(0, 1) if level < 0 else slice(1 + level, None, LEVELS)


def chain(local: torch.Tensor) -> torch.Tensor:
    """World transforms (3, 4, 16, B), metres, from local ones: SMPL eq. 4."""
    world = torch.empty_like(local)
    parent = world[:, :, :1]
    parent.copy_(local[:, :, :1])
    for level in range(LEVELS):
        child = world[:, :, _level(level)]
        _product(parent[:, :3], local[:, :, _level(level)], out=child)
        child[:, 3].add_(parent[:, 3])
        parent = child
    return world


def chain_backward(local: torch.Tensor, world: torch.Tensor, g_world: torch.Tensor) -> torch.Tensor:
    """Gradient (3, 4, 16, B) of ``local``; ``g_world`` is used up."""
    g_local = torch.empty_like(local)
    for level in reversed(range(LEVELS)):
        mine, above = _level(level), _level(level - 1)
        g_child = g_world[:, :, mine]
        _product(world[:, :3, above].transpose(0, 1), g_child, out=g_local[:, :, mine])
        # child = R M + p: R gets G M^T and p the last column of G; the wrist gets the sum over its fingers
        g_rotation, g_position = (g_child.unsqueeze(1) * local[:, :, mine]).sum(dim=2), g_child[:, 3]
        if level == 0:
            g_rotation, g_position = g_rotation.sum(dim=2, keepdim=True), g_position.sum(dim=1, keepdim=True)
        g_parent = g_world[:, :, above]
        g_parent[:, :3].add_(g_rotation)
        g_parent[:, 3].add_(g_position)
    g_local[:, :, 0] = g_world[:, :, 0]
    return g_local


def _skin_backward(
    g_vertices: torch.Tensor | None,
    g_tips: torch.Tensor | None,
    relative: torch.Tensor,
    unposed: torch.Tensor,
    tables: SkinTables,
    only_transl: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the relative transforms (B, 3, 4, 16), the blend factors (B, 145) and the translation (B, 3)."""
    batch, count = relative.shape[0], tables.weights.shape[1]
    seen = g_vertices is not None or g_tips is not None
    make = torch.Tensor.new_empty if seen else torch.Tensor.new_zeros
    g_relative, g_transl = make(relative, relative.shape), make(relative, (batch, 3))
    g_factors = make(relative, (batch, len(tables.directions)))
    size = max(1, min(tables.chunk(), batch))
    linear, g_blended = relative.new_empty(size, 3, 3, count), relative.new_empty(size, 3, 4, count)
    most = max(MOST, size)
    g_points, g_unposed = relative.new_empty(size, 3, count), relative.new_empty(min(most, batch), 3, count)
    for some in _chunks(batch, most) if seen else ():
        for start in range(some.start, min(some.stop, batch), size):
            rows = slice(start, min(start + size, some.stop, batch))
            length = rows.stop - start
            points, lin, blended = g_points[:length], linear[:length], g_blended[:length]
            if g_vertices is None:
                points.zero_()
            else:  # a copy in planar layout: autograd's own tensor must not change
                points.copy_(g_vertices[rows])
            if g_tips is not None:
                points.index_add_(2, tables.tips, g_tips[rows])
            torch.sum(points, dim=2, out=g_transl[rows])
            if only_transl:
                continue
            torch.mm(relative[rows, :, :3].reshape(-1, 16), tables.weights, out=lin.view(-1, count))
            (row_0, row_1, row_2), (g_x, g_y, g_z) = lin.unbind(1), points.unsqueeze(2).unbind(1)
            out = g_unposed[start - some.start :][:length]
            torch.mul(row_0, g_x, out=out).addcmul_(row_1, g_y).addcmul_(row_2, g_z)
            torch.mul(points[:, :, None], unposed[rows, None], out=blended[:, :, :3])
            blended[:, :, 3] = points
            torch.mm(blended.view(-1, count), tables.weights.t(), out=g_relative[rows].view(-1, 16))
        if not only_transl:
            together = g_unposed[: len(relative[some])].view(-1, 3 * count)
            g_factors[some] = large_product(together, tables.directions.t())
    return g_relative, g_factors, g_transl
