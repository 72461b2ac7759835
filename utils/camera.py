"""The camera: pinhole projection and what happens to it when an image is cropped, turned or mirrored.

Conventions, used everywhere in this repository:

* OpenCV camera frame: x right, y down, z forward, metres.
* **Pixel centres lie at integer coordinates** (OpenCV's rule): the top left pixel's centre is
  (0, 0) and an image of width W covers [-0.5, W - 0.5]. Crop, heat map and projection all use it.
* An image transform is a 2x3 affine ``A`` that takes source pixels to target pixels; the target's
  intrinsics are then ``A K`` (see `transform_intrinsics`).
"""

from __future__ import annotations

import numpy as np
import torch


def project(points: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Pinhole projection of camera-frame points.

    Args:
        points: (..., N, 3), metres, camera frame, z > 0 in front.
        K: (..., 3, 3), pixels; leading dimensions broadcast against those of ``points``.

    Returns:
        (..., N, 2) pixels. Points at z = 0 give non-finite values: the caller decides what they mean.
    """
    homogeneous = points @ K.transpose(-1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def back_project(pixels: torch.Tensor, depth: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Camera-frame points (..., N, 3), metres, seen at ``pixels`` (..., N, 2) with z = ``depth`` (..., N)."""
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    rays = torch.linalg.solve(K, homogeneous.transpose(-1, -2)).transpose(-1, -2)
    return rays * (depth / rays[..., 2])[..., None]


def project_numpy(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    """`project` for NumPy arrays: points (..., N, 3) metres, K (..., 3, 3) pixels -> (..., N, 2) pixels."""
    homogeneous = points @ np.swapaxes(K, -1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def square_box(points: np.ndarray, scale: float = 2.0) -> np.ndarray:
    """Square box around 2D points, the crop rule of the paper's code ("size_2"; FACTS 1.8).

    Args:
        points: (N, 2) pixels.
        scale: side of the square over the larger side of the tight box; 2 in the paper.

    Returns:
        (3,) centre x, centre y, side, in pixels. The box may leave the image.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(float((high - low).max()) * scale, 1.0)
    return np.array([*((low + high) / 2), side])


def crop_affine(box: np.ndarray, size: int) -> np.ndarray:
    """Affine (2, 3) from image pixels to the pixels of a ``size`` x ``size`` crop of ``box``.

    ``box`` is (centre x, centre y, side). The box's edges land on the crop's edges
    (-0.5 and size - 0.5), so pixel areas, not pixel centres, are what is scaled.
    """
    centre_x, centre_y, side = (float(value) for value in box)
    scale = size / side
    half = (size - 1) / 2
    return np.array([[scale, 0.0, half - scale * centre_x], [0.0, scale, half - scale * centre_y]])


def invert_affine(affine: np.ndarray) -> np.ndarray:
    """Inverse (2, 3) of a 2x3 affine."""
    linear = np.linalg.inv(affine[:, :2])
    return np.hstack([linear, -linear @ affine[:, 2:]])


def transform_points(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Apply a 2x3 affine to points (..., 2), pixels in and out."""
    return points @ affine[:, :2].T + affine[:, 2]


def transform_intrinsics(K: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Intrinsics (3, 3) after the image was transformed by ``affine`` (2, 3): ``[A; 0 0 1] K``."""
    return np.vstack([affine, [0.0, 0.0, 1.0]]) @ K


def mirror_intrinsics(K: np.ndarray, width: int) -> np.ndarray:
    """Intrinsics (..., 3, 3) after flipping an image of ``width`` pixels left to right.

    With x -> -x in the camera frame and u -> width - 1 - u in the image, only the principal
    point moves. Applying it twice gives the argument back.
    """
    mirrored = K.copy()
    mirrored[..., 0, 2] = width - 1 - K[..., 0, 2]
    mirrored[..., 0, 1] = -K[..., 0, 1]
    return mirrored
