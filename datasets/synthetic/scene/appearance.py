"""Textures: skin with nails and creases, objects' labels, sleeves. All in linear RGB, float32.

The hand is textured by projecting its flat rest mesh along the palm's normal: one sheet for the
palm, one for the back, blended by which way the rest surface faces. So a nail is an ellipse
between two joints and a crease a line across a finger, at any resolution, for any hand of MANO's layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from utils.drawing.ray_casting import vertex_normals
from utils.joints import BONES

SKIN_SIZE = 320

#: sRGB of skin from light to dark; a person lies anywhere along this line.
_SKIN_TONES = np.array(
    [(246, 214, 190), (231, 184, 153), (214, 157, 120), (186, 127, 90), (140, 89, 60), (101, 63, 43), (74, 47, 35)]
)
_PALM_PINK = np.array([232, 160, 140])


@dataclass(frozen=True)
class SkinMap:
    """Where the hand's vertices and joints lie on the two square sheets."""

    uv: np.ndarray  # (778, 2) in [0, 1]
    backness: np.ndarray  # (778,) 0 palm ... 1 back
    joints: np.ndarray  # (21, 2) in texture pixels
    metres_to_pixels: float


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Linear RGB float32 in [0, 1] of sRGB values 0..255 (a plain 2.2 gamma)."""
    return (np.asarray(srgb, dtype=np.float32) / 255.0) ** 2.2


def make_skin_map(rest_vertices: np.ndarray, rest_joints: np.ndarray, faces: np.ndarray, is_left: bool) -> SkinMap:
    """Sheet coordinates from the flat rest hand: vertices (778, 3) and standard joints (21, 3), metres."""
    forward = unit(rest_joints[9] - rest_joints[0])
    across = rest_joints[5] - rest_joints[17]
    across = unit(across - forward * (across @ forward))
    back = np.cross(across, forward) if is_left else np.cross(forward, across)
    plane = np.stack([across, forward], axis=1)
    flat = rest_vertices @ plane
    low = flat.min(axis=0) - 0.006
    side = float((flat.max(axis=0) + 0.006 - low).max())
    facing = vertex_normals(rest_vertices, faces) @ back
    return SkinMap(
        uv=(flat - low) / side,
        backness=np.clip(0.5 + 0.9 * facing, 0, 1),
        joints=(rest_joints @ plane - low) / side * SKIN_SIZE,
        metres_to_pixels=SKIN_SIZE / side,
    )


def skin_tone(generator: np.random.Generator) -> np.ndarray:
    """Linear RGB (3,) of a random person's skin."""
    place = generator.random() * (len(_SKIN_TONES) - 1)
    low = min(int(place), len(_SKIN_TONES) - 2)
    srgb = _SKIN_TONES[low] + (place - low) * (_SKIN_TONES[low + 1] - _SKIN_TONES[low])
    return to_linear(np.clip(srgb + generator.normal(0, 4, 3), 20, 250))


