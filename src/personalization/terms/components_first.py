"""Small vectors and matrices of many problems, stored with their components first and the problems last.

Arrays are (3, ...) and (3, 3, ...): each elementary operation then runs over long contiguous rows,
which on a CPU is several times faster than batches of 3x3 matrix products. Sums of three products are
written as fused multiply-adds: no array three times as large is made.
"""

from __future__ import annotations

import torch

#: (axis, next, next but one).
CYCLIC = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


def product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Products (I,J,...) of matrices a (I,3,...) and b (3,J,...), broadcasting over the rest."""
    out = torch.mul(a[:, 0, None], b[0], out=out)
    return out.addcmul_(a[:, 1, None], b[1]).addcmul_(a[:, 2, None], b[2])


def product_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a^T b, (J,...), of matrices a (3,J,...) and vectors b (3,...)."""
    return (a[0] * b[0]).addcmul_(a[1], b[1]).addcmul_(a[2], b[2])


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Products (3,3,...) of matrices (3,3,...)."""
    return (a[:, :, None] * b[None]).sum(dim=1)


def matmul_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a^T b of matrices a (3,3,...) and matrices or vectors b: (3,3,...) or (3,...)."""
    if b.dim() == a.dim():
        return (a[:, :, None] * b[:, None]).sum(dim=0)
    return (a * b[:, None]).sum(dim=0)


def matvec(a: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Products (3,...) of matrices (3,3,...) and vectors (3,...)."""
    return (a[:, 0] * v[0]).addcmul_(a[:, 1], v[1]).addcmul_(a[:, 2], v[2])


def add_cross(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """``out`` += a x b, cross products of vectors (3,...), broadcasting."""
    for axis, after, last in CYCLIC:
        out[axis].addcmul_(a[after], b[last]).addcmul_(a[last], b[after], value=-1)
    return out


def cross_rows(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(3,...): sum over i of a[i] x b[i], of matrices (3,3,...)."""
    out = a.new_empty(a.shape[1:])
    for axis, after, last in CYCLIC:
        terms = a[:, after] * b[:, last]
        torch.sum(terms.addcmul_(a[:, last], b[:, after], value=-1), dim=0, out=out[axis])
    return out


def cayley(turn: torch.Tensor) -> torch.Tensor:
    """Rotations (3,3,...) by vectors (3,...), rad: the Cayley map, equal to the exponential to third order.

    Exactly a rotation for any argument, by the angle 2 atan(|turn| / 2), and without trigonometry.
    """
    half = turn / 2
    squared = (half * half).sum(dim=0)
    scale = 2 / (1 + squared)
    scaled = half * scale
    out = scaled[:, None] * half
    diagonal = 1 - scale * squared
    for axis, after, last in CYCLIC:
        out[axis, axis].add_(diagonal)
        out[last, after].add_(scaled[axis])
        out[after, last].sub_(scaled[axis])
    return out
