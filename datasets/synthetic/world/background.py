"""Procedural backgrounds of wide spectrum, and things that are like hands but none: faces, arms, blobs of skin."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.synthetic.scene.appearance import skin_tone

SIDE = 256
"""Side of a background, px."""


def random_background(generator: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8 RGB; no hand is in it."""
    shares = np.array([share for _, share in _PAINTERS])
    painter, _ = _PAINTERS[generator.choice(len(_PAINTERS), p=shares / shares.sum())]
    picture = np.ascontiguousarray(painter(generator), dtype=np.float32)
    if generator.random() < 0.25:
        _limb(picture, generator)
    if generator.random() < 0.35:
        picture = cv2.GaussianBlur(picture, (0, 0), float(np.exp(generator.uniform(np.log(0.6), np.log(9)))))
    if generator.random() < 0.6:
        picture *= _light(generator)[..., None]
    if generator.random() < 0.5:
        picture += generator.normal(0, generator.uniform(1, 7), (SIDE, SIDE, 1)).astype(np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _colour(generator: np.random.Generator) -> np.ndarray:
    """(3,) float32 sRGB 0..255, mostly muted, sometimes near white or black."""
    colour = generator.uniform(10, 245, 3)
    kind = generator.random()
    if kind < 0.25:
        colour = generator.uniform(150, 250) + generator.normal(0, 6, 3)
    elif kind < 0.35:
        colour = generator.uniform(5, 50) + generator.normal(0, 5, 3)
    else:
        colour = colour.mean() + generator.uniform(0.05, 1.0) ** 2 * (colour - colour.mean())
    return colour.clip(0, 255).astype(np.float32)


def _spectrum_noise(generator: np.random.Generator, slope: float, channels: int = 1) -> np.ndarray:
    """(SIDE, SIDE, channels) noise of unit variance whose amplitude falls as frequency**-slope."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = 1
    shape = (channels, SIDE, SIDE // 2 + 1)
    white = generator.normal(size=shape) + 1j * generator.normal(size=shape)
    field = np.fft.irfft2(white * (frequency > 0) * frequency**-slope, s=(SIDE, SIDE))
    field -= field.mean(axis=(1, 2), keepdims=True)
    return (field / field.std(axis=(1, 2), keepdims=True)).transpose(1, 2, 0).astype(np.float32)


def _light(generator: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE) a slope, a vignette or a soft shadow's edge."""
    y, x = (np.mgrid[:SIDE, :SIDE] / SIDE - 0.5).astype(np.float32)
    angle, strength = generator.uniform(0, 2 * np.pi), generator.uniform(0, 0.8)
    slope = 1 + strength * (x * np.cos(angle) + y * np.sin(angle))
    if generator.random() < 0.5:
        centre = generator.normal(0, 0.15, 2)
        slope *= 1.15 - generator.uniform(0, 1.4) * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2)
    if generator.random() < 0.25:
        edge = (x * np.cos(angle) + y * np.sin(angle) - generator.normal(0, 0.2)) / np.exp(generator.uniform(-5, -1.5))
        slope *= 1 - generator.uniform(0.1, 0.6) / (1 + np.exp(-edge.clip(-30, 30)))
    return slope.clip(0.05)


def _plain(generator: np.random.Generator) -> np.ndarray:
    return np.ones((SIDE, SIDE, 3), np.float32) * _colour(generator)


def _wall(generator: np.random.Generator) -> np.ndarray:
    picture = _plain(generator) * _light(generator)[..., None]
    picture += generator.uniform(0, 8) * _spectrum_noise(generator, generator.uniform(0.5, 2))
    picture = np.ascontiguousarray(picture, dtype=np.float32)
    for _ in range(generator.integers(0, 4)):
        if generator.random() < 0.5:
            _line(picture, generator)
    return picture


def _spectrum(generator: np.random.Generator) -> np.ndarray:
    field = _spectrum_noise(generator, generator.uniform(0.7, 1.9), 3)
    grey = field.mean(axis=2, keepdims=True)
    field = grey * 1.6 + generator.uniform(0, 1) ** 2 * (field - grey)
    return _colour(generator) + generator.uniform(15, 70) * field


