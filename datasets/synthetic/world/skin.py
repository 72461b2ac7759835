"""Albedo of a person's hand and forearm: two sheets, palm and back, of the flat rest hand. Linear RGB, float32."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.synthetic.scene.appearance import finger_creases, lines_of_palm, skin_tone, to_linear, unit
from datasets.synthetic.world.mesh import HandSurface
from utils.drawing.ray_casting import vertex_normals

PIXELS_PER_METRE = 1900
_LOW, _HIGH = np.array([-0.20, -0.105]), np.array([0.25, 0.135])  # of x (along the arm) and z, metres; clamped beyond
HEIGHT, WIDTH = int(round((_HIGH[0] - _LOW[0]) * PIXELS_PER_METRE)), int(round((_HIGH[1] - _LOW[1]) * PIXELS_PER_METRE))
_TIPS = (4, 8, 12, 16, 20)
_KNUCKLES = (5, 9, 13, 17, 6, 10, 14, 18, 3, 7, 11, 15, 19)


@dataclass(frozen=True)
class SheetMap:
    """Where vertices and joints lie on the sheets."""

    pixels: np.ndarray  # (V, 2) x (across), y (along), px
    backness: np.ndarray  # (V,) 0 palm ... 1 back
    joints: np.ndarray  # (21, 2) px


@dataclass(frozen=True)
class Skin:
    """A person's albedo and gloss."""

    sheets: np.ndarray  # (2, HEIGHT, WIDTH, 3) palm, back; linear RGB
    gloss: np.ndarray  # (2, HEIGHT, WIDTH) 0..1: nails with varnish and metal shine
    tone: np.ndarray  # (3,)
    shine: float  # how oily
    nail: np.ndarray  # (3,) linear RGB of nails that are not painted on the sheets
    nail_gloss: float


def sheet_map(surface: HandSurface) -> SheetMap:
    """The map of a surface's rest pose: flat, palm down, wrist at the origin."""
    rest = surface.rest
    backness = surface.backness
    if backness is None:
        backness = np.clip(0.5 + 1.1 * vertex_normals(rest, surface.faces)[:, 1], 0, 1)
    return SheetMap(_to_pixels(rest), backness.astype(np.float32), _to_pixels(surface.rest_joints))


def _to_pixels(points: np.ndarray) -> np.ndarray:
    along, across = ((points[:, axis] - low) * PIXELS_PER_METRE for axis, low in ((0, _LOW[0]), (2, _LOW[1])))
    return np.stack([np.clip(across, 0, WIDTH - 1), np.clip(along, 0, HEIGHT - 1)], 1).astype(np.float32)


class _Painter:
    """Draws on the two sheets in metres."""

    def __init__(self, places: SheetMap, generator: np.random.Generator) -> None:
        self.joints, self.generator = places.joints.astype(np.float64), generator
        self.palm, self.back = (np.ones((HEIGHT, WIDTH, 3), np.float32) for _ in range(2))
        self.gloss = np.zeros((2, HEIGHT, WIDTH), np.float32)

    def mask(self, lines: list[tuple[np.ndarray, float]], blur: float) -> np.ndarray:
        """(H, W, 1) 0..1 of polylines (points px, width m)."""
        mask = np.zeros((HEIGHT, WIDTH), np.float32)
        for points, width in lines:
            scaled = np.round(np.asarray(points) * 16).astype(np.int32)
            cv2.polylines(mask, [scaled], False, 1.0, max(1, round(width * PIXELS_PER_METRE)), cv2.LINE_AA, shift=4)
        return cv2.GaussianBlur(mask, (0, 0), max(blur * PIXELS_PER_METRE, 0.3))[..., None]

    def mottle(self, metres: float, spread: float, channels: int = 1) -> np.ndarray:
        shape = (max(int(HEIGHT / PIXELS_PER_METRE / metres), 2), max(int(WIDTH / PIXELS_PER_METRE / metres), 2))
        noise = self.generator.normal(1, spread, (*shape, channels)).astype(np.float32)
        resized = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        return resized.reshape(HEIGHT, WIDTH, channels)


