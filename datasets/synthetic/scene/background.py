"""What stands still before one camera: table, room, standing objects; made once a sequence."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.synthetic.scene.appearance import to_linear
from datasets.synthetic.scene.cameras import IMAGE_HEIGHT, IMAGE_WIDTH

_TABLE_LOW, _TABLE_HIGH = np.array([-0.75, -0.55]), np.array([0.75, 0.65])  # metres, table frame
_TABLE_PIXELS = (600, 480)  # 2.5 mm each


def table_texture(generator: np.random.Generator) -> np.ndarray:
    """(480, 600, 3) float32 linear RGB of the table top, seen from above with y up the rows."""
    width, height = _TABLE_PIXELS
    colours = _muted(generator, 3)
    if generator.random() < 0.5:  # a grey or wooden one, as most tables are
        colours[0] = to_linear(generator.uniform(0.5, 1.2) * np.array([150, generator.integers(110, 150), 105]))
    texture = np.ones((height, width, 3), np.float32) * colours[0]
    kind = generator.integers(4)
    if kind == 1:  # grain
        grain = generator.normal(1, 0.25, (height // 4, 12)).astype(np.float32)
        texture *= cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    elif kind == 2:  # cloth with checks
        period = int(generator.integers(14, 60))
        checks = ((np.arange(height)[:, None] // period + np.arange(width) // period) % 2).astype(np.float32)
        texture += checks[..., None] * generator.uniform(0.2, 0.8) * (colours[1] - texture)
    elif kind == 3:  # clutter: papers and mats
        for _ in range(generator.integers(2, 7)):
            centre = tuple(map(float, generator.uniform((0, 0), (width, height))))
            size = tuple(map(float, generator.uniform(40, 160, 2)))
            corners = cv2.boxPoints((centre, size, float(generator.uniform(0, 180)))).astype(np.int32)
            cv2.fillPoly(texture, [corners], _muted(generator, 1)[0].tolist(), cv2.LINE_AA)
    for cells, spread in ((7, 0.15), (60, 0.06)):
        mottle = generator.normal(1, spread, (cells, cells)).astype(np.float32)
        texture *= cv2.resize(mottle, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    if generator.random() < 0.7:
        _draw_tag(texture, generator)
    return np.clip(texture, 0.01, 0.95)


def room_texture(generator: np.random.Generator) -> np.ndarray:
    """(480, 640, 3) float32 linear RGB of whatever is behind the table: blurred blobs and edges."""
    cells = generator.uniform(0.02, 0.45, (6, 8, 3)).astype(np.float32)
    grey = cells.mean(axis=2, keepdims=True)
    room = cv2.resize(grey + 0.5 * (cells - grey), (IMAGE_WIDTH // 4, IMAGE_HEIGHT // 4), interpolation=cv2.INTER_CUBIC)
    for _ in range(5):
        corner = generator.integers(0, 120, 2)
        extent = generator.integers(10, 80, 2)
        colour = _muted(generator, 1)[0].tolist()
        cv2.rectangle(room, tuple(map(int, corner)), tuple(map(int, corner + extent)), colour, -1)
    room = cv2.GaussianBlur(room, (0, 0), 1.2)
    return np.clip(cv2.resize(room, (IMAGE_WIDTH, IMAGE_HEIGHT), interpolation=cv2.INTER_LINEAR), 0.005, 0.95)


def view_table(
    table: np.ndarray, room: np.ndarray, K: np.ndarray, camera_to_table: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The empty table before a camera; K (3, 3) pixels, camera_to_table (4, 4) metres.

    Returns:
        float32 (480, 640, ...): linear RGB, unlit; how much of a pixel is table, 0..1; depth, metres, inf beyond it.
    """
    table_to_camera = np.linalg.inv(camera_to_table)
    metres = (_TABLE_HIGH - _TABLE_LOW) / _TABLE_PIXELS
    texture_to_table = np.array(
        [[metres[0], 0, _TABLE_LOW[0]], [0, -metres[1], _TABLE_HIGH[1]], [0, 0, 0], [0, 0, 1.0]]
    )
    homography = K @ (table_to_camera @ texture_to_table)[:3]
    size = (IMAGE_WIDTH, IMAGE_HEIGHT)
    colour = cv2.warpPerspective(table, homography, size, flags=cv2.INTER_LINEAR)
    is_table = cv2.warpPerspective(np.ones(table.shape[:2], np.float32), homography, size)
    colour = room * (1 - is_table[..., None]) + colour * 1.0
    # Plane z = 0 of the table frame along the rays (u, v, 1): depth = -origin_z / direction_z.
    row = camera_to_table[2, :3] @ np.linalg.inv(K)
    slope = row[0] * np.arange(IMAGE_WIDTH) + row[1] * np.arange(IMAGE_HEIGHT)[:, None] + row[2]
    depth = np.where(is_table > 0.5, -camera_to_table[2, 3] / np.minimum(slope, -1e-6), np.inf)
    return colour, is_table, depth.astype(np.float32)


def _muted(generator: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) linear RGB of random paint, mostly far from pure colours."""
    colours = generator.uniform(15, 240, (count, 3))
    grey = colours.mean(axis=1, keepdims=True)
    return to_linear(grey + generator.uniform(0.1, 0.9, (count, 1)) * (colours - grey))


def _draw_tag(texture: np.ndarray, generator: np.random.Generator) -> None:
    """A square black-and-white marker at the origin of the table frame."""
    cell = 3
    bits = generator.integers(0, 2, (6, 6)).astype(np.float32)
    tag = np.pad(np.pad(bits, 1, constant_values=0), 1, constant_values=1).repeat(cell, 0).repeat(cell, 1)
    metres = (_TABLE_HIGH - _TABLE_LOW) / _TABLE_PIXELS
    left, top = np.round([-_TABLE_LOW[0] / metres[0], _TABLE_HIGH[1] / metres[1]]).astype(int) - len(tag) // 2
    texture[top : top + len(tag), left : left + len(tag)] = 0.02 + 0.75 * tag[..., None]
