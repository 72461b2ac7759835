"""Symmetric systems of a chain of frames, each coupled to the next two: solved in time linear in their number."""

from __future__ import annotations

import functools

import numpy as np
import torch
from scipy.linalg import LinAlgError, cho_solve_banded, cholesky_banded


@functools.cache
def _places(size: int, width: int) -> tuple[torch.Tensor, ...]:
    """Flat places in a frame's (size, width) columns of the blocks one and two frames on."""
    part, a, b = torch.meshgrid(torch.arange(size // 3), torch.arange(3), torch.arange(3), indexing="ij")
    # Entry (row 3 part + a, column 3 part + b) of the block below.
    return tuple(((3 * part + b) * width + frames * size + a - b).flatten() for frames in (1, 2))


def band(diagonal: torch.Tensor, next_one: torch.Tensor, next_two: torch.Tensor) -> torch.Tensor:
    """Lower band, column by column, as LAPACK's pbtrf takes it.

    Args:
        diagonal: (T,U,U) symmetric blocks; next_one: (T-1,U/3,3,3) and next_two: (T-2,U/3,3,3), the 3 x 3 blocks
            (row, column) that couple each part of frame t+1, t+2 (rows) to the same part of frame t (columns).

    Returns:
        (T,U,W) float64 on the CPU, W = 2 U + 3: entry [t,k,d] is that of the row d below the diagonal, in column k of
        frame t.
    """
    frames, size = diagonal.shape[:2]
    width = 2 * size + 3
    one, two = _places(size, width)
    columns = torch.zeros(frames, size * width, dtype=torch.float64)
    # A column's rows follow each other from the diagonal on; zeros of those above it fall on places that are empty yet.
    columns.as_strided((frames, size, size), (size * width, width - 1, 1)).copy_(diagonal.triu())
    columns[:-1, one] = next_one.flatten(1).to(columns)
    columns[:-2, two] = next_two.flatten(1).to(columns)
    return columns.view(frames, size, width)


def solve_band(columns: torch.Tensor, right: torch.Tensor) -> torch.Tensor | None:
    """x (T,U) or (T,U,M) of the system `band` describes, which is used up; None where it is not positive definite."""
    frames, size, width = columns.shape
    lower = columns.reshape(frames * size, width).numpy().T  # column-major: nothing is copied
    vectors = right.reshape(frames * size, -1).double().cpu().numpy()
    try:
        factor = cholesky_banded(lower, lower=True, overwrite_ab=True, check_finite=False)
    except LinAlgError:
        return None
    solution = cho_solve_banded((factor, True), vectors, check_finite=False)
    return torch.from_numpy(solution).to(right).view(right.shape) if np.isfinite(solution).all() else None
