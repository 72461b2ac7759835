"""How far 2D keypoints can be trusted: confidence to variance."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class KeypointNoise:
    """Standard deviation of a keypoint of confidence 1; the variance grows as 1 / confidence.

    Attributes:
        std_px: pixels of the full image; None: ``std_box`` times the larger side of the frame's
            keypoint box, since a heat map's error grows with the crop it was seen in.
        std_box: fraction of the box.
        min_confidence: keypoints at or below it do not count.
        relative: 21 numbers, standard order: a keypoint's standard deviation over that of all; None: they are alike.
        loss, loss_scale: robust loss and where it begins to doubt, in standard deviations.
    """

    std_px: float | None = None
    std_box: float = 0.02
    min_confidence: float = 0.05
    relative: tuple[float, ...] | None = None
    loss: str = "geman_mcclure"
    loss_scale: float = 4.0


def keypoint_weights(noise: KeypointNoise, keypoints: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
    """1 / variance (N,21), 1/px^2, from keypoints (N,21,2) px and confidence (N,21), zero where unseen."""
    seen = confidence > 0
    if noise.relative is not None:
        confidence = confidence / torch.tensor(noise.relative).to(confidence).square()
    if noise.std_px is not None:
        return confidence / noise.std_px**2
    low = torch.where(seen[..., None], keypoints, torch.inf).amin(dim=1)
    high = torch.where(seen[..., None], keypoints, -torch.inf).amax(dim=1)
    side = torch.where(seen.any(dim=1), (high - low).amax(dim=-1), torch.ones_like(high[:, 0])).clamp_min(1.0)
    return confidence / (noise.std_box * side[:, None]).square()
