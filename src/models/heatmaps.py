"""Light 2D keypoint head: one top-down pass, soft-argmax, and a confidence that is an inverse variance."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

#: Standard deviation, in heat-map cells, of the Gaussian a joint is trained towards.
TARGET_SIGMA = 1.0
WIDTH = 64  # channels inside the head


class Keypoints(NamedTuple):
    """Decoded heat maps: pixels of the network input, and how far to trust them."""

    keypoints_2d: torch.Tensor  # (B, J, 2) px of the network input
    confidence: torch.Tensor  # (B, J) in (0, 1]: target variance over the map's variance


class HeatmapHead(nn.Module):
    """Feature pyramid (Lin et al., CVPR 2017) down to stride 4 and one map a joint.

    Args:
        channels: channels of the four backbone maps, fine to coarse.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, WIDTH, 1) for c in channels)
        self.smooth = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)
        )
        self.maps = nn.Conv2d(WIDTH, 21, 1)

    def forward(self, features: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, 21, S/4, S/4) from the backbone's four maps, and the map (B, 64, S/4, S/4) they are made of."""
        x = self.lateral[-1](features[-1])
        for lateral, feature in zip(reversed(self.lateral[:-1]), reversed(features[:-1]), strict=True):
            x = F.interpolate(x, size=feature.shape[-2:], mode="nearest") + lateral(feature)
        fine = self.smooth(x)
        return self.maps(fine), fine


def _cell_centres(cells: int, input_size: int, like: torch.Tensor) -> torch.Tensor:
    """(cells,) px of the input on which the cells' centres lie (pixel centres at integers)."""
    return (torch.arange(cells, device=like.device, dtype=like.dtype) + 0.5) * (input_size / cells) - 0.5


def decode_heatmaps(logits: torch.Tensor, input_size: int) -> Keypoints:
    """Soft-argmax (integral regression; Sun et al., ECCV 2018, eq. 3) in float32.

    Args:
        logits: (B, J, h, h); input_size: side of the network input, px.
    """
    with torch.autocast(logits.device.type, enabled=False):  # a product in bf16 would round to half pixels
        probability = logits.float().flatten(2).softmax(-1).view_as(logits)
        centres = _cell_centres(logits.shape[-1], input_size, probability)
        along_x, along_y = probability.sum(-2), probability.sum(-1)
        x, y = along_x @ centres, along_y @ centres
        variance = (along_x * (centres - x[..., None]) ** 2).sum(-1) + (along_y * (centres - y[..., None]) ** 2).sum(-1)
        expected = 2 * (TARGET_SIGMA * input_size / logits.shape[-1]) ** 2
        confidence = (expected / variance.clamp_min(1e-6)).clamp(max=1.0)
    return Keypoints(torch.stack([x, y], -1), confidence)


def heatmap_loss(logits: torch.Tensor, keypoints_2d: torch.Tensor, input_size: int) -> torch.Tensor:
    """Cross-entropy of the softmaxed maps against Gaussians, over joints inside the image.

    Unlike a pixel-wise MSE it is a proper score, so a map's spread means the joint's uncertainty.

    Args:
        logits: (B, J, h, h); keypoints_2d: (B, J, 2) true positions, px of the network input of side ``input_size``.

    Returns:
        scalar; 0 if no joint is inside the image.
    """
    centres = _cell_centres(logits.shape[-1], input_size, keypoints_2d)
    sigma = TARGET_SIGMA * input_size / logits.shape[-1]
    weight_x = torch.softmax(-0.5 * ((centres - keypoints_2d[..., :1]) / sigma) ** 2, -1)
    weight_y = torch.softmax(-0.5 * ((centres - keypoints_2d[..., 1:]) / sigma) ** 2, -1)
    target = weight_y[..., :, None] * weight_x[..., None, :]
    inside = ((keypoints_2d > -0.5) & (keypoints_2d < input_size - 0.5)).all(-1)
    log_probability = logits.float().flatten(2).log_softmax(-1)
    entropy = -(target.flatten(2) * log_probability).sum(-1)
    return (entropy * inside).sum() / inside.sum().clamp_min(1)
