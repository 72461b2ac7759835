"""Which pictures a part of the agreement with mediapipe is of, and what is taken away to see what closes the gap."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.reproduce import closing_gap
from benchmarks.world_agreement import Reference, part
from datasets.synthetic.world import hands, mixing


def reference(numbers: list[int]) -> Reference:
    """Pictures of 9 px whose grey level is their number."""
    count = len(numbers)
    images = [np.full((9, 9, 3), number, dtype=np.uint8) for number in numbers]
    points = np.random.default_rng(0).uniform(0, 8, (count, 21, 2))
    left, agrees = np.zeros(count, dtype=bool), np.ones((count, 21), dtype=bool)
    return Reference(images, points, agrees, left, np.ones((count, 3)), None, np.array(numbers))


def test_a_part_goes_by_pictures_whatever_mediapipe_answers() -> None:
    """One picture that it does not know would swap the halves from there on."""
    args = Namespace(part=(0, 2), mirror=True)
    whole, fewer = (part(reference(numbers), args) for numbers in (list(range(10)), [0, 2, *range(3, 10)]))
    assert whole.numbers.tolist() == [1, 3, 5, 7, 9] and fewer.numbers.tolist() == [3, 5, 7, 9]
    assert whole.is_left.tolist() == [False, True, False, True, False]
    assert fewer.is_left.tolist() == whole.is_left[1:].tolist()  # the same pictures are mirrored
    assert len(part(reference([4, 7]), Namespace(part=None, mirror=False)).images) == 2


def test_what_is_taken_away_is_gone() -> None:
    for variant in closing_gap.VARIANTS.values():
        assert variant.rendering.keys() <= vars(hands).keys() and variant.mixing.keys() <= vars(mixing).keys()
    bank = object.__new__(closing_gap.NoForearm)
    bank.rgba = torch.full((1, 160, 160, 4), 255, dtype=torch.uint8)
    bank.keypoints = torch.tensor([[[50.0, 60.0], [90.0, 80.0]]])
    alpha = bank.cut(torch.tensor([0]))[0][0, 3]
    rows, columns = alpha.nonzero().T
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (48, 92, 48, 92)  # of a side of 40
    walls = object.__new__(closing_gap.FlatWalls)
    walls.walls = torch.randint(256, (2, 8, 8, 3), dtype=torch.uint8)
    flat = walls.wall(torch.tensor([1]))
    assert flat.std(dim=(2, 3)).max() < 1e-6
    torch.testing.assert_close(flat[0, :, 0, 0], walls.walls[1].float().mean((0, 1)) / 255)


def test_a_side_is_told_by_both_mirror_images() -> None:
    def read(image: np.ndarray, _: np.ndarray, is_left: bool) -> SimpleNamespace:
        return SimpleNamespace(is_left=np.array([0.2 if bool(image[0, 0, 0]) == is_left else 0.3]))

    known = replace(reference([0, 1, 2, 3]), is_left=np.array([True, False, True, False]))
    known = replace(known, images=[np.full((4, 4, 3), value, np.uint8) for value in (1, 0, 1, 1)])
    assert closing_gap.side_right(known, SimpleNamespace(read=read)) == 0.75
