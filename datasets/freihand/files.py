"""FreiHAND's files on disk (docs/facts.md 3.1): JSON lists over the unique samples, numbered pictures beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from datasets.bad_files import bad_file, possible_intrinsics, read_json
from datasets.crop_cache import state_of
from utils.files import READ_ERRORS

SIZE = 224
"""Width and height of every image, pixels."""

VERSIONS = ("gs", "hom", "sample", "auto")
"""Backgrounds of the training images in the order of their numbers: id = sample + number of samples * version."""

PARTS = ("training", "evaluation")

_HOW_TO_GET = (
    "Give the folder that holds training/, evaluation/ and the JSON files (official: FreiHAND_pub_v2 of "
    "https://lmb.informatik.uni-freiburg.de/projects/freihand/), or write a synthetic one with "
    "python -m datasets.synthetic.freihand_writer --root DIR"
)
#: Shape of one entry of each list.
_ENTRY_SHAPES = {"K": (3, 3), "xyz": (21, 3), "verts": (778, 3), "mano": (61,), "scale": ()}
_REQUIRED = {"training": ("K", "xyz", "mano"), "evaluation": ("K",)}


def list_path(root: Path, part: str, name: str) -> Path:
    """Path of a part's list, such as ``training_K.json``."""
    return root / f"{part}_{name}.json"


def image_name(number: int) -> str:
    """File name of an image or a mask."""
    return f"{number:08d}.jpg"


def read_list(root: Path, part: str, name: str) -> np.ndarray:
    """One JSON list as float64 (N, ...): K (3, 3), xyz (21, 3), verts (778, 3), mano (61,), scale ().

    Raises:
        FileNotFoundError: if it is missing, with the remedy.
        BadFileError: if it is truncated, or an entry has another shape or is not finite.
    """
    path, shape = list_path(root, part, name), _ENTRY_SHAPES[name]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. {_HOW_TO_GET}")
    entries = read_json(path, can_skip=False)
    if not isinstance(entries, list) or not entries:
        raise bad_file(path, "must be a list with one entry a sample", can_skip=False)
    try:
        array = np.array(entries, dtype=np.float64)
        array = array.reshape(len(entries), *shape) if name == "mano" else array  # the entries are (1, 61)
        if array.shape[1:] != shape:
            raise ValueError(array.shape)
    except READ_ERRORS as error:
        raise bad_file(path, _first_misshapen(entries, name), can_skip=False) from error
    finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    if not finite.all():
        raise bad_file(path, f"entry {int(np.argmin(finite))} is not finite", can_skip=False)
    if name == "K" and not possible_intrinsics(array).all():
        number = int(np.argmin(possible_intrinsics(array)))
        raise bad_file(path, f"entry {number} is {entries[number]}, no camera's", can_skip=False)
    return array


def read_annotations(root: Path, part: str) -> dict[str, np.ndarray]:
    """K (N, 3, 3) px and what is published of xyz (N, 21, 3) m, mano (N, 61) and scale (N,) m; float64.

    The original release of the evaluation part has K and scale only. The vertices, which are large, are left out.

    Raises:
        FileNotFoundError: if the root or a list that every release has is missing.
        BadFileError: as `read_list`.
        ValueError: if two lists differ in length; the message has both numbers.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"data root {root} does not exist. {_HOW_TO_GET}")
    lists = {
        name: read_list(root, part, name)
        for name in ("K", "xyz", "mano", "scale")
        if name in _REQUIRED[part] or list_path(root, part, name).is_file()
    }
    for name, array in lists.items():
        if len(array) != len(lists["K"]):
            raise ValueError(
                f"{list_path(root, part, name)} has {len(array)} entries, but {list_path(root, part, 'K').name} has "
                f"{len(lists['K'])}: the files are of different releases or half copied. Extract all of them again"
            )
    return lists


def check_pictures(root: Path, part: str, count: int, versions: tuple[int, ...], masks: bool) -> None:
    """Check that images of these versions of ``count`` samples, and masks if wanted, are there, no number missing.

    Raises:
        FileNotFoundError: if a folder, or a picture in the row of numbers, is missing.
        ValueError: if there are not as many pictures as the JSON lists promise; the message has both numbers.
    """
    folder = root / part / "rgb"
    present, is_training = _numbered(folder), part == "training"
    needed = promised = count * (len(VERSIONS) if is_training else 1)
    if len(present) != promised:
        needed = count * (max(versions) + 1)
        if len(present) % count or len(present) < needed or len(present) > promised:
            times = f", {promised} with all {len(VERSIONS)} versions" if is_training else ""
            partly = " (or choose the versions that are whole: versions=...)" if is_training else ""
            raise ValueError(
                f"{root}: {part}_K.json and the other lists have {count} entries{times}, but {part}/rgb holds "
                f"{len(present)} images. Copy or extract both again{partly}"
            )
    _check_row(folder, present, needed)
    if masks:
        folder = root / part / "mask"
        present = _numbered(folder)
        if len(present) != count:
            raise ValueError(
                f"{root}: {part}_K.json has {count} entries, but {part}/mask holds {len(present)} masks. "
                "Copy or extract both again"
            )
        _check_row(folder, present, count)


def fingerprint(root: Path, part: str) -> str:
    """Short hash of a part's state on disk: times of its lists and of its image folders, wherever they lie.

    An image that is rewritten in place escapes it: delete the cache after doing that.
    """
    watched = [list_path(root, part, name) for name in ("K", "xyz", "mano")]
    return state_of(root, [*watched, root / part / "rgb", root / part / "mask"], hashlib.sha256(part.encode()))


def _numbered(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing. {_HOW_TO_GET}")
    return {path.name for path in folder.iterdir() if path.suffix == ".jpg" and path.stem.isdigit()}


def _check_row(folder: Path, present: set[str], count: int) -> None:
    for number in range(count):
        if image_name(number) not in present:
            raise FileNotFoundError(
                f"{folder / image_name(number)} is missing: the data set is only half copied. {_HOW_TO_GET}"
            )


def _first_misshapen(entries: list, name: str) -> str:
    shape = _ENTRY_SHAPES[name]
    for number, entry in enumerate(entries):
        try:
            array = np.array(entry, dtype=np.float64)
        except READ_ERRORS:
            return f"entry {number} is not an array of shape {shape}"
        if array.shape != shape and not (name == "mano" and array.size == 61):
            return f"entry {number} has shape {array.shape} instead of {shape}"
    return f"entries are not arrays of shape {shape}"
