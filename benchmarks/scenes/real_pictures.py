"""The two routes from a picture to a hand on real pictures without labels; a part of `real_hands`.

``detector`` is mediapipe and a fit, ``networks`` our own detector and keypoint network and the same fit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from options.image_options import DETECTOR, OWN
from src.photos.api import load
from src.photos.image import UnusableImage, read_photo
from src.photos.result import Result
from utils.camera import mirror_points
from utils.drawing.overlay import draw_skeleton

ROUTES = {"detector": DETECTOR, "networks": OWN}
#: Keypoints nearer than this part of the box agree.
NEAR = 0.1


def routes(data: Path, count: int, output: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """What measures each route, by name."""
    return {name: partial(measure, name, data, count, output) for name in ROUTES}


def measure(name: str, data: Path, count: int, output: Path) -> dict[str, Any]:
    """See `real_hands`.

    Raises:
        FileNotFoundError: no pictures. ImportError: no mediapipe, which both routes are compared with.
    """
    files = sorted((data / "pictures/signs").glob("*.jpg"))
    if not files:
        raise FileNotFoundError(f"{data / 'pictures/signs'}: no pictures")
    files = files[:: max(1, len(files) // count)][:count]
    detector, estimate = load(DETECTOR), load(ROUTES[name])
    found = sides = agree = compared = 0
    for number, file in enumerate(files):
        image = read_photo(file).image
        mirror = np.ascontiguousarray(image[:, ::-1])
        if number % 2:  # as many left hands as right ones
            image, mirror = mirror, image
        hand = _hand(estimate, image)
        found += hand is not None
        # The detector is compared with itself on the mirror image, the networks with the detector.
        itself = name == "detector"
        other = None if hand is None else _hand(detector, mirror if itself else image)
        if hand is None or other is None:
            continue
        compared += 1
        points = mirror_points(other.keypoints, image.shape[1]) if itself else other.keypoints
        sides += (hand.side == other.side) != itself
        box = np.ptp(points, axis=0).max()
        agree += float(np.mean(np.linalg.norm(hand.keypoints - points, axis=1) < NEAR * box))
        name_of = output / f"{name}_{file.stem}.png"
        large = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(name_of), draw_skeleton(large, 4 * hand.keypoints, thickness=2)[..., ::-1])
    alarms = sum(_hand(estimate, image) is not None for image in without_hands())
    return {
        "signs": {
            "pictures": len(files),
            "found": found,
            "compared": compared,
            "side_right": sides / max(compared, 1),
            "agreement_0.1": agree / max(compared, 1),
        },
        "false_alarms": alarms,
    }


def _hand(estimate: Any, image: np.ndarray) -> Result | None:
    try:
        return estimate(image, side="auto")
    except UnusableImage:
        return None


def without_hands() -> list[np.ndarray]:
    """Twelve pictures (H,W,3) uint8 of noise of several grains, and of gradients with a disc."""
    generator, pictures = np.random.default_rng(0), []
    for grain in (1, 4, 16, 32, 64, 128):
        noise = generator.integers(0, 256, (256 // grain, 256 // grain, 3), dtype=np.uint8)
        pictures.append(cv2.resize(noise, (256, 256), interpolation=cv2.INTER_CUBIC))
    for colour in generator.integers(60, 220, (6, 3)):
        ground = np.linspace(40, 220, 256)[:, None, None].repeat(256, 1).repeat(3, 2).astype(np.uint8)
        pictures.append(cv2.circle(ground, (128, 128), 70, [int(part) for part in colour], -1))
    return pictures
