"""A hand read in windows: their size does not run away, and a hand beside an unclear window is found again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from src.photos.api import PhotoEstimator
from src.photos.detector.own_hands import TILE, views_of
from src.photos.image import Photo
from src.photos.video.sights import NetworkWindows
from utils.camera import mirror_points

PLACE, SIDE = np.array([300.0, 200.0]), 90.0
SHAPE = np.random.default_rng(0).uniform(-0.5, 0.5, (21, 2))
SHAPE = (SHAPE - (SHAPE.min(axis=0) + SHAPE.max(axis=0)) / 2) / np.ptp(SHAPE, axis=0).max()
PHOTO = Photo("clip", None, np.zeros((480, 640, 3), np.uint8))


class Reader:
    """As measured of ours: too large a window spreads the keypoints; the less it is centred, the less it is sure."""

    card = SimpleNamespace(model="reader")

    def __init__(self, is_left: bool) -> None:
        self.is_left = is_left

    def read(self, image: np.ndarray, boxes: np.ndarray, is_left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        growth = np.maximum(boxes[:, 2] / SIDE, 0.95) ** 1.1
        off = np.linalg.norm(boxes[:, :2] - PLACE, axis=1) / SIDE
        sure = np.clip(0.8 - 0.8 * np.abs(np.log(boxes[:, 2] / SIDE)) - off, 0.01, 1)
        sure = np.where(is_left == self.is_left, sure, 0.01)
        shape = mirror_points(SHAPE, 1) if self.is_left else SHAPE
        points = PLACE + 0.55 * (boxes[:, None, :2] - PLACE) + shape * (SIDE * growth)[:, None, None]
        return points, np.repeat(sure[:, None], 21, axis=1)


@pytest.mark.parametrize("is_left", [False, True])
def test_the_size_of_a_window_does_not_run_away(is_left: bool) -> None:
    windows = NetworkWindows(PhotoEstimator(None), Reader(is_left), None, False)
    box = np.append(PLACE, 1.25 * SIDE)
    for _ in range(15):
        box = windows.read(PHOTO, box, is_left).region.box
    assert box[2] == pytest.approx(SIDE, rel=0.08)  # in windows of one size it grows from frame to frame
    points = windows.read(PHOTO, box, is_left).region.keypoints.points
    expected = mirror_points(SHAPE * SIDE, 1) if is_left else SHAPE * SIDE
    np.testing.assert_allclose(points, PLACE + expected, atol=0.06 * SIDE)


def test_a_hand_beside_an_unclear_window_is_found() -> None:
    windows = NetworkWindows(PhotoEstimator(None), Reader(False), None, False)
    for angle in np.linspace(0, 2 * np.pi, 7):
        start = PLACE + 0.6 * SIDE * np.array([np.cos(angle), np.sin(angle)])
        sight = windows.read(PHOTO, np.append(start, SIDE), False)
        assert np.linalg.norm(sight.region.box[:2] - PLACE) < 0.18 * SIDE
    assert windows.read(PHOTO, np.append(PLACE + 2 * SIDE, SIDE), False) is None


@pytest.mark.parametrize(("elsewhere", "place"), [(0.8, 345.0), (0.3, 300.0)])
def test_a_surer_window_must_convince_the_other_network_too(elsewhere: float, place: float) -> None:
    """The table-top network is surer of hand and forearm than of a hand; the network of all places is not."""

    class Spread:
        card = SimpleNamespace(model="reader")

        def read(self, image: np.ndarray, boxes: np.ndarray, is_left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            is_beside = boxes[:, 0] > 312
            sure = np.where(np.broadcast_to(is_left, len(boxes)), 0.05, np.where(is_beside, 0.54, 0.47))
            x = np.where(is_beside, 345.0, 300.0)
            return SHAPE * SIDE + np.stack([x, x * 0 + 200], axis=1)[:, None], np.repeat(sure[:, None], 21, axis=1)

    class Everywhere:
        def read(self, image: np.ndarray, boxes: np.ndarray, is_left: np.ndarray) -> SimpleNamespace:
            sure = np.where(boxes[:, 0] > 312, elsewhere, 0.8)
            return SimpleNamespace(confidence=np.repeat(sure[:, None], 21, axis=1), is_left=np.full(len(boxes), 0.5))

    windows = NetworkWindows(PhotoEstimator(None), Spread(), SimpleNamespace(reader=Everywhere()), False)
    sight = windows.read(PHOTO, np.append(PLACE, SIDE), False)
    assert sight.region.box[0] == pytest.approx(place, abs=0.1)
    beside = replace(sight, region=replace(sight.region, box=np.array([345.0, 200.0, SIDE]), score=0.54))
    on = replace(sight, region=replace(sight.region, box=np.array([300.0, 200.0, SIDE]), score=0.47))
    assert (windows.rate(PHOTO, beside) > windows.rate(PHOTO, on)) == (place > 300)


@pytest.mark.parametrize(("surer", "is_others"), [(0.0, False), (0.1, False), (0.15, True)])
def test_a_window_whose_mirror_image_is_surer_shows_the_other_hand(surer: float, is_others: bool) -> None:
    class Unsure(Reader):
        def read(self, image: np.ndarray, boxes: np.ndarray, is_left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            points, confidence = super().read(image, boxes, np.full(len(boxes), self.is_left))
            return points, np.where(np.asarray(is_left)[:, None], 0.65 + surer, 0.65).repeat(21, axis=1)

    box = np.append(PLACE, SIDE)
    sight = NetworkWindows(PhotoEstimator(None), Unsure(False), None, False).read(PHOTO, box, False)
    assert sight.is_others == is_others
    told = NetworkWindows(PhotoEstimator(None, hand="right"), Unsure(False), None, False)
    assert not told.read(PHOTO, box, False).is_others  # there is no other hand
    if surer and not is_others:  # it is believed to be the other side
        assert 2 < sight.left < 3

    class Everywhere:
        def read(self, image: np.ndarray, boxes: np.ndarray, is_left: np.ndarray) -> SimpleNamespace:
            probability = np.where(is_left, 1 - looks_left, looks_left)
            return SimpleNamespace(confidence=np.full((len(boxes), 21), 0.8), is_left=probability)

    for looks_left in (0.003, 0.997):  # log-odds of 5.8, of which half counts
        windows = NetworkWindows(PhotoEstimator(None), Unsure(False), SimpleNamespace(reader=Everywhere()), False)
        asked = windows.read(PHOTO, box, False)
        gain = min(24 * surer, 3) + (2.9 if looks_left > 0.5 else -2.9)
        assert asked.left == pytest.approx(np.clip(gain, -3, 3), abs=0.01)
        assert asked.is_others == (gain >= 3)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (1920, 1080), (500, 500), (2000, 300)])
def test_tiles_cover_the_picture_and_overlap_by_half(width: int, height: int) -> None:
    whole, tiles = views_of(width, height), views_of(width, height, closely=True)[2:]
    assert len(whole) == 2 and (tiles[:, 2] == max(width, height) * TILE).all()
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([columns, rows], axis=-1)[::7, ::7].reshape(-1, 1, 2)
    away = np.abs(pixels - tiles[:, :2]) / tiles[:, 2:]
    assert (away.max(axis=2).min(axis=1) <= 0.5 + 1e-9).all()
    assert len(tiles) <= 9
    for axis in (0, 1):  # whatever is half as large as a tile lies in one as a whole
        steps = np.diff(np.unique(tiles[:, axis]))
        assert (steps <= tiles[0, 2] / 2 + 1e-9).all()
