"""What a picture shows beyond the keypoints in it: how far each lies before or behind the others, and the pose."""

from __future__ import annotations

import torch
from torch import nn

from utils.rotations import rotation_6d_to_matrix

NUM_ROTATIONS, NUM_BETAS = 16, 10


class KeypointFeatures(nn.Module):
    """The features at each keypoint, the pooled deepest ones and the keypoints' layout, as one vector.

    Args:
        channels, fine_channels: of the deepest and of the finest map; width: a keypoint's part.
    """

    def __init__(self, channels: int, fine_channels: int, width: int = 24) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.LayerNorm(fine_channels), nn.Linear(fine_channels, width))
        self.place = nn.Parameter(torch.zeros(21, width))  # which keypoint it is
        self.context = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 64), nn.ReLU())
        self.size = 21 * (width + 3) + 64

    def read(
        self, deepest: torch.Tensor, there: torch.Tensor, layout: torch.Tensor, peak: torch.Tensor
    ) -> torch.Tensor:
        """(B, size).

        Args:
            deepest: (B, C) pooled; there: (B, 21, fine_channels) at each keypoint; layout: (B, 21, 2) keypoints about
                their mean; peak: (B, 21) of the heat maps.
        """
        points = torch.relu(self.point(there) + self.place).flatten(1)
        return torch.cat([points, self.context(deepest), layout.flatten(1), peak], dim=1)


class DepthHead(KeypointFeatures):
    """Relative depths of the keypoints (2.5D).

    A finger bent towards the camera and one bent away have the same points in the picture; shading and what covers
    what tell them apart. Absolute size is not seen: depths are of a hand of mean size.

    """

    def __init__(self, channels: int, fine_channels: int, hidden: int = 192) -> None:
        super().__init__(channels, fine_channels)
        self.joined = _perceptron(self.size, hidden, 22)

    def forward(self, *seen: torch.Tensor) -> dict[str, torch.Tensor]:
        """Relative depths, and the size of what is seen; arguments of `KeypointFeatures.read`.

        Returns:
            ``depth`` (B, 21) m about their mean, along the ray through the hand, away from the camera; ``extent``
            (B,) m across the crop. Both of a hand of mean size.
        """
        out = self.joined(self.read(*seen))
        depth = 0.1 * out[:, :21]
        return {"depth": depth - depth.mean(dim=1, keepdim=True), "extent": 0.25 * out[:, 21].exp()}


class PoseHead(KeypointFeatures):
    """Pose of a right hand, with or without its person's betas: what `mano_networks` say, of any picture.

    Args:
        channels, fine_channels: of the deepest and of the finest map.
    """

    def __init__(self, channels: int, fine_channels: int, hidden: int = 256) -> None:
        super().__init__(channels, fine_channels)
        self.joined = _perceptron(self.size + 21 + NUM_BETAS + 1, hidden, 6 * NUM_ROTATIONS + NUM_BETAS)
        self.register_buffer("still", torch.tensor([1.0, 0, 0, 0, 1, 0]), persistent=False)

    def forward(
        self, *seen: torch.Tensor, depth: torch.Tensor, betas: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Pose and shape.

        Args:
            seen: arguments of `KeypointFeatures.read`; depth: (B, 21) m of `DepthHead`.
            betas: (B, 10) known shapes, NaN in rows where the person is not known; None: nobody is.

        Returns:
            ``pose`` (B, 16, 3, 3), the wrist's rotation in the axes of a camera turned to the middle of the keypoints;
            ``betas`` (B, 10), those given where they are known.
        """
        vector = self.read(*seen)
        told = torch.zeros_like(vector[:, :NUM_BETAS]) if betas is None else betas.to(vector)
        known = torch.isfinite(told).all(dim=1, keepdim=True)
        known = torch.zeros_like(known) if betas is None else known
        told = torch.where(known, told, 0.0)
        out = self.joined(torch.cat([vector, 10 * depth, told, known.to(vector)], dim=1))
        six, shape = out[:, : 6 * NUM_ROTATIONS], out[:, 6 * NUM_ROTATIONS :]
        pose = rotation_6d_to_matrix(six.unflatten(1, (NUM_ROTATIONS, 6)) + self.still)
        return {"pose": pose, "betas": torch.where(known, told, shape)}


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
