"""The MANO regressors of the paper's released code, name for name (docs/architectures.md, docs/facts.md 7.1)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from src.models import told_betas
from src.models.backbones import Backbone
from src.models.cmr.encoders import CHANNELS, FEATURE_LENGTH, build_resnet
from utils.rotations import matrix_to_rotation_6d, rotation_6d_to_matrix

NUM_JOINTS = 16
POSE_LENGTH = 6 * NUM_JOINTS
NUM_STEPS = 3

#: First two rows of the identity.
IDENTITY_ROWS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
#: The released baseline starts from the first two columns written row by row: a slip, and its checkpoints need it.
IDENTITY_COLUMNS = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    """Linears at 0, 3, 6, 9, each but the last followed by ReLU and a dropout of 0 (kept for the numbering)."""
    widths = (inputs, 512, 256, 128)
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.0)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class PaperMano(nn.Module):
    """ResNet feature, three-step 6D pose, and either a shape head or a given shape.

    Args:
        backbone: resnet50 in the paper; another than a ResNet is the body of the
            fair networks, name for name, so that all can start from one trained body.
        sees_shape: the identity-aware network: betas are handed through unread, there is no shape head, and the pose
            is updated by R <- R(delta) R, from the identity; the baseline's by 6D + delta, from the released start.
        has_confidence: add the confidence branch.

    Raises:
        ValueError: unknown backbone.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        weights: str | Path | None = None,
        sees_shape: bool = False,
        has_confidence: bool = False,
    ) -> None:
        super().__init__()
        self.sees_shape = sees_shape
        self.backbone = None if backbone.lower() in CHANNELS else Backbone(backbone, weights)
        self.feature_extractor = (
            build_resnet(backbone, weights)
            if self.backbone is None
            else nn.Linear(self.backbone.channels[-1], FEATURE_LENGTH)
        )
        self.pose_6d_extractor = nn.ModuleList(
            _mlp(FEATURE_LENGTH + POSE_LENGTH, POSE_LENGTH) for _ in range(NUM_STEPS)
        )
        if not sees_shape:
            self.shape_extractor = _mlp(FEATURE_LENGTH, 10)
        if has_confidence:
            self.conf_branch = nn.Sequential(nn.Linear(FEATURE_LENGTH, 1))
        start = IDENTITY_ROWS if sees_shape else IDENTITY_COLUMNS
        self.register_buffer("initial_pose", torch.tensor(start).repeat(NUM_JOINTS), persistent=False)

    @property
    def confidence(self) -> nn.Sequential | None:
        """The confidence branch, feature (B, 1000) -> (B, 1), or None."""
        return getattr(self, "conf_branch", None)

    def forward(
        self, image: torch.Tensor, betas: torch.Tensor | None = None, **_: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Pose and shape, see `src.models`; ``pose_6d`` is the last step's, which the released loss compared."""
        if self.sees_shape:
            betas = told_betas("mano_identity", betas)
        seen = image if self.backbone is None else self.backbone(image)[-1].mean((2, 3))
        feature = self.feature_extractor(seen)
        pose_6d = self.initial_pose.expand(image.shape[0], -1)
        for step in self.pose_6d_extractor:
            delta = step(torch.cat([feature, pose_6d], dim=1)).float()
            pose_6d = turned(pose_6d, delta) if self.sees_shape else pose_6d + delta
        output = {
            "pose": rotation_6d_to_matrix(pose_6d.unflatten(1, (NUM_JOINTS, 6))),
            "pose_6d": pose_6d,
            "betas": betas if self.sees_shape else self.shape_extractor(feature).float(),
            "feature": feature.float(),
        }
        if self.confidence is not None:
            output["confidence"] = self.confidence(feature.detach())[:, 0].float()
        return output


def turned(pose_6d: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Joint rotations (B, 96), in 6D, turned by others (B, 96)."""
    turn, pose = (rotation_6d_to_matrix(value.unflatten(1, (NUM_JOINTS, 6))) for value in (delta, pose_6d))
    product = (turn[..., None] * pose[..., None, :, :]).sum(-2)  # a matrix product would be rounded under autocast
    return matrix_to_rotation_6d(product).flatten(1)
