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


def project_numpy(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    """`project` for NumPy arrays: points (..., N, 3) metres, K (..., 3, 3) pixels -> (..., N, 2) pixels."""
    homogeneous = points @ np.swapaxes(K, -1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def square_box(points: np.ndarray, scale: float = 2.0) -> np.ndarray:
    """Square box around 2D points, the crop rule of the paper's code ("size_2"; docs/facts.md 1.8).

    Args:
        points: (..., N, 2) pixels.
        scale: side of the square over the larger side of the tight box; 2 in the paper.

    Returns:
        (..., 3) centre x, centre y, side, in pixels, float64. The box may leave the image.
    """
    points = np.asarray(points, dtype=np.float64)
    low, high = points.min(axis=-2), points.max(axis=-2)
    side = np.maximum((high - low).max(axis=-1, keepdims=True) * scale, 1.0)
    return np.concatenate([(low + high) / 2, side], axis=-1)


def crop_affine(box: np.ndarray, size: int) -> np.ndarray:
    """Affine (..., 2, 3) from image pixels to the pixels of a ``size`` x ``size`` crop of ``box``.

    ``box`` (..., 3) is (centre x, centre y, side). The box's edges land on the crop's edges
    (-0.5 and size - 0.5), so pixel areas, not pixel centres, are what is scaled.
    """
    box = np.asarray(box, dtype=np.float64)
    scale = size / box[..., 2]
    affine = np.zeros((*box.shape[:-1], 2, 3))
    affine[..., 0, 0] = affine[..., 1, 1] = scale
    affine[..., 2] = (size - 1) / 2 - scale[..., None] * box[..., :2]
    return affine


def invert_affine(affine: np.ndarray) -> np.ndarray:
    """Inverse (..., 2, 3) of affines (..., 2, 3), px."""
    linear = np.linalg.inv(affine[..., :2])
    return np.concatenate([linear, -linear @ affine[..., 2:]], axis=-1)


def transform_points(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Apply 2x3 affines (..., 2, 3) to points (..., N, 2), or one affine to one point (2,); pixels in and out."""
    return points @ np.swapaxes(affine[..., :2], -1, -2) + (
        affine[..., 2] if points.ndim == 1 else affine[..., None, :, 2]
    )


def transform_intrinsics(K: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Intrinsics (..., 3, 3), px, after the image was transformed by ``affine`` (..., 2, 3): ``[A; 0 0 1] K``."""
    bottom = np.broadcast_to([[0.0, 0.0, 1.0]], (*affine.shape[:-2], 1, 3))
    return np.concatenate([affine, bottom], axis=-2) @ K


def mirror_intrinsics(K: np.ndarray, width: int) -> np.ndarray:
    """Intrinsics (..., 3, 3) after flipping an image of ``width`` pixels left to right.

    With x -> -x in the camera frame and u -> width - 1 - u in the image, of a K only the principal point (and the skew)
    changes; any other projection matrix is mirrored alike. Applying it twice gives the argument back.
    """
    mirrored = K.copy()
    mirrored[..., 0, :] = (width - 1) * K[..., 2, :] - K[..., 0, :]
    mirrored[..., :, 0] = -mirrored[..., :, 0] + 0.0  # no negative zeros
    return mirrored


def mirror_points(points: np.ndarray, width: int) -> np.ndarray:
    """Points (..., 2) or boxes (..., 3) px, centre first, after the same flip: u -> width - 1 - u."""
    return np.concatenate([width - 1 - points[..., :1], points[..., 1:]], axis=-1)


def _crop_centre_ray(K: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 3) direction, z = 1, through the centre of a ``size`` px crop with intrinsics K (B, 3, 3)."""
    centre = (size - 1) / 2
    y = (centre - K[:, 1, 2]) / K[:, 1, 1]
    x = (centre - K[:, 0, 2] - K[:, 0, 1] * y) / K[:, 0, 0]
    return torch.stack([x, y, torch.ones_like(x)], dim=1)


def crop_geometry(K: torch.Tensor, size: int) -> torch.Tensor:
    """Where a crop sits in the camera's view: what CLIFF feeds its head (Li et al., ECCV 2022, sec. 3).

    Args:
        K: (B, 3, 3) intrinsics of the crop, px.
        size: side of the crop, px.

    Returns:
        (B, 3): slopes x/z and y/z of the ray through the crop's centre, and the logarithm of the
        crop's angular size (side / focal length), offset to be about zero for a hand at arm's length.
    """
    ray = _crop_centre_ray(K, size)
    angular = torch.log(size / torch.sqrt(K[:, 0, 0] * K[:, 1, 1])) + 1.2
    return torch.cat([ray[:, :2], angular[:, None]], dim=1)


def ray_rotation(K: torch.Tensor, size: int) -> torch.Tensor:
    """`turn_to_ray` for the ray through a crop's centre.

    A hand seen off axis looks, in its crop, like the same hand turned by this rotation seen on axis.

    Args:
        K: (B, 3, 3) intrinsics of the crop, px.
        size: side of the crop, px.
    """
    return turn_to_ray(torch.nn.functional.normalize(_crop_centre_ray(K, size), dim=1))


def turn_to_ray(ray: torch.Tensor) -> torch.Tensor:
    """Smallest rotation (B, 3, 3) taking the optical axis to a unit ray (B, 3), which is not straight backwards."""
    x, y, z = ray.unbind(1)
    # Rodrigues for axis (-y, x, 0) and cos = z; sin cancels. The only singularity is z = -1.
    xx, xy, yy = x * x / (1 + z), x * y / (1 + z), y * y / (1 + z)
    return torch.stack([1 - xx, -xy, x, -xy, 1 - yy, y, -x, -y, z], dim=1).unflatten(1, (3, 3))
