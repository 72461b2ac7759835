"""`template.fast_skinning` for a few hands on a CPU, in NumPy: the same numbers where the number of calls is the time.

A call of NumPy on so small an array takes a third of a tensor's, and hands come first, (B, 16, 3, 4), so that a level
of the chain is one product. The two large products stay PyTorch's: NumPy's would wake threads of another library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from template.fast_skinning import SkinTables, first_derivative
from template.large_products import full_precision
from template.reference import LEVELS
from utils.joints import MANO_TO_STANDARD, STANDARD_TO_MANO

#: Above so many hands the large operations of `fast_skinning` are faster.
MOST = 32
_TO_STANDARD, _TO_MANO = np.array(MANO_TO_STANDARD), np.array(STANDARD_TO_MANO)


def _children(transforms: NDArray, level: int) -> NDArray:
    """(B, 5, 3, 4): the five joints of a level; -1 is the wrist, (B, 1, 3, 4)."""
    return transforms[:, :1] if level < 0 else transforms[:, 1 + level :: LEVELS]


def _tables(tables: SkinTables) -> tuple[NDArray, NDArray, torch.Tensor, torch.Tensor, NDArray, NDArray]:
    """rest_template (96,) and rest_directions (96, 10): bones (3, 16), then rest joints (3, 16), m; template (3 * V,),
    directions (145, 3 * V), weights (16, V) and tips (5,).

    Looked up anew for every call, which is a hundredth of its time: the module may have moved.
    """
    kept: dict[str, Any] = tables._buffers  # not by attribute, which a module looks up slowly
    rest_template, rest_directions, weights, tips = (
        kept[name].numpy() for name in ("rest_template", "rest_directions", "weights", "tips")
    )
    return rest_template[:, 0], rest_directions, kept["template"], kept["directions"], weights, tips


class FewHands(torch.autograd.Function):
    """`fast_skinning.PosedHand`; it always gives all four outputs."""

    @staticmethod
    def forward(
        ctx: Any, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None, tables: SkinTables
    ) -> tuple[torch.Tensor, ...]:
        rest_template, rest_directions, template, directions, weights, tips = ctx.tables = _tables(tables)
        turns, shape, batch, count = pose.detach().numpy(), betas.detach().numpy(), len(pose), weights.shape[1]
        rest = (shape @ rest_directions.T + rest_template).reshape(batch, 2, 3, 16)
        local = np.empty((batch, 16, 3, 4), turns.dtype)
        local[..., :3], local[..., 3] = turns, rest[:, 0].transpose(0, 2, 1)
        rest_joints = rest[:, 1].transpose(0, 2, 1)
        world = np.empty_like(local)
        world[:, 0] = local[:, 0]
        for level in range(LEVELS):
            parent, child = _children(world, level - 1), _children(world, level)
            np.matmul(parent[..., :3], _children(local, level), out=child)
            child[..., 3] += parent[..., 3]
        relative = world.copy()
        relative[..., 3:] -= world[..., :3] @ rest_joints[..., None]
        blended = (relative.reshape(batch, 16, 12).transpose(0, 2, 1) @ weights).reshape(batch, 3, 4, count)
        features = np.concatenate([shape, turns[:, 1:].reshape(batch, 135)], axis=1)
        unposed = torch.addmm(template, torch.from_numpy(features), directions).numpy().reshape(batch, 3, count)
        vertices = (blended[:, :, :3] * unposed[:, None]).sum(axis=2)
        vertices += blended[:, :, 3]
        if transl is not None:
            shift = transl.detach().numpy()
            vertices += shift[:, :, None]
            world[..., 3] += shift[:, None]
        points = np.concatenate([world[..., 3], vertices[:, :, tips].transpose(0, 2, 1)], axis=1)
        made = (vertices, points[:, _TO_STANDARD], world, rest_joints, local, unposed, blended)
        posed = [torch.from_numpy(value) for value in made]
        ctx.save_for_backward(*posed[2:])
        ctx.set_materialize_grads(False)
        return tuple(posed[:4])

    @staticmethod
    @first_derivative
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        world, rest_joints, local, unposed, blended = (value.detach().numpy() for value in ctx.saved_tensors)
        g_vertices, g_joints, g_transforms, g_rest_joints = (
            None if value is None else value.numpy() for value in gradients
        )
        _, rest_directions, _, directions, weights, tips = ctx.tables
        batch, count = len(local), weights.shape[1]
        g_world = np.zeros_like(local)
        g_points = np.zeros_like(unposed) if g_vertices is None else np.array(g_vertices, order="C")
        if g_transforms is not None:
            g_world += g_transforms
        if g_joints is not None:
            g_joints = g_joints[:, _TO_MANO]
            g_world[..., 3] += g_joints[:, :16]
            g_points[:, :, tips] += g_joints[:, 16:].transpose(0, 2, 1)  # five different vertices
        g_transl = g_points.sum(axis=2) + g_world[..., 3].sum(axis=1)

        linear = blended[:, :, :3]
        g_unposed = (linear * g_points[:, :, None]).sum(axis=1)
        g_blended = np.empty_like(blended)
        np.multiply(g_points[:, :, None], unposed[:, None], out=g_blended[:, :, :3])
        g_blended[:, :, 3] = g_points
        with full_precision(torch.device("cpu")):
            g_features = (torch.from_numpy(g_unposed.reshape(batch, 3 * count)) @ directions.t()).numpy()
        g_relative = (weights @ g_blended.reshape(batch, 12, count).transpose(0, 2, 1)).reshape(batch, 16, 3, 4)

        # relative = [R | p - R J]
        g_offset = g_relative[..., 3:]
        g_rest = np.empty((batch, 2, 3, 16), local.dtype)
        g_rest[:, 1] = -(world[..., :3].swapaxes(2, 3) @ g_offset)[..., 0].transpose(0, 2, 1)
        if g_rest_joints is not None:
            g_rest[:, 1] += g_rest_joints.transpose(0, 2, 1)
        g_world += g_relative
        g_world[..., :3] -= g_offset * rest_joints[:, :, None]
        g_local = np.empty_like(local)
        for level in reversed(range(LEVELS)):  # child = R M + p
            g_child, g_parent = _children(g_world, level), _children(g_world, level - 1)
            np.matmul(_children(world, level - 1)[..., :3].swapaxes(2, 3), g_child, out=_children(g_local, level))
            g_rotation, g_position = g_child @ _children(local, level).swapaxes(2, 3), g_child[..., 3]
            if level == 0:  # the wrist has five children
                g_rotation, g_position = g_rotation.sum(axis=1, keepdims=True), g_position.sum(axis=1, keepdims=True)
            g_parent[..., :3] += g_rotation
            g_parent[..., 3] += g_position
        g_local[:, 0] = g_world[:, 0]
        g_rest[:, 0] = g_local[..., 3].transpose(0, 2, 1)
        g_pose = g_local[..., :3].copy()
        g_pose[:, 1:] += g_features[:, 10:].reshape(batch, 15, 3, 3)
        found = g_pose, g_features[:, :10] + g_rest.reshape(batch, 96) @ rest_directions, g_transl
        return *(torch.from_numpy(g) if n else None for g, n in zip(found, ctx.needs_input_grad[:3], strict=True)), None
