"""Writes a pickle as MANO's Python 2 and chumpy wrote theirs, with arrays that are ours."""

from __future__ import annotations

import contextlib
import pickle
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from random_assets import mano_dictionary

from template import HandAssets

_OLD_MODULES = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "scipy.sparse._csc": "scipy.sparse.csc",
    "scipy.sparse._csr": "scipy.sparse.csr",
    "scipy.sparse._coo": "scipy.sparse.coo",
}


class Python2Pickler(pickle._Pickler):
    """Protocol 2 with byte strings and the module names of 2015."""

    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, file: Any) -> None:
        super().__init__(file, protocol=2, fix_imports=True)

    def _save_bytes(self, value: bytes | str) -> None:
        data = value if isinstance(value, bytes) else value.encode("latin1")
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = _save_bytes
    dispatch[str] = _save_bytes

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = getattr(obj, "__module__", "")
        if module in _OLD_MODULES:
            self.write(pickle.GLOBAL + f"{_OLD_MODULES[module]}\n{obj.__qualname__}\n".encode())
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    dispatch[type] = lambda self, obj: self.save_global(obj)
    dispatch[types.FunctionType] = save_global


@contextlib.contextmanager
def fake_chumpy() -> Iterator[tuple[type, type]]:
    """The classes chumpy.ch.Ch and chumpy.reordering.Select, importable inside the block only."""
    ch, reordering = types.ModuleType("chumpy.ch"), types.ModuleType("chumpy.reordering")
    ch.Ch = type("Ch", (), {"__module__": "chumpy.ch"})
    reordering.Select = type("Select", (ch.Ch,), {"__module__": "chumpy.reordering"})
    modules = {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": ch, "chumpy.reordering": reordering}
    sys.modules.update(modules)
    try:
        yield ch.Ch, reordering.Select
    finally:
        for name in modules:
            del sys.modules[name]


def write_mano_pickle(path: Path, assets: HandAssets, **replaced: Any) -> None:
    """A file like MANO_RIGHT.pkl: chumpy shape directions, sparse regressor, ``replaced`` keys exchanged."""
    with fake_chumpy() as (ch_class, select_class):

        def ch(array: np.ndarray) -> Any:
            result = ch_class()
            result.__dict__.update(x=array, _dirty_vars={"x"}, _itr=None, _depends_on_deps={})
            return result

        content = mano_dictionary(assets)
        # as after shapedirs[:, :, :10] of a chumpy array with more directions, stored in Fortran order
        more = np.concatenate([assets.shapedirs, np.full((778, 3, 4), 7.0)], axis=2)
        select = select_class()
        places = np.arange(more.size).reshape(more.shape)[:, :, :10]
        select.__dict__.update(
            a=ch(np.asfortranarray(more)),
            idxs=places.ravel(),
            preferred_shape=places.shape,
            _dirty_vars=set(),
            _itr=None,
            _depends_on_deps={},
        )
        content |= {
            "shapedirs": select,
            "posedirs": ch(assets.posedirs),
            "J_regressor": scipy.sparse.csc_matrix(assets.J_regressor),
            "hands_coeffs": np.zeros((1554, 45)),
            "J": np.zeros((16, 3)),
            "bs_type": "lrotmin",
            "bs_style": "lbs",
        } | replaced
        with open(path, "wb") as file:
            Python2Pickler(file).dump({key: value for key, value in content.items() if value is not None})
