"""Reading ``.pt`` and ``.safetensors`` files without running anything that somebody put into them."""

from __future__ import annotations

import argparse
import codecs
import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from utils.files import what_it_is
from utils.low_bits import SCALE, unpack

#: Of a folder's shipped ``.safetensors``: how each was made, and its SHA-256.
INDEX = "weights.json"

#: Beside tensors and plain values, what files of other code often hold beside their weights. None of it runs code.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    codecs.encode,
    np.dtype,
    np.ndarray,
    *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdFD"),
    *(
        (value.__reduce__()[0], f"{module}.multiarray.{name}")
        for module in ("numpy.core", "numpy._core")  # of NumPy 1 and 2
        for name, value in (("scalar", np.float64()), ("_reconstruct", np.zeros(0)))
    ),
]


class CheckpointError(ValueError):
    """A checkpoint is not of the network it is asked to be."""


class UnreadableCheckpointError(CheckpointError):
    """A file is not whole, or no checkpoint at all."""


def load_harmless(path: str | Path) -> Any:
    """What a ``.pt`` file holds, read without running anything of it.

    Raises:
        CheckpointError: it is cut short or no such file, or holds objects whose reading would run code.
    """
    try:
        if zipfile.is_zipfile(path):  # whose checksums PyTorch writes and does not look at
            with zipfile.ZipFile(path) as archive:
                if (bad := archive.testzip()) is not None:
                    raise ValueError(f"the checksum of {bad} differs")
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises many kinds; all mean the same to the user
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found:
            raise CheckpointError(
                f"{path}: holds a {found[1]}, and reading such objects could run code that somebody put there, so it "
                "is not read. Where the file was made, save the network's weights alone: "
                "torch.save(network.state_dict(), FILE)"
            ) from error
        raise UnreadableCheckpointError(
            f"{path}: cannot be read as a checkpoint ({what_it_is(path, error)}); is the file complete?"
        ) from error


def load_shipped(path: Path) -> dict[str, Any]:
    """What a ``.safetensors`` file holds: the notes in its metadata, and ``model``, its tensors in single precision.

    Raises:
        UnreadableCheckpointError: it is cut short or no such file, or not the one whose SHA-256 stands in `INDEX`
            beside it: another weight is another hand, not an error.
    """
    index = path.with_name(INDEX)
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            notes, packed = (json.loads(metadata.get(name, "{}")) for name in ("notes", "packed"))
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}
            for name, (shape, bits) in packed.items():
                tensors[name] = unpack(tensors[name], tensors.pop(name + SCALE), shape, bits)
        entry = json.loads(index.read_bytes()).get(path.name) if index.is_file() else None
        if entry is not None and hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise ValueError(f"its SHA-256 is not the one in {index}; of a file of your own take that entry out")
    except Exception as error:  # as in `load_harmless`
        raise UnreadableCheckpointError(
            f"{path}: cannot be read as a checkpoint ({what_it_is(path, error)}); is the file complete?"
        ) from error
    return {**notes, "model": {name: tensor.float() for name, tensor in tensors.items()}}
