"""The demo's pictures: one hand in its image and in space, and one identity beside others.

Matplotlib's object interface with the Agg canvas: no display, no global state. `demo_figure` and
`identity_figure` write a file, atomically, whose suffix chooses the format (.jpg, .png, ...).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from utils.camera import transform_points
from utils.drawing import overlay
from utils.drawing.space_axes import draw_mesh_in_space, draw_pose_in_space
from utils.files import atomic_path
from utils.joints import FINGERS

PANEL_INCHES = 4.0
DPI = 100
CROP_PIXELS = 480
_LONGEST = 1600  # side of an image in a figure, px: Matplotlib takes many bytes for each pixel it is given
TITLE = {"fontsize": 12, "loc": "left", "pad": 6}


@dataclass
class HandView:
    """One reconstruction of the hand in an image.

    Attributes:
        title: e.g. "without identity".
        vertices: (V,3) and joints: (21,3) metres, OpenCV camera frame.
        error_mm: of the mesh, printed behind the title; None where the truth is unknown.
        colour: RGB of the mesh.
    """

    title: str
    vertices: np.ndarray
    joints: np.ndarray
    error_mm: float | None = None
    colour: tuple[int, int, int] = overlay.IDENTITY_COLOUR


@dataclass
class ShapeView:
    """One zero-pose hand of `identity_figure`: vertices (V,3), joints (21,3), metres, wrist at the origin.

    ``lines`` are written under it, in a fixed-width font.
    """

    title: str
    vertices: np.ndarray
    joints: np.ndarray
    lines: Sequence[str]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` x ``height`` inches on the Agg canvas."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(path: str | os.PathLike, figure: Figure) -> None:
    """Write a figure, atomically."""
    with atomic_path(path) as temporary:
        options = {"pil_kwargs": {"quality": 92}} if temporary.suffix in (".jpg", ".jpeg") else {}
        figure.savefig(temporary, dpi=DPI, **options)


def demo_figure(
    path: str | os.PathLike,
    image: np.ndarray,
    K: np.ndarray,
    faces: np.ndarray,
    hands: Sequence[HandView],
    box: np.ndarray,
    keypoints_2d: np.ndarray,
    keypoint_confidence: np.ndarray,
    true_vertices: np.ndarray | None = None,
    close_silhouette: np.ndarray | None = None,
    title: str = "",
) -> None:
    """Draw one hand: image and box, 2D pose, each projected mesh, and the last of ``hands`` in camera space.

    Args:
        image: (H,W,3) uint8 RGB; K: (3,3) its intrinsics, pixels.
        faces: (F,3).
        hands: reconstructions, in the order of their panels; the usual two are "without identity"
            (`overlay.ANONYMOUS_COLOUR`) and "with identity".
        box: (centre x, centre y, side) pixels, to which the other panels zoom.
        keypoints_2d: (21,2) pixels.
        keypoint_confidence: (21,) in [0,1]; joints under 0.1 are left out.
        true_vertices: (V,3) metres, drawn as a white outline over the meshes.
        close_silhouette: (CROP_PIXELS, CROP_PIXELS) bool mask, of `crop_affine(box, CROP_PIXELS)`: one more panel.
    """
    height, width = image.shape[:2]
    crop, crop_K, affine = overlay.crop_view(image, K, box, CROP_PIXELS)
    pose_2d = overlay.draw_skeleton(crop, transform_points(keypoints_2d, affine), keypoint_confidence, None, 0.1)

    flat = [("image", overlay.reduced(overlay.draw_box(image, box), _LONGEST))]
    if close_silhouette is not None:
        flat.append(("silhouette", np.repeat(close_silhouette[..., None].astype(np.uint8) * 255, 3, axis=2)))
    flat.append(("2D pose", pose_2d))
    for hand in hands:
        drawn = overlay.overlay_mesh(crop, hand.vertices, faces, crop_K, hand.colour)
        if true_vertices is not None:
            truth = overlay.mesh_silhouette(true_vertices, faces, crop_K, CROP_PIXELS, CROP_PIXELS)
            drawn = overlay.draw_outline(drawn, truth)
        error = "" if hand.error_mm is None else f": {hand.error_mm:.1f} mm"
        flat.append((f"mesh {hand.title}{error}", drawn))

    figure, cells = _panel_grid(len(flat) + 2)
    for cell, (name, picture) in zip(cells, flat, strict=False):  # two cells more, for the views in space
        axes = figure.add_axes(cell)
        axes.imshow(picture)
        axes.set_anchor("NW")  # titles of one row in one line, whatever the pictures' shapes
        axes.set_axis_off()
        axes.set_title(name, **TITLE)
    last = hands[-1]
    mesh_axes, pose_axes = (figure.add_axes(cell, projection="3d", computed_zorder=False) for cell in cells[-2:])
    draw_mesh_in_space(mesh_axes, last.vertices, faces, last.colour, K, (width, height))
    draw_pose_in_space(pose_axes, last.joints, last.vertices, K, (width, height))
    for cell, name in zip(cells[-2:], ("mesh", "pose"), strict=True):
        baseline = cell[1] + cell[3] + TITLE["pad"] / 72 / figure.get_figheight()
        figure.text(cell[0], baseline, f"{name} in camera space (m)", fontsize=TITLE["fontsize"])
    handles = [Patch(color=np.array(overlay.FINGER_COLOURS[finger]) / 255, label=finger) for finger in FINGERS]
    figure.legend(handles=handles, loc="lower center", ncols=len(FINGERS), frameon=False, fontsize=11)
    figure.suptitle(title, fontsize=14, x=0.01, ha="left", parse_math=False)  # file names may hold $
    save_figure(path, figure)


def identity_figure(
    path: str | os.PathLike,
    shapes: Sequence[ShapeView],
    faces: np.ndarray,
    true_vertices: np.ndarray,
    title: str = "",
) -> None:
    """Zero-pose hands side by side, at one scale, each with its lengths; coloured by distance to the truth.

    Args:
        shapes: e.g. true, calibrated, mean shape, each with the wrist at the origin
            (`src.evaluation.shape.rest_hand`).
        faces: (F,3).
        true_vertices: (V,3) metres, wrist at the origin. The colours end at the largest error, or 1 mm.
    """
    errors = [np.linalg.norm(shape.vertices - true_vertices, axis=1) * 1000 for shape in shapes]
    scale = ScalarMappable(Normalize(0.0, max(1.0, *(float(error.max()) for error in errors))), "YlOrRd")
    below = 0.18 * max(len(shape.lines) for shape in shapes)  # inches; the layout sees only part of the lines
    height = 5.2 + below
    figure = new_figure(len(shapes) * 3.2 + 1.0, height)
    figure.get_layout_engine().set(rect=(0, 0.4 * below / height, 1, 1 - 0.4 * below / height))
    flat = [_palm_frame(shape.joints) for shape in shapes]
    low = np.min([(shape.vertices @ axes.T).min(axis=0) for shape, axes in zip(shapes, flat, strict=True)], axis=0)
    high = np.max([(shape.vertices @ axes.T).max(axis=0) for shape, axes in zip(shapes, flat, strict=True)], axis=0)
    # A nearly orthographic view; the axes' data unit is millimetres, the same extent for every hand.
    margin, distance, pixels_per_metre = 0.012, 20.0, 2000.0
    extent = np.array([low[0] - margin, high[0] + margin, low[1] - margin, high[1] + margin])
    size = [int((extent[1] - extent[0]) * pixels_per_metre), int((extent[3] - extent[2]) * pixels_per_metre)]
    focal = pixels_per_metre * distance
    K = np.array(
        [
            [focal, 0.0, -extent[0] * pixels_per_metre - 0.5],
            [0.0, focal, -extent[2] * pixels_per_metre - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )
    all_axes = figure.subplots(1, len(shapes), squeeze=False)[0]
    for axes, shape, frame, error in zip(all_axes, shapes, flat, errors, strict=True):
        points = shape.vertices @ frame.T + [0.0, 0.0, distance]
        shaded, coverage = overlay.render_mesh(points, faces, K, size[0], size[1], scale.to_rgba(error)[:, :3] * 255)
        picture = shaded + 255 * (1 - coverage[..., None])
        axes.imshow(picture.astype(np.uint8), extent=1000 * extent[[0, 1, 3, 2]])
        joints = 1000 * shape.joints @ frame.T
        wrist, tip, side = joints[0], joints[12], 1000 * (high[0] + margin / 2)
        axes.annotate("", (side, tip[1]), (side, wrist[1]), arrowprops={"arrowstyle": "<->", "color": "0.2"})
        for end in (wrist, tip):
            axes.plot([end[0], side], [end[1], end[1]], color="0.6", linewidth=0.8, linestyle=":")
        where = {"transform": axes.transAxes, "ha": "center", "va": "top", "multialignment": "left"}
        axes.text(0.5, -0.03, "\n".join(shape.lines), family="monospace", **where)
        axes.set_axis_off()
        name = f"{shape.title}: {error.mean():.1f} mm off" if error.any() else shape.title
        axes.set_title(name, fontsize=12)
    figure.colorbar(scale, ax=list(all_axes), label="distance to the true surface point (mm)", shrink=0.8)
    figure.suptitle(title, fontsize=14, x=0.01, ha="left", parse_math=False)  # file names may hold $
    save_figure(path, figure)


def _panel_grid(panels: int) -> tuple[Figure, list[tuple[float, float, float, float]]]:
    """A figure and the rectangles (left, bottom, width, height; fractions) of ``panels`` square cells.

    Laid out by hand: Matplotlib's layout engines give 3D axes either too much room or none.
    """
    columns = 3 if panels <= 6 else 4
    rows = -(-panels // columns)
    gap, top, title, bottom = 0.15, 0.4, 0.35, 0.4  # inches
    width = columns * PANEL_INCHES + (columns + 1) * gap
    height = top + rows * (PANEL_INCHES + title) + bottom
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    cells = []
    for panel in range(panels):
        row, column = divmod(panel, columns)
        left = gap + column * (PANEL_INCHES + gap)
        low = height - top - (row + 1) * (PANEL_INCHES + title)
        cells.append((left / width, low / height, PANEL_INCHES / width, PANEL_INCHES / height))
    return figure, cells


def _palm_frame(joints: np.ndarray) -> np.ndarray:
    """Rotation (3,3) whose rows are right, down and away of a view on the back of a flat right hand, fingers up."""
    up = joints[12] - joints[0]
    up = up / np.linalg.norm(up)
    across = joints[17] - joints[5]  # index to little finger: to the right when a right hand's back is seen
    across = across - (across @ up) * up
    across = across / np.linalg.norm(across)
    return np.stack([across, -up, np.cross(across, -up)])
