"""Lengths of a person's hand in millimetres, with the uncertainty that the betas' covariance gives them."""

from __future__ import annotations

import numpy as np
import torch

from src.personalization.joints_model import JointsModel
from template import HandAssets
from utils.joints import FINGERS, JOINT_NAMES, PARENTS

#: Lengths that can be asked for: name -> joints (standard order) whose successive distances are summed.
LENGTHS: dict[str, tuple[int, ...]] = {
    "hand": (0, 12),  # straight, wrist joint to middle fingertip, as a ruler along the stretched hand measures
    **{finger: tuple(range(1 + 4 * i, 5 + 4 * i)) for i, finger in enumerate(FINGERS)},
    "palm_width": (5, 17),  # index to little knuckle
    **{f"{JOINT_NAMES[PARENTS[joint]]}-{JOINT_NAMES[joint]}": (PARENTS[joint], joint) for joint in range(1, 21)},
}


def length_of(model: JointsModel, betas: torch.Tensor, name: str) -> torch.Tensor:
    """A named length (...,), metres, of the flat hand with ``betas`` (..., 10). Differentiable.

    Raises:
        ValueError: if ``name`` is not a key of `LENGTHS`.
    """
    if name not in LENGTHS:
        raise ValueError(f"length {name!r} is unknown; choose one of {', '.join(LENGTHS)}")
    points = model.rest_points(betas)[..., model.to_standard, :]
    chain = points[..., list(LENGTHS[name]), :]
    return (chain[..., 1:, :] - chain[..., :-1, :]).norm(dim=-1).sum(dim=-1)


def length_gradient(model: JointsModel, betas: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A named length (P,) m and its gradient (P,10) m per unit, for betas (P,10)."""
    points = model.rest_points(betas)[:, model.to_standard]
    directions = model.directions[:, model.to_standard]
    chain = list(LENGTHS[name])
    steps = points[:, chain[1:]] - points[:, chain[:-1]]
    lengths = steps.norm(dim=-1)
    change = directions[:, chain[1:]] - directions[:, chain[:-1]]
    return lengths.sum(dim=1), torch.einsum("pkc,skc->ps", steps / lengths[..., None].clamp_min(1e-9), change)


def lengths_mm(
    assets: HandAssets, betas: np.ndarray, covariance: np.ndarray | None, names: tuple[str, ...] = ("hand", *FINGERS)
) -> dict[str, tuple[float, float | None]]:
    """Named lengths in mm, each with its standard deviation (first order in the covariance) or None."""
    model = JointsModel(assets)
    point = torch.as_tensor(betas, dtype=torch.float64)[None]
    found: dict[str, tuple[float, float | None]] = {}
    for name in names:
        length, gradient = length_gradient(model, point, name)
        slope = gradient[0].numpy()
        std = None if covariance is None else 1000 * float(np.sqrt(max(slope @ covariance @ slope, 0.0)))
        found[name] = (1000 * float(length[0]), std)
    return found
