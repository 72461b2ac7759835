"""Which pictures a part of the agreement with mediapipe is of."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from benchmarks.world_agreement import Reference, part


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
