"""A person's own pictures: any format, depth and orientation to (H,W,3) uint8 RGB, and what EXIF says of the lens."""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from utils.install import pip_install

#: What is taken for a picture; whether it can be read is found out by reading it.
HEIF = (".heic", ".heif", ".hif")
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif", ".jp2", *HEIF, *RAW,
)  # fmt: skip
#: A hand in a smaller image is no hand, pixels of the shorter side.
MIN_SIDE = 24
LARGEST_FILE = 2**30  # bytes of a picture; Pillow refuses more than 179 million pixels
#: Colour under transparent pixels.
BACKDROP = 255
#: Bytes of a name: with what the demo puts around it, it stays below the 255 that file systems take.
_NAME_BYTES = 160

_ORIENTATION, _EXIF = 0x0112, 0x8769
_FOCAL_LENGTH, _FOCAL_LENGTH_35MM = 0x920A, 0xA405
_WIDTH, _HEIGHT = 0xA002, 0xA003
_PLANE_X_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0}
_FOCAL_RANGE = (0.25, 30.0)  # of the longer side: from a fisheye lens to a telescope
_SENSOR_MM, _LARGEST_ZOOM = (2.0, 80.0), 10.0  # of a webcam to medium format; of phones without lens
_DIAGONAL_35MM = 43.267  # of the 36 x 24 mm film that 35 mm equivalents refer to


class UnusableImage(ValueError):
    """One image cannot be used; the others go on, and this one is listed with the message."""


@dataclass
class Photo:
    """One picture, upright.

    Attributes:
        name: for the files made of it, unique in its folder; path: where it is, or None.
        image: (H,W,3) uint8 RGB.
        focal_px: focal length from EXIF, pixels, or None; focal_source: what EXIF said, or why it is not believed.
    """

    name: str
    path: Path | None
    image: np.ndarray
    focal_px: float | None = None
    focal_source: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def beside(self, ending: str) -> Path | None:
        """The file beside it whose name is its own without suffix, and ``ending``; None: there is none."""
        path = None if self.path is None else self.path.with_name(self.path.stem + ending)
        return path if path is not None and path.is_file() else None


def shown_name(path: Path) -> str:
    """A file's name as text: bytes that are no UTF-8 and control characters become question marks."""
    text = os.fsencode(path.name).decode("utf-8", "replace").replace("\ufffd", "?")
    return "".join("?" if unicodedata.category(letter).startswith("C") else letter for letter in text)


def list_photos(folder: str | Path) -> list[tuple[str, Path]]:
    """Name and path of every image in a folder (not below it) in sorted order, or of the one image given.

    The name, for files made of the image, is the file's without its suffix. Where names would be the same (also but
    for capitals, which some file systems do not tell apart), the suffix and if need be a number is put behind them;
    very long ones are cut, with a few hexadecimal digits of the whole.

    Raises:
        FileNotFoundError: no such folder or file. ValueError: no image in it.
    """
    folder = Path(folder)
    if folder.is_file():
        return [(file_stem(folder), folder)]
    if not folder.is_dir():
        raise FileNotFoundError(f"--images {folder}: no such folder")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and p.name[0] != ".")
    if not paths:
        raise ValueError(f"--images {folder}: holds no image ({', '.join(SUFFIXES)})")
    counts = Counter(_same(file_stem(path)) for path in paths)
    taken: set[str] = {stem for stem, count in counts.items() if count == 1}
    named = []
    for path in paths:
        name = stem = file_stem(path)
        if counts[_same(stem)] > 1:
            name = stem = f"{stem}_{path.suffix[1:].lower()}"
            number = 1
            while _same(name) in taken:
                number += 1
                name = f"{stem}_{number}"
            taken.add(_same(name))
        named.append((name, path))
    return named


