"""A person's own pictures: any format, depth and orientation to (H,W,3) uint8 RGB, and what EXIF says of the lens."""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import os
import unicodedata
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile

from utils.cameras.exif import exif_of, focal_of_exif, upright
from utils.cameras.poses import CameraPose
from utils.install import pip_install

logger = logging.getLogger(__name__)

#: What is taken for a picture; whether it can be read is found out by reading it.
HEIF = (".heic", ".heif", ".hif")
#: How such files begin, whatever they are called (not AVIF, which Pillow reads).
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis")
_ZERO_IS = 262  # TIFF: 0: white
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif",
    ".jp2", ".jxl", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", *HEIF, *RAW,
)  # fmt: skip
#: A hand in a smaller image is no hand, pixels of the shorter side.
MIN_SIDE = 24
LARGEST_FILE = 2**30  # bytes of a picture; Pillow refuses more than 179 million pixels
#: Colour under transparent pixels.
BACKDROP = 255
#: Bytes of a name: with what the demo puts around it, it stays below the 255 that file systems take.
_NAME_BYTES = 160

#: What a user may put beside a picture: its camera, and the hand's box.
BESIDE = ("_K.npy", "_bbox.json")
_SIXTEEN = 65535.0  # largest number of 16 bits
_MANY = 5  # names of a list in a message


class UnusableImage(ValueError):
    """One image cannot be used; the others go on, and this one is listed with the message."""


@dataclass
class Photo:
    """One picture, upright.

    Attributes:
        name: for the files made of it, unique in its folder; path: where it is, or None.
        image: (H,W,3) uint8 RGB.
        focal_px: focal length from EXIF, pixels, or None; focal_source: what EXIF said, or why it is not believed.
        camera_pose: where its camera was, or None.
    """

    name: str
    path: Path | None
    image: np.ndarray
    focal_px: float | None = None
    focal_source: str = ""
    camera_pose: CameraPose | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def beside(self, ending: str) -> Path | None:
        """The file beside it whose name is its own without suffix, and ``ending``; None: there is none.

        Raises:
            UnusableImage: something of that name is there, but no file.
        """
        path = None if self.path is None else self.path.with_name(self.path.stem + ending)
        if path is None or not os.path.lexists(path):  # a name too long for the file system is no error either
            return None
        check_regular(path)
        return path


def shown_name(path: Path) -> str:
    """A file's name as text: bytes that are no UTF-8 and control characters become question marks."""
    text = os.fsencode(path.name).decode("utf-8", "replace").replace("\ufffd", "?")
    return "".join("?" if unicodedata.category(letter).startswith("C") else letter for letter in text)


def check_regular(path: Path) -> None:
    """Nothing but files is opened: reading a pipe would wait, reading a device never end.

    Raises:
        UnusableImage: no file, or a link to none; says what it is.
    """
    if path.is_file():
        return
    what = "a folder" if path.is_dir() else "a pipe or device" if path.exists() else "a link to nothing"
    what = what if os.path.lexists(path) else "not there"
    raise UnusableImage(f"{shown_name(path)}: is {what}; a file is meant")


