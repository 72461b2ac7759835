"""From a feature vector to four meshes, coarse to fine, by spiral convolutions."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import nn

from conv.hierarchy import MeshHierarchy
from conv.pooling import SparsePool
from conv.spiral_conv import SpiralConv

FEATURE_LENGTH = 1000
#: Channels of the levels, fine to coarse.
WIDTHS = (64, 128, 256, 512)


class FeatureAttention(nn.Module):
    """Attention of a feature vector's entries on each other, gated by ``gamma`` (which starts at 0)."""

    def __init__(self, length: int = FEATURE_LENGTH) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.query_conv = nn.Linear(length, length)
        self.key_conv = nn.Linear(length, length)
        self.value_conv = nn.Linear(length, length)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """feature (B, L) -> gamma * softmax(q k^T) v + feature, (B, L), float32."""
        with torch.autocast(feature.device.type, enabled=False):  # the unscaled outer product needs its digits
            feature = feature.float()
            # one head, L tokens of one number each: the (B, L, L) energy is never stored
            parts = (linear(feature)[:, None, :, None] for linear in (self.query_conv, self.key_conv, self.value_conv))
            attended = F.scaled_dot_product_attention(*parts, scale=1.0)[:, 0, :, 0]
            return self.gamma * attended + feature


class Deblock(nn.Module):
    """Pooling to the next finer level and four spiral convolutions of reach 27, 18, 9 and 1.

    Args:
        spirals: (V, 27) of the finer level.
        up: pooling matrix (V, V_coarse).
        inputs, outputs: channels; ``outputs`` divisible by 4.
    """

    def __init__(self, spirals: np.ndarray, up: scipy.sparse.spmatrix, inputs: int, outputs: int) -> None:
        super().__init__()
        length = spirals.shape[1]

        def convolution(reach: int, channels: int) -> SpiralConv:
            return SpiralConv(spirals[:, :reach], inputs, channels, up)

        self.conv_2d3 = convolution(length * 2 // 3, outputs // 4)
        self.conv_d3 = convolution(length // 3, outputs // 4)
        self.conv = convolution(length, outputs // 2)
        self.conv1 = convolution(1, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, V_coarse, inputs) -> (B, V, outputs)."""
        wide = torch.cat([self.conv(x), self.conv_2d3(x), self.conv_d3(x)], dim=2)
        return torch.relu(self.conv1(x) + wide)


class MeshDecoder(nn.Module):
    """Modules ``attention``, ``de_layers`` and ``heads``, and `decode_mesh` that runs them.

    Args:
        hierarchy: five levels, the coarsest of any size.
        extra_channels: per vertex, given to `decode_mesh` for every level.
        widths: channels of the levels, fine to coarse; of owned checkpoints by default, as ``feature_length``.
        blind_start: the weights of the extra channels start at zero.
    """

    def __init__(
        self,
        hierarchy: MeshHierarchy,
        extra_channels: int = 0,
        widths: tuple[int, ...] = WIDTHS,
        feature_length: int = FEATURE_LENGTH,
        blind_start: bool = False,
        **others: object,
    ) -> None:
        super().__init__(**others)
        if len(hierarchy.sizes) != len(widths) + 1:
            raise ValueError(f"the mesh decoder needs {len(widths) + 1} levels, the hierarchy has {hierarchy.sizes}")
        self.coarsest = hierarchy.sizes[-1]
        self.attention = FeatureAttention(feature_length)
        self.de_layers = nn.ModuleList([nn.Linear(feature_length, self.coarsest * widths[-1])])
        self.heads, self.pools = nn.ModuleList(), nn.ModuleList()
        inputs = widths[-1] + extra_channels
        for level in reversed(range(len(widths))):
            outputs, spirals, up = widths[level], hierarchy.spirals[level], hierarchy.up[level]
            self.de_layers.append(Deblock(spirals, up, inputs, outputs))
            self.heads.append(SpiralConv(spirals, outputs + extra_channels, 3))
            self.pools.append(SparsePool(up))
            inputs = outputs + extra_channels + 3
        if blind_start and extra_channels:
            for module in self.modules():
                if isinstance(module, SpiralConv):  # the extra channels come last
                    weight = module.layer.weight.data.view(-1, module.length, module.in_channels)
                    weight[..., -extra_channels:] = 0

    def decode_mesh(self, feature: torch.Tensor, extra: list[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Meshes (B, V_l, 3) of the four finest levels, finest first, in units of 0.2 m, root-relative.

        Args:
            feature: (B, feature_length).
            extra: per level, finest first and the coarsest included, (B, V_l, extra_channels).
        """
        extra = [] if extra is None else list(extra)
        x = self.de_layers[0](self.attention(feature)).unflatten(1, (self.coarsest, -1))
        meshes: list[torch.Tensor] = []
        for deblock, head, pool in zip(self.de_layers[1:], self.heads, self.pools, strict=True):
            x = deblock(torch.cat([x, extra.pop()], dim=2) if extra else x)
            seen = torch.cat([x, extra[-1]], dim=2) if extra else x
            with torch.autocast(x.device.type, enabled=False):  # half precision would round coordinates to millimetres
                mesh = head(seen.float())
                if meshes:
                    mesh = (mesh + pool(meshes[-1])) / 2
            meshes.append(mesh)
            x = torch.cat([x, mesh.to(x.dtype)], dim=2)
        return meshes[::-1]
