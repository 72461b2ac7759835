"""Hands of lenses with distortion, or far off the axis: looked at through a perspective crop, and brought back.

A network knows hands as a narrow pinhole camera shows them. So it is given the picture of such a camera at the same
place, turned to look along the hand's ray (`utils.cameras.views.View`); keypoints go the same way. What comes out is
turned into the camera's own frame, and drawn through the lens onto the picture as it was taken.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datasets.crop_placement import whole_image_box
from src.photos.boxes import Region
from src.photos.camera import Camera
from src.photos.image import Photo, UnusableImage
from src.photos.result import Result
from utils.camera import project_numpy, transform_intrinsics
from utils.cameras.views import View
from utils.drawing import overlay

#: Side of a perspective crop over the hand's box; the networks look at twice the box.
MARGIN = 3.0
#: Degrees off the axis beyond which a pinhole camera's hands are looked at so as well: it stretches them there by 1.2.
WIDE = 35.0


def view_for(photo: Photo, camera: Camera, region: Region, whole: bool = False) -> View | None:
    """The perspective crop to look at a hand through; None: the picture itself shows it near enough as a crop would.

    Args:
        whole: all of the picture is wanted, for networks that look at whole pictures.

    Raises:
        UnusableImage: the lens sees nothing there.
    """
    try:
        if whole:
            return None if camera.lens is None else View.of_box(camera.lens, whole_image_box(*photo.size), 1.0)
        view = View.of_box(camera.model, region.box, MARGIN)
    except ValueError as error:
        raise UnusableImage(str(error)) from error
    return view if camera.lens is not None or view.rotation[2, 2] < np.cos(np.radians(WIDE)) else None


def into_view(view: View, photo: Photo, region: Region, source: str) -> tuple[Photo, Camera, Region]:
    """A picture, its camera and a hand's place in it, as the view shows them.

    Keypoints that it does not see are moved to its middle and believed not at all.
    """
    keypoints = region.keypoints
    if keypoints is not None:
        points = view.to_view(keypoints.points)
        seen = np.isfinite(points).all(axis=1)
        points = np.where(seen[:, None], points, (view.size - 1) / 2)
        keypoints = replace(keypoints, points=points, confidence=np.where(seen, keypoints.confidence, 0))
    region = replace(region, box=view.box_to_view(region.box), keypoints=keypoints)
    return replace(photo, path=None, image=view.image(photo.image)), Camera(view.K, source), region


def out_of_view(view: View, close: Result, photo: Photo, camera: Camera) -> Result:
    """The hand ``close`` of a view, in the frame and px of the camera that took the picture."""
    turned = close.moved(view.rotation)
    keypoints = view.to_camera(close.keypoints)
    seen = np.isfinite(keypoints).all(axis=1)
    return replace(
        turned,
        width=photo.size[0],
        K=camera.K,
        lens=camera.lens,
        box=view.box_to_camera(close.box),
        keypoints=np.where(seen[:, None], keypoints, -1.0),
        confidence=np.where(seen, close.confidence, 0),
        reprojection_px=close.reprojection_px / view.zoom,
        mask=None,
        mask_to_image=None,
        close=(view, close),
        world=photo.world,
    )


def close_up(image: np.ndarray, hand: Result) -> tuple[np.ndarray, Result]:
    """Picture (H,W,3) and hand for drawing with a pinhole camera: as the perspective crop, if any, shows them."""
    if hand.close is None:
        return image, hand
    view, close = hand.close
    return view.image(image), close


def draw_mesh(image: np.ndarray, hand: Result, colour: tuple[int, int, int], opacity: float) -> np.ndarray:
    """The picture (H,W,3) uint8, as it was taken, with the hand's mesh drawn in; only the pixels around it change."""
    view, seen = hand.close or (None, hand)
    pixels = project_numpy(seen.vertices.astype(np.float64), seen.K)
    if (seen.vertices[:, 2] < 0.02).any():
        return image
    around = pixels if view is None else view.to_camera(pixels)
    window = _window(around[np.isfinite(around).all(axis=1)], image.shape[1], image.shape[0])
    if window is None:
        return image
    # What is drawn with a pinhole camera: that window itself, or all of the mesh in the view.
    left, top, right, bottom = window if view is None else _window(pixels, view.size, view.size) or (0, 0, 1, 1)
    K = transform_intrinsics(seen.K, np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]]))
    layers = overlay.render_mesh(seen.vertices, seen.faces, K, right - left, bottom - top, colour)
    if view is not None:
        layers = tuple(view.back(layer, (left, top), window) for layer in layers)
    left, top, right, bottom = window
    drawn = image.copy()
    drawn[top:bottom, left:right] = overlay.blend(drawn[top:bottom, left:right], *layers, opacity)
    return drawn


def _window(points: np.ndarray, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom around points (N,2) px inside a picture; None: less than two pixels of it."""
    if not len(points):
        return None
    left, top = np.maximum(np.floor(points.min(axis=0)).astype(int) - 2, 0)
    right, bottom = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 3, [width, height])
    return (int(left), int(top), int(right), int(bottom)) if min(right - left, bottom - top) >= 2 else None
