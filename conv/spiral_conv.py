"""Spiral convolution (Gong et al., SpiralNet++, 2019, eq. 3), with the linear layer before the gather.

The definition: pool the coarse features up, gather each vertex's spiral, apply one linear layer to
the concatenation, ``y_v = b + sum_k W_k (P x)_{s(v,k)}``. All of it is linear in x, so the products
``W_k x`` can be taken on the *coarse* vertices first, which halves the arithmetic and never makes
the (B, V, K C) gathered tensor; what remains, ``sum_k P_{s(v,k)}``, is one constant sparse matrix.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from torch import nn

from conv.pooling import ConstantSparse


class SpiralConv(nn.Module):
    """Spiral convolution, with the pooling before it if one is given.

    The weight of ``layer`` has the position in the spiral slow and the channel fast.

    Args:
        spirals: (V, K) vertex ids; the first column is the vertex itself.
        in_channels: C of the features that come in.
        out_channels: O of the features that go out.
        up: pooling matrix (V, V_in) to be applied before the convolution, or None.
    """

    def __init__(
        self,
        spirals: np.ndarray,
        in_channels: int,
        out_channels: int,
        up: scipy.sparse.spmatrix | None = None,
    ) -> None:
        super().__init__()
        n_vertices, self.length = spirals.shape
        self.in_channels = in_channels
        self.layer = nn.Linear(self.length * in_channels, out_channels)
        nn.init.xavier_uniform_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        pool = scipy.sparse.identity(n_vertices, format="csr") if up is None else scipy.sparse.csr_matrix(up)
        self.collect = ConstantSparse(scipy.sparse.hstack([pool[column] for column in spirals.T]))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, V_in, C) -> (B, V, O)."""
        batch, vertices, channels = features.shape
        rows = features.transpose(0, 1).reshape(vertices * batch, channels)
        weights = self.layer.weight.view(-1, self.length, self.in_channels).permute(1, 2, 0)
        products = torch.matmul(rows, weights)  # (K, V_in B, O)
        outputs = weights.shape[-1]
        collected = self.collect(products.view(self.length * vertices, batch * outputs))
        return collected.view(len(collected), batch, outputs).transpose(0, 1) + self.layer.bias