def skin_sheets(skin_map: SkinMap, tone: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Palm and back, each (SKIN_SIZE, SKIN_SIZE, 3) linear RGB."""
    pink = to_linear(_PALM_PINK)
    palm_tone = tone + (0.25 + 0.3 * (1 - tone.mean())) * (pink * (0.5 + 0.5 * tone.mean() / pink.mean()) - tone)
    palm = np.ones((SKIN_SIZE, SKIN_SIZE, 3), np.float32) * palm_tone * 1.08
    back = np.ones((SKIN_SIZE, SKIN_SIZE, 3), np.float32) * tone
    for sheet in (palm, back):
        sheet *= _mottle(generator, 8, 0.06)[..., None] * _mottle(generator, 48, 0.05)[..., None]
    pixel = skin_map.metres_to_pixels
    red = np.array([1.06, 0.86, 0.82], np.float32)
    for joint in (4, 8, 12, 16, 20):
        _tint(palm, skin_map.joints[joint], 0.011 * pixel, red)
    for joint in (5, 9, 13, 17, 6, 10, 14, 18, 3):
        _tint(back, skin_map.joints[joint], 0.009 * pixel, red * 0.95)
    _draw_creases(palm, back, skin_map)
    _draw_nails(back, skin_map, tone)
    return palm, back


def finger_creases(joints: np.ndarray, pixel: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Of each knuckle of joints (21, 2) px, ``pixel`` px a metre: itself, its crease's centre, along and across it."""
    for parent, child in BONES:
        if child % 4 == 1 or parent == 0:  # the wrist's bones: the palm has its own lines
            continue
        along = unit(joints[child] - joints[parent])
        centre = joints[parent] + (along * 0.018 * pixel if parent % 4 == 1 else 0)
        yield joints[parent], centre, along, np.array([-along[1], along[0]])


def lines_of_palm(
    wrist: np.ndarray, index: np.ndarray, middle: np.ndarray, ring: np.ndarray, little: np.ndarray
) -> list[list[np.ndarray]]:
    """Thenar, head and heart line, four points (2,) each, from the wrist and the fingers' first joints (2,), px."""
    mix = lambda a, b, share: a + (b - a) * share  # noqa: E731 - a one-line lerp reads best here
    inner, outer = mix(middle, ring, 0.3), mix(index, middle, 0.5)
    thenar = [mix(index, wrist, 0.10), mix(middle, wrist, 0.35), mix(inner, wrist, 0.65), mix(ring, wrist, 0.9)]
    head = [mix(index, wrist, 0.12), mix(middle, wrist, 0.28), mix(ring, wrist, 0.38), mix(little, wrist, 0.50)]
    heart = [mix(outer, wrist, 0.02), mix(middle, wrist, 0.12), mix(ring, wrist, 0.18), mix(little, wrist, 0.16)]
    return [thenar, head, heart]


def _draw_creases(palm: np.ndarray, back: np.ndarray, skin_map: SkinMap) -> None:
    pixel, joints = skin_map.metres_to_pixels, skin_map.joints
    palm_lines, back_lines = np.zeros(palm.shape[:2], np.float32), np.zeros(back.shape[:2], np.float32)
    for joint, centre, along, across in finger_creases(joints, pixel):
        for shift in (-0.0012, 0.0012):
            middle = centre + along * shift * pixel
            _line(palm_lines, [middle + across * s * 0.011 * pixel for s in (-1, 1)], 0.0011 * pixel)
        for shift in (-0.0035, 0.0, 0.0035):
            middle = joint + along * shift * pixel
            _line(back_lines, [middle + across * s * 0.006 * pixel for s in (-1, 1)], 0.0011 * pixel)
    for line in lines_of_palm(*joints[[0, 5, 9, 13, 17]]):
        _line(palm_lines, line, 0.0016 * pixel)
    palm *= 1 - 0.38 * np.clip(cv2.GaussianBlur(palm_lines, (0, 0), 0.0007 * pixel), 0, 1)[..., None] * [0.8, 1, 1]
    back *= 1 - 0.28 * np.clip(cv2.GaussianBlur(back_lines, (0, 0), 0.0009 * pixel), 0, 1)[..., None] * [0.8, 1, 1]


def _draw_nails(back: np.ndarray, skin_map: SkinMap, tone: np.ndarray) -> None:
    pixel, joints = skin_map.metres_to_pixels, skin_map.joints
    nail = np.clip(tone * 0.65 + 0.35 * to_linear(np.array([250, 205, 195])), 0, 1)
    for tip in (4, 8, 12, 16, 20):
        along = unit(joints[tip] - joints[tip - 1])
        width = (0.0052 if tip == 4 else 0.0042 if tip < 20 else 0.0036) * pixel
        angle = float(np.degrees(np.arctan2(along[1], along[0])))
        for shift, length, colour in ((-0.0065, 0.0062, nail), (-0.0012, 0.0014, np.clip(nail * 1.35, 0, 0.95))):
            mask = np.zeros(back.shape[:2], np.float32)
            centre = joints[tip] + along * shift * pixel
            cv2.ellipse(mask, (tuple(map(float, centre)), (2 * length * pixel, 2 * width), angle), 1.0, -1, cv2.LINE_AA)
            mask = cv2.GaussianBlur(mask, (0, 0), 0.0004 * pixel)[..., None]
            back += mask * (colour - back)


def object_texture(ycb_id: int, colours: tuple[tuple[int, int, int], ...], size: int) -> np.ndarray:
    """(size, size, 3) linear RGB: the object's own print in its three colours, the same in every data set."""
    generator = np.random.default_rng(np.random.SeedSequence([ycb_id, 20201022]))
    base, second, third = to_linear(np.array(colours))
    texture = np.ones((size, size, 3), np.float32) * base
    low, high = sorted(generator.uniform(0.15, 0.85, 2))
    texture[int(low * size) : int(max(high, low + 0.2) * size)] = second
    for _ in range(10):
        corner = generator.integers(0, size, 2)
        extent = generator.integers(size // 24, size // 5, 2)
        colour = (third, base, second)[generator.integers(3)] * generator.uniform(0.7, 1.2)
        cv2.rectangle(texture, tuple(map(int, corner)), tuple(map(int, corner + extent)), colour.tolist(), -1)
    for _ in range(8):  # rows of "text"
        x, y = (int(value) for value in generator.integers(0, size - 20, 2))
        cv2.line(texture, (x, y), (x + int(generator.integers(8, 40)), y), third.tolist(), 2, cv2.LINE_AA)
    return np.clip(texture, 0.02, 0.9)


def cloth_texture(generator: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) linear RGB of a sleeve: plain, mottled, sometimes striped."""
    colours = to_linear(generator.integers(15, 230, (2, 3)))
    texture = np.ones((size, size, 3), np.float32) * colours[0]
    if generator.random() < 0.35:
        period = int(generator.integers(6, 20))
        stripes = (np.arange(size) // period) % 2 == 0
        texture[stripes] = colours[1]
    mottle = cv2.resize(generator.normal(1, 0.12, (size // 4, size // 4)).astype(np.float32), (size, size))
    return np.clip(texture * mottle[..., None], 0.01, 0.9)


def _mottle(generator: np.random.Generator, cells: int, spread: float) -> np.ndarray:
    noise = generator.normal(1.0, spread, (cells, cells)).astype(np.float32)
    return cv2.resize(noise, (SKIN_SIZE, SKIN_SIZE), interpolation=cv2.INTER_CUBIC)


def _tint(sheet: np.ndarray, centre: np.ndarray, radius: float, factor: np.ndarray) -> None:
    rows, columns = np.ogrid[: sheet.shape[0], : sheet.shape[1]]
    weight = np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / (2 * radius**2)).astype(np.float32)
    sheet *= 1 + weight[..., None] * (factor - 1)


def _line(mask: np.ndarray, points: list[np.ndarray], width: float) -> None:
    scaled = np.round(np.array(points) * 16).astype(np.int32)
    cv2.polylines(mask, [scaled], False, 1.0, max(1, round(width)), cv2.LINE_AA, shift=4)


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector (n,) scaled to length one."""
    return vector / np.linalg.norm(vector)
