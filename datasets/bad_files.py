"""The error for a file that is there but cannot be used, and reading without any other error."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from utils.files import READ_ERRORS, read_reason

_LARGEST_POSE = 100.0  # of axis-angles and coefficients of poses: people's stay below 10
_LARGEST_FOCAL = 1e6  # px; and of an image's centre

Read = TypeVar("Read")
logger = logging.getLogger(__name__)


class BadFileError(ValueError):
    """A data file is truncated, malformed or holds impossible values; the message names it and the remedy."""


def bad_file(path: str | Path, reason: str, can_skip: bool = True) -> BadFileError:
    """The error to raise for ``path``, with the remedy: ``can_skip`` where --skip_bad gets by without the file."""
    skip = ", or skip such files with --skip_bad" if can_skip else ""
    return BadFileError(f"{path}: {reason}. Copy or extract this file again{skip}")


@contextlib.contextmanager
def reading(path: str | Path, what: str, can_skip: bool = True) -> Iterator[None]:
    """Around everything that reads ``path``: any error of damaged content becomes a `BadFileError` that names it.

    Args:
        what: that it should be, such as "a labels file".

    Raises:
        FileNotFoundError: as it is.
        BadFileError: as it is, or in place of one of `READ_ERRORS`.
    """
    try:
        yield
    except (BadFileError, FileNotFoundError):
        raise
    except READ_ERRORS as error:
        words = " ".join(f"{type(error).__name__}: {read_reason(error)}".split())
        raise bad_file(path, f"not {what} ({words[:300]})", can_skip) from error


def read_or_skip(skip_bad: bool, told: str, read: Callable[..., Read], *arguments: Any) -> Read | None:
    """``read(*arguments)``; None with ``skip_bad`` if the file is bad, after a warning that begins as ``told``."""
    try:
        return read(*arguments)
    except BadFileError as error:
        if not skip_bad:
            raise
        logger.warning("%s: %s", told, error)
        return None


def read_json(path: Path, can_skip: bool = True) -> Any:
    """What a JSON file holds.

    Raises:
        FileNotFoundError: it is missing.
        BadFileError: it is not whole JSON.
    """
    with reading(path, "whole JSON", can_skip):
        return json.loads(path.read_bytes())


def read_npz(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Arrays of numbers of exactly these shapes from an .npz; what is beside them is not decompressed.

    Raises:
        FileNotFoundError: it is missing.
        BadFileError: it is no such file, or lacks a key, or one has another shape, or is NaN or infinite.
    """
    arrays = {}
    with reading(path, "a whole .npz of plain arrays"), np.load(path, allow_pickle=False) as archive:
        for key, shape in shapes.items():
            array = arrays[key] = archive[key]
            if array.shape != shape or array.dtype.kind not in "fiub":
                raise bad_file(path, f"{key} is {array.dtype} {array.shape} instead of numbers {shape}")
            if not np.isfinite(array).all():
                raise bad_file(path, f"{key} holds NaN or infinity")
    return arrays


def possible_intrinsics(K: np.ndarray) -> np.ndarray:
    """(...) bool: matrices (..., 3, 3) px that a camera can have; below their diagonal is 0, and its end is 1."""
    focal, centre = np.stack([K[..., 0, 0], K[..., 1, 1]]), K[..., :2, 2]
    below = np.concatenate([K[..., 1, :1], K[..., 2, :] - [0, 0, 1]], axis=-1)
    finite = np.isfinite(K).all(axis=(-2, -1)) & (np.abs(below) < 1e-6).all(axis=-1)
    focal_possible = ((focal > 0) & (focal < _LARGEST_FOCAL)).all(axis=0)
    return finite & focal_possible & (np.abs(centre) < _LARGEST_FOCAL).all(axis=-1)


def possible_rotation(matrix: np.ndarray) -> bool:
    """Whether a finite matrix (3, 3) turns, and neither scales nor mirrors."""
    return bool(np.abs(matrix @ matrix.T - np.eye(3)).max() < 1e-3 and np.linalg.det(matrix) > 0)


def possible_poses(values: np.ndarray, where: str | Path) -> np.ndarray:
    """(N,) bool: rows (N, ...) of axis-angles or pose coefficients that a hand can have; a warning tells of others."""
    possible = (np.abs(values) < _LARGEST_POSE).reshape(len(values), -1).all(axis=1)
    if not possible.all():
        logger.warning(
            "%s: %d of %d samples have a pose that no hand has, so they are not valid",
            where, int((~possible).sum()), len(possible),
        )  # fmt: skip
    return possible
