"""What prediction, evaluation and training expect of a data set, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from template import HandAssets


class SampleDataset(Protocol):
    """Samples (`datasets.sample`) of one split of a data set.

    Attributes:
        root: the data set's folder; split: name of the split.
        columns: arrays by key, one row a sample, of at least ``image_id``, ``subject_id``, ``sequence_id``,
            ``is_left``, ``valid`` and the labels.
        assets: hand models in use, by side.
        bad_images: image ids of samples that could not be read so far (with ``skip_bad``).
    """

    split: str
    assets: dict[str, HandAssets]
    bad_images: set[int]

    @property
    def root(self) -> Path: ...

    @property
    def columns(self) -> Mapping[str, np.ndarray]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample."""

    def __getitems__(self, indices: list[int] | np.ndarray) -> dict[str, np.ndarray]:
        """A batch of samples: (B,) indices -> arrays (B, ...) by key."""

    @property
    def subject_betas(self) -> dict[int, np.ndarray]:
        """Betas (10,) of every subject of the split, by subject number."""

    def full_image(self, index: int) -> np.ndarray:
        """The whole image (H, W, 3) uint8 RGB that ``K_image`` belongs to: mirrored if ``is_left``."""
