"""Products of a constant sparse matrix with vertex features, in native torch.

A pooling matrix has at most three entries in a row, so a compressed-row product (CSR) does in
memory time what a dense one spends arithmetic on. Autograd would make the gradient of the matrix,
which is constant; the function here only has the gradient of the features, with the transposed
matrix compressed once.
"""

from __future__ import annotations

import warnings

import scipy.sparse
import torch
from torch import nn


class _ConstantMatmul(torch.autograd.Function):
    """matrix @ features, with the transposed matrix for the way back."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        features: torch.Tensor,
        matrix: torch.Tensor,
        transposed: torch.Tensor,
    ) -> torch.Tensor:
        ctx.transposed = transposed
        with torch.autocast(features.device.type, enabled=False):
            return matrix @ features

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        with torch.autocast(gradient.device.type, enabled=False):
            return ctx.transposed @ gradient.contiguous(), None, None


class ConstantSparse(nn.Module):
    """A constant sparse matrix (M, N) to multiply with; buffers only, none of them in the state dict.

    Computes in the dtype of its values, float32 unless the module is cast, also under autocast.

    Args:
        matrix: SciPy sparse matrix (M, N).
    """

    def __init__(self, matrix: scipy.sparse.spmatrix) -> None:
        super().__init__()
        self.shape = matrix.shape
        for name, compressed in (("forward", matrix.tocsr(copy=True)), ("backward", matrix.T.tocsr())):
            compressed.sum_duplicates()
            compressed.eliminate_zeros()
            # 32-bit indices are what MKL and cuSPARSE work with; others are converted at every call
            self.register_buffer(f"{name}_rows", torch.as_tensor(compressed.indptr, dtype=torch.int32), False)
            self.register_buffer(f"{name}_columns", torch.as_tensor(compressed.indices, dtype=torch.int32), False)
            self.register_buffer(f"{name}_values", torch.as_tensor(compressed.data, dtype=torch.float32), False)

    def _compressed(self, name: str, shape: tuple[int, int]) -> torch.Tensor:
        parts = [getattr(self, f"{name}_{part}") for part in ("rows", "columns", "values")]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
            return torch.sparse_csr_tensor(*parts, size=shape, check_invariants=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, C) features -> (M, C), any unit."""
        return _ConstantMatmul.apply(
            features.to(self.forward_values.dtype).contiguous(),
            self._compressed("forward", self.shape),
            self._compressed("backward", self.shape[::-1]),
        )


class SparsePool(nn.Module):
    """Features of one mesh level carried to another by a constant matrix (rows: the level they go to).

    Args:
        matrix: SciPy sparse matrix (V_out, V_in): `MeshHierarchy.up` or `MeshHierarchy.down`.
    """

    def __init__(self, matrix: scipy.sparse.spmatrix) -> None:
        super().__init__()
        self.matrix = ConstantSparse(matrix)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, V_in, C) -> (B, V_out, C)."""
        batch, vertices, channels = features.shape
        rows = self.matrix(features.transpose(0, 1).reshape(vertices, batch * channels))
        return rows.view(len(rows), batch, channels).transpose(0, 1)
