"""Where crops lie: the paper's box around the joints, and what cropping does to intrinsics and points."""

from __future__ import annotations

import numpy as np

from utils.camera import crop_affine, invert_affine, square_box, transform_intrinsics, transform_points

_LARGEST = 4.0


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

    Args:
        columns: of the sample (`datasets.sample`), with ``K_image`` (N, 3, 3) float64.
        keypoints: (N, 21, 2) float64, px of the full image (mirrored if left).
        boxes: (N, 3) centre x, centre y, side, px of the full image.
        crop_size: side of the crops, pixels.

    Returns:
        A new dict; ``K_image`` and what is added are float32. Keypoints of samples that are not valid are zero.
    """
    affine = crop_affine(boxes, crop_size)
    placed = {
        "K": transform_intrinsics(columns["K_image"], affine),
        "K_image": columns["K_image"],
        "crop_to_image": invert_affine(affine),
        "keypoints_2d": np.where(columns["valid"][:, None, None], transform_points(keypoints, affine), 0),
    }
    return columns | {key: value.astype(np.float32) for key, value in placed.items()}
