"""Square crops: reading images, where crops lie, cutting them out without moving anything by a fraction of a pixel."""

from __future__ import annotations

import io
import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from datasets.bad_files import bad_file, reading
from utils.camera import crop_affine, invert_affine, square_box, transform_intrinsics, transform_points

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_MAX_SAMPLES = 4096
_LARGEST = 4.0
#: Pixels of an image for one of the crop up to which a fourth channel is worth adding: OpenCV warps four faster.
_WORTH_A_FOURTH = 8


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
    channels = image.shape[2]
    if channels == 3 and image.shape[0] * image.shape[1] < _WORTH_A_FOURTH * fine_size**2:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)  # the same values in 0.4 of the time
    crop = cv2.warpAffine(image, crop_affine(box, fine_size), (fine_size, fine_size), flags=cv2.INTER_LINEAR)
    if oversampling > 1:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return crop if crop.shape[2] == channels else cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB)


def joint_boxes(keypoints: np.ndarray, usable: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes (N, 3) float64 of centre x, centre y, side: twice the joints' box, or the whole image.

    Args:
        keypoints: (N, 21, 2) px of the full image.
        usable: (N,) bool; where False, the box shows the whole image.
        width, height: of the full image, pixels.
    """
    boxes = square_box(keypoints)
    boxes[~usable] = whole_image_box(width, height)
    return boxes


def whole_image_box(width: int, height: int) -> np.ndarray:
    """The box (3,) of the smallest square around an image of ``width`` x ``height`` pixels."""
    return np.array([(width - 1) / 2, (height - 1) / 2, max(width, height)])


def unusable_boxes(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """(N,) bool: boxes (N, 3) that show nothing of an image of ``width`` x ``height`` px, or next to nothing.

    They lie wholly outside, or are more than `_LARGEST` times as large as the image (hands of twice its size: the
    joints of an outlier), or are not finite.
    """
    half = boxes[:, 2:] / 2
    with np.errstate(invalid="ignore"):
        inside = (boxes[:, :2] + half > -0.5) & (boxes[:, :2] - half < np.array([width, height]) - 0.5)
        return ~(inside.all(axis=1) & (boxes[:, 2] > 0) & (boxes[:, 2] <= _LARGEST * max(width, height)))


def place_crops(
    columns: dict[str, np.ndarray], keypoints: np.ndarray, boxes: np.ndarray, crop_size: int
) -> dict[str, np.ndarray]:
    """Columns of the sample and what depends on the crop: ``K``, ``crop_to_image`` and ``keypoints_2d``.

    Arguments as of `datasets.crop_dataset.CropDataset`; a new dict, whose ``K_image`` and what is added are float32.
    Keypoints of samples that are not valid are zero.
    """
    affine = crop_affine(boxes, crop_size)
    placed = {
        "K": transform_intrinsics(columns["K_image"], affine),
        "K_image": columns["K_image"],
        "crop_to_image": invert_affine(affine),
        "keypoints_2d": np.where(columns["valid"][:, None, None], transform_points(keypoints, affine), 0),
    }
    return columns | {key: value.astype(np.float32) for key, value in placed.items()}
