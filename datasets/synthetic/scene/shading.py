"""Light on surfaces and the camera's answer to it: linear RGB in, 8-bit sRGB out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from datasets.synthetic.scene.cameras import IMAGE_HEIGHT, IMAGE_WIDTH

_LUT_SIZE = 4096
_NOISE_MARGIN = 64


@dataclass(frozen=True)
class Lights:
    """A key light that casts shadows, a fill light, and a sky over a ground; table frame, linear RGB."""

    key_direction: np.ndarray  # (3,) unit, towards the light
    key: np.ndarray  # (3,)
    fill_direction: np.ndarray
    fill: np.ndarray
    sky: np.ndarray
    ground: np.ndarray

    @property
    def on_table(self) -> np.ndarray:
        """(3,) irradiance of the unshadowed table."""
        return self.sky + self.key * self.key_direction[2] + self.fill * max(self.fill_direction[2], 0)

    @property
    def shadow_share(self) -> np.ndarray:
        """(3,) share of the table's light that the key light brings."""
        return self.key * self.key_direction[2] / self.on_table


def random_lights(generator: np.random.Generator) -> Lights:
    """Lamps of a random room."""

    def direction(low: float, high: float) -> np.ndarray:
        azimuth, elevation = generator.uniform(0, 2 * np.pi), np.radians(generator.uniform(low, high))
        return np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])

    def colour(level: float) -> np.ndarray:
        warmth = generator.normal(0, 0.07)
        return level * np.array([1 + warmth, 1.0, 1 - warmth])

    sky = colour(generator.uniform(0.35, 0.7))
    return Lights(
        direction(42, 80), colour(generator.uniform(0.4, 1.0)), direction(5, 60), colour(generator.uniform(0.1, 0.4)),
        sky, sky * generator.uniform(0.35, 0.6),
    )  # fmt: skip


def shade(
    albedo: np.ndarray,
    normals: np.ndarray,
    directions: np.ndarray,
    shadowed: np.ndarray,
    openness: np.ndarray,
    lights: Lights,
) -> np.ndarray:
    """Diffuse and a little gloss.

    Args:
        albedo: (N, 3) linear RGB.
        normals: (N, 3), about unit length; turned towards the viewer where they are not.
        directions: (N, 3) of the viewing rays.
        shadowed: (N,) bool: the key light is hidden.
        openness: (N,) share of the sky that is not hidden, 0..1.

    Returns:
        (N, 3) float32 radiance.
    """
    facing = np.einsum("ij,ij->i", normals, directions)
    normals = normals * np.where(facing > 0, np.float32(-1), np.float32(1))[:, None]
    view = -directions.mean(axis=0)
    half = lights.key_direction + view / np.linalg.norm(view)
    half /= np.linalg.norm(half)
    axes = np.stack([lights.key_direction, lights.fill_direction, half, [0, 0, 1]], axis=1).astype(np.float32)
    cosines = normals @ axes
    lit = np.maximum(cosines[:, :3], 0)
    lit[:, [0, 2]] *= ~shadowed[:, None]
    gloss = lit[:, 2] ** 2
    gloss *= gloss
    gloss *= gloss
    gloss *= gloss
    up = 0.5 + 0.5 * cosines[:, 3]
    factors = np.stack([lit[:, 0], lit[:, 1] * openness, up * openness, openness], axis=1)
    light = np.stack([lights.key, lights.fill, lights.sky - lights.ground, lights.ground]).astype(np.float32)
    radiance = factors @ light
    radiance *= albedo
    radiance += (0.12 * gloss)[:, None] * lights.key.astype(np.float32)
    return radiance


@dataclass(frozen=True)
class Sensor:
    """One camera's exposure, white balance, sharpness and noise in one sequence."""

    gain: np.ndarray  # (3,)
    blur: float  # pixels
    noise: np.ndarray  # int16 tile, larger than the image by the margin

    def develop(self, radiance: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
        """(H, W, 3) uint8 **BGR** of linear RGB radiance; noise is taken from the tile at ``corner`` (row, column)."""
        blurred = cv2.GaussianBlur(radiance, (0, 0), self.blur)
        blurred *= (self.gain * (_LUT_SIZE - 1)).astype(np.float32)
        np.minimum(blurred, _LUT_SIZE - 1, out=blurred)
        pixels = _tone_curve()[blurred.astype(np.uint16)]
        row, column = corner
        noise = self.noise[row : row + pixels.shape[0], column : column + pixels.shape[1]]
        return cv2.add(pixels, noise, dtype=cv2.CV_8U)[..., ::-1]

    def random_corner(self, generator: np.random.Generator) -> tuple[int, int]:
        """Where to cut an image's noise from the tile."""
        row, column = generator.integers(0, _NOISE_MARGIN, 2)
        return int(row), int(column)


def random_sensor(generator: np.random.Generator, brightness: np.ndarray) -> Sensor:
    """A camera that exposes for ``brightness`` (3,), the light on the table."""
    gain = generator.uniform(0.7, 1.15) / brightness.mean() * (1 + generator.normal(0, 0.04, 3))
    tile = _noise_tile() * generator.uniform(0.8, 4.0)
    return Sensor(gain, float(generator.uniform(0.45, 0.8)), tile.astype(np.int16))


@lru_cache(maxsize=1)
def _noise_tile() -> np.ndarray:
    shape = (IMAGE_HEIGHT + _NOISE_MARGIN, IMAGE_WIDTH + _NOISE_MARGIN, 3)
    white = np.random.default_rng(20200709).standard_normal(shape, dtype=np.float32)
    coarse = cv2.GaussianBlur(white, (0, 0), 0.8)
    return 0.6 * white + 0.8 * coarse / coarse.std()


@lru_cache(maxsize=1)
def _tone_curve() -> np.ndarray:
    value = np.linspace(0, 1, _LUT_SIZE)
    return np.round(255 * value ** (1 / 2.2)).astype(np.uint8)
