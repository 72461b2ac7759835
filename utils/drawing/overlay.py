"""Hands drawn into images: skeletons with a fixed colour for each finger, and shaded meshes.

Images are (H,W,3) uint8 RGB; pixel centres lie at integers (`utils.camera`). Nothing is drawn in
place: every function returns a new image.
"""

from __future__ import annotations

import cv2
import numpy as np

from utils.camera import crop_affine, transform_intrinsics
from utils.drawing.ray_casting import RayCaster, face_normals, interpolate, vertex_normals
from utils.joints import BONES, FINGER_OF_JOINT, FINGERS

#: RGB of each finger, the same in every picture; told apart with the common colour-vision deficiencies too.
FINGER_COLOURS: dict[str, tuple[int, int, int]] = {
    "thumb": (230, 75, 53),
    "index": (240, 170, 20),
    "middle": (35, 165, 95),
    "ring": (40, 140, 220),
    "little": (155, 85, 200),
}
WRIST_COLOUR = (90, 90, 90)
ANONYMOUS_COLOUR = (232, 142, 90)  # meshes made without an identity
IDENTITY_COLOUR = (70, 170, 190)  # meshes made with one
BOX_COLOUR = (225, 40, 40)

FIXED_BITS = 4  # OpenCV's fixed-point bits: sixteenths of a pixel


def joint_colour(joint: int) -> tuple[int, int, int]:
    """RGB of a joint of the standard order; a bone has the colour of its outer joint."""
    finger = FINGER_OF_JOINT[joint]
    return WRIST_COLOUR if finger < 0 else FINGER_COLOURS[FINGERS[finger]]


def fixed_point(point: np.ndarray) -> tuple[int, int]:
    """A point (2,), px, in OpenCV's fixed point."""
    limit = 2**14  # beyond it OpenCV's fixed point overflows; such a point is off every image anyway
    x, y = np.clip(point, -limit, limit)
    return int(round(float(x) * 2**FIXED_BITS)), int(round(float(y) * 2**FIXED_BITS))


