"""Rotations in six numbers, row by row; all else is RoMa's."""

from __future__ import annotations

import torch


def rotation_6d_to_matrix(six: torch.Tensor) -> torch.Tensor:
    """Rotation matrices from the continuous 6D representation (Zhou et al., CVPR 2019, eq. 15).

    The six numbers are the first two **rows** of the matrix (docs/facts.md 7.1), orthonormalised by
    Gram-Schmidt; the third row is their cross product.

    Args:
        six: (..., 6), no unit.

    Returns:
        (..., 3, 3) rotation matrices.
    """
    # `roma.special_gramschmidt`, which in a trace fixes the size of the batch.
    first, second = six[..., :3], six[..., 3:]
    first = first / first.norm(dim=-1, keepdim=True)
    second = second - (first * second).sum(dim=-1, keepdim=True) * first
    second = second / second.norm(dim=-1, keepdim=True)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def matrix_to_rotation_6d(matrix: torch.Tensor) -> torch.Tensor:
    """First two rows, (..., 6), of rotation matrices (..., 3, 3): the inverse of `rotation_6d_to_matrix`."""
    return matrix[..., :2, :].flatten(-2)
