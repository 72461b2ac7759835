"""Rotations in six numbers, row by row; all else is RoMa's."""

from __future__ import annotations

import roma
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
    rows = six.unflatten(-1, (2, 3))
    return roma.special_gramschmidt(rows.transpose(-1, -2)).transpose(-1, -2)


def matrix_to_rotation_6d(matrix: torch.Tensor) -> torch.Tensor:
    """First two rows, (..., 6), of rotation matrices (..., 3, 3): the inverse of `rotation_6d_to_matrix`."""
    return matrix[..., :2, :].flatten(-2)
