"""Reading images and cutting square crops out of them, without moving anything by a fraction of a pixel."""

from __future__ import annotations

import io
import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from datasets.bad_files import bad_file, reading
from utils.camera import crop_affine

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_MAX_SAMPLES = 4096


def read_image(path: str | Path, width: int, height: int) -> np.ndarray:
    """Read an image file as (height, width, 3) uint8 RGB.

    Some decoders (OpenCV 4's) fill the missing part of a truncated JPEG with grey and say nothing, so its
    end marker is looked for as well.

    Raises:
        FileNotFoundError: if the file is missing.
        BadFileError: if it is truncated, unreadable, or not of the expected size.
    """
    with reading(path, "readable from the disk"):
        data = Path(path).read_bytes()
    if data[:2] == _JPEG_START and _JPEG_END not in data[-64:]:
        raise bad_file(path, f"truncated JPEG ({len(data)} bytes and no end marker)")
    with reading(path, f"a readable image ({len(data)} bytes)"):
        size = Image.open(io.BytesIO(data)).size  # only the header: a wrong size allocates nothing
    if size != (width, height):
        raise bad_file(path, f"is {size[0]}x{size[1]} pixels instead of {width}x{height}")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.shape != (height, width, 3):
        raise bad_file(path, f"not a readable image ({len(data)} bytes)")
    return image


def crop_image(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Square crop, resampled to ``size`` x ``size``, black where the box leaves the image.

    The crop shows exactly what `utils.camera.crop_affine` of the same box and size says. When the box is
    larger than the crop, it is sampled at an integer multiple of the crop's resolution first and then
    averaged over whole blocks: no aliasing, and no shift, since blocks of pixels nest exactly. The multiple is
    bounded, so that no box, however large, costs more than `_MAX_SAMPLES` samples a side.

    Args:
        image: (H, W, 3) uint8, or (H, W, 4) with a mask behind the colours.
        box: (3,) centre x, centre y, side, pixels.
        size: side of the crop, pixels.

    Returns:
        (size, size, 3 or 4) uint8.
    """
    oversampling = max(1, min(math.ceil(float(box[2]) / size - 1e-6), _MAX_SAMPLES // size))
    fine_size = size * oversampling
    fine = cv2.warpAffine(
        image,
        crop_affine(box, fine_size),
        (fine_size, fine_size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0),
    )
    if oversampling == 1:
        return fine
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
