"""Which intrinsics belong to a picture, and who says so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.photos.image import Photo, UnusableImage

#: Degrees across the longer side where nothing is known: phones and webcams lie between 55 and 75.
DEFAULT_FOV = 62.0


@dataclass(frozen=True)
class Camera:
    """Intrinsics K (3,3) float64, pixels of the upright image, and where they come from."""

    K: np.ndarray
    source: str

    @property
    def is_guess(self) -> bool:
        """Nobody said anything about the lens, so distances scale with an unknown factor."""
        return self.source.startswith("default")


def choose_camera(photo: Photo, K: Camera | None = None, fov: float | None = None) -> Camera:
    """The camera of a picture: ``<name>_K.npy`` beside it, else ``K``, else ``fov``, else EXIF, else a default.

    Args:
        photo: upright; its K file belongs to the upright image.
        K: of `parse_intrinsics`; fov: degrees across the longer side.

    Raises:
        UnusableImage: the K file is not a camera matrix.
    """
    beside = photo.path.with_name(f"{photo.path.stem}_K.npy")
    if beside.is_file():
        try:
            return Camera(read_intrinsics(beside), beside.name)
        except ValueError as error:
            raise UnusableImage(str(error).replace(str(beside), beside.name)) from error
    width, height = photo.size
    if K is not None:
        return K
    if fov is not None:
        return Camera(pinhole(width, height, fov), f"--fov {fov:g}")
    if photo.focal_px is not None:
        return Camera(centred(photo.focal_px, width, height), photo.focal_source)
    return Camera(pinhole(width, height, DEFAULT_FOV), f"default: {DEFAULT_FOV:g}° across the longer side")


def parse_intrinsics(text: str) -> Camera:
    """``--K``: FX,FY,CX,CY in pixels, or the path of a ``.npy`` file.

    Raises:
        FileNotFoundError, ValueError: naming the option and what it must be.
    """
    if text.endswith(".npy"):
        if not Path(text).is_file():
            raise FileNotFoundError(f"--K {text}: no such file")
        return Camera(read_intrinsics(text), f"--K {text}")
    try:
        fx, fy, cx, cy = (float(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f"--K {text}: must be FX,FY,CX,CY in pixels or a .npy file with a (3,3) matrix") from error
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return Camera(checked_intrinsics(K, f"--K {text}"), f"--K {text}")


def checked_fov(fov: float | None) -> float | None:
    """``--fov`` in degrees, or None.

    Raises:
        ValueError: no angle of a pinhole camera.
    """
    if fov is not None and not 1 < fov < 170:
        raise ValueError(f"--fov {fov:g}: must be degrees between 1 and 170")
    return fov


def read_intrinsics(path: str | Path) -> np.ndarray:
    """K (3,3) float64 from a ``.npy`` file.

    Raises:
        ValueError: not such a file, or no camera matrix.
    """
    try:
        K = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: is not a .npy file of plain numbers ({error})") from error
    return checked_intrinsics(K, path)


def checked_intrinsics(K: np.ndarray, source: object) -> np.ndarray:
    """K as float64 if it is a camera matrix: (3,3), finite, focal lengths above 0, last row (0, 0, 1).

    Raises:
        ValueError: naming ``source`` and what is wrong.
    """
    if K.shape != (3, 3) or K.dtype.kind not in "fiu":
        raise ValueError(f"{source}: K is {K.dtype} {K.shape}; it must be a (3,3) matrix of pixels")
    K = K.astype(np.float64)
    if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0 or np.abs(K[2] - [0, 0, 1]).max() > 1e-6 or K[1, 0]:
        raise ValueError(f"{source}: K is {K.tolist()}; it must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] in pixels")
    return K


def pinhole(width: int, height: int, fov: float) -> np.ndarray:
    """K of a camera that sees ``fov`` degrees across the longer side, principal point in the middle."""
    return centred(max(width, height) / 2 / math.tan(math.radians(fov) / 2), width, height)


def centred(focal: float, width: int, height: int) -> np.ndarray:
    """K of a focal length in pixels with the principal point in the middle."""
    return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
