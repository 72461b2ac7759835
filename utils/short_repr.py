"""What a notebook shows of our results: one line, not their thousands of numbers."""

from __future__ import annotations

import reprlib
from dataclasses import fields
from typing import Any

import numpy as np
import torch


class ShortRepr:
    """A dataclass (``repr=False``) shown with its arrays' types and shapes, and without what it lacks."""

    def __repr__(self) -> str:
        known = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.repr}  # type: ignore[arg-type]
        words = [f"{name}={_shown(value)}" for name, value in known.items() if not _is_missing(value)]
        return f"{type(self).__name__}({', '.join(words)})"


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray | torch.Tensor):
        return f"<{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}>"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: ...' for key in value)}}}"
    if isinstance(value, list | tuple):
        return reprlib.repr(value)
    if isinstance(value, int):
        return repr(value)
    return f"{type(value).__name__}(...)" if type(value).__str__ is object.__str__ else repr(str(value))
