"""Data sets, all returning the sample that `datasets.sample` documents.

>>> dataset = build_dataset("dex_ycb", "data/dex_ycb", "s1_train", side="right", cache="data/cache")
>>> sample = dataset[0]
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets.protocol import SampleDataset
from datasets.shards.index import has_shards


def _dex_ycb(root: str | Path, split: str, **options: Any) -> SampleDataset:
    from datasets.dex_ycb.dataset import DexYCB

    return DexYCB(root, split, **options)


def _freihand(root: str | Path, split: str, **options: Any) -> SampleDataset:
    from datasets.freihand.dataset import FreiHAND

    return FreiHAND(root, split, **options)


def _humbi(root: str | Path, split: str, **options: Any) -> SampleDataset:
    from datasets.humbi.dataset import HUMBI

    return HUMBI(root, split, **options)


def _ho3d(root: str | Path, split: str, **options: Any) -> SampleDataset:
    from datasets.ho3d import HO3D

    return HO3D(root, split, **options)


def _shards(root: str | Path, split: str, **options: Any) -> SampleDataset:
    from datasets.shards.dataset import Shards

    return Shards(root, split, **options)


#: Builders by name, called as ``builder(root, split, **options)``. Each imports its module when called.
DATASETS: dict[str, Callable[..., SampleDataset]] = {
    "dex_ycb": _dex_ycb,
    "freihand": _freihand,
    "humbi": _humbi,
    "ho3d": _ho3d,
    "shards": _shards,
}


def build_dataset(name: str, root: str | Path, split: str, **options: Any) -> SampleDataset:
    """Open the data set ``name`` (a key of `DATASETS`) at ``root``.

    Args:
        name: such as "dex_ycb"; "shards" for shards of any.
        root: the data set's folder in its official layout, or one of its shards (``python -m datasets.write_shards``).
        split: name of a split of that data set, such as "s1_train".
        options: of `datasets.options.DatasetOptions`.

    Raises:
        ValueError: if the name or the split is unknown; the message lists the choices.
        FileNotFoundError: if the root or a file in it is missing; the message names it.
    """
    if name not in DATASETS:
        raise ValueError(f"data set {name!r} is unknown; choose one of {', '.join(sorted(DATASETS))}")
    if name != "shards" and has_shards(root):
        return _shards(root, split, dataset=name, **options)
    return DATASETS[name](root, split, **options)
