"""Small vectors and matrices of many problems, stored with their components first and the problems last.

Arrays are (3, ...) and (3, 3, ...): each elementary operation then runs over long contiguous rows,
which on a CPU is several times faster than batches of 3x3 matrix products. Sums of three products are
written as fused multiply-adds: no array three times as large is made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Array = torch.Tensor | np.ndarray
#: (axis, next, next but one).
CYCLIC = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
#: Up to so many frames of a solver the number of calls is the time.
FEW = 16


def library(array: Array) -> Any:
    """``torch`` or ``numpy``, for formulas that are the same in both: of a few hands, NumPy's calls take a third."""
    return torch if isinstance(array, torch.Tensor) else np


def are_few(values: torch.Tensor) -> bool:
    """Whether ``values`` (N, ...), of any unit, are few enough, and where NumPy can compute with them."""
    return 0 < len(values) <= FEW and values.device.type == "cpu" and not values.requires_grad


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Products (I,J,...) of matrices a (I,3,...) and b (3,J,...), broadcasting over the rest."""
    return (a[:, 0, None] * b[0]).addcmul_(a[:, 1, None], b[1]).addcmul_(a[:, 2, None], b[2])


def product_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a^T b, (J,...), of matrices a (3,J,...) and vectors b (3,...), or (3,1,...) for any broadcasting."""
    return (a[0] * b[0]).addcmul_(a[1], b[1]).addcmul_(a[2], b[2])


def cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a x b, cross products of vectors (3,...), broadcasting."""
    out = a.new_empty(np.broadcast_shapes(a.shape, b.shape))  # PyTorch's takes longer than the products of a solver
    for axis, after, last in CYCLIC:
        torch.mul(a[after], b[last], out=out[axis]).addcmul_(a[last], b[after], value=-1)
    return out
