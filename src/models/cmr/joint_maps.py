"""Joint heat maps at half resolution: targets to train towards, and joints read from them.

``consistent`` treats a map pixel as what it is, an area of the input (pixel centres at integers,
utils/camera.py): map pixel h lies on input pixel (h + 0.5) * S / h_size - 0.5. ``paper`` is the
released code's chain, which truncates joints to pixels and scales the argmax without the half
pixels; it reads joints about one pixel too far to the upper left (docs/facts.md 7.4) and is kept to
reproduce it.
"""

from __future__ import annotations

import torch

#: Standard deviation of the target Gaussian for a 224 px input, px of the input; scales with it.
SIGMA_224 = 3.5
#: The paper's Gaussian is cut to 13 x 13 pixels.
PAPER_RADIUS = 6
PLACEMENTS = ("consistent", "paper")


def _check(placement: str) -> None:
    if placement not in PLACEMENTS:
        raise ValueError(f"placement {placement!r} is unknown; choose one of {PLACEMENTS}")


def joint_map_targets(
    keypoints: torch.Tensor, input_size: int, map_size: int | None = None, placement: str = "consistent"
) -> torch.Tensor:
    """Gaussian of peak 1 for each joint; joints outside the image give an all-zero map.

    Args:
        keypoints: (B, 21, 2) px of the network input.
        input_size: its side S, px.
        map_size: side of the maps; None for S / 2.
        placement: ``consistent``, or ``paper``: a 13 x 13 Gaussian at the truncated pixel of the
            full-size grid, averaged down (needs map_size = S / 2).

    Returns:
        (B, 21, map_size, map_size) in [0, 1].

    Raises:
        ValueError: unknown placement, or a map size that the paper's chain does not have.
    """
    _check(placement)
    map_size = input_size // 2 if map_size is None else map_size
    if placement == "paper" and 2 * map_size != input_size:
        raise ValueError(f"the paper's maps have half the input's side {input_size}, not {map_size}")
    sigma = SIGMA_224 * input_size / 224
    if placement == "paper":
        pixels = torch.arange(input_size, device=keypoints.device, dtype=keypoints.dtype)
        offset = pixels - keypoints.trunc()[..., None]
        profile = torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= PAPER_RADIUS)
        profile = profile.unflatten(-1, (map_size, 2)).mean(-1)  # bilinear halving averages pairs
        inside = ((keypoints >= 0) & (keypoints < input_size)).all(-1)
    else:
        cells = torch.arange(map_size, device=keypoints.device, dtype=keypoints.dtype)
        centres = (cells + 0.5) * (input_size / map_size) - 0.5
        profile = torch.exp(-0.5 * ((centres - keypoints[..., None]) / sigma) ** 2)
        inside = ((keypoints >= -0.5) & (keypoints < input_size - 0.5)).all(-1)
    along_x, along_y = (profile * inside[..., None, None]).unbind(2)
    return along_y[..., :, None] * along_x[..., None, :]


def joints_from_maps(
    maps: torch.Tensor, input_size: int, placement: str = "consistent"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Joint positions and confidences.

    ``consistent`` refines the brightest pixel by the parabola through its log neighbours, which is
    exact for a Gaussian (Zhang et al., DARK, CVPR 2020, without their blur); ``paper`` does not.

    Args:
        maps: (B, 21, h, w) in [0, 1].
        input_size: side S of the network input, px.

    Returns:
        (B, 21, 2) px of the input, and (B, 21) the maps' maxima.
    """
    _check(placement)
    maps = maps.float()
    height, width = maps.shape[-2:]
    confidence, index = maps.flatten(2).max(-1)
    x, y = index % width, index // width
    scale = maps.new_tensor([input_size / width, input_size / height])
    brightest = torch.stack([x, y], dim=-1).float()
    if placement == "paper":
        return brightest * scale, confidence
    row = maps.gather(2, y[..., None, None].expand(-1, -1, 1, width))[:, :, 0]
    column = maps.gather(3, x[..., None, None].expand(-1, -1, height, 1))[..., 0]
    offset = torch.stack([_parabola_peak(row, x), _parabola_peak(column, y)], dim=-1)
    return (brightest + offset + 0.5) * scale - 0.5, confidence


def _parabola_peak(profile: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    """Offset (B, J), at most half a pixel, of the maximum of log ``profile`` (B, J, n) beside ``peak`` (B, J)."""
    last = profile.shape[-1] - 1
    logs = profile.clamp_min(1e-10).log()
    left, middle, right = (logs.gather(-1, (peak + step).clamp(0, last)[..., None])[..., 0] for step in (-1, 0, 1))
    curvature = 2 * middle - left - right
    offset = torch.where(curvature > 1e-6, (right - left) / (2 * curvature.clamp_min(1e-6)), 0.0)
    return torch.where((peak > 0) & (peak < last), offset.clamp(-0.5, 0.5), 0.0)
