"""Image encoders from torchvision, by name, as four feature maps from fine to coarse."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from src.models.state_dicts import load_strict
from utils.torch_files import load_harmless

_RESNET = ("layer1", "layer2", "layer3", "layer4")
_REGNET = ("trunk_output.block1", "trunk_output.block2", "trunk_output.block3", "trunk_output.block4")

#: name -> nodes whose outputs have strides 4, 8, 16 and 32.
BACKBONES = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50"), _RESNET),
    **dict.fromkeys(("regnet_x_400mf", "regnet_y_400mf"), _REGNET),
    "mobilenet_v3_small": ("features.1", "features.3", "features.8", "features.12"),
    "mobilenet_v3_large": ("features.3", "features.6", "features.12", "features.16"),
}


def classifier(name: str, weights: str | Path | None = None) -> nn.Module:
    """torchvision's classifier, random or with the user's ImageNet weights (its state dict). Nothing is downloaded.

    Raises:
        FileNotFoundError: no such file. ValueError: the weights are another network's.
    """
    network = torchvision.models.get_model(name, weights=None)
    if weights is not None:
        if not Path(weights).is_file():
            raise FileNotFoundError(f"{weights}: no such file")
        try:
            load_strict(network, load_harmless(weights))
        except ValueError as error:
            raise ValueError(
                f"{weights}: {error}; pass torchvision's weights of {name}, or another --backbone"
            ) from error
    return network


class Backbone(nn.Module):
    """A torchvision classifier cut down to its feature maps.

    Args:
        name: one of `BACKBONES`; weights: as `classifier`.

    Raises:
        ValueError: the name is unknown, or the weights are another network's.
    """

    def __init__(self, name: str, weights: str | Path | None = None) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(f"backbone {name!r} is unknown; choose one of {sorted(BACKBONES)}")
        nodes = {node: f"c{i + 1}" for i, node in enumerate(BACKBONES[name])}
        self.body = create_feature_extractor(classifier(name, weights), nodes)
        with torch.no_grad():
            maps = self.eval()(torch.zeros(1, 3, 64, 64))
        self.train()
        #: channels of the four maps, fine to coarse
        self.channels = tuple(feature.shape[1] for feature in maps)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Four maps (B, C_i, S/4, S/4) ... (B, C_i, S/32, S/32) of an image (B, 3, S, S) in [-1, 1]."""
        return list(self.body(image).values())
