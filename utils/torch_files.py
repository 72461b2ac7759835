"""Reading ``.pt`` files without running anything that somebody put into them."""

from __future__ import annotations

import argparse
import codecs
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.files import what_it_is

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
