"""A hand in camera space, on Matplotlib's 3D axes: x right, y down, depth z into the page, metres."""

from __future__ import annotations

import numpy as np
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

from utils.drawing.overlay import BOX_COLOUR, joint_colour
from utils.drawing.ray_casting import face_normals
from utils.joints import BONES

CAMERA_PLANE_DEPTH = 0.06  # metres; where the red rectangle of the field of view is drawn
LARGEST_SPACE = 100.0  # metres that the axes can hold; a hand further away is none
_MOST_TICKS = 12
_LAMP = np.array([0.3, -0.7, 0.8]) / np.linalg.norm([0.3, -0.7, 0.8])


def to_plot(points: np.ndarray) -> np.ndarray:
    """OpenCV camera frame (...,3), m, to the plot's axes: x, z, -y."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def draw_camera(axes: Axes3D, K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Red rectangle of the field of view near the camera, joined to its centre; returns its corners (4,3), m."""
    width, height = size
    pixels = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]])
    rays = np.column_stack([pixels, np.ones(4)]) @ np.linalg.inv(K).T
    corners = rays * CAMERA_PLANE_DEPTH
    colour = np.array(BOX_COLOUR) / 255
    axes.add_collection3d(Poly3DCollection([to_plot(corners)], facecolors=[(*colour, 0.15)], edgecolors=[colour]))
    lines = [to_plot(np.stack([np.zeros(3), corner])) for corner in corners]
    axes.add_collection3d(Line3DCollection(lines, colors=[colour], linewidths=0.8))
    return corners


def draw_mesh_in_space(
    axes: Axes3D,
    vertices: np.ndarray,
    faces: np.ndarray,
    colour: tuple[int, int, int],
    K: np.ndarray,
    size: tuple[int, int],
) -> None:
    """The mesh (V,3), metres, before the camera with intrinsics K (3,3) and image ``size`` (width, height)."""
    corners = draw_camera(axes, K, size)
    points = to_plot(vertices)
    normals = face_normals(points, faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    brightness = 0.45 + 0.55 * np.clip(normals @ _LAMP, 0, 1)
    shades = np.array(colour) / 255 * brightness[:, None]
    axes.add_collection3d(Poly3DCollection(points[faces], facecolors=shades, edgecolors=shades, linewidths=0.2))
    _frame(axes, np.concatenate([vertices, corners, np.zeros((1, 3))]), vertices)


def draw_pose_in_space(
    axes: Axes3D, joints: np.ndarray, extent: np.ndarray, K: np.ndarray, size: tuple[int, int]
) -> None:
    """The 21 joints, metres, with the fingers' colours; ``extent`` (N,3) are points the axes must hold too."""
    corners = draw_camera(axes, K, size)
    points = to_plot(joints)
    for parent, child in BONES:
        colour = np.array(joint_colour(child)) / 255
        axes.plot(*points[[parent, child]].T, color=colour, linewidth=2.2, solid_capstyle="round")
    colours = np.array([joint_colour(joint) for joint in range(len(joints))]) / 255
    axes.scatter(*points.T, c=colours, s=12, depthshade=False)
    _frame(axes, np.concatenate([joints, extent, corners, np.zeros((1, 3))]), extent)


def _frame(axes: Axes3D, points: np.ndarray, hand: np.ndarray) -> None:
    """Equal scale, ticks at round decimetres, and the hand's footprint on the floor as a depth cue.

    Raises:
        ValueError: the points are not finite, or span more than `LARGEST_SPACE`.
    """
    points = to_plot(points)
    if not np.isfinite(points).all() or np.abs(points).max() > LARGEST_SPACE:
        raise ValueError(f"a hand {np.abs(points).max():.3g} m from the camera cannot be drawn")
    low = np.floor(points.min(axis=0) / 0.1 - 0.05) * 0.1
    high = np.ceil(points.max(axis=0) / 0.1 + 0.05) * 0.1
    low[1] = 0.0
    shadow = to_plot(hand)
    axes.scatter(shadow[:, 0], shadow[:, 1], low[2], c="0.8", s=2, depthshade=False, zorder=0)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_zlim(low[2], high[2])
    axes.set_box_aspect(high - low, zoom=1.0)
    for axis, first, last in zip((axes.xaxis, axes.yaxis, axes.zaxis), low, high, strict=True):
        step = 0.1 if last - first < 0.55 else 0.2 * max(1, np.ceil((last - first) / (0.2 * _MOST_TICKS)))
        axis.set_ticks(np.round(np.arange(first, last + 1e-6, step), 1))
        axis.set_tick_params(labelsize=8, pad=0)
    axes.set_xlabel("x", labelpad=0)
    axes.set_ylabel("depth z", labelpad=4)
    above = 0.12 * (high[2] - low[2])  # beside the axis, the label would leave the panel
    axes.text(high[0], high[1], high[2] + above, "−y (up)", ha="center", va="bottom")
    axes.zaxis.set_ticks_position("upper")
    axes.view_init(elev=18, azim=-50)