def draw_skeleton(
    image: np.ndarray,
    keypoints_2d: np.ndarray,
    confidence: np.ndarray | None = None,
    thickness: int | None = None,
    minimum_confidence: float = 0.0,
) -> np.ndarray:
    """Draw the 21 joints and 20 bones, antialiased, outlined so that they show on any background.

    Args:
        image: (H,W,3) uint8 RGB.
        keypoints_2d: (21,2) pixels, standard order. Joints that are not finite are left out.
        confidence: (21,) or None; joints below ``minimum_confidence`` are left out with their bones.
        thickness: of the bones in pixels; None: by the image's size.
    """
    canvas = np.ascontiguousarray(image).copy()
    points = np.asarray(keypoints_2d, dtype=np.float64)
    shown = np.isfinite(points).all(axis=1)
    if confidence is not None:
        shown &= np.asarray(confidence) >= minimum_confidence
    if thickness is None:
        thickness = max(1, round(min(canvas.shape[:2]) / 110))
    radius = int(thickness * 1.3 * 2**FIXED_BITS)
    outline = max(2, thickness // 2)
    bones = [(parent, child) for parent, child in BONES if shown[parent] and shown[child]]
    for width, colours in ((thickness + outline, None), (thickness, joint_colour)):
        for parent, child in bones:
            colour = (20, 20, 20) if colours is None else colours(child)
            cv2.line(
                canvas, fixed_point(points[parent]), fixed_point(points[child]), colour, width, cv2.LINE_AA, FIXED_BITS
            )
    for joint in np.flatnonzero(shown):
        centre = fixed_point(points[joint])
        cv2.circle(canvas, centre, radius + (outline << (FIXED_BITS - 1)), (20, 20, 20), -1, cv2.LINE_AA, FIXED_BITS)
        cv2.circle(canvas, centre, radius, joint_colour(int(joint)), -1, cv2.LINE_AA, FIXED_BITS)
    return canvas


def draw_box(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Draw a square box (centre x, centre y, side), pixels, as of `utils.camera.square_box`."""
    canvas = np.ascontiguousarray(image).copy()
    centre, half = np.asarray(box[:2], dtype=np.float64), float(box[2]) / 2
    thickness = max(2, round(min(canvas.shape[:2]) / 160))
    cv2.rectangle(
        canvas, fixed_point(centre - half), fixed_point(centre + half), BOX_COLOUR, thickness, cv2.LINE_AA, FIXED_BITS
    )
    return canvas


def reduced(image: np.ndarray, longest: int) -> np.ndarray:
    """The image (H,W,3), averaged down to a longer side of ``longest`` px if it is larger."""
    factor = longest / max(image.shape[:2])
    size = tuple(max(1, round(factor * side)) for side in image.shape[1::-1])
    return image if factor >= 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def crop_view(
    image: np.ndarray, K: np.ndarray, box: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut ``box`` out of an image and scale it to ``size`` x ``size`` pixels, black outside the image.

    Returns:
        (size,size,3) image, (3,3) its intrinsics, (2,3) affine from image pixels to its pixels.
    """
    affine = crop_affine(box, size)
    flags = cv2.INTER_CUBIC if affine[0, 0] > 1 else cv2.INTER_LINEAR
    crop = cv2.warpAffine(np.ascontiguousarray(image), affine, (size, size), flags=flags)
    return crop, transform_intrinsics(K, affine), affine


def render_mesh(
    vertices: np.ndarray,
    faces: np.ndarray,
    K: np.ndarray,
    width: int,
    height: int,
    colour: tuple[int, int, int] | np.ndarray = IDENTITY_COLOUR,
    supersample: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Ray-cast a mesh with a light beside the camera.

    Args:
        vertices: (V,3) metres, OpenCV camera frame; a part behind the camera is simply not hit.
        faces: (F,3).
        K: (3,3) pixels.
        colour: one RGB, or (V,3) RGB for the vertices, 0..255.
        supersample: rays along each side of a pixel.

    Returns:
        (height,width,3) float32 RGB in 0..255, already multiplied by the coverage, and
        (height,width) float32 coverage in 0..1.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    factor = supersample
    finer = np.array([[factor, 0.0, (factor - 1) / 2], [0.0, factor, (factor - 1) / 2]])
    hits = RayCaster(vertices, faces).render(transform_intrinsics(K, finer), width * factor, height * factor)
    rows, columns = np.nonzero(hits.face >= 0)
    chosen = type(hits)(*(values[rows, columns] for values in hits))
    shaded = np.zeros((height * factor, width * factor, 3), np.float32)
    coverage = np.zeros((height * factor, width * factor), np.float32)
    if len(rows):
        # Brightness is of the vertices, of either side: where a triangle is seen from inside the hand, the inside's.
        normals = vertex_normals(vertices, faces)
        colours = np.broadcast_to(np.asarray(colour, np.float64), vertices.shape)
        lit = np.concatenate([colours * _light(vertices, side)[:, None] for side in (normals, -normals)])
        inside = (face_normals(vertices, faces) * vertices[faces[:, 0]]).sum(axis=1) > 0
        corners = faces + len(vertices) * inside[:, None]
        shaded[rows, columns] = interpolate(chosen, corners, lit.astype(np.float32))
        coverage[rows, columns] = 1.0
    size = (width, height)
    shaded = cv2.resize(shaded, size, interpolation=cv2.INTER_AREA)
    return np.clip(shaded, 0, 255), cv2.resize(coverage, size, interpolation=cv2.INTER_AREA)


def _light(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Brightness (N,) of points, m, with unit normals: ambient, and diffuse of a lamp up and left of the camera."""
    toward_camera = -points / np.linalg.norm(points, axis=1, keepdims=True)
    lamp = toward_camera + np.array([-0.6, -0.8, 0.0])
    lamp /= np.linalg.norm(lamp, axis=1, keepdims=True)
    return 0.35 + 0.75 * np.clip((normals * lamp).sum(axis=1), 0, 1)


def overlay_mesh(
    image: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    K: np.ndarray,
    colour: tuple[int, int, int] | np.ndarray = IDENTITY_COLOUR,
    opacity: float = 0.85,
) -> np.ndarray:
    """The image (H,W,3) with the mesh (m) drawn over it; arguments as `render_mesh`."""
    height, width = image.shape[:2]
    return blend(image, *render_mesh(vertices, faces, K, width, height, colour), opacity)


def blend(image: np.ndarray, shaded: np.ndarray, coverage: np.ndarray, opacity: float) -> np.ndarray:
    """The image (H,W,3) uint8 with what `render_mesh` made laid over it."""
    mixed = image * (1 - opacity * coverage[..., None]) + opacity * shaded
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def mesh_silhouette(vertices: np.ndarray, faces: np.ndarray, K: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H,W) bool mask of the pixels whose centre sees the mesh."""
    return RayCaster(np.asarray(vertices), faces).render(K, width, height).face >= 0


def draw_outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the contour lines of a bool mask (H,W), each pixel an element, white and two pixels wide."""
    canvas = np.ascontiguousarray(image).copy()
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, (255, 255, 255), 2, cv2.LINE_AA)
    return canvas
