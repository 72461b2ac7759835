"""Which images tell most about a person's shape: a head that also sees the shape that was predicted."""

from __future__ import annotations

import torch
from torch import nn


class ConfidenceHead(nn.Module):
    """Context and predicted betas to one score an image.

    A network that is unsure of a shape guesses near the mean person, so how far its guess goes from the
    mean tells how much it saw. The linear branch of the released code cannot use that: it does not see
    the betas, and a distance is not linear in them.

    Args:
        context: length of the context vector.
        hidden: width; dropout: share of hidden units left out in training, since there are only as many people.
    """

    def __init__(self, context: int, hidden: int = 128, dropout: float = 0.3) -> None:
        super().__init__()
        #: Inputs of very different spread to a common scale.
        self.scale = nn.BatchNorm1d(context + 20, affine=False, momentum=0.02)
        self.score = nn.Sequential(
            nn.Linear(context + 20, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 32),
            nn.ReLU(),
            nn.Linear(32, 1),
        )

    def forward(self, context: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
        """Scores (B,), higher: trust more, from context (B, C) and predicted betas (B, 10), both without gradient."""
        context, betas = context.detach(), betas.detach()
        return self.score(self.scale(torch.cat([context, betas, betas.abs()], dim=1)))[:, 0]
