"""Joints and tips of the posed hand without its mesh and without world transforms, with a backward pass by hand.

A finger's point passes four frames: its last, middle and first joint, and the wrist. With weights w_k on frames of rest
place C_k (`joint`, metres) a point x is, by Horner's rule from the last frame to the wrist (SMPL eqs. 2 to 4 put so),

    v <- R_k v + w_k' (x - C_k') + (w_k + ... + w_last) (C_k - C_k'),    k' being the frame before k.

Beyond the wrist nothing but C_wrist is left. All but R_k v is linear in betas, hence one product for all points and
frames, and v is all that the backward pass needs. A joint is a point that follows the frame before it. Everything keeps
the batch last: few operations on long rows.
(`template.kinematics` is the same hand for solvers, with its Jacobian.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from template.fast_skinning import first_derivative
from template.large_products import full_precision
from utils.joints import STANDARD_TO_MANO

#: Of each finger in MANO's order, its place in the standard order (thumb to little finger).
_FINGERS = [(standard - 1) // 4 for standard in STANDARD_TO_MANO[1:16:3]]
#: How many of a finger's points pass its last, middle and first joint and the wrist, and come out: always the last.
_POINTS = (1, 2, 3, 4, 4)
#: Where each of the 21 points, the wrist and then MANO's fingers with their tips, is in the standard order.
_STANDARD = [0, *(1 + 4 * finger + point for finger in _FINGERS for point in range(4))]


class JointTables(nn.Module):
    """Constants of the joints and the five tips.

    Args:
        joint_basis: (16, 3, 11) rest joints: template, then shape directions, metres.
        directions: (5, 3, 146) tips, thumb to little finger: template, shape and pose directions.
        weights: (5, 16) skinning weights of the tips, those of other fingers' joints zero (`follow_own_finger`).
    """

    constant: torch.Tensor
    per_beta: torch.Tensor
    blend: torch.Tensor
    tip_weights: torch.Tensor
    to_standard: torch.Tensor
    from_standard: torch.Tensor

    def __init__(
        self, joint_basis: np.ndarray, directions: np.ndarray, weights: np.ndarray, dtype: torch.dtype
    ) -> None:
        super().__init__()
        directions, weights = directions[_FINGERS], weights[_FINGERS]  # MANO's order
        wrist, joints = joint_basis[:1], joint_basis[1:].reshape(5, 3, 3, 11)
        blend, tips = directions[:, :, 11:], directions[:, :, :11].copy()
        tips[:, :, 0] -= blend @ np.tile(np.eye(3).ravel(), 15)  # its factors are R, not R - I
        places = np.concatenate([joints, tips[:, None]], axis=1)  # (finger, point, 3, 11)
        centres = np.concatenate([wrist[None].repeat(5, axis=0), joints], axis=1)  # (finger, frame, 3, 11)
        follows = np.zeros((5, 4, 4))  # (finger, point, frame)
        follows[:, :3, :3] = np.eye(3)
        follows[:, 3, 0] = weights[:, 0]
        follows[:, 3, 1:] = weights[:, 1:].reshape(5, 5, 3)[range(5), range(5)]
        beyond = follows[:, :, ::-1].cumsum(axis=2)[:, :, ::-1, None, None]
        steps = np.diff(centres, axis=1)  # from a frame to the next
        rows = []
        for frame in (3, 2, 1, 0):
            added = follows[:, frame:, frame, None, None] * (places[:, frame:] - centres[:, frame, None])
            if frame < 3:
                added += beyond[:, frame:, frame + 1] * steps[:, frame, None]
            rows.append(added)
        rows += [wrist, beyond[:, :, 0] * wrist]
        linear = np.concatenate([value.reshape(-1, 11) for value in rows])
        for name, value in (
            ("constant", linear[:, :1]),
            ("per_beta", linear[:, 1:]),
            ("blend", blend.reshape(15, 135)),
            ("tip_weights", follows[:, 3, ::-1].T[:, :, None, None]),  # last frame first
        ):
            self.register_buffer(name, torch.as_tensor(value.copy(order="C"), dtype=dtype), persistent=False)
        for name, index in (("to_standard", np.argsort(_STANDARD)), ("from_standard", np.array(_STANDARD))):
            self.register_buffer(name, torch.as_tensor(index, dtype=torch.int64), persistent=False)
        self.levels = [level for level in range(4) if follows[:, 3, 3 - level].any()]

    @staticmethod
    def follow_own_finger(weights: np.ndarray) -> bool:
        """Whether tips with these weights (5, 16), thumb to little finger, follow only their own finger's joints."""
        others = ~np.eye(5, dtype=bool)
        return not weights[_FINGERS, 1:].reshape(5, 5, 3)[others].any()