def paint_skin(places: SheetMap, generator: np.random.Generator, nails_too: bool = True) -> Skin:
    """A random person's hand; sometimes gloved, ringed, with a watch, varnish, hair, a tattoo."""
    painter = _Painter(places, generator)
    tone = np.clip(skin_tone(generator) * generator.normal(1, [0.06, 0.04, 0.06]), 0.008, 0.95).astype(np.float32)
    tone += generator.uniform(0, 0.4) * (tone.mean() - tone)
    if generator.random() < 0.035:
        return _glove(painter, generator)
    dark = 1 - float(tone.mean()) / 0.6
    pink = to_linear(np.array([232, 160, 140])) * (0.4 + 0.6 * min(tone.mean() / 0.35, 1.3))
    share = np.clip(generator.uniform(0.15, 0.45) + 0.25 * dark, 0, 0.7)
    painter.palm *= (tone + share * (pink - tone)) * generator.uniform(0.98, 1.2)
    painter.back *= tone
    for sheet in (painter.palm, painter.back):
        sheet *= painter.mottle(0.03, 0.05, 3) * painter.mottle(0.006, 0.04) * painter.mottle(0.0016, 0.03)
    _redden(painter, generator.uniform(0, 1.2))
    _draw_creases(painter, generator.uniform(0.25, 1.0), generator.uniform(0.15, 0.9))
    _draw_veins(painter, generator.uniform(0, 0.35))
    nail, nail_gloss = _nail_colour(tone, generator)
    if nails_too:
        _draw_nails(painter, nail, nail_gloss)
    if generator.random() < 0.45:
        _draw_hair(painter, tone, generator)
    _draw_marks(painter, generator)
    _draw_ornaments(painter, generator)
    sheets = np.clip(np.stack([painter.palm, painter.back]), 0.004, 0.95)
    return Skin(sheets, painter.gloss, tone, float(generator.uniform(0.02, 0.3)), nail, nail_gloss)


def _glove(painter: _Painter, generator: np.random.Generator) -> Skin:
    colour = to_linear(generator.uniform(10, 245, 3))
    end = generator.uniform(0.0, 0.06)
    tone = skin_tone(generator)
    rows = _to_pixels(np.array([[end, 0, 0]]))[0, 1]
    is_glove = (np.arange(HEIGHT) < rows)[:, None, None]
    sheets = np.where(is_glove, colour, tone).astype(np.float32)
    both = np.clip(np.stack([sheets * painter.mottle(0.004, 0.08)] * 2), 0.004, 0.95)
    colour = colour.astype(np.float32)
    return Skin(both, painter.gloss + float(generator.uniform(0, 0.3)), colour, 0.1, colour, 0.0)


def _redden(painter: _Painter, strength: float) -> None:
    red = np.array([1.05, 0.84, 0.82], np.float32)
    for sheet, numbers, radius in ((painter.palm, (*_TIPS, 5, 9, 13, 17, 2), 0.011), (painter.back, _KNUCKLES, 0.008)):
        weight = np.zeros((HEIGHT, WIDTH), np.float32)
        for number in numbers:
            cv2.circle(weight, tuple(int(v) for v in painter.joints[number]), int(radius * PIXELS_PER_METRE), 1.0, -1)
        weight = cv2.GaussianBlur(weight, (0, 0), 0.005 * PIXELS_PER_METRE)[..., None]
        sheet *= 1 + strength * weight * (red - 1)


