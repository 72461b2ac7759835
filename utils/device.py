"""Which machine part computes."""

from __future__ import annotations

import torch


def choose_device(name: str, threads: int | None = None) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` to a device; sets torch's CPU threads if given.

    Raises:
        ValueError: cuda is asked for where there is none.
    """
    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda, but torch sees no GPU; use --device cpu or auto")
    return torch.device(name)
