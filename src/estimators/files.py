"""Files of other estimators' results: read as plain data, nothing in them is run, and written back as they were."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from template.safe_pickle import safe_load
from utils.artifact_checks import ArtifactError
from utils.files import READ_ERRORS, atomic_path, read_reason

#: The last is read alone.
SUFFIXES = (".npz", ".pt", ".pth", ".pkl", ".pickle", ".json", ".csv", ".pbtxt")


def list_files(path: str | os.PathLike) -> list[Path]:
    """The file itself, or a folder's files of a known kind, by name.

    Raises:
        FileNotFoundError: there is none. ArtifactError: a half-written file lies in the folder.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the file or folder that the estimator wrote")
    if path.is_file():
        return [path]
    half = [file.name for file in path.iterdir() if file.suffix in (".tmp", ".part") or ".tmp." in file.name]
    if half:
        raise ArtifactError(f"{path} is half written ({half[0]} is in it); let the estimator end, or remove that file")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
    if not files:
        raise FileNotFoundError(f"{path} has no file that ends in {', '.join(SUFFIXES)}")
    return files


def load(path: Path) -> Any:
    """Plain data of a file: dicts, lists, numbers, text, arrays, tensors.

    Raises:
        ArtifactError: it cannot be read without running it, or is damaged.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        if suffix in (".pt", ".pth"):
            return torch.load(path, map_location="cpu", weights_only=True)
        if suffix in (".pkl", ".pickle"):
            return safe_load(path)
        if suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8-sig"))
        if suffix == ".csv":
            with open(path, newline="", encoding="utf-8-sig") as handle:
                lines = [(number, row) for number, row in enumerate(csv.reader(handle), start=1) if row]
            header = lines[0][1] if lines else []
            for number, row in lines:
                if len(row) != len(header):
                    raise ValueError(f"line {number} has {len(row)} columns, the first one {len(header)}")
            return {key: [row[column] for _, row in lines[1:]] for column, key in enumerate(header)}
        if suffix == ".pbtxt":
            return parse_pbtxt(path.read_text(encoding="utf-8-sig"))
    except (*READ_ERRORS, pickle.UnpicklingError) as error:
        advice = (
            "Files are read, never run: save arrays and plain dicts (npz, JSON, pickle of NumPy arrays, torch.save of "
            "tensors)"
        )
        reason = f"{type(error).__name__}: {read_reason(error)}"
        raise ArtifactError(f"{path} cannot be read ({reason}). {advice}") from error
    raise ArtifactError(f"{path}: files that end in {path.suffix!r} are not known; known are {', '.join(SUFFIXES)}")


def save(path: Path, content: Any) -> None:
    """Write what `load` gave, in the same kind of file, atomically."""
    check_written(path)
    suffix = path.suffix.lower()
    with atomic_path(path) as temporary:
        if suffix == ".npz":
            with open(temporary, "wb") as handle:
                np.savez(handle, **content)
        elif suffix in (".pt", ".pth"):
            torch.save(content, temporary)
        elif suffix in (".pkl", ".pickle"):
            temporary.write_bytes(pickle.dumps(content))
        elif suffix == ".json":
            temporary.write_text(json.dumps(content), encoding="utf-8")
        else:
            with open(temporary, "w", newline="", encoding="utf-8") as handle:
                csv.writer(handle).writerows([list(content), *zip(*content.values(), strict=True)])


def check_written(path: Path) -> None:
    """Raise ArtifactError unless `save` writes files of this kind."""
    if path.suffix.lower() not in SUFFIXES[:-1]:
        raise ArtifactError(f"{path}: results with changes are not written as {path.suffix!r}; use .json")


def parse_pbtxt(text: str) -> dict[str, list[Any]]:
    """Protocol buffers' text format as a dict; every field is a list, as any may be repeated."""
    stack: list[dict[str, list[Any]]] = [{}]
    for name, opens, value, closes in re.findall(r'(\w+)\s*(?:(\{)|:\s*("[^"]*"|[^\s{}]+))|(\})', text):
        if closes:
            stack.pop()
        elif opens:
            inner: dict[str, list[Any]] = {}
            stack[-1].setdefault(name, []).append(inner)
            stack.append(inner)
        else:
            number = value.strip('"') if value.startswith('"') or value.isalpha() else float(value)
            stack[-1].setdefault(name, []).append(number)
    if len(stack) != 1:
        raise ValueError("braces do not match")
    return stack[0]
