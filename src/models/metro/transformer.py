"""Three post-norm transformer encoders of falling width over the tokens, and their heads (Lin et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from src.models.metro.template_tokens import N_JOINTS, N_VERTICES, VERTICES_195

VERTICES = len(VERTICES_195)  # that are tokens
HEADS = 4


class EncoderLayer(nn.Module):
    """BERT's layer (Devlin et al. 2019): attention, then two linear layers with a GELU, each added and normalised.

    `torch.nn.TransformerEncoderLayer` has a dropout more, behind the GELU, and one weight for query, key and value,
    so it is written here, with the parts of released checkpoints one to one.

    Args:
        width: channels; heads: of attention, which divide them; dropout: share left out in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide the width {width}; choose a multiple")
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attended = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, width) -> (B, T, width)."""
        drop = self.dropout if self.training else 0.0
        if self.training and not drop and x.device.type == "cpu":
            # of a step in bf16, PyTorch's fused attention of narrow heads takes two and a half times as long
            seen = self.attention(x) @ self._split(self.value(x))
        else:
            parts = (self._split(linear(x)) for linear in (self.query, self.key, self.value))
            seen = F.scaled_dot_product_attention(*parts, dropout_p=drop)
        seen = seen.transpose(1, 2).flatten(2)
        x = self.norm1(x + F.dropout(self.attended(seen), drop))
        return self.norm2(x + F.dropout(self.narrow(F.gelu(self.widen(x))), drop))

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        """How much each token (third axis) looks at each other (last axis): (B, heads, T, T), rows sum to one."""
        query, key = self._split(self.query(x)), self._split(self.key(x))
        return (query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)).softmax(-1)


class TokenEncoder(nn.Module):
    """Embedding with learned positions, layers, and a head to which a projection of the input is added.

    Args:
        tokens: their number; inputs, width, outputs: channels; layers, heads, dropout: as `EncoderLayer`.
    """

    def __init__(
        self, tokens: int, inputs: int, width: int, outputs: int, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Linear(inputs, width)
        self.position = nn.Parameter(torch.zeros(tokens, width))
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(layers))
        self.head, self.residual = nn.Linear(width, outputs), nn.Linear(inputs, outputs)
        nn.init.normal_(self.position, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def embed(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """What the first layer reads, (B, T, width); ``added`` (B, T, width) is known of the tokens besides."""
        x = self.embedding(x) + self.position
        return F.dropout(x if added is None else x + added, self.dropout, self.training)

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, inputs) -> (B, T, outputs), float32."""
        hidden = self.embed(x, added)
        for layer in self.layers:
            hidden = layer(hidden)
        with torch.autocast(x.device.type, enabled=False):  # half precision would round coordinates to millimetres
            return self.head(hidden.float()) + self.residual(x.float())

    def attention(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Attention of the last layer, (B, heads, T, T); arguments as `forward`."""
        hidden = self.embed(x, added)
        for layer in self.layers[:-1]:
            hidden = layer(hidden)
        return self.layers[-1].attention(hidden)


class MeshTransformer(nn.Module):
    """Tokens to joints, coarse and full mesh, and a weak-perspective camera.

    Args:
        inputs: channels of a token; the defaults of the others are the released network's.
        widths: of the encoders; outputs: theirs, the last one 3.
        layers, dropout: as `TokenEncoder`.
        has_camera: whether there is a camera head.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int] = (1024, 256, 64),
        outputs: Sequence[int] = (512, 128, 3),
        layers: int = 4,
        dropout: float = 0.1,
        has_camera: bool = True,
    ) -> None:
        super().__init__()
        tokens = N_JOINTS + VERTICES
        self.encoders = nn.ModuleList()
        for width, channels in zip(widths, outputs, strict=True):
            self.encoders.append(TokenEncoder(tokens, inputs, width, channels, layers, HEADS, dropout))
            inputs = channels
        self.upsampling = nn.Linear(VERTICES, N_VERTICES)
        self.camera = None
        if has_camera:
            self.camera = nn.ModuleList([nn.Linear(3, 1), nn.Linear(tokens, 150), nn.Linear(150, 3)])

    def forward(self, tokens: torch.Tensor, added: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Run the encoders and the heads.

        Args:
            tokens: (B, T, inputs), joints first.
            added: (B, T, widths[0]) added to the first embedding, or None.

        Returns:
            dict: ``joints`` (B, 21, 3), ``vertices_coarse`` (B, 195, 3), ``vertices`` (B, 778, 3); and with a camera
            head ``camera`` (B, 3): scale s and shift tx, ty of u = s (x + tx), in half sides of the input.
        """
        points = tokens
        for number, encoder in enumerate(self.encoders):
            points = encoder(points, added if number == 0 else None)
        with torch.autocast(points.device.type, enabled=False):
            coarse = points[:, N_JOINTS:]
            full = self.upsampling(coarse.transpose(1, 2)).transpose(1, 2)
            found = {"joints": points[:, :N_JOINTS], "vertices_coarse": coarse, "vertices": full}
            if self.camera is not None:
                each, mixed, last = self.camera
                found["camera"] = last(mixed(each(points)[..., 0]))
        return found

    def attention(self, tokens: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """How much each joint looks at each vertex in the last layer, mean over heads; arguments as `forward`.

        Returns:
            (B, joints, vertices); a row's sum is what the joint leaves for vertices, the rest goes to joints.
        """
        points = tokens
        for number, encoder in enumerate(self.encoders[:-1]):
            points = encoder(points, added if number == 0 else None)
        seen = self.encoders[-1].attention(points, added if len(self.encoders) == 1 else None).mean(1)
        return seen[:, :N_JOINTS, N_JOINTS:]
