"""Joint heat maps at half resolution: targets to train towards, and joints read from them.

A map pixel is what it is, an area of the input (pixel centres at integers, utils/camera.py): map pixel h lies on input
pixel (h + 0.5) * S / h_size - 0.5. The released code truncates joints to pixels and scales the argmax without the half
pixels; it reads joints about one pixel too far to the upper left (docs/facts.md 7.4).
"""

from __future__ import annotations

import torch

#: Standard deviation of the target Gaussian for a 224 px input, px of the input; scales with it.
SIGMA_224 = 3.5


def joint_map_targets(keypoints: torch.Tensor, input_size: int, map_size: int) -> torch.Tensor:
    """Gaussian of peak 1 for each joint; joints outside the image give an all-zero map.

    Args:
        keypoints: (B, 21, 2) px of the network input of side ``input_size``.

    Returns:
        (B, 21, map_size, map_size) in [0, 1].
    """
    cells = torch.arange(map_size, device=keypoints.device, dtype=keypoints.dtype)
    centres = (cells + 0.5) * (input_size / map_size) - 0.5
    sigma = SIGMA_224 * input_size / 224
    profile = torch.exp(-0.5 * ((centres - keypoints[..., None]) / sigma) ** 2)
    inside = ((keypoints >= -0.5) & (keypoints < input_size - 0.5)).all(-1)
    along_x, along_y = (profile * inside[..., None, None]).unbind(2)
    return along_y[..., :, None] * along_x[..., None, :]


def joints_from_maps(maps: torch.Tensor, input_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Joint positions and confidences: the brightest pixel, refined by the parabola through its log neighbours, which
    is exact for a Gaussian (Zhang et al., DARK, CVPR 2020, without their blur).

    Args:
        maps: (B, 21, h, w) in [0, 1].
        input_size: side S of the network input, px.

    Returns:
        (B, 21, 2) px of the input, and (B, 21) the maps' maxima.
    """
    maps = maps.float()
    height, width = maps.shape[-2:]
    confidence, index = maps.flatten(2).max(-1)
    x, y = index % width, index // width
    row = maps.gather(2, y[..., None, None].expand(-1, -1, 1, width))[:, :, 0]
    column = maps.gather(3, x[..., None, None].expand(-1, -1, height, 1))[..., 0]
    offset = torch.stack([_parabola_peak(row, x), _parabola_peak(column, y)], dim=-1)
    scale = maps.new_tensor([input_size / width, input_size / height])
    return (torch.stack([x, y], dim=-1).float() + offset + 0.5) * scale - 0.5, confidence


def _parabola_peak(profile: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    """Offset (B, J), at most half a pixel, of the maximum of log ``profile`` (B, J, n) beside ``peak`` (B, J)."""
    last = profile.shape[-1] - 1
    logs = profile.clamp_min(1e-10).log()
    left, middle, right = (logs.gather(-1, (peak + step).clamp(0, last)[..., None])[..., 0] for step in (-1, 0, 1))
    curvature = 2 * middle - left - right
    offset = torch.where(curvature > 1e-6, (right - left) / (2 * curvature.clamp_min(1e-6)), 0.0)
    return torch.where((peak > 0) & (peak < last), offset.clamp(-0.5, 0.5), 0.0)
