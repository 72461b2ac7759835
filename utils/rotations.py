"""Rotations: RoMa does the mathematics; here are only our row-wise 6D and the mirror."""

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


def axis_angle_to_matrix(axis_angle: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) from axis-angle vectors (..., 3), radians."""
    return roma.rotvec_to_rotmat(axis_angle)


def matrix_to_axis_angle(matrix: torch.Tensor) -> torch.Tensor:
    """Axis-angle vectors (..., 3), radians in [0, pi], from rotation matrices (..., 3, 3)."""
    return roma.rotmat_to_rotvec(matrix)


def mirror_matrix(matrix: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) seen in the mirror x -> -x: M R M with M = diag(-1, 1, 1).

    In axis-angle this negates the y and z components (docs/facts.md 8.14). Its own inverse.
    """
    signs = matrix.new_tensor([-1.0, 1.0, 1.0])
    return matrix * signs[:, None] * signs[None, :]
