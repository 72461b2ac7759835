"""Data sets, all returning the sample that `datasets.sample` documents.

>>> dataset = build_dataset("dex_ycb", "data/dex_ycb", "s1_train", side="right", cache="data/cache")
>>> sample = dataset[0]
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets.protocol import SampleDataset

#: Data sets by name: module and class, imported when one is opened. "shards" holds any of them.
DATASETS = {
    "dex_ycb": (".dex_ycb.dataset", "DexYCB"),
    "freihand": (".freihand.dataset", "FreiHAND"),
    "humbi": (".humbi.dataset", "HUMBI"),
    "ho3d": (".ho3d", "HO3D"),
    "shards": (".shards.dataset", "Shards"),
}

#: Of a folder of shards, in each of their splits.
INDEX_NAME = "index.json"


def split_folders(root: str | Path, split: str) -> list[Path]:
    """Folders of a split: shards may be spread over disks, ``root`` then lists folders with ':' between."""
    return [Path(part) / split for part in str(root).split(":") if part]


def has_shards(root: str | Path) -> bool:
    """Whether ``root`` (one folder, or several with ':' between) holds shards of any split."""
    return any(any(folder.glob(f"*/{INDEX_NAME}")) for folder in split_folders(root, ""))


def build_dataset(name: str, root: str | Path, split: str, **options: Any) -> SampleDataset:
    """Open the data set ``name`` (a key of `DATASETS`) at ``root``.

    Args:
        name: such as "dex_ycb"; "shards" for shards of any.
        root: the data set's folder in its official layout, or one of its shards (``python -m datasets.write_shards``).
        split: name of a split of that data set, such as "s1_train".
        options: of `datasets.crop_dataset.DatasetOptions`.

    Raises:
        ValueError: if the name or the split is unknown; the message lists the choices.
        FileNotFoundError: if the root or a file in it is missing; the message names it.
    """
    if name not in DATASETS:
        raise ValueError(f"data set {name!r} is unknown; choose one of {', '.join(sorted(DATASETS))}")
    if name != "shards" and has_shards(root):
        name, options = "shards", {"dataset": name, **options}
    module, kind = DATASETS[name]
    return getattr(import_module(module, __name__), kind)(root, split, **options)


def open_labels(name: str, root: str | Path, split: str, **options: Any) -> SampleDataset:
    """`build_dataset` for its annotations: both hands (of shards those written), whoever is there. No image is read."""
    side = None if has_shards(root) else "both"
    return build_dataset(name, root, split, side=side, allow_missing_subjects=True, labels_only=True, **options)