def _same(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def file_stem(path: Path) -> str:
    """A file's name without its suffix, fit for names of other files on any system."""
    stem = shown_name(path.with_suffix("")).translate({ord(letter): "_" for letter in '?:*"<>|\\'})
    if len(stem.encode()) <= _NAME_BYTES:
        return stem
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    return stem.encode()[: _NAME_BYTES - 9].decode("utf-8", "ignore") + f"_{digest}"


def read_photo(path: str | os.PathLike, name: str | None = None) -> Photo:
    """Read any image file as upright 8-bit RGB: grey is repeated, transparency laid on white, 16 bit scaled down.

    Raises:
        UnusableImage: unreadable, empty, too large for Pillow, or smaller than `MIN_SIDE`.
    """
    path = Path(path)
    shown = shown_name(path)
    try:
        if path.suffix.lower() in RAW:
            raise UnusableImage(f"{shown}: camera raw is not read; export it as JPEG or PNG")
        if path.suffix.lower() in HEIF:
            _register_heif(shown)
        if path.stat().st_size > LARGEST_FILE:
            raise UnusableImage(f"{shown}: {path.stat().st_size / 1e9:.1f} GB are too many for a picture")
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is refused below, or does not matter
            with Image.open(io.BytesIO(data)) as picture:
                exif = _exif(picture)
                picture.load()  # TIFF: turns the picture as its orientation says, and forgets the orientation
                image = to_rgb8(_upright(picture))
    except UnusableImage:
        raise
    except MemoryError as error:
        raise UnusableImage(f"{shown}: does not fit into memory") from error
    except Exception as error:  # decoders of damaged files raise whatever they like
        reason = str(error).split(" <_io")[0] or type(error).__name__
        raise UnusableImage(f"{shown}: is no readable image ({reason})") from error
    if min(image.shape[:2]) < MIN_SIDE:
        raise UnusableImage(f"{shown}: {image.shape[1]} x {image.shape[0]} pixels are too few to show a hand")
    focal_px, source = _focal(exif, image.shape[1], image.shape[0])
    return Photo(name or file_stem(path), path, image, focal_px, source)


def _register_heif(shown: str) -> None:
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        raise UnusableImage(
            f"{shown}: HEIC is read where pillow-heif is installed: {pip_install('pillow-heif')}"
        ) from error


def to_rgb8(picture: Image.Image) -> np.ndarray:
    """What Pillow decoded, in any mode, as (H,W,3) uint8 RGB. 16 bit and floating point (0..1) are scaled down."""
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture).astype(np.float32)
        top = 1.0 if picture.mode == "F" else 65535.0
        grey = np.clip(np.nan_to_num(values) * (255 / top) + 0.5, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))
    if "A" in picture.getbands() or "transparency" in picture.info:
        colours = np.asarray(picture.convert("RGBA"))
        alpha = colours[..., 3:].astype(np.uint16)
        return ((colours[..., :3] * alpha + BACKDROP * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.array(picture.convert("RGB"))


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as EXIF says; an orientation written as a byte or as text counts, one that is none of 1 to 8 does not."""
    exif = picture.getexif()
    turn = _integer(exif.get(_ORIENTATION))
    if turn not in range(2, 9):
        return picture
    # A copy without the rest of EXIF, which Pillow would write again and may stumble over.
    bare = picture.copy()
    bare.info = {key: value for key, value in picture.info.items() if key == "transparency"}
    bare.getexif().clear()
    bare.getexif()[_ORIENTATION] = turn
    return ImageOps.exif_transpose(bare)


def _integer(value: object) -> int:
    """An EXIF value as an integer, whatever type it was written in; 0 if it is none."""
    if isinstance(value, bytes):
        value = value.strip(b"\0 ")
        value = value.decode("ascii", "replace") if value.isdigit() else int.from_bytes(value, "little")
    try:
        return int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return 0


def _exif(picture: Image.Image) -> dict[int, object]:
    try:
        exif = picture.getexif()
        return {**dict(exif), **exif.get_ifd(_EXIF)}
    except Exception:  # a damaged directory says nothing; the picture may be whole
        return {}


def _focal(exif: Mapping[int, object], width: int, height: int) -> tuple[float | None, str]:
    """Focal length in pixels by the 35 mm equivalent (of the diagonal), else by length and sensor resolution.

    Programs that resize or crop a picture often leave EXIF as the camera wrote it. The 35 mm equivalent holds as long
    as the picture has the proportions that EXIF says; sensor resolution, only with EXIF's own width to scale it by.
    Without a focal length, the text says why EXIF is not believed, or nothing.
    """

    def number(tag: int) -> float:
        try:
            value = float(exif.get(tag, 0))  # type: ignore[arg-type]
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            return 0.0
        return value if 0 < value < 1e6 else 0.0

    equivalent, length, resolution = number(_FOCAL_LENGTH_35MM), number(_FOCAL_LENGTH), number(_PLANE_X_RESOLUTION)
    before = max(number(_WIDTH), number(_HEIGHT)), min(number(_WIDTH), number(_HEIGHT))  # it may have been turned
    longer, shorter = max(width, height), min(width, height)
    scale = longer / before[0] if before[1] else 0.0
    if scale and abs(shorter - scale * before[1]) > max(1.5, 0.01 * shorter):
        return None, ""  # cropped since
    unit = _MM_PER_UNIT.get(int(number(_PLANE_UNIT) or 2))
    # What both numbers together say of the sensor. A digital zoom makes it smaller than it is, nothing makes it larger.
    diagonal = _DIAGONAL_35MM * length / equivalent if length and equivalent else 0.0
    side = before[0] * unit / resolution if resolution and unit else 0.0
    if equivalent and diagonal and not _SENSOR_MM[0] / _LARGEST_ZOOM < diagonal < _SENSOR_MM[1]:
        return None, f"EXIF not believed: {length:g} mm like {equivalent:g} mm on film is a sensor of {diagonal:.3g} mm"
    if not equivalent and length and side and not _SENSOR_MM[0] < side < _SENSOR_MM[1]:
        return (
            None,
            f"EXIF not believed: {before[0]:g} px at {resolution / unit:.4g} px/mm is a sensor of {side:.3g} mm",
        )
    if equivalent:
        focal, source = equivalent * float(np.hypot(width, height)) / _DIAGONAL_35MM, f"{equivalent:g} mm (35 mm film)"
    elif length and resolution and unit and scale:
        resized = "" if abs(scale - 1) < 0.01 else f", resized by {scale:.3g}"
        focal, source = length * resolution / unit * scale, f"{length:g} mm at {resolution / unit:.4g} px/mm{resized}"
    else:
        return None, ""
    return (focal, f"EXIF, {source}") if _FOCAL_RANGE[0] < focal / longer < _FOCAL_RANGE[1] else (None, "")
