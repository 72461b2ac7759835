"""The MANO networks of the fair recipe: one body, three faces (baseline, with confidence, identity-aware)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from src.models import told_betas
from src.models.backbones import Backbone
from src.models.heatmaps import HeatmapHead, decode_heatmaps
from src.models.keypoint_rating import KeypointRating
from utils.camera import crop_geometry, ray_rotation
from utils.rotations import matrix_to_rotation_6d, rotation_6d_to_matrix

FEATURES = 512
NUM_JOINTS = 16
NUM_STEPS = 3
HIDDEN = 512  # width of the first layer of a step


class _Step(nn.Module):
    """One refinement: context and current pose (and shape) -> rotation update of each joint."""

    def __init__(self, context: int, sees_shape: bool) -> None:
        super().__init__()
        self.inlet = nn.Linear(context + 6 * NUM_JOINTS, HIDDEN)
        self.middle = nn.Sequential(nn.ReLU(), nn.Linear(HIDDEN, HIDDEN // 2), nn.ReLU(), nn.Linear(HIDDEN // 2, 128))
        self.outlet = nn.Linear(128, 6 * NUM_JOINTS)
        # A small start keeps the first updates near the identity rotation.
        nn.init.normal_(self.outlet.weight, std=0.01)
        with torch.no_grad():
            self.outlet.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(NUM_JOINTS))
        self.shape = None
        if sees_shape:
            self.shape = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, HIDDEN))
            nn.init.zeros_(self.shape[2].weight)
            nn.init.zeros_(self.shape[2].bias)

    def forward(self, context: torch.Tensor, pose: torch.Tensor, betas: torch.Tensor | None) -> torch.Tensor:
        x = self.inlet(torch.cat([context, matrix_to_rotation_6d(pose).flatten(1)], dim=1))
        if self.shape is not None:
            x = x + self.shape(betas)
        delta = self.outlet(torch.relu(self.middle(x))).unflatten(1, (NUM_JOINTS, 6))
        return rotation_6d_to_matrix(delta) @ pose


class PoseDecoder(nn.Module):
    """Three steps with weights of their own, each multiplying the pose by a predicted rotation (docs/facts.md 7.1).

    Args:
        context: length of the feature vector.
        sees_shape: add a path for betas whose last layer starts at zero: a decoder initialised from
            a baseline's weights begins as that baseline and can only learn to use what it knows.
    """

    def __init__(self, context: int, sees_shape: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_Step(context, sees_shape) for _ in range(NUM_STEPS))

    def forward(self, context: torch.Tensor, betas: torch.Tensor | None = None) -> torch.Tensor:
        """Pose (B, 16, 3, 3) from context (B, context) and, if the decoder sees it, betas (B, 10)."""
        pose = torch.eye(3, device=context.device, dtype=context.dtype).expand(context.shape[0], NUM_JOINTS, 3, 3)
        for step in self.steps:
            pose = step(context, pose, betas)
        return pose


class ConfidenceHead(nn.Module):
    """Context and predicted betas to one score an image.

    A network that is unsure of a shape guesses near the mean person, so how far its guess goes from the
    mean tells how much it saw. The linear branch of the released code cannot use that: it does not see
    the betas, and a distance is not linear in them.

    Args:
        context: length of the context vector.
        dropout: share of hidden units left out in training, since there are only as many people.
    """

    def __init__(self, context: int, dropout: float = 0.3) -> None:
        super().__init__()
        #: Inputs of very different spread to a common scale.
        self.scale = nn.BatchNorm1d(context + 20, affine=False, momentum=0.02)
        first = nn.Linear(context + 20, 128), nn.ReLU(), nn.Dropout(dropout)
        self.score = nn.Sequential(*first, nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, context: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
        """Scores (B,), higher: trust more, from context (B, C) and predicted betas (B, 10), both without gradient."""
        context, betas = context.detach(), betas.detach()
        return self.score(self.scale(torch.cat([context, betas, betas.abs()], dim=1)))[:, 0]


class Pose2D(nn.Module):
    """2D keypoints from a crop: backbone and light heat-map head.

    Args:
        rated: ``keypoint_confidence`` is the probability of `KeypointRating`, which also says whether there is a
            hand and which one; else it is the heat maps' spread.
        lifts: with a rating, say each keypoint's relative depth as well; poses: and the hand's pose.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str | Path | None = None,
        rated: bool = False,
        lifts: bool = False,
        poses: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, weights)
        self.heatmaps = HeatmapHead(self.backbone.channels)
        channels = self.backbone.channels[-1], self.heatmaps.maps.in_channels
        self.rating = KeypointRating(*channels, lifts=lifts, poses=poses) if rated else None

    def forward(
        self, image: torch.Tensor, betas: torch.Tensor | None = None, **_: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """The keypoints, see `src.models`; if there is a rating, what it returns as well (betas: its own)."""
        return self._decode(self.backbone(image), image.shape[-1], betas)

    def _decode(
        self, features: list[torch.Tensor], input_size: int, betas: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        logits, fine = self.heatmaps(features)
        keypoints, confidence = decode_heatmaps(logits, input_size)
        found = {"heatmap_logits": logits, "keypoints_2d": keypoints, "keypoint_confidence": confidence}
        if self.rating is not None:
            found |= self.rating(features[-1], logits, confidence, keypoints / input_size, fine, betas)
        return found


class ContextNetwork(Pose2D):
    """A backbone with its 2D keypoints, and one vector of all that a head for the hand in space reads.

    Args:
        crop_geometry: feed the crop's viewing direction and angular size, as CLIFF does (Li et al.,
            ECCV 2022), and predict relative to the ray through the crop's centre.
    """

    def __init__(self, backbone: str, weights: str | Path | None, crop_geometry: bool) -> None:
        super().__init__(backbone, weights)
        self.uses_crop_geometry = crop_geometry
        self.feature = nn.Linear(self.backbone.channels[-1], FEATURES)
        #: Length of the vector.
        self.context_size = FEATURES + 3 * 21 + (3 if crop_geometry else 0)

    def _read(
        self, image: torch.Tensor, K: torch.Tensor | None
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor | None]:
        """What `Pose2D` returns; context (B, C) float32; rotation (B, 3, 3) from the ray's frame to the camera's."""
        if self.uses_crop_geometry and K is None:
            raise ValueError("this network was trained with crop geometry: pass the crop's K (B,3,3)")
        features, size = self.backbone(image), image.shape[-1]
        output, turn = self._decode(features, size), None
        with torch.autocast(image.device.type, enabled=False):
            position = output["keypoints_2d"] * (2 / size) - 1
            parts = [torch.relu(self.feature(features[-1].float().mean((2, 3)))), position.flatten(1)]
            parts.append(output["keypoint_confidence"])
            if K is not None and self.uses_crop_geometry:
                parts.append(crop_geometry(K.float(), size))
                turn = ray_rotation(K.float(), size)
            return output, torch.cat(parts, dim=1), turn


class ManoNetwork(ContextNetwork):
    """Image (and shape) to MANO pose (and shape).

    The pose decoder reads the pooled image feature and the network's own 2D keypoints; both
    variants have the same decoder, so that the comparison is about the shape and nothing else.

    Args:
        crop_geometry: as `ContextNetwork`; the root rotation is relative to the ray.
        sees_shape: the identity-aware network: betas are an input, there is no shape head.
        has_confidence: add the confidence branch (how far to trust this image's shape).
        linear_confidence: that branch is one linear layer on the context, as released, and does not see the betas.
        blind_decoder: identity-aware, but betas reach the hand layer only (an ablation; what the
            released code did).
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str | Path | None = None,
        sees_shape: bool = False,
        has_confidence: bool = False,
        linear_confidence: bool = True,
        crop_geometry: bool = True,
        blind_decoder: bool = False,
    ) -> None:
        super().__init__(backbone, weights, crop_geometry)
        self.sees_shape, context = sees_shape, self.context_size
        self.pose = PoseDecoder(context, sees_shape=sees_shape and not blind_decoder)
        self.shape = None
        if not sees_shape:
            widths = nn.Linear(context, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
            self.shape = nn.Sequential(*widths)
        self.confidence: nn.Module | None = None
        if has_confidence:
            self.confidence = nn.Linear(context, 1) if linear_confidence else ConfidenceHead(context)

    def forward(
        self, image: torch.Tensor, betas: torch.Tensor | None = None, K: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Pose, shape and keypoints, see `src.models`; ``feature`` is the context."""
        if self.sees_shape:
            betas = told_betas("mano_identity", betas)
        output, context, turn = self._read(image, K)
        # Small and precision-sensitive: the heads stay in float32 under autocast.
        with torch.autocast(image.device.type, enabled=False):
            pose = self.pose(context, betas)
            if turn is not None:
                pose = torch.cat([(turn @ pose[:, 0])[:, None], pose[:, 1:]], dim=1)
            output |= {
                "pose": pose,
                "pose_6d": matrix_to_rotation_6d(pose).flatten(1),
                "betas": betas if self.shape is None else self.shape(context),
                "feature": context,
            }
            if self.confidence is not None:
                if isinstance(self.confidence, ConfidenceHead):
                    output["confidence"] = self.confidence(context, output["betas"])
                else:
                    output["confidence"] = self.confidence(context.detach())[:, 0]
        return output
