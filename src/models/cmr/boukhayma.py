"""One encoder, 22 numbers, one hand: the comparison method of Boukhayma et al. (CVPR 2019)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from src.models.backbones import Backbone
from src.models.cmr.encoders import CHANNELS, build_resnet
from template import HandAssets, load_hand_assets, pca_to_pose
from utils.rotations import matrix_to_rotation_6d

PCA_COMPONENTS = 6
#: Scale, image translation, global rotation, finger PCA, shape: in this order.
PARTS = (1, 2, 3, PCA_COMPONENTS, 10)


class Boukhayma(nn.Module):
    """ResNet-34 whose last layer gives a weak-perspective camera, a rotation, PCA pose and shape (docs/facts.md 7.1).

    Args:
        backbone: resnet34 in the paper; another than a ResNet is the body of the fair networks, name for name.
        hand: whose pose PCA is used; None for the one that `load_hand_assets` finds.
    """

    def __init__(
        self, backbone: str = "resnet34", weights: str | Path | None = None, hand: HandAssets | None = None
    ) -> None:
        super().__init__()
        hand = load_hand_assets() if hand is None else hand
        self.backbone = None if backbone.lower() in CHANNELS else Backbone(backbone, weights)
        if self.backbone is None:
            self.encoder = build_resnet(backbone, weights)
            self.encoder.fc = nn.Linear(self.encoder.fc.in_features, sum(PARTS))
        else:
            self.encoder = nn.Linear(self.backbone.channels[-1], sum(PARTS))
        for name in ("hands_components", "hands_mean"):
            self.register_buffer(name, torch.as_tensor(getattr(hand, name), dtype=torch.float32), persistent=False)

    def forward(self, image: torch.Tensor, **_: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Pose and shape, see `src.models`; ``camera`` (B, 3): scale and translation of the weak-perspective
        projection, in units of the input's half side; ``pca`` (B, 6)."""
        seen = image if self.backbone is None else self.backbone(image)[-1].mean((2, 3))
        camera_scale, camera_shift, rotation, pca, betas = self.encoder(seen).float().split(PARTS, dim=1)
        pose = pca_to_pose(self, rotation, pca)
        return {
            "pose": pose,
            "pose_6d": matrix_to_rotation_6d(pose).flatten(1),
            "betas": betas,
            "camera": torch.cat([camera_scale, camera_shift], dim=1),
            "pca": pca,
        }
