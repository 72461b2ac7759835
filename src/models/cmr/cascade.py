"""Three encoders and three 2D decoders in a row: each stage sees the cues of the one before."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from src.models.cmr.encoders import CHANNELS, STEM_CHANNELS, ConvBlock, CueEncoder, ImageEncoder, Maps, build_resnet
from utils.joints import TIP_JOINTS

NUM_JOINTS = 21
TIP_PAIRS = tuple(combinations(TIP_JOINTS, 2))


@dataclass(frozen=True)
class Layout:
    """What tells the family's cascades apart."""

    first_cue: str  # name of the first 2D decoder
    first_channels: int  # its maps: 21 joints, or 1 mask
    third_reads: int  # stage (1 or 2) whose half-resolution map the third encoder reads


SG = Layout("mask", 1, third_reads=2)
PG = Layout("uv_prior", NUM_JOINTS, third_reads=1)


class Cues(NamedTuple):
    """Sigmoid maps of the three stages, (B, C, S/2, S/2), and the last stage's feature maps."""

    first: torch.Tensor
    second: torch.Tensor
    last: torch.Tensor
    maps: Maps

    @property
    def joint_maps(self) -> list[torch.Tensor]:
        """The 21-channel maps, in stage order."""
        return [cue[:, :NUM_JOINTS] for cue in self[:3] if cue.shape[1] >= NUM_JOINTS]

    @property
    def masks(self) -> list[torch.Tensor]:
        """The silhouette maps (B, 1, S/2, S/2), in stage order; none without a mask channel."""
        return [cue[:, -1:] for cue in self[:3] if cue.shape[1] in (1, NUM_JOINTS + 1)]


class Cascade(nn.Module):
    """Encoders ``backbone1..3`` and decoders ``<cue>_delayer`` and ``<cue>_head``.

    Args:
        layout: `SG` or `PG`.
        backbone: resnet18, resnet34 or resnet50; weights: the user's ImageNet weights of it, for all three encoders.
        with_mask: the last decoder has a 22nd map, the silhouette.
        uses_feature: something reads the third encoder's fc.
    """

    def __init__(
        self,
        layout: Layout,
        backbone: str,
        weights: str | Path | None,
        with_mask: bool,
        uses_feature: bool,
        **others: object,
    ) -> None:
        super().__init__(**others)
        self.layout = layout
        resnets = [build_resnet(backbone, weights) for _ in range(3)]
        third_inputs = STEM_CHANNELS + NUM_JOINTS + len(TIP_PAIRS)
        self.backbone1 = ImageEncoder(resnets[0])
        self.backbone2 = CueEncoder(resnets[1], STEM_CHANNELS + layout.first_channels, uses_fc=False)
        self.backbone3 = CueEncoder(resnets[2], third_inputs, uses_fc=uses_feature)
        c1, c2, c3, c4 = CHANNELS[backbone.lower()]
        widths = ((c4 + c3, c3), (c3 + c2, c2), (c2 + c1, c1), (c1, c1))
        cues = {layout.first_cue: layout.first_channels, "uv": NUM_JOINTS, "uvm": NUM_JOINTS + with_mask}
        for name, outputs in cues.items():
            self.add_module(f"{name}_delayer", nn.ModuleList(ConvBlock(*width) for width in widths))
            self.add_module(f"{name}_head", ConvBlock(c1, outputs, norm=False, relu=False))

    def _decode(self, name: str, maps: Maps) -> torch.Tensor:
        """Sigmoid maps (B, C, S/2, S/2) of the decoder called ``name``."""
        x = maps.c4
        skips = (maps.c3, maps.c2, maps.c1, None)
        for block, skip in zip(self.get_submodule(f"{name}_delayer"), skips, strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(x if skip is None else torch.cat([x, skip], dim=1))
        return torch.sigmoid(self.get_submodule(f"{name}_head")(x))

    def encode(self, image: torch.Tensor) -> Cues:
        """image (B, 3, S, S) in [-1, 1], S a multiple of 32 -> cues of the three stages.

        Raises:
            ValueError: the size is no multiple of 32, so that the maps would not fit each other.
        """
        if image.shape[-1] % 32 or image.shape[-2] % 32:
            raise ValueError(f"image is {tuple(image.shape[-2:])} px; the sides must be multiples of 32 (CMR: 224)")
        maps1 = self.backbone1(image)
        first = self._decode(self.layout.first_cue, maps1)
        maps2 = self.backbone2(torch.cat([maps1.c0, first], dim=1))
        second = self._decode("uv", maps2)
        tips = torch.cat([second[:, a : a + 1] + second[:, b : b + 1] for a, b in TIP_PAIRS], dim=1)
        stem = maps1.c0 if self.layout.third_reads == 1 else maps2.c0
        maps3 = self.backbone3(torch.cat([stem, second, tips], dim=1))
        return Cues(first, second, self._decode("uvm", maps3), maps3)
