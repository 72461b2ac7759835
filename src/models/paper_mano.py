"""The MANO regressors of the paper's released code, name for name (docs/architectures.md, docs/facts.md 7.1)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from src.models.backbones import Backbone
from src.models.cmr.encoders import CHANNELS, FEATURE_LENGTH, build_resnet
from utils.rotations import matrix_to_rotation_6d, rotation_6d_to_matrix

NUM_JOINTS = 16
POSE_LENGTH = 6 * NUM_JOINTS
NUM_STEPS = 3
UPDATES = ("multiplicative", "additive")

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
        weights: the user's ImageNet weights of it, or None.
        sees_shape: the identity-aware network: betas are handed through, there is no shape head.
        has_confidence: add the confidence branch.
        update: ``multiplicative`` (R <- R(delta) R, from the identity) or ``additive`` (6D + delta,
            from the released start). None: what the paper has, multiplicative for the
            identity-aware network and additive for the baseline; give it to compare like with like.

    Raises:
        ValueError: unknown backbone or update.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        weights: str | Path | None = None,
        sees_shape: bool = False,
        has_confidence: bool = False,
        update: str | None = None,
    ) -> None:
        super().__init__()
        self.update = update or ("multiplicative" if sees_shape else "additive")
        if self.update not in UPDATES:
            raise ValueError(f"update {update!r} is unknown; choose one of {UPDATES}")
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
        start = IDENTITY_ROWS if self.update == "multiplicative" else IDENTITY_COLUMNS
        self.register_buffer("initial_pose", torch.tensor(start).repeat(NUM_JOINTS), persistent=False)

    @property
    def confidence(self) -> nn.Sequential | None:
        """The confidence branch, feature (B, 1000) -> (B, 1), or None."""
        return getattr(self, "conf_branch", None)

    def forward(
        self, image: torch.Tensor, betas: torch.Tensor | None = None, **_: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Predict.

        Args:
            image: (B, 3, S, S) in [-1, 1]; S = 224 in the paper.
            betas: (B, 10) the known shape; needed by the identity-aware network, which hands it
                through unread, and ignored by the others.

        Returns:
            dict: ``pose`` (B, 16, 3, 3) rotation matrices, camera frame; ``pose_6d`` (B, 96), the
            last step's, which the released loss compared; ``betas`` (B, 10); ``feature`` (B, 1000);
            ``confidence`` (B,) if the branch is there.

        Raises:
            ValueError: betas are missing.
        """
        if self.sees_shape and betas is None:
            raise ValueError("mano_identity needs the subject's betas (B,10): pass --shape gt or --identity FILE")
        seen = image if self.backbone is None else self.backbone(image)[-1].mean((2, 3))
        feature = self.feature_extractor(seen)
        pose_6d = self.initial_pose.expand(len(image), -1)
        for step in self.pose_6d_extractor:
            pose_6d = self._refine(pose_6d, step(torch.cat([feature, pose_6d], dim=1)).float())
        output = {
            "pose": rotation_6d_to_matrix(pose_6d.unflatten(1, (NUM_JOINTS, 6))),
            "pose_6d": pose_6d,
            "betas": betas if self.sees_shape else self.shape_extractor(feature).float(),
            "feature": feature.float(),
        }
        if self.confidence is not None:
            output["confidence"] = self.confidence(feature.detach())[:, 0].float()
        return output

    def _refine(self, pose_6d: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        if self.update == "additive":
            return pose_6d + delta
        turn, pose = (rotation_6d_to_matrix(value.unflatten(1, (NUM_JOINTS, 6))) for value in (delta, pose_6d))
        product = (turn[..., None] * pose[..., None, :, :]).sum(-2)  # a matrix product would be rounded under autocast
        return matrix_to_rotation_6d(product).flatten(1)
