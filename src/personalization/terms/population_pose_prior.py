"""How hands are usually held: the hand model's pose statistics as a prior, and turns to begin a search from."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import roma
import torch

from src.personalization.terms.pose_prior import PosePrior
from template import HandAssets

#: rad, added to every finger angle's spread: the pose components nearly forbid what their captures rarely showed.
POSE_FLOOR = 0.1
#: Standard order: wrist and knuckles, which hardly move against each other.
PALM = [0, 5, 9, 13, 17]


def habit_prior(
    assets: HandAssets, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu", spread: float = 1.0
) -> PosePrior:
    """Gaussian on the fifteen finger rotations, the hand's orientation being free; one row, for any frame.

    The rows C of MANO's pose components carry standard deviations (docs/facts.md 6), so axis-angles have the
    covariance C^T C about the mean pose.

    Args:
        spread: times that covariance, to which `POSE_FLOOR` is added.
    """
    covariance = assets.hands_components.T @ assets.hands_components + POSE_FLOOR**2 * np.eye(45)
    precision = np.zeros((48, 48))
    precision[3:, 3:] = np.linalg.inv(spread * covariance)
    offset = np.concatenate([np.zeros(3), assets.hands_mean]).reshape(1, 16, 3)
    return PosePrior(
        reference=torch.eye(3, dtype=dtype, device=device).expand(1, 16, 3, 3),
        precision=torch.as_tensor(precision[None], dtype=dtype, device=device),
        offset=torch.as_tensor(offset, dtype=dtype, device=device),
    )


@functools.cache
def all_round() -> torch.Tensor:
    """The 24 rotations (24,3,3) float64 of a cube: no orientation is further than 63 degrees from one of them."""
    turns = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                turns.append(matrix)
    return torch.as_tensor(np.stack(turns))


def palm_turn(seen: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Rotations (N,3,3) that lay the palm of a hand's joints (21,3) on that of points (N,21,3), both m."""
    seen, palm = seen[:, PALM], rest[None, PALM]
    seen, palm = seen - seen.mean(dim=1, keepdim=True), palm - palm.mean(dim=1, keepdim=True)
    return roma.special_procrustes(seen.mT @ palm.expand(len(seen), -1, -1))
