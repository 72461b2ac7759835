"""What a user says of a pinhole camera, by its matrix or its angle of view, checked before anything rests on it."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np

from utils.artifact_checks import as_array

logger = logging.getLogger(__name__)

#: Degrees across the longer side that no lens has. Below are radians that were meant to be degrees.
FOV_RANGE = (3.0, 170.0)
#: Pixels of cameras are squares, or at most this much longer than wide; and they are no parallelograms.
MAX_ASPECT, MAX_SKEW = 2.0, 0.1
#: A principal point further from a picture's middle than this part of its side belongs to another picture: of half the
#: size it lies a quarter off, of twice the size a half, of one turned upright a sixth; lenses are a few hundredths off.
MAX_OFF_CENTRE = 0.15
#: A centre off by this part of the picture's size in both directions alike is that of a resized one; lenses are less.
_RESIZED, _ALIKE = 0.08, 0.02


def checked_fov(fov: Any, name: str = "--fov") -> float | None:
    """An angle of view in degrees, or None.

    Raises:
        ValueError: no number, or no angle of a pinhole camera.
    """
    if fov is None:
        return None
    low, high = FOV_RANGE
    try:
        found = float(fov)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} {fov!r}: must be degrees, a number") from error
    if not low < found < high:
        radians = f"; as radians it would be {np.degrees(found):.0f} degrees" if 0.2 < found < 3 else ""
        raise ValueError(f"{name} {found:g}: must be degrees between {low:g} and {high:g}{radians}")
    return found


def checked_intrinsics(K: Any, source: object, one: bool = False) -> np.ndarray:
    """K (3,3), or one for each image (N,3,3) unless ``one`` is wanted, px, as float64 if it is a camera matrix: finite,
    focal lengths above 0, a centre, last row (0, 0, 1).

    Raises:
        ValueError: naming ``source`` and what is wrong.
    """
    K = np.asarray(as_array(K))
    if K.ndim not in ((2,) if one else (2, 3)) or K.shape[-2:] != (3, 3) or K.dtype.kind not in "fiu":
        raise ValueError(f"{source}: K is {K.dtype} {K.shape}; it must be a (3,3) matrix of pixels")
    K = K.astype(np.float64)
    for one in np.unique(K.reshape(-1, 3, 3), axis=0):
        fx, fy, skew = one[0, 0], one[1, 1], one[0, 1]
        meant = "it must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] in pixels"
        if not np.isfinite(one).all() or min(fx, fy) <= 0 or np.abs(one[2] - [0, 0, 1]).max() > 1e-6 or one[1, 0]:
            turned = "; is it transposed?" if one[2, :2].all() and not one[:2, 2].any() else ""
            raise ValueError(f"{source}: K is {one.tolist()}; {meant}{turned}")
        if not 1 / MAX_ASPECT <= fx / fy <= MAX_ASPECT or abs(skew) > MAX_SKEW * fx:
            raise ValueError(
                f"{source}: fx {fx:.4g}, fy {fy:.4g}, skew {skew:.4g} are no camera's, whose pixels are about square; "
                f"{meant}"
            )
        if not one[:2, 2].any():
            raise ValueError(
                f"{source}: the centre (cx, cy) of K is (0, 0), the picture's corner; {meant}, with the centre about "
                "half its width and height (points that are counted from the middle: add it to them too)"
            )
    return K


@functools.lru_cache(maxsize=64)
def doubt_size(source: str, wide: float, high: float, width: int, height: int) -> None:
    """Warn, once, of a camera whose centre is that of a picture of ``wide`` x ``high`` px, of the same proportions."""
    across, down = wide / width, high / height
    if abs(across - down) < _ALIKE * across and abs(across - 1) > _RESIZED:
        logger.warning(
            "%s: its centre is that of a picture of %.0f x %.0f px, this one is %d x %d: was it resized? Then multiply "
            "K's first two rows by %.3g, or distances are as wrong",
            source, wide, high, width, height, 1 / across,
        )  # fmt: skip
