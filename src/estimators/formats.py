"""The table of formats, and what a file looks like that is not of the format it was given as."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import replace
from types import ModuleType
from typing import Any

from src.estimators.records import EstimateFormatError, Hand, MissingKeyError, Options

#: Name of a format -> its module.
FORMATS = {
    "hamer": "src.estimators.hamer",
    "wilor": "src.estimators.hamer",
    "wilor_mini": "src.estimators.wilor_mini",
    "fasthamer": "src.estimators.fasthamer",
    "hawor": "src.estimators.hawor",
    "sam3d_body": "src.estimators.sam3d_body",
    "mediapipe": "src.estimators.mediapipe",
    "frankmocap": "src.estimators.frankmocap",
    "mmpose": "src.estimators.mmpose",
    "joints": "src.estimators.joints",
}


def module_of(format: str) -> ModuleType:
    """The module of a format.

    Raises:
        ValueError: there is none of that name.
    """
    if format not in FORMATS:
        raise ValueError(f"format {format!r} is unknown; known are {', '.join(FORMATS)}")
    return importlib.import_module(FORMATS[format])


def read_hands(content: Any, format: str, name: str, where: str, options: Options) -> list[Hand]:
    """The hands of a file's content.

    Raises:
        EstimateFormatError: it is not of this format (which key is missing, and what it looks like), or odd.
    """
    try:
        return module_of(format).read(content, name, where, options)
    except MissingKeyError as error:
        raise EstimateFormatError(f"{error}: not a file of {format}. {looks_like(content, format, options)}") from error


def looks_like(content: Any, format: str, options: Options) -> str:
    """Which other format it is: one whose reader finds all keys that it needs, else the one with most of its keys."""
    keys = set(_keys(content))
    others = [name for name in FORMATS if FORMATS[name] != FORMATS[format]]
    known = {name: len(keys & set(module_of(name).SIGNS)) for name in others}
    read = [name for name in others if known[name] and _has_its_keys(content, name, options)]
    best = max(read or others, key=lambda name: known[name])
    own = len(keys & set(module_of(format).SIGNS))
    if read or known[best] > max(own, 1):
        return f"It looks like {best!r}: read it with format={best!r}"
    if own > 1:
        return f"Else it looks like one: save what docs/estimators.md says of {format}"
    return "It looks like no format that is known; docs/estimators.md says what each writes"


def _has_its_keys(content: Any, format: str, options: Options) -> bool:
    """Whether the format's reader misses no key (that numbers are wrong, or sizes not given, is another matter)."""
    try:
        return bool(module_of(format).read(content, "", "", replace(options, side=options.side or "right")))
    except MissingKeyError:
        return False
    except EstimateFormatError:
        return True


def _keys(content: Any) -> Iterable[str]:
    """Names in the upper levels, list items seen through."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield str(key).split(".")[0]
            if isinstance(value, (dict, list)):
                yield from _keys(value)
    elif isinstance(content, (list, tuple)) and content and isinstance(content[0], (dict, list)):
        yield from _keys(content[0])