def _room(generator: np.random.Generator) -> np.ndarray:
    picture = _wall(generator)
    floor = int(generator.uniform(0.45, 1.1) * SIDE)
    if floor < SIDE:
        picture[floor:] = (_weave if generator.random() < 0.5 else _plain)(generator)[floor:]
    for _ in range(generator.integers(3, 16)):
        corner, extent = generator.uniform(-20, SIDE, 2), np.exp(generator.uniform(np.log(8), np.log(130), 2))
        _box(picture, generator, corner, extent, generator.normal(0, 4) if generator.random() < 0.8 else 40)
    return picture


def _box(
    picture: np.ndarray, generator: np.random.Generator, corner: np.ndarray, extent: np.ndarray, turn: float
) -> None:
    points = cv2.boxPoints((tuple(map(float, corner)), tuple(map(float, extent)), float(turn))).astype(np.int32)
    colour = _colour(generator)
    cv2.fillPoly(picture, [points], colour.tolist(), cv2.LINE_AA)
    if generator.random() < 0.5:
        cv2.polylines(picture, [points], True, (colour * generator.uniform(0.3, 1.5)).tolist(), 1, cv2.LINE_AA)
    if generator.random() < 0.3:  # a lit side
        half = points.copy()
        half[2:] = (points[2:] + points[1::-1]) // 2
        cv2.fillPoly(picture, [half], (colour * generator.uniform(0.6, 1.3)).clip(0, 255).tolist(), cv2.LINE_AA)


def _line(picture: np.ndarray, generator: np.random.Generator) -> None:
    ends = generator.integers(-20, SIDE + 20, (2, 2))
    thickness = int(np.exp(generator.uniform(0, 2)))
    first, last = (tuple(map(int, end)) for end in ends)
    cv2.line(picture, first, last, _colour(generator).tolist(), thickness, cv2.LINE_AA)


def _shapes(generator: np.random.Generator) -> np.ndarray:
    picture = np.ascontiguousarray((_plain if generator.random() < 0.5 else _spectrum)(generator), dtype=np.float32)
    for _ in range(generator.integers(4, 40)):
        centre, size = generator.uniform(0, SIDE, 2), np.exp(generator.uniform(np.log(3), np.log(90), 2))
        kind = generator.integers(4)
        if kind == 0:
            _box(picture, generator, centre, size, generator.uniform(0, 180))
        elif kind == 1:
            axes = (tuple(map(float, centre)), tuple(map(float, size)), float(generator.uniform(0, 180)))
            cv2.ellipse(picture, axes, _colour(generator).tolist(), -1 if generator.random() < 0.8 else 2, cv2.LINE_AA)
        elif kind == 2:
            _line(picture, generator)
        else:
            curve = centre + np.cumsum(generator.normal(0, size.mean() / 3, (8, 2)), axis=0)
            width = int(generator.integers(1, 14))
            cv2.polylines(picture, [curve.astype(np.int32)], False, _colour(generator).tolist(), width, cv2.LINE_AA)
    return picture


def _weave(generator: np.random.Generator) -> np.ndarray:
    """Wood, cloth, tiles, stripes, grass."""
    first, second = _colour(generator), _colour(generator)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    angle = generator.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind, period = generator.integers(4), np.exp(generator.uniform(np.log(3), np.log(60)))
    wobble = generator.uniform(0, 6) * _spectrum_noise(generator, 1.5)[..., 0]
    if kind == 0:
        share = 0.5 + 0.5 * np.sin((u + wobble) * 2 * np.pi / period)
    elif kind == 1:
        share = ((np.floor((u + wobble) / period) + np.floor(v / period)) % 2).astype(np.float32)
    elif kind == 2:
        joint = np.minimum(u % period, v % (period * generator.uniform(0.5, 3)))
        share = np.clip(joint / max(period * 0.05, 0.7), 0, 1)
    else:
        noise = _spectrum_noise(generator, generator.uniform(0.2, 1.0))[..., 0]
        share = 0.5 + 0.3 * cv2.blur(noise, (int(generator.integers(1, 25)), 1))
    share = share * generator.uniform(0.1, 1)
    return first + share[..., None].astype(np.float32) * (second - first)


