"""How far each 2D keypoint lies before or behind the hand's middle: what a picture shows beyond the points in it."""

from __future__ import annotations

import torch
from torch import nn


class DepthHead(nn.Module):
    """From the features at each keypoint, the pooled deepest ones and the keypoints' layout to relative depths (2.5D).

    A finger bent towards the camera and one bent away have the same points in the picture; shading and what covers
    what tell them apart. Absolute size is not seen: depths are of a hand of mean size.

    Args:
        channels, fine_channels: of the deepest and of the finest map; width: a keypoint's part of the hidden layer.
    """

    def __init__(self, channels: int, fine_channels: int, width: int = 24, hidden: int = 192) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.LayerNorm(fine_channels), nn.Linear(fine_channels, width))
        self.place = nn.Parameter(torch.zeros(21, width))  # which keypoint it is
        self.context = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 64), nn.ReLU())
        self.joined = nn.Sequential(
            nn.Linear(21 * (width + 3) + 64, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 22),
        )  # fmt: skip

    def forward(
        self, deepest: torch.Tensor, there: torch.Tensor, layout: torch.Tensor, peak: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Relative depths, and the size of what is seen.

        Args:
            deepest: (B, C) pooled; there: (B, 21, fine_channels) at each keypoint; layout: (B, 21, 2) keypoints about
                their mean; peak: (B, 21) of the heat maps.

        Returns:
            ``depth`` (B, 21) m about their mean, along the ray through the hand, away from the camera; ``extent``
            (B,) m across the crop. Both of a hand of mean size.
        """
        points = torch.relu(self.point(there) + self.place).flatten(1)
        out = self.joined(torch.cat([points, self.context(deepest), layout.flatten(1), peak], dim=1))
        depth = 0.1 * out[:, :21]
        return {"depth": depth - depth.mean(dim=1, keepdim=True), "extent": 0.25 * out[:, 21].exp()}
