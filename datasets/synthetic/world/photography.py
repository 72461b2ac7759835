"""What cameras do to pictures, on batches and any device: light, colour, blur, noise, resolution, JPEG.

Everything takes and gives (B, 3, S, S) float32 in [0, 1], with other random numbers for every picture.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

_KERNEL = 9
_GREY = (0.299, 0.587, 0.114)


def uniform(count: int, low: float, high: float, device: torch.device) -> torch.Tensor:
    """(count,) uniform numbers."""
    return torch.rand(count, device=device) * (high - low) + low


def happens(count: int, share: float, device: torch.device) -> torch.Tensor:
    """(count,) bool, true with probability ``share``."""
    return torch.rand(count, device=device) < share


def photograph(image: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """The whole chain, in a camera's order. ``strength`` 0: none of it."""
    image = expose(image, strength)
    image = blur(image, 1.0 * strength)
    image = lower_resolution(image, 0.35 * strength)
    image = add_noise(image, 0.06 * strength)
    return jpeg(image.clamp(0, 1), 0.4 * strength).clamp(0, 1)


def expose(image: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """White balance, saturation, exposure, contrast, gamma and a slope of light."""
    count, device, size = len(image), image.device, image.shape[-1]
    grey = (image * image.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True)
    saturation = 1 + strength * uniform(count, -0.6, 0.5, device)
    saturation = torch.where(happens(count, 0.04 * strength, device), torch.zeros_like(saturation), saturation)
    image = grey + saturation.view(-1, 1, 1, 1) * (image - grey)
    gains = torch.exp(
        strength * 0.09 * torch.randn(count, 3, device=device) + strength * uniform(count, -0.3, 0.3, device)[:, None]
    )
    image = image * gains[..., None, None]
    axis = torch.linspace(-1, 1, size, device=device)
    slope = strength * 0.35 * torch.randn(count, 2, device=device) * happens(count, 0.4, device)[:, None]
    image = image * (1 + slope[:, :1, None] * axis[:, None] + slope[:, 1:, None] * axis).clamp(0.2, 2)[:, None]
    contrast = 1 + strength * uniform(count, -0.4, 0.4, device).view(-1, 1, 1, 1)
    middle = uniform(count, 0.35, 0.65, device).view(-1, 1, 1, 1)
    image = ((image - middle) * contrast + middle).clamp(0, 1)
    return image ** torch.exp(strength * 0.25 * torch.randn(count, 1, 1, 1, device=device))


def blur(image: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """Defocus and motion: an oriented Gaussian of its own for every picture."""
    count, channels, device = len(image), image.shape[1], image.device
    small = torch.exp(uniform(count, math.log(0.3), math.log(0.3 + 1.2 * strength), device))
    long = small + happens(count, 0.25, device) * uniform(count, 0, 3.2 * strength, device)
    angle = uniform(count, 0, math.pi, device)
    axis = torch.arange(_KERNEL, device=device) - _KERNEL // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cosine, sine = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    along, across = x * cosine + y * sine, y * cosine - x * sine
    kernel = torch.exp(-0.5 * ((along / long.view(-1, 1, 1)) ** 2 + (across / small.view(-1, 1, 1)) ** 2))
    kernel = (kernel / kernel.sum((1, 2), keepdim=True)).repeat_interleave(channels, 0)[:, None]
    padded = F.pad(image, [_KERNEL // 2] * 4, mode="replicate")
    flat = F.conv2d(padded.flatten(0, 1)[None], kernel, groups=count * channels)
    return flat.reshape(image.shape)


def lower_resolution(image: torch.Tensor, share: float) -> torch.Tensor:
    """Some pictures lose resolution: shrunk and enlarged again. Groups of the batch share a size."""
    groups = []
    for group in image.split(max(len(image) // 8, 1)):
        if torch.rand(()) < share:
            size = int(image.shape[-1] * math.exp(float(torch.empty(()).uniform_(math.log(0.2), math.log(0.9)))))
            small = F.interpolate(group, size=(size, size), mode="bilinear", antialias=True)
            mode = "bilinear" if torch.rand(()) < 0.7 else "nearest"
            group = F.interpolate(small, size=image.shape[-2:], mode=mode)
        groups.append(group)
    return torch.cat(groups)


def add_noise(image: torch.Tensor, most: float) -> torch.Tensor:
    """Sensor noise, fine and coarse, more in the light parts."""
    count, device = len(image), image.device
    level = most * torch.rand(count, 1, 1, 1, device=device) ** 2
    coarse = F.interpolate(torch.randn(count, 3, *(s // 2 for s in image.shape[-2:]), device=device), scale_factor=2)
    colour = 0.6 * torch.randn_like(image) + 0.4 * coarse
    grey = torch.randn_like(image[:, :1])
    mixed = torch.where(happens(count, 0.5, device).view(-1, 1, 1, 1), grey.expand_as(colour), colour)
    return image + level * mixed * (0.5 + image)


def _dct(device: torch.device) -> torch.Tensor:
    k, n = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    matrix = torch.cos(math.pi * (n + 0.5) * k / 8) * 0.5
    matrix[0] /= math.sqrt(2)
    return matrix.to(device)


def jpeg(image: torch.Tensor, share: float) -> torch.Tensor:
    """Quantise the coefficients of 8 x 8 blocks, as JPEG does (colour not subsampled), for a share of the pictures."""
    count, device, size = len(image), image.device, image.shape[-1]
    matrix = _dct(device)
    blocks = image.reshape(count, 3, size // 8, 8, size // 8, 8)
    coefficients = torch.einsum("ai,bchiwj,dj->bchawd", matrix, blocks, matrix)
    frequency = torch.arange(8, device=device)
    steps = 1 + (frequency[:, None] + frequency).float()
    step = torch.exp(uniform(count, math.log(0.004), math.log(0.05), device))
    step = step.view(-1, 1, 1, 1, 1, 1) * steps.view(1, 1, 1, 8, 1, 8)
    quantised = torch.round(coefficients / step) * step
    restored = torch.einsum("ai,bchawd,dj->bchiwj", matrix, quantised, matrix).reshape_as(image)
    return torch.where(happens(count, share, device).view(-1, 1, 1, 1), restored, image)