def list_photos(folder: str | os.PathLike) -> list[tuple[str, Path]]:
    """Name and path of every image in a folder (not below it) in sorted order, or of the one image given.

    What has a picture's suffix is listed even where it is no file, so that it is not passed over without a word; names
    with other suffixes are logged, hidden ones are not; so are cameras and boxes (`BESIDE`) of no picture.

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
    shown = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    paths = [path for path in shown if path.suffix.lower() in SUFFIXES]
    heard = {*paths, *(path.with_name(path.stem + ending) for path in paths for ending in BESIDE)}
    others = [shown_name(path) for path in shown if path not in heard and not path.is_dir()]
    if others:
        more = f" and {len(others) - _MANY} more" if len(others) > _MANY else ""
        logger.warning(
            "left out, no picture by its name, nor a picture's camera or box: %s%s", ", ".join(others[:_MANY]), more
        )
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
        check_regular(path)
        if path.stat().st_size > LARGEST_FILE:
            raise UnusableImage(f"{shown}: {path.stat().st_size / 1e9:.1f} GB are too many for a picture")
        data = path.read_bytes()
        if data[4:8] == b"ftyp" and any(brand in data[8:40] for brand in _HEIF_BRANDS):
            _register_heif(shown)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is refused below, or does not matter
            with Image.open(io.BytesIO(data)) as picture:
                deep = _sixteen_bits(data, picture)  # before PNG's EXIF is asked for, for which Pillow loads it
                exif = exif_of(picture)
                picture.load()  # TIFF: turns the picture as its orientation says, and forgets the orientation
                if deep is not None:
                    picture.paste(Image.fromarray(deep))
                image = to_rgb8(upright(picture))
                if picture.format == "TIFF" and picture.mode.startswith("I;16") and exif.get(_ZERO_IS) == 0:
                    image = 255 - image  # Pillow turns these of 8 bits alone
    except UnusableImage:
        raise
    except MemoryError as error:
        raise UnusableImage(f"{shown}: does not fit into memory") from error
    except Exception as error:  # decoders of damaged files raise whatever they like
        reason = str(error).split(" <_io")[0] or type(error).__name__
        raise UnusableImage(f"{shown}: is no readable image ({reason})") from error
    if min(image.shape[:2]) < MIN_SIDE:
        raise UnusableImage(f"{shown}: {image.shape[1]} x {image.shape[0]} pixels are too few to show a hand")
    focal_px, source = focal_of_exif(exif, image.shape[1], image.shape[0])
    return Photo(name or file_stem(path), path, image, focal_px, source)


def _register_heif(shown: str) -> None:
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        raise UnusableImage(
            f"{shown}: HEIC is read where pillow-heif is installed: {pip_install('pillow-heif')}"
        ) from error


def photo_of(image: np.ndarray | str | os.PathLike) -> Photo:
    """A picture (H,W,3) uint8 RGB in memory, or `read_photo` of a file.

    Raises:
        UnusableImage: smaller than `MIN_SIDE` px, or as `read_photo`. ValueError: no such array.
    """
    if isinstance(image, str | os.PathLike):
        return read_photo(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image is a {type(image).__name__}; give (H,W,3) uint8 RGB of NumPy, or a file")
    check_rgb(image)
    if min(image.shape[:2]) < MIN_SIDE:
        raise UnusableImage(f"{image.shape[1]} x {image.shape[0]} pixels are too few to show a hand")
    return Photo("image", None, image)


def check_rgb(image: np.ndarray) -> None:
    """Raise ValueError unless the image is (H,W,3) uint8, with H and W at least 1."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape) < 1:
        raise ValueError(f"image is {image.dtype} {image.shape}; it must be (H,W,3) uint8 RGB")


def _top(high: float) -> float:
    """Largest value of the fewest bits that hold ``high``: many cameras store 8 to 14 bits in 16 as they are."""
    return next((2.0**bits - 1 for bits in (8, 10, 12, 14) if high < 2**bits), _SIXTEEN)


def _sixteen_bits(data: bytes, picture: ImageFile.ImageFile) -> np.ndarray | None:
    """Of a colour picture of 16 bits (H,W,3 or 4) uint8, scaled as grey ones are; None of others.

    Pillow keeps one byte of each such number, so OpenCV decodes it.
    """
    raw = picture.tile[0].args if picture.tile else ""  # of a PPM with its largest number
    if picture.mode not in ("RGB", "RGBA") or not (raw == ("RGB", _SIXTEEN) or ";16" in str(raw)):
        return None
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("its colours have 16 bits, which cannot be read of this file; save it with 8 bits a colour")
    values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    tops = np.full(values.shape[2], _top(values[..., :3].max()))
    tops[3:] = [_top(alpha) for alpha in values[..., 3:].max(axis=(0, 1))]
    return np.clip(values * (255 / tops) + 0.5, 0, 255).astype(np.uint8)


def to_rgb8(picture: Image.Image) -> np.ndarray:
    """What Pillow decoded, in any mode, as (H,W,3) uint8 RGB. Grey of 16 bits and floating point (0..1) is scaled.

    Raises:
        ValueError: 32-bit numbers that are neither: the picture would come out white or black.
    """
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture).astype(np.float32)
        top = 1.0 if picture.mode == "F" else _SIXTEEN
        if picture.mode == "F":
            low, high = np.nanpercentile(values, (1, 99))  # highlights may be above 1
            known = np.isfinite(values).any() and low >= 0 and high <= 1
        else:
            low, high = values.min(), values.max()
            known = picture.mode != "I" or (low >= 0 and 255 < high <= top)
            top = _top(high) if known else top
        if not known:
            raise ValueError(f"its values are {low:g} to {high:g}; 0 to {top:g} is meant. Save it with 8 bits a colour")
        grey = np.clip(np.nan_to_num(values) * (255 / top) + 0.5, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))
    if "A" in picture.getbands() or "transparency" in picture.info:
        colours = np.asarray(picture.convert("RGBA"))
        alpha = colours[..., 3:].astype(np.uint16)
        return ((colours[..., :3] * alpha + BACKDROP * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.array(picture.convert("RGB"))