def _blocks(terms: torch.Tensor) -> list[torch.Tensor]:
    """(5, points, 3, B) of each level: v before its rotation, last joint first; and what comes out at the wrist."""
    *levels, _, out = terms.split([*(15 * count for count in _POINTS[:4]), 3, 60])
    return [rows.view(5, count, 3, terms.shape[1]) for rows, count in zip([*levels, out], _POINTS, strict=True)]


def _frames(turns: torch.Tensor) -> list[torch.Tensor]:
    """Rotations (5, 3, 3, B) of the fingers' last, middle and first joints, and (3, 3, B) of the wrist."""
    first, middle, last = turns[1:].unflatten(0, (5, 3)).unbind(1)
    return [last, middle, first, turns[0]]


class PosedJoints(torch.autograd.Function):
    """pose (B, 16, 3, 3), betas (B, 10), transl (B, 3) m or None, tables -> joints and tips (B, 21, 3), m, standard
    order."""

    @staticmethod
    def forward(
        ctx: Any, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor | None, tables: JointTables
    ) -> torch.Tensor:
        batch = len(pose)
        flat = pose.reshape(batch, 144).t().contiguous()
        terms = torch.addmm(tables.constant, tables.per_beta, betas.t())
        blended = torch.mm(tables.blend, flat[9:]).view(5, 3, batch)
        turns, blocks = flat.view(16, 3, 3, batch), _blocks(terms)
        for level in tables.levels:
            blocks[level][:, -1].addcmul_(tables.tip_weights[level], blended)
        for level, frame in enumerate(_frames(turns)):
            turned = blocks[level + 1][:, -_POINTS[level] :]
            column_0, column_1, column_2 = frame.unsqueeze(-4).unbind(-2)
            x, y, z = blocks[level].unsqueeze(3).unbind(2)
            turned.addcmul_(column_0, x).addcmul_(column_1, y).addcmul_(column_2, z)
        points = terms[-63:].view(21, 3, batch)
        if transl is not None:
            points += transl.t()
        ctx.save_for_backward(turns, terms)
        ctx.tables = tables
        return points.index_select(0, tables.to_standard).view(63, batch).t().contiguous().view(batch, 21, 3)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, g_joints: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        turns, terms = ctx.saved_tensors
        tables, batch = ctx.tables, len(g_joints)
        g_transl = g_joints.sum(dim=1) if ctx.needs_input_grad[2] else None
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            return None, None, g_transl, None
        with full_precision(turns.device):
            g_turns, g_terms = torch.empty_like(turns), torch.empty_like(terms)
            points = g_joints.reshape(batch, 63).t().contiguous().view(21, 3, batch)
            torch.index_select(points, 0, tables.from_standard, out=g_terms[-63:].view(21, 3, batch))
            blocks, g_blocks = _blocks(terms), _blocks(g_terms)
            frames, g_frames = _frames(turns), _frames(g_turns)
            for level in (3, 2, 1, 0):
                g_turned = g_blocks[level + 1][:, -_POINTS[level] :]
                row_0, row_1, row_2 = frames[level].unsqueeze(-4).unbind(-3)
                x, y, z = g_turned.unsqueeze(3).unbind(2)
                torch.mul(row_0, x, out=g_blocks[level]).addcmul_(row_1, y).addcmul_(row_2, z)
                products = g_turned.unsqueeze(3) * blocks[level].unsqueeze(2)  # g v^T of each point
                torch.sum(products, dim=1 if level < 3 else (0, 1), out=g_frames[level])
            g_blended = torch.zeros_like(g_blocks[0])[:, 0]
            for level in tables.levels:
                g_blended.addcmul_(tables.tip_weights[level], g_blocks[level][:, -1])
            flat = g_turns.view(144, batch)
            flat[9:].addmm_(tables.blend.t(), g_blended.view(15, batch))
            g_betas = g_terms.t() @ tables.per_beta
            g_pose = flat.t().contiguous().view(batch, 16, 3, 3)
        return g_pose, g_betas, g_transl, None