def _draw_creases(painter: _Painter, strength: float, back_strength: float) -> None:
    joints, pixel, generator = painter.joints, PIXELS_PER_METRE, painter.generator
    palm, back, fine = [], [], []
    for joint, centre, along, across in finger_creases(joints, pixel):
        for shift in (-0.0013, 0.0013):
            middle = centre + along * (shift + generator.normal(0, 0.0005)) * pixel
            bow = along * generator.normal(0, 0.001) * pixel
            palm.append(([middle - across * 0.011 * pixel, middle + bow, middle + across * 0.011 * pixel], 0.0008))
        for shift in np.linspace(-0.005, 0.005, 5):
            middle = joint + along * (shift + generator.normal(0, 0.0007)) * pixel
            half = across * generator.uniform(0.003, 0.007) * pixel
            back.append(([middle - half, middle + along * shift * 0.2 * pixel, middle + half], 0.0007))
    moved = joints[[0, 1, 5, 9, 13, 17]] + generator.normal(0, 0.0025 * pixel, (6, 2))
    wrist, _, index, middle, ring, little = moved
    palm += zip(lines_of_palm(wrist, index, middle, ring, little), (0.0012, 0.001, 0.001), strict=True)
    for shift in (0.004, 0.010):  # the wrist's own creases
        start = wrist + np.array([-0.026, shift]) * pixel
        palm.append(([start, start + np.array([0.026, 0.002]) * pixel, start + np.array([0.052, 0.0]) * pixel], 0.0008))
    for _ in range(14):  # fine lines of the palm
        knuckle = index + (little - index) * generator.random()
        start = knuckle + (wrist - knuckle) * generator.uniform(0.1, 0.9)
        fine.append(([start, start + generator.normal(0, 0.009, 2) * pixel], 0.0006))
    dark = np.array([0.8, 1, 1], np.float32)
    painter.palm *= 1 - 0.6 * strength * np.clip(painter.mask(palm, 0.0006), 0, 1) * dark
    painter.palm *= 1 - 0.3 * strength * np.clip(painter.mask(fine, 0.0005), 0, 1) * dark
    painter.back *= 1 - 0.4 * back_strength * np.clip(painter.mask(back, 0.0006), 0, 1) * dark


def _draw_veins(painter: _Painter, strength: float) -> None:
    generator = painter.generator
    for sheet, start_x in ((painter.back, (-0.06, 0.0)), (painter.palm, (0.0, 0.05))):
        lines = []
        for _ in range(generator.integers(3, 7)):
            along = np.linspace(generator.uniform(*start_x), 0.28, 9)
            across = generator.uniform(-0.028, 0.03) + np.cumsum(generator.normal(0, 0.005, 9)) * 0.8
            lines.append((_to_pixels(np.stack([along, np.zeros(9), across], 1)), 0.0022))
        weight = painter.mask(lines, 0.0014)
        sheet *= 1 - strength * np.clip(weight, 0, 1) * np.array([0.75, 0.35, 0.2], np.float32)


