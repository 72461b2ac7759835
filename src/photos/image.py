"""A person's own pictures: any format, depth and orientation to (H,W,3) uint8 RGB, and what EXIF says of the lens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
#: A hand in a smaller image is no hand, pixels of the shorter side.
MIN_SIDE = 24
#: Colour under transparent pixels.
BACKDROP = 255

_ORIENTATION, _EXIF = 0x0112, 0x8769
_FOCAL_LENGTH, _FOCAL_LENGTH_35MM = 0x920A, 0xA405
_PLANE_X_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0}
_DIAGONAL_35MM = 43.267  # of the 36 x 24 mm film that 35 mm equivalents refer to


class UnusableImage(ValueError):
    """One image cannot be used; the others go on, and this one is listed with the message."""


@dataclass
class Photo:
    """One picture, upright.

    Attributes:
        name: for the files made of it, unique in its folder; path: where it is.
        image: (H,W,3) uint8 RGB.
        focal_px: focal length from EXIF, pixels, or None; focal_source: what EXIF said.
    """

    name: str
    path: Path
    image: np.ndarray
    focal_px: float | None = None
    focal_source: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]


def list_photos(folder: str | Path) -> list[tuple[str, Path]]:
    """Name and path of every image in a folder (not below it) in sorted order, or of the one image given.

    The name is the file's without its suffix; where two files differ in nothing else, the suffix is put behind it.

    Raises:
        FileNotFoundError: no such folder or file. ValueError: no image in it.
    """
    folder = Path(folder)
    if folder.is_file():
        return [(folder.stem, folder)]
    if not folder.is_dir():
        raise FileNotFoundError(f"--images {folder}: no such folder")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and p.name[0] != ".")
    if not paths:
        raise ValueError(f"--images {folder}: holds no image ({', '.join(SUFFIXES)})")
    stems = [path.stem for path in paths]
    return [(p.stem if stems.count(p.stem) == 1 else f"{p.stem}_{p.suffix[1:].lower()}", p) for p in paths]


def read_photo(path: str | Path, name: str | None = None) -> Photo:
    """Read any image file as upright 8-bit RGB: grey is repeated, transparency laid on white, 16 bit scaled down.

    Raises:
        UnusableImage: unreadable, empty or smaller than `MIN_SIDE`.
    """
    path = Path(path)
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        # IMREAD_UNCHANGED alone keeps transparency and 16 bits; it leaves the orientation to us.
        raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    except (OSError, cv2.error) as error:
        raise UnusableImage(f"{path.name}: cannot be read ({error})") from error
    if raw is None:
        raise UnusableImage(f"{path.name}: is no readable image ({len(data)} bytes)")
    if min(raw.shape[:2]) < MIN_SIDE:
        raise UnusableImage(f"{path.name}: {raw.shape[1]} x {raw.shape[0]} pixels are too few to show a hand")
    exif = _exif(path)
    image = _upright(to_rgb8(raw), int(exif.get(_ORIENTATION, 1)))
    focal_px, source = _focal(exif, image.shape[1], image.shape[0])
    return Photo(name or path.stem, path, image, focal_px, source)


def to_rgb8(image: np.ndarray) -> np.ndarray:
    """What OpenCV decoded, (H,W) or (H,W,1..4) in BGR(A) order and any depth, as (H,W,3) uint8 RGB.

    Integers are scaled from their type's full range, floating point from 0..1.
    """
    if image.dtype != np.uint8:
        top = 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)
        image = np.clip(np.nan_to_num(image.astype(np.float32)) * (255 / top) + 0.5, 0, 255).astype(np.uint8)
    image = image if image.ndim == 3 else image[..., None]
    if image.shape[2] in (2, 4):
        alpha = image[..., -1:].astype(np.uint16)
        image = ((image[..., :-1] * alpha + BACKDROP * (255 - alpha) + 127) // 255).astype(np.uint8)
    colours = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., ::-1]
    return np.ascontiguousarray(colours)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF's orientation (1 to 8)."""
    if orientation >= 5:  # stored on its side: mirrored at the diagonal
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _exif(path: Path) -> dict[int, object]:
    try:
        with Image.open(path) as picture:
            exif = picture.getexif()
            return {**dict(exif), **exif.get_ifd(_EXIF)}
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return {}


def _focal(exif: dict[int, object], width: int, height: int) -> tuple[float | None, str]:
    """Focal length in pixels by the 35 mm equivalent (of the diagonal), else by length and sensor resolution."""

    def number(tag: int) -> float:
        try:
            value = float(exif.get(tag, 0))  # type: ignore[arg-type]
        except (TypeError, ValueError, ZeroDivisionError):
            return 0.0
        return value if 0 < value < 1e6 else 0.0

    equivalent, length, resolution = number(_FOCAL_LENGTH_35MM), number(_FOCAL_LENGTH), number(_PLANE_X_RESOLUTION)
    if equivalent:
        return equivalent * float(np.hypot(width, height)) / _DIAGONAL_35MM, f"EXIF, {equivalent:g} mm (35 mm film)"
    unit = _MM_PER_UNIT.get(int(number(_PLANE_UNIT) or 2))
    if length and resolution and unit:
        return length * resolution / unit, f"EXIF, {length:g} mm at {resolution / unit:.4g} px/mm"
    return None, ""
