"""Weights in few bits: every output channel's row as whole numbers times one scale, packed without gaps.

Only what is stored is rounded; networks compute as ever. The scale of a row is the one with the least squared error.
"""

from __future__ import annotations

import numpy as np
import torch

#: Smaller tensors, and those of one dimension (biases, norms), stay as they are.
LEAST = 4096
#: What is added to a tensor's name for its scales'.
SCALE = ".scale_of_rows"
#: Largest weight of a row over what the largest whole number stands for: clipping few makes the others finer.
_CLIPPED = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


def is_packed(value: torch.Tensor) -> bool:
    """Whether a tensor is worth it."""
    return value.is_floating_point() and value.ndim > 1 and value.numel() >= LEAST


def pack(value: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes (M,) uint8 and scales (R,) float16 of a finite tensor (R, ...).

    Raises:
        ValueError: not 2 to 8 bits.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits} bits a weight; 2 to 8 can be packed")
    largest, rows = 2 ** (bits - 1) - 1, value.detach().float().flatten(1)
    whole = rows.abs().amax(dim=1, keepdim=True) / largest
    scales = torch.stack([(whole * part).half().float().clamp_min(6e-8) for part in _CLIPPED])
    errors = torch.cat([(_rounded(rows, one, largest) * one - rows).square().sum(1, keepdim=True) for one in scales], 1)
    scale = scales[..., 0].gather(0, errors.argmin(dim=1)[None])[0]
    numbers = (_rounded(rows, scale[:, None], largest) + largest).to(torch.uint8).numpy()
    planes = np.unpackbits(numbers.reshape(-1, 1), axis=1)[:, 8 - bits :]
    return torch.from_numpy(np.packbits(planes)), scale.half()


def unpack(packed: torch.Tensor, scale: torch.Tensor, shape: list[int], bits: int) -> torch.Tensor:
    """The tensor, float32, of ``shape``, as `pack` rounded it.

    Raises:
        ValueError: bytes or scales are not those of such a tensor.
    """
    count = int(np.prod(shape))
    if packed.numel() != -(-count * bits // 8) or scale.numel() != shape[0]:
        raise ValueError(f"{packed.numel()} bytes and {scale.numel()} scales are no {shape} of {bits} bits")
    planes = np.unpackbits(packed.numpy(), count=count * bits).reshape(count, bits)
    numbers = np.packbits(np.pad(planes, ((0, 0), (8 - bits, 0))), axis=1).reshape(shape[0], -1)
    rows = torch.from_numpy(numbers).float() - (2 ** (bits - 1) - 1)
    return (rows * scale.float()[:, None]).reshape(shape)


def _rounded(rows: torch.Tensor, scale: torch.Tensor, largest: int) -> torch.Tensor:
    return (rows / scale).round().clamp(-largest, largest)