def _nail_colour(tone: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """Linear RGB (3,) and gloss, with and without varnish."""
    if generator.random() < 0.2:
        bright = 1 if generator.random() < 0.7 else 0.15
        return (to_linear(generator.uniform(0, 255, 3) * bright) + 0.003).astype(np.float32), 0.9
    share = generator.uniform(0.25, 0.5)
    nail = tone * (1 - share) + share * to_linear(np.array([250, 200, 190]))
    return np.clip(nail, 0, 1).astype(np.float32), 0.35


def _draw_nails(painter: _Painter, nail: np.ndarray, gloss: float) -> None:
    generator, pixel = painter.generator, PIXELS_PER_METRE
    free = generator.uniform(0.0005, 0.004) if generator.random() < 0.8 else generator.uniform(0.004, 0.009)
    for tip in _TIPS:
        along = unit(painter.joints[tip] - painter.joints[tip - 1])
        width = (0.0058 if tip == 4 else 0.0048 if tip < 20 else 0.004) * pixel
        angle = float(np.degrees(np.arctan2(along[1], along[0])))
        tip_colour = nail if gloss > 0.5 else np.clip(nail * 1.3 + 0.03, 0, 0.95)
        for shift, length, colour in ((-0.0055, 0.0064, nail), (0.0005, free, tip_colour)):
            mask = np.zeros((HEIGHT, WIDTH), np.float32)
            centre = painter.joints[tip] + along * shift * pixel
            cv2.ellipse(mask, (tuple(map(float, centre)), (2 * length * pixel, 2 * width), angle), 1.0, -1, cv2.LINE_AA)
            mask = cv2.GaussianBlur(mask, (0, 0), 0.0004 * pixel)
            painter.back += mask[..., None] * (colour - painter.back)
            painter.gloss[1] = np.maximum(painter.gloss[1], mask * gloss)


def _draw_hair(painter: _Painter, tone: np.ndarray, generator: np.random.Generator) -> None:
    lines, pixel = [], PIXELS_PER_METRE
    for _ in range(int(generator.uniform(100, 900))):
        start = np.array([generator.uniform(0.0, 0.29), 0, generator.uniform(-0.05, 0.05)])
        if generator.random() < 0.25:
            start[0] = generator.uniform(-0.07, 0)
        first = _to_pixels(start[None])[0]
        lines.append(([first, first + generator.normal([-0.002, 0.005], [0.002, 0.002]) * pixel], 0.0003))
    colour = to_linear(np.array([60, 40, 25]) * generator.uniform(0.3, 1.8))
    weight = np.clip(painter.mask(lines, 0.0003), 0, 1) * generator.uniform(0.15, 0.7)
    painter.back += weight * (np.minimum(colour, tone * 0.7).astype(np.float32) - painter.back)


def _draw_marks(painter: _Painter, generator: np.random.Generator) -> None:
    """Moles, freckles, now and then a tattoo or a plaster."""
    for sheet, most in ((painter.back, 30), (painter.palm, 4)):
        for _ in range(generator.integers(0, most)):
            centre = tuple(int(v) for v in generator.uniform((0, 0), (WIDTH, HEIGHT)))
            size, colour = int(generator.integers(1, 3)), (sheet.mean((0, 1)) * 0.45).tolist()
            cv2.circle(sheet, centre, size, colour, -1, cv2.LINE_AA)
    if generator.random() < 0.06:
        sheet = painter.back if generator.random() < 0.7 else painter.palm
        colour = to_linear(generator.uniform(10, 90, 3))
        base = _to_pixels(np.array([[generator.uniform(-0.06, 0.2), 0, generator.uniform(-0.03, 0.03)]]))[0]
        lines = [(base + np.cumsum(generator.normal(0, 0.008, (6, 2)), 0) * PIXELS_PER_METRE, 0.002) for _ in range(4)]
        sheet += 0.8 * np.clip(painter.mask(lines, 0.0005), 0, 1) * (colour - sheet)


def _draw_ornaments(painter: _Painter, generator: np.random.Generator) -> None:
    metals = to_linear(np.array([(250, 205, 110), (215, 215, 220), (235, 175, 150), (60, 60, 65)]))
    for _ in range(generator.choice([0, 1, 2, 3], p=[0.62, 0.2, 0.12, 0.06])):
        finger = generator.choice(5, p=[0.08, 0.2, 0.22, 0.35, 0.15])
        first, second = painter.joints[1 + 4 * finger], painter.joints[2 + 4 * finger]
        along = unit(second - first)
        centre = first + (second - first) * generator.uniform(0.45, 0.8)
        half = np.array([-along[1], along[0]]) * 0.013 * PIXELS_PER_METRE
        width = generator.uniform(0.0018, 0.006)
        _band(painter, [centre - half, centre + half], width, metals[generator.integers(4)], 1.0)
    if generator.random() < 0.22:  # a watch or a bracelet
        place, width = generator.uniform(0.025, 0.07), generator.uniform(0.004, 0.026)
        row = _to_pixels(np.array([[place, 0, 0]]))[0]
        colour = to_linear(generator.uniform(5, 230, 3)) if generator.random() < 0.6 else metals[generator.integers(4)]
        _band(painter, [np.array([0, row[1]]), np.array([WIDTH - 1.0, row[1]])], width, colour, 0.3)
        if width > 0.012:
            face = to_linear(generator.uniform(0, 255, 3) * generator.uniform(0.1, 1))
            radius = int(generator.uniform(0.012, 0.019) * PIXELS_PER_METRE)
            cv2.circle(painter.back, tuple(int(v) for v in row), radius, face.tolist(), -1, cv2.LINE_AA)
            cv2.circle(painter.back, tuple(int(v) for v in row), radius, metals[1].tolist(), 2, cv2.LINE_AA)


def _band(painter: _Painter, ends: list[np.ndarray], width: float, colour: np.ndarray, gloss: float) -> None:
    mask = np.clip(painter.mask([(np.array(ends), width)], 0.0003), 0, 1)
    for number, sheet in enumerate((painter.palm, painter.back)):
        sheet += mask * (colour.astype(np.float32) - sheet)
        painter.gloss[number] = np.maximum(painter.gloss[number], mask[..., 0] * gloss)
