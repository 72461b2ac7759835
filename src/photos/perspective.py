"""Hands of lenses with distortion, or far off the axis: looked at through a perspective crop, and brought back.

A network knows hands as a narrow pinhole camera shows them. So it is given the picture of such a camera at the same
place, turned to look along the hand's ray (`utils.cameras.views.View`); keypoints go the same way. What comes out is
turned into the camera's own frame, and drawn through the lens onto the picture as it was taken.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datasets.image_crop import whole_image_box
from src.photos.boxes import Region
from src.photos.camera import Camera
from src.photos.image import Photo, UnusableImage
from src.photos.result import Result
from utils.camera import project_numpy, transform_intrinsics
from utils.cameras.lens import CameraModel
from utils.cameras.views import View
from utils.drawing import overlay

#: Side of a perspective crop over the hand's box; the networks look at twice the box.
MARGIN = 3.0
#: Degrees off the axis beyond which a pinhole camera's hands are looked at so as well: nearer, networks know them so.
WIDE = 30.0


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
        model = camera.lens or CameraModel(camera.K, np.zeros(0), size=photo.size, source=camera.source)
        view = View.of_box(model, region.box, MARGIN)
    except ValueError as error:
        raise UnusableImage(str(error)) from error
    return view if camera.lens is not None or view.rotation[2, 2] < np.cos(np.radians(WIDE)) else None


def into_view(view: View, photo: Photo, region: Region, source: str) -> tuple[Photo, Camera, Region]:
    """A picture, its camera and a hand's place in it, as the view shows them; unseen keypoints are at its middle."""
    keypoints = region.keypoints
    if keypoints is not None:
        points, confidence = seen_there(view.to_view(keypoints.points), keypoints.confidence, (view.size - 1) / 2)
        keypoints = replace(keypoints, points=points, confidence=confidence)
    region = replace(region, box=view.box_to_view(region.box), keypoints=keypoints)
    return replace(photo, path=None, image=view.image(photo.image)), Camera(view.K, source), region


def out_of_view(view: View, close: Result, photo: Photo, camera: Camera) -> Result:
    """The hand ``close`` of a view, in the frame and px of the camera that took the picture."""
    moved = replace(close.moved(view.rotation), view=view, lens=camera.lens, camera_pose=photo.camera_pose)
    return in_picture_pixels(moved)


def in_view_pixels(hand: Result) -> Result:
    """The hand, still in the camera's frame, in px of its view, if it has one: K (3,3) then projects onto that."""
    view = hand.view
    if view is None:
        return hand
    points, confidence = seen_there(view.to_view(hand.keypoints), hand.confidence, (view.size - 1) / 2)
    return replace(
        hand,
        keypoints=points,
        confidence=confidence,
        width=view.size,
        K=view.K @ view.rotation.T,
        box=view.box_to_view(hand.box),
        reprojection_px=hand.reprojection_px * view.zoom,
    )


def in_picture_pixels(hand: Result) -> Result:
    """Inverse of `in_view_pixels`: px of the picture as it was taken."""
    view = hand.view
    if view is None:
        return hand
    points, confidence = seen_there(view.to_camera(hand.keypoints), hand.confidence, -1.0)
    return replace(
        hand,
        keypoints=points,
        confidence=confidence,
        width=view.camera.size[0],
        K=view.camera.K,
        box=view.box_to_camera(hand.box),
        reprojection_px=hand.reprojection_px / view.zoom,
    )


def seen_there(points: np.ndarray, confidence: np.ndarray, unseen: float) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (21,2) px of another camera, confidence (21,): of those that it does not see none, at ``unseen``."""
    known = np.isfinite(points).all(axis=1)
    return np.where(known[:, None], points, unseen), np.where(known, confidence, 0)


def in_view(hand: Result) -> Result:
    """The hand in the frame and px of its view, if it has one."""
    view = hand.view
    return hand if view is None else replace(in_view_pixels(hand).moved(view.rotation.T), K=view.K)


def close_up(image: np.ndarray, hand: Result) -> tuple[np.ndarray, Result]:
    """Picture (H,W,3) and hand for drawing with a pinhole camera: as the perspective crop, if any, shows them."""
    return image if hand.view is None else hand.view.image(image), in_view(hand)


def draw_mesh(image: np.ndarray, hand: Result, colour: tuple[int, int, int], opacity: float) -> np.ndarray:
    """The picture (H,W,3) uint8, as it was taken, with the hand's mesh drawn in; only the pixels around it change."""
    view, vertices, K = hand.view, hand.vertices.astype(np.float64), hand.K
    if view is not None:
        vertices, K = vertices @ view.rotation, view.K
    if (vertices[:, 2] < 0.02).any():
        return image
    pixels = project_numpy(vertices, K)
    around = pixels if view is None else view.to_camera(pixels)
    window = _window(around[np.isfinite(around).all(axis=1)], image.shape[1], image.shape[0])
    if window is None:
        return image
    # What is drawn with a pinhole camera: that window itself, or all of the mesh in the view.
    left, top, right, bottom = window if view is None else _window(pixels, view.size, view.size) or (0, 0, 1, 1)
    K = transform_intrinsics(K, np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]]))
    layers = overlay.render_mesh(vertices, hand.faces, K, right - left, bottom - top, colour)
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
