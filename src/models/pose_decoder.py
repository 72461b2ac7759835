"""Iterative 6D pose decoder with an optional path for the known shape that starts at zero."""

from __future__ import annotations

import torch
from torch import nn

from utils.rotations import matrix_to_rotation_6d, rotation_6d_to_matrix

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
