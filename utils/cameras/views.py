"""Perspective crops: what a pinhole camera at a lens's place, turned to look along a ray, sees of its picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from utils.camera import project_numpy, turn_to_ray
from utils.cameras.lens import CameraModel

#: Pixels of the side of a view; larger ones are made of the picture at a reduced size.
MOST_PIXELS = 1280
#: The map between two pictures is computed once in so many pixels and interpolated: 0.02 px off, at most 0.2.
_GRID = 8


@dataclass(frozen=True, eq=False)
class View:
    """A square picture without distortion, whose camera is where the lens is and looks along one of its rays.

    Attributes:
        camera: the lens; rotation: (3,3) takes directions of the view's frame to the lens's.
        K: (3,3) px of the view; size: its side, px.
        zoom: px of the view per px of the lens's picture, where it looks.
    """

    camera: CameraModel
    rotation: np.ndarray
    K: np.ndarray
    size: int
    zoom: float

    @classmethod
    def of_box(cls, camera: CameraModel, box: np.ndarray, margin: float) -> View:
        """The view along the middle of a box (3,), centre x, centre y, side, px of the lens's picture.

        Args:
            margin: side of the view over that of the box.

        Raises:
            ValueError: no ray reaches the middle of the box.
        """
        ray = camera.unproject(np.asarray(box[:2], np.float64))
        if not np.isfinite(ray).all():
            raise ValueError(f"{camera.source}: sees nothing at pixel {box[0]:.0f}, {box[1]:.0f}, the middle of a hand")
        rotation = turn_to_ray(torch.as_tensor(ray)[None])[0].numpy()
        # Pixels per radian of the lens there, the geometric mean over directions.
        beside = camera.project(np.array([[1e-4, 0, 1], [-1e-4, 0, 1], [0, 1e-4, 1], [0, -1e-4, 1]]) @ rotation.T)
        focal = np.sqrt(abs(np.linalg.det(np.stack([beside[0] - beside[1], beside[2] - beside[3]]) / 2e-4)))
        if not np.isfinite(focal):  # at the very end of what the lens sees
            focal = np.sqrt(camera.K[0, 0] * camera.K[1, 1])
        side = max(margin * float(box[2]), 16.0)
        size = min(round(side), MOST_PIXELS)
        zoom, middle = size / side, (size - 1) / 2
        K = np.array([[zoom * focal, 0, middle], [0, zoom * focal, middle], [0, 0, 1]])
        return cls(camera, rotation, K, size, zoom)

    def to_view(self, pixels: np.ndarray) -> np.ndarray:
        """Where pixels (...,2) of the lens's picture lie in the view; NaN for those behind it or without a ray."""
        rays = self.camera.unproject(pixels) @ self.rotation
        with np.errstate(all="ignore"):
            return np.where(rays[..., 2:] > 1e-6, project_numpy(rays, self.K), np.nan)

    def to_camera(self, pixels: np.ndarray) -> np.ndarray:
        """Inverse of `to_view`; NaN where the lens sees nothing."""
        plane = (np.asarray(pixels, np.float64) - self.K[:2, 2]) / self.K[[0, 1], [0, 1]]
        return self.camera.project(np.concatenate([plane, np.ones_like(plane[..., :1])], axis=-1) @ self.rotation.T)

    def box_to_view(self, box: np.ndarray) -> np.ndarray:
        """A square box (3,), centre x, centre y, side, px of the lens's picture, in the view; NaN where behind it."""
        return np.array([*self.to_view(box[:2]), box[2] * self.zoom])

    def box_to_camera(self, box: np.ndarray) -> np.ndarray:
        """Inverse of `box_to_view`; about the view's own middle where the lens does not see the box's."""
        centre = self.to_camera(box[:2])
        centre = centre if np.isfinite(centre).all() else self.to_camera(self.K[:2, 2])
        return np.array([*centre, box[2] / self.zoom])

    def image(self, image: np.ndarray) -> np.ndarray:
        """The view (S,S,3), S px, of the lens's picture (H,W,3) uint8, bilinear; black where that shows nothing."""
        step, pixels = max(1, int(1 / self.zoom)), _mapped(self.to_camera, (0, 0, self.size, self.size))
        if step > 1:  # averaged first, so that no pixel is passed over
            height, width = (side // step for side in image.shape[:2])
            image = cv2.resize(image[: height * step, : width * step], (width, height), interpolation=cv2.INTER_AREA)
            pixels = (pixels + 0.5) / step - 0.5
        return cv2.remap(image, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR)

    def back(self, image: np.ndarray, corner: tuple[int, int], window: tuple[int, int, int, int]) -> np.ndarray:
        """A part of the view in the lens's picture, for drawing: bilinear, zero outside.

        Args:
            image: (h,w) or (h,w,3) float32; corner: left and top of it in the view, px.
            window: left, top, right, bottom (half open) of the lens's picture that is wanted, px.
        """
        pixels = _mapped(self.to_view, window) - np.array(corner, np.float32)
        return cv2.remap(image, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR)


def _mapped(move: Callable[[np.ndarray], np.ndarray], window: tuple[int, int, int, int]) -> np.ndarray:
    """Where ``move`` takes each pixel of a window (left, top, right, bottom): (h,w,2) float32; far outside where to
    nowhere."""
    left, top, right, bottom = window
    blocks = [-(-side // _GRID) for side in (right - left, bottom - top)]
    axes = [start + (np.arange(-1, count + 1) + 0.5) * _GRID - 0.5 for start, count in zip((left, top), blocks)]
    coarse = move(np.stack(np.meshgrid(*axes), axis=-1)).astype(np.float32)
    fine = cv2.resize(coarse, None, fx=_GRID, fy=_GRID, interpolation=cv2.INTER_LINEAR)
    return np.nan_to_num(fine[_GRID : _GRID + bottom - top, _GRID : _GRID + right - left], nan=-1e4)
