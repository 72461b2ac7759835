"""Motion between frames: angular velocities and the wrist's velocity change little from one frame to the next.

Over a time dt the velocity fades by ``exp(-dt / memory)`` and changes by ``std * sqrt(dt)``: an Ornstein-Uhlenbeck
process, white-noise acceleration where the memory is endless (Bar-Shalom, Li, Kirubarajan 2001, "Estimation with
applications to tracking and navigation", sections 6.2.2 and 8.2), so that one strength serves every frame rate, and
frames that are missing. Rotations follow it in the tangent space of the relative
rotation (Sola et al. 2018, "A micro Lie theory", eqs. 66, 143, 144).
"""

from __future__ import annotations

from dataclasses import dataclass

from src.personalization.terms.pose_prior import inverse_right_jacobian, rotation_log
from template.components_first import Array, library


@dataclass(frozen=True)
class Smoothness:
    """How fast velocities change: standard deviation after one second. Defaults: chosen by ``benchmarks/video.py``.

    Attributes:
        root_std: of the hand's orientation, finger_std: of the finger joints, rad / s^1.5.
        wrist_std: of the wrist's position, m / s^1.5; depth_std: of its z, None: the same.
        memory: s, how long a velocity lasts of itself.
    """

    root_std: float = 2.0
    finger_std: float = 3.0
    wrist_std: float = 0.3
    depth_std: float | None = None
    memory: float = 1.0

    def fade(self, step: Array) -> Array:
        """Part (no unit) that is left of a velocity, m or rad per s, after ``step`` s."""
        return library(step).exp(-step / self.memory)

    def stds(self, like: Array) -> Array:
        """(17,3): sixteen rotations (rad), then the wrist (m), both / s^1.5."""
        std = library(like).full((17, 3), self.finger_std, dtype=like.dtype, device=like.device)
        std[0], std[16] = self.root_std, self.wrist_std
        if self.depth_std is not None:
            std[16, 2] = self.depth_std
        return std


def smoothness_rows(
    pose: Array, wrist: Array, steps: Array, chart: Array, smoothness: Smoothness
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Residuals of every three frames in a row, and their derivatives.

    Args:
        pose: (T,16,3,3); wrist: (T,3) m; steps: (T-1,) s between them, above 0; all PyTorch's, or all NumPy's.
        chart: (T,16,3,3) L: unknowns y turn a joint to ``R exp([L y])``.

    Returns:
        residuals (T-2,17,3), no unit: sixteen rotations, then the wrist; their derivatives, (T-2,17,3,3) each, in the
        unknowns of the first, second and third of the three frames.
    """
    xp, step = library(pose), steps[:, None, None]
    relative = xp.moveaxis(pose[:-1].mT @ pose[1:], (2, 3), (0, 1))
    phi = rotation_log(relative)  # (3,T-1,16)
    velocity = xp.concat([xp.moveaxis(phi, 0, 2), (wrist[1:] - wrist[:-1])[:, None]], 1) / step
    between = (step[1:] + step[:-1]) / 2
    scale = 1 / (smoothness.stds(pose) * xp.sqrt(between))  # (T-2,17,3)
    fade = smoothness.fade(between)
    # d phi by the later frame; transposed: by the earlier.
    turned = xp.moveaxis(inverse_right_jacobian(phi), (0, 1), (2, 3))
    eye = xp.broadcast_to(xp.eye(3, dtype=pose.dtype, device=pose.device), (len(step), 1, 3, 3))
    later = xp.concat([turned @ chart[1:], eye], 1) / step[..., None]
    earlier = -xp.concat([turned.mT @ chart[:-1], eye], 1) / step[..., None]
    rows = scale[..., None]
    left = fade[..., None]
    blocks = (-rows * left * earlier[:-1], rows * (earlier[1:] - left * later[:-1]), rows * later[1:])
    return scale * (velocity[1:] - fade * velocity[:-1]), blocks
