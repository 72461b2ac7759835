"""How far 2D keypoints can be trusted: confidence to variance."""

from __future__ import annotations

from dataclasses import dataclass


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
