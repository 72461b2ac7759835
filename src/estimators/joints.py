"""Plain joints (npz or CSV): what the author of a new estimator writes, everything in the picture as it is.

npz: ``keypoints_2d`` (N,21,2) px and/or ``joints_3d`` (N,21,3), ``is_left`` (N), ``image`` (N), and if known
``confidence`` (N,21), ``K`` (3,3) or (N,3,3), ``image_size`` (2) or (N,2), ``subject`` (N). CSV: the same, a column a
number: ``keypoints_2d.0.0`` is the wrist's x, ``K.0.0`` the focal length.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np

from src.estimators.pictures import picture_name
from src.estimators.records import Entry, EstimateFormatError, Hand, MissingKeyError, Options

logger = logging.getLogger(__name__)

SIGNS = ("keypoints_2d", "joints_3d", "is_left", "image")
_SHAPES = {"keypoints_2d": (21, 2), "joints_3d": (21, 3), "confidence": (21,), "K": (3, 3), "image_size": (2,)}
_READ = (*_SHAPES, "is_left", "image", "subject")
_SIDES = {**dict.fromkeys(("true", "1", "1.0", "left"), True), **dict.fromkeys(("false", "0", "0.0", "right"), False)}


def read(content: Any, name: str, where: str, options: Options) -> list[Hand]:
    if not isinstance(content, dict):
        raise MissingKeyError(
            f"{where}: the keys 'image', 'is_left', and 'keypoints_2d' or 'joints_3d' are missing: it is a "
            f"{type(content).__name__}, not arrays by name"
        )
    entry = Entry(content, name, where)
    scale = {"m": 1.0, "mm": 0.001}[options.unit]
    if not any(_has(entry, key) for key in ("keypoints_2d", "joints_3d")):
        raise MissingKeyError(
            f"{where}: the key 'keypoints_2d' or 'joints_3d' is missing (it has {sorted(map(str, content))[:20]})"
        )
    entry.need("is_left", "image")
    _tell_unread(tuple(sorted({str(key).partition(".")[0] for key in content} - set(_READ))))
    sides = [_SIDES.get(str(side).strip().lower()) for side in np.ravel(content["is_left"])]
    if None in sides:
        row = sides.index(None)
        raise EstimateFormatError(
            f"{where}: is_left[{row}] is {str(np.ravel(content['is_left'])[row])!r}; it must be true or false"
        )
    for key in ("image", "subject"):
        if key in content and np.size(content[key]) != len(sides):
            raise EstimateFormatError(f"{where}: {key} has {np.size(content[key])} rows, is_left has {len(sides)}")
    subjects, images = _subjects(entry, len(sides)), np.ravel(np.asarray(content["image"], dtype=object))
    values = {key: _values(entry, key, len(sides)) for key in _SHAPES}
    hands = []
    for row, left in enumerate(sides):
        one = {key: None if value is None else value[row] for key, value in values.items()}
        size = options.size if one["image_size"] is None else (int(one["image_size"][0]), int(one["image_size"][1]))
        image = picture_name(images[row])
        hand = Hand(entry, (row, scale), bool(left), image, size, one["K"], one["keypoints_2d"], one["confidence"])
        hand.joints_3d = None if one["joints_3d"] is None else one["joints_3d"] * scale
        hand.subject = subjects[row]
        hands.append(hand)
    return hands


@functools.lru_cache(maxsize=64)
def _tell_unread(keys: tuple[str, ...]) -> None:
    """Warn, once, of keys that are not of the format: a confidence by another name would not be heard."""
    if keys:
        logger.warning("plain joints: %s: not read; the keys are %s", ", ".join(keys), ", ".join(_READ))


def _subjects(entry: Entry, rows: int) -> list[int]:
    """Number of each row's person; 0 where the file names none."""
    if "subject" not in entry.content:
        return [0] * rows
    numbers = entry.array("subject", -1)
    if (numbers != np.round(numbers)).any() or (np.abs(numbers) > 2**31).any():
        raise EstimateFormatError(f"{entry.where}: subjects are whole numbers, not {sorted(set(numbers))[:3]}")
    return [int(number) for number in numbers]


def _columns(key: str) -> list[str]:
    return [".".join(map(str, (key, *index))) for index in np.ndindex(_SHAPES[key])]


def _has(entry: Entry, key: str) -> bool:
    return key in entry.content or _columns(key)[0] in entry.content


def _values(entry: Entry, key: str, rows: int) -> np.ndarray | None:
    """(N, ...) of a key or of its columns, or None."""
    if not _has(entry, key):
        return None
    shape = _SHAPES[key]
    if key in entry.content:
        given = np.shape(entry.content[key])
        if len(given) > 1 and given[1 - len(given) :] != (int(np.prod(shape)),) and given[-len(shape) :] != shape:
            raise EstimateFormatError(f"{entry.where}: {key} has the shape {given}; {('N', *shape)} is meant")
        value = entry.array(key, -1, *shape)
        if key in ("K", "image_size") and len(value) == 1:
            value = np.broadcast_to(value, (rows, *shape))
    else:
        if missing := [column for column in _columns(key) if column not in entry.content]:
            raise MissingKeyError(f"{entry.where}: the columns {missing[:3]} are missing")
        columns = [Entry({key: entry.content[name]}, entry.name, entry.where) for name in _columns(key)]
        value = np.stack([column.array(key, -1) for column in columns], axis=1).reshape(-1, *shape)
    if len(value) != rows:
        raise EstimateFormatError(f"{entry.where}: {key} has {len(value)} rows, is_left has {rows}")
    return value


def update(hand: Hand, new: Hand) -> list[str]:
    """Put the points and the camera of ``new`` into the file."""
    row, scale = hand.index
    changed = []
    joints = None if new.joints_3d is None else new.joints_3d / scale
    for key, value in (("keypoints_2d", new.keypoints_2d), ("joints_3d", joints)):
        if value is None or not _has(hand.entry, key):
            continue
        if key in hand.entry.content:
            changed += hand.entry.put(key, row, value, -1, *_SHAPES[key])
        else:
            for column, number in zip(_columns(key), value.ravel().tolist()):
                hand.entry.content[column][row] = repr(number)
            changed.append(key)
    return changed
