"""Where a joint of a METRO network looks: lines from it to the mesh's vertices, as in its paper's figures."""

from __future__ import annotations

import cv2
import numpy as np

from utils.camera import project_numpy
from utils.drawing.overlay import FIXED_BITS, fixed_point, joint_colour, overlay_mesh

#: Joints shown, by name: standard order.
SHOWN = {"wrist": 0, "thumb tip": 4, "index tip": 8, "little tip": 20}
_LINES = 40
_MESH = (150, 150, 150)
_TEXT = (255, 255, 255)


def draw_attention(
    image: np.ndarray,
    vertices: np.ndarray,
    joints: np.ndarray,
    faces: np.ndarray,
    K: np.ndarray,
    attention: np.ndarray,
    joint: int,
) -> np.ndarray:
    """One joint's attention over a dimmed image with the mesh: the brighter a vertex, the larger its share.

    Lines lead to the `_LINES` vertices with the largest shares.

    Args:
        image: (H, W, 3) uint8 RGB.
        vertices, joints: (778, 3) and (21, 3), metres, camera frame; faces: (F, 3).
        K: (3, 3) px of the image.
        attention: (21, 778), zero at vertices that are not looked at; only proportions count.
        joint: whose, standard order.

    Returns:
        (H, W, 3) uint8.
    """
    canvas = overlay_mesh((image * 0.45).astype(np.uint8), vertices, faces, K, _MESH, 0.6).astype(np.float32)
    share = attention[joint] / max(float(attention[joint].max()), 1e-12)
    points, start = project_numpy(vertices, K), project_numpy(joints[joint], K)
    thickness = max(1, round(min(image.shape[:2]) / 200))
    colour = np.array(joint_colour(joint) if joint else (250, 250, 90), np.float32)
    order = np.argsort(share)[(share <= 0).sum() :]  # the strongest last, on top
    for place, vertex in enumerate(order):
        drawn = np.zeros(image.shape[:2], np.uint8)
        end = fixed_point(points[vertex])
        if place >= len(order) - _LINES:
            cv2.line(drawn, fixed_point(start), end, 255, thickness, cv2.LINE_AA, FIXED_BITS)
        cv2.circle(drawn, end, int((1 + thickness) * 2**FIXED_BITS), 255, -1, cv2.LINE_AA, FIXED_BITS)
        opacity = float(share[vertex]) * (drawn / np.float32(255))[..., None]
        canvas = canvas * (1 - opacity) + opacity * colour
    canvas = np.clip(np.round(canvas), 0, 255).astype(np.uint8)
    cv2.circle(canvas, fixed_point(start), int((2 + thickness) * 2**FIXED_BITS), _TEXT, -1, cv2.LINE_AA, FIXED_BITS)
    return canvas


def attention_grid(
    image: np.ndarray,
    vertices: np.ndarray,
    joints: np.ndarray,
    faces: np.ndarray,
    K: np.ndarray,
    attention: np.ndarray,
) -> np.ndarray:
    """`draw_attention` of the joints `SHOWN`, two beside each other, each with its name; (2 H, 2 W, 3)."""
    cells = []
    for name, joint in SHOWN.items():
        cell = draw_attention(image, vertices, joints, faces, K, attention, joint)
        scale = cell.shape[0] / 440
        where = (round(10 * scale), round(28 * scale))
        cells.append(cv2.putText(cell, name, where, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, _TEXT, 1, cv2.LINE_AA))
    return np.vstack([np.hstack(cells[row : row + 2]) for row in range(0, len(cells), 2)])
