"""Light of a random place and what skin does with it; linear RGB, any frame that normals and rays share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: How far light wraps around skin, red most: a cheap stand-in for scattering below the surface.
_WRAP = np.array([0.34, 0.16, 0.10], np.float32)


@dataclass(frozen=True)
class WorldLights:
    """Wide lobes of an environment, and lamps that cast shadows."""

    lobes: np.ndarray  # (L, 3) unit, towards the light
    lobe_colours: np.ndarray  # (L, 3)
    lobe_widths: np.ndarray  # (L,) 0: a cosine ... 1: half a sphere of even light
    ambient: np.ndarray  # (3,)
    lamps: np.ndarray  # (N, 3) unit
    lamp_colours: np.ndarray  # (N, 3)
    sharpness: float  # exponent of the gloss


def random_lights(generator: np.random.Generator, up: np.ndarray, towards_viewer: np.ndarray) -> WorldLights:
    """Lights of a room, a window, the open or a flash.

    Args:
        up, towards_viewer: (3,) unit vectors.
    """

    def colour(level: float, spread: float = 0.12) -> np.ndarray:
        warmth, green = generator.normal(0, spread), generator.normal(0, spread / 4)
        return level * np.array([1 + warmth, 1 + green, 1 - warmth]).clip(0.1)

    def direction(bias: np.ndarray) -> np.ndarray:
        vector = generator.normal(size=3) + bias
        return vector / np.linalg.norm(vector)

    lobe_count = generator.integers(2, 6)
    lobes = np.stack([direction(0.8 * up) for _ in range(lobe_count)])
    lobe_colours = np.stack([colour(generator.uniform(0.1, 0.6), 0.2) for _ in range(lobe_count)])
    kind = generator.choice(("even", "lamp", "lamps", "flash", "behind"), p=[0.28, 0.37, 0.15, 0.13, 0.07])
    bias = 0.9 * up + 0.7 * towards_viewer
    bias = {"flash": 6 * towards_viewer, "behind": -1.5 * towards_viewer + up}.get(kind, bias)
    number = {"even": 0, "lamps": 2}.get(kind, 1)
    lamps = np.array([direction(bias) for _ in range(number)]).reshape(-1, 3)
    lamp_colours = np.array([colour(generator.uniform(0.4, 2.2)) for _ in range(number)]).reshape(-1, 3)
    return WorldLights(  # the order of the random draws is that of the fields
        lobes=lobes.astype(np.float32),
        lobe_colours=lobe_colours.astype(np.float32),
        lobe_widths=generator.uniform(0, 1, lobe_count).astype(np.float32),
        ambient=colour(generator.uniform(0.05, 0.5)).astype(np.float32),
        lamps=lamps.astype(np.float32),
        lamp_colours=lamp_colours.astype(np.float32),
        sharpness=float(np.exp(generator.uniform(np.log(6), np.log(60)))),
    )


def shade(
    albedo: np.ndarray,
    gloss: np.ndarray,
    normals: np.ndarray,
    directions: np.ndarray,
    openness: np.ndarray,
    shadowed: np.ndarray,
    lights: WorldLights,
    shine: float,
) -> np.ndarray:
    """Radiance (N, 3).

    Args:
        albedo: (N, 3); gloss: (N,) 0..1 of nails and metal, on top of ``shine``, the whole skin's.
        normals: (N, 3) about unit; directions: (N, 3) unit, of the viewing rays.
        openness: (N,) share of the sky that is not hidden.
        shadowed: (N, lamps) bool.
    """
    facing = np.einsum("ij,ij->i", normals, directions)
    normals = normals * np.where(facing > 0, np.float32(-1), np.float32(1))[:, None]
    wide = lights.lobe_widths
    lobes = np.maximum((normals @ lights.lobes.T + wide) / (1 + wide), 0)
    light = (lobes @ lights.lobe_colours + lights.ambient) * (openness[:, None] ** np.array([0.75, 1, 1.1], np.float32))
    shiny = np.zeros((len(albedo), 3), np.float32)
    for number in range(len(lights.lamps)):
        cosine = (normals @ lights.lamps[number])[:, None]
        lit = np.maximum((cosine + _WRAP) / (1 + _WRAP), 0)
        # Scattered light softens a shadow's edge but does not reach its inside.
        lit *= np.where(shadowed[:, number, None], np.float32(0.06) * (1 + _WRAP), np.float32(1))
        light += lit * lights.lamp_colours[number]
        half = lights.lamps[number] - directions
        half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
        peak = np.maximum(np.einsum("ij,ij->i", normals, half), 0) ** lights.sharpness * ~shadowed[:, number]
        shiny += peak[:, None] * lights.lamp_colours[number]
    rim = (1 - np.abs(facing)) ** 4
    reflected = (lobes @ lights.lobe_colours) * openness[:, None]
    amount = (shine + 0.7 * gloss)[:, None]
    return albedo * light + amount * (0.5 * shiny + (0.12 * rim[:, None] + 0.06 * gloss[:, None]) * reflected)