def _page(generator: np.random.Generator) -> np.ndarray:
    picture = _plain(generator)
    if generator.random() < 0.7:  # paper
        picture = np.ascontiguousarray(picture * 0.3 + 0.7 * generator.uniform(120, 250), dtype=np.float32)
    ink = _colour(generator) * generator.uniform(0.1, 1)
    step = int(generator.integers(6, 26))
    for row in range(step, SIDE, step):
        x = int(generator.integers(0, 60))
        while x < SIDE - 10 and generator.random() < 0.96:
            width = int(generator.integers(2, max(3, step)))
            height = int(step * generator.uniform(0.2, 0.6))
            points = np.stack([generator.uniform(x, x + width, 4), generator.uniform(row - height, row, 4)], 1)
            cv2.polylines(picture, [points.astype(np.int32)], False, ink.tolist(), 1, cv2.LINE_AA)
            x += width + int(generator.integers(1, 6))
    return picture


def _people(generator: np.random.Generator) -> np.ndarray:
    """Bodies with heads, as blobs: what a webcam sees beside a hand."""
    picture = (_room if generator.random() < 0.6 else _wall)(generator)
    for _ in range(generator.integers(1, 4)):
        size = np.exp(generator.uniform(np.log(14), np.log(110)))
        centre = generator.uniform((0, 0), (SIDE, SIDE * 0.8))
        skin = (255 * skin_tone(generator) ** (1 / 2.2)).astype(np.float32)
        cloth = _colour(generator)

        def blob(at: tuple, axes: tuple, colour: np.ndarray, turn: float = 0.0) -> None:
            place = centre + np.array(at) * size  # noqa: B023 - called at once
            shape = (tuple(map(float, place)), tuple(float(max(a * size, 1)) for a in axes), float(turn))  # noqa: B023
            cv2.ellipse(picture, shape, np.clip(colour, 0, 255).tolist(), -1, cv2.LINE_AA)

        blob((0, 2.1), (2.6, 2.9), cloth)
        blob((0, 0.65), (0.5, 0.8), skin * 0.85)
        hair = np.array(generator.uniform(5, 90) * np.array([1, 0.8, 0.65]))
        blob((0, -0.15), (1.1, 1.25), hair)
        turn = generator.normal(0, 12)
        blob((0, 0.05), (0.86, 1.15), skin, turn)
        blob((0.12, 0.1), (0.5, 0.8), skin * 1.08, turn)
        for side in (-0.2, 0.2):
            blob((side, -0.05), (0.16, 0.07), np.array([235, 232, 228]) * 0.9)
            blob((side, -0.05), (0.07, 0.07), hair * 0.6)
            blob((side, -0.16), (0.2, 0.03), hair)
        blob((0, 0.12), (0.1, 0.26), skin * 0.9)
        blob((0, 0.36), (0.3, 0.06), skin * np.array([0.85, 0.55, 0.55]))
    return picture


def _limb(picture: np.ndarray, generator: np.random.Generator) -> None:
    """A tapering tube of skin or cloth that ends round, or crosses: an arm without a hand, or a blob of skin."""
    colour = 255 * skin_tone(generator) ** (1 / 2.2) if generator.random() < 0.75 else _colour(generator)
    start, end = generator.uniform(-40, SIDE + 40, (2, 2))
    bend = (start + end) / 2 + generator.normal(0, 25, 2)
    first, last = np.exp(generator.uniform(np.log(5), np.log(45), 2))
    light = generator.uniform(-0.5, 0.5, 2)
    share = np.linspace(0, 1, 40)[:, None]
    path = (1 - share) ** 2 * start + 2 * share * (1 - share) * bend + share**2 * end
    for layer in np.linspace(0, 1, 6):
        for (x, y), t in zip(path, share[:, 0], strict=True):
            radius = (first + t * (last - first)) * (1 - 0.75 * layer)
            tone = np.clip(colour * (0.62 + 0.45 * layer), 0, 255)
            centre = np.array([x, y]) + light * radius * layer
            cv2.circle(picture, tuple(int(v) for v in centre), max(int(radius), 1), tone.tolist(), -1)


#: With their shares of the pictures.
_PAINTERS = (
    (_wall, 0.27), (_spectrum, 0.13), (_room, 0.18), (_shapes, 0.12), (_weave, 0.13), (_page, 0.07), (_people, 0.10),
)  # fmt: skip
