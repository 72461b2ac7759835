"""The three ResNet encoders of the cascade, with the parameter names of owned checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import nn

from src.models.backbones import classifier

#: Channels of (c1, c2, c3, c4) by backbone.
CHANNELS = {
    "resnet18": (64, 128, 256, 512),
    "resnet34": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
}
STEM_CHANNELS = 64
FEATURE_LENGTH = 1000


class Maps(NamedTuple):
    """Feature maps of one encoder for a 224 px input; channels of c1..c4 in `CHANNELS`."""

    c0: torch.Tensor  # (B, 64, 112, 112)
    c1: torch.Tensor  # (B, C1, 56, 56)
    c2: torch.Tensor  # (B, C2, 28, 28)
    c3: torch.Tensor  # (B, C3, 14, 14)
    c4: torch.Tensor  # (B, C4, 7, 7)


def build_resnet(name: str, weights: str | Path | None = None) -> torchvision.models.ResNet:
    """`classifier` of a ResNet's name, any capitals.

    Raises:
        ValueError: the name is unknown, or the file holds another network's weights.
    """
    if name.lower() not in CHANNELS:
        raise ValueError(f"backbone {name!r} is unknown here; choose one of {sorted(CHANNELS)}")
    return classifier(name.lower(), weights)


class ConvBlock(nn.Module):
    """Convolution with bias, then BatchNorm and ReLU if wanted."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, norm: bool = True, relu: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(outputs) if norm else None
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return torch.relu(x) if self.relu else x


class _Encoder(nn.Module):
    """What the three encoders share: the four ResNet layers behind a half-resolution map."""

    def __init__(self, resnet: torchvision.models.ResNet) -> None:
        super().__init__()
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4

    def _maps(self, c0: torch.Tensor) -> Maps:
        c1 = self.layer1(nn.functional.max_pool2d(c0, 3, stride=2, padding=1))
        c2 = self.layer2(c1)
        c3 = self.layer3(c2)
        return Maps(c0, c1, c2, c3, self.layer4(c3))


class ImageEncoder(_Encoder):
    """Stage 1: reads the image."""

    def __init__(self, resnet: torchvision.models.ResNet) -> None:
        super().__init__(resnet)
        self.conv1, self.bn1 = resnet.conv1, resnet.bn1

    def forward(self, image: torch.Tensor) -> Maps:
        """image (B, 3, S, S) in [-1, 1] -> maps."""
        return self._maps(torch.relu(self.bn1(self.conv1(image))))


class CueEncoder(_Encoder):
    """Stages 2 and 3: read a half-resolution map and the 2D cues found so far.

    Args:
        resnet: whose layers and fc are taken.
        inputs: channels of the map and the cues together.
        uses_fc: without it ``fc`` is only kept for the checkpoint and never trained.
    """

    def __init__(self, resnet: torchvision.models.ResNet, inputs: int, uses_fc: bool) -> None:
        super().__init__(resnet)
        self.reduce = nn.Sequential(
            ConvBlock(inputs, inputs), ConvBlock(inputs, 128), ConvBlock(128, STEM_CHANNELS, kernel=1, relu=False)
        )
        self.fc = resnet.fc.requires_grad_(uses_fc)

    def forward(self, cues: torch.Tensor) -> Maps:
        """cues (B, inputs, S/2, S/2) -> maps."""
        return self._maps(self.reduce(cues))

    def feature(self, maps: Maps) -> torch.Tensor:
        """Feature vector (B, 1000) of this stage's maps."""
        return self.fc(maps.c4.mean((2, 3)))
