"""Random brightness, contrast, saturation, hue and noise for batches of images."""

from __future__ import annotations

import math

import torch

from datasets.augment_config import AugmentConfig

#: Weights of red, green and blue in the luma of ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)
#: An image's noise begins this many numbers after that of the one before.
_NOISE_STEP = 61


def change_colours(
    images: torch.Tensor, config: AugmentConfig, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Change every image's colours at random, and clip to [0, 1].

    An image becomes ``contrast * (image + brightness)``, then its saturation and hue change, then noise is
    added; each of the five with the configured probability.

    Args:
        images: (B, 3, H, W) RGB in [0, 1].
        config: ranges.
        generator: of the random numbers, on any device; the default one if None.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    source = "cpu" if generator is None else generator.device

    def draw(low: float, high: float, neutral: float = 0.0) -> torch.Tensor:
        uniform = torch.rand(2, len(images), generator=generator, device=source)
        chosen = torch.where(uniform[0] < config.probability, low + (high - low) * uniform[1], neutral)
        return chosen.to(images.device)

    brightness = draw(-config.brightness, config.brightness)
    contrast, saturation = draw(*config.contrast, 1.0), draw(*config.saturation, 1.0)
    hue = draw(-math.radians(config.hue_deg), math.radians(config.hue_deg))
    noise = draw(0.0, config.noise)
    if config.colour_space == "hsv":
        images = (contrast * brightness)[:, None, None, None] + contrast[:, None, None, None] * images
        images = change_hsv(images.clamp_(0, 1), saturation, hue)
    else:
        matrix = contrast[:, None, None] * colour_matrix(saturation, hue)
        offset = matrix.sum(dim=2, keepdim=True) * brightness[:, None, None]
        images = torch.baddbmm(offset, matrix, images.flatten(2)).unflatten(2, images.shape[2:])
    if config.noise > 0:
        # The images' noise is one field, a little further along for each: many times quicker to draw than one an image.
        size = images[0].numel()
        field = torch.randn(size + _NOISE_STEP * (len(images) - 1), generator=generator, device=source)
        fields = field.to(images.device).unfold(0, size, _NOISE_STEP).view(images.shape)
        images = images.addcmul_(fields, noise[:, None, None, None])
    return images.clamp_(0, 1)


def colour_matrix(saturation: torch.Tensor, hue: torch.Tensor) -> torch.Tensor:
    """Matrices (B, 3, 3) that turn RGB about the grey axis by ``hue`` (B,), radians, and scale its distance
    from the grey of equal luma by ``saturation`` (B,). Greys stay as they are."""
    axis = torch.full((3,), 1 / math.sqrt(3), device=hue.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=hue.device) / math.sqrt(3)
    cosine, sine = hue.cos()[:, None, None], hue.sin()[:, None, None]
    identity = torch.eye(3, device=hue.device)
    turn = cosine * identity + sine * cross + (1 - cosine) * axis[:, None] * axis  # Rodrigues
    grey = torch.tensor(_LUMA, device=hue.device).expand(3, 3)
    factor = saturation[:, None, None]
    return (factor * identity + (1 - factor) * grey) @ turn


def change_hsv(images: torch.Tensor, saturation: torch.Tensor, hue: torch.Tensor) -> torch.Tensor:
    """Multiply the S of HSV by ``saturation`` (B,), clipped at 1, and add ``hue`` (B,), radians, to H.

    Args:
        images: (B, 3, H, W) RGB in [0, 1].
    """
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    safe = chroma.clamp_min(1e-12)
    sextant = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sextant = sextant + (hue * (3 / math.pi))[:, None, None]
    chroma = torch.minimum(chroma * saturation[:, None, None], value)
    distance = (torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None] + sextant[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(distance, 4 - distance).clamp(0, 1)
