"""Small vectors and matrices of many problems, stored with their components first and the problems last.

Arrays are (3, ...) and (3, 3, ...): each elementary operation then runs over long contiguous rows,
which on a CPU is several times faster than batches of 3x3 matrix products.
"""

from __future__ import annotations

import torch


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Products (3,3,...) of matrices (3,3,...)."""
    return (a[:, :, None] * b[None]).sum(dim=1)


def matmul_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a^T b, (3,3,...) or (3,...), of a (3,3,...) and b (3,3,...) or (3,...) (b having as many dimensions or one less)."""
    if b.dim() == a.dim():
        return (a[:, :, None] * b[:, None]).sum(dim=0)
    return (a * b[:, None]).sum(dim=0)


def matvec(a: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Products (3,...) of matrices (3,3,...) and vectors (3,...)."""
    return (a * v[None]).sum(dim=1)


def cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cross products (3,...) of vectors (3,...), broadcasting over the problems."""
    return torch.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def antisymmetric_part(m: torch.Tensor) -> torch.Tensor:
    """(m_yz - m_zy, m_zx - m_xz, m_xy - m_yx), (3,...) of matrices (3,3,...): trace([w] m) = w . this."""
    return torch.stack([m[1, 2] - m[2, 1], m[2, 0] - m[0, 2], m[0, 1] - m[1, 0]])


def frames_last(batch: torch.Tensor) -> torch.Tensor:
    """(N, ...) to contiguous (..., N)."""
    return batch.flatten(1).T.contiguous().view(*batch.shape[1:], len(batch))


def frames_first(last: torch.Tensor) -> torch.Tensor:
    """(..., N) to contiguous (N, ...)."""
    return last.reshape(-1, last.shape[-1]).T.contiguous().view(last.shape[-1], *last.shape[:-1])
