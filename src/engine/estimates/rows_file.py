"""`save_predictions` in parts: rows.npz of more hands than memory holds."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from utils.artifacts import META_FIELDS, PREDICTIONS_SCHEMA, ROW_ARRAYS, Predictions
from utils.files import atomic_path


class RowsFile(contextlib.AbstractContextManager):
    """Rows are added in order; the file is there once the block ends without an error.

    Args:
        path: .npz, as `load_predictions` reads it. count: rows that will be added; name_length: of the longest
            image_name.
    """

    def __init__(self, path: Path, count: int, name_length: int) -> None:
        self._path, self._count, self._name_length = path, count, name_length
        self._folder = Path(tempfile.mkdtemp(prefix=".rows.", dir=path.parent))  # beside it: it may be large
        self._columns: dict[str, IO[bytes]] = {}
        self._meta: dict[str, np.ndarray] = {}

    def add(self, rows: Predictions) -> None:
        """More rows, of the same columns."""
        for name in ROW_ARRAYS:
            value = getattr(rows, name)
            if value is not None:
                value = value.astype(f"<U{self._name_length}") if name == "image_name" else value
                if name not in self._columns:
                    self._columns[name] = open(self._folder / f"{name}.npy", "wb")  # noqa: SIM115
                    shape = (self._count, *value.shape[1:])
                    header = {"descr": value.dtype.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(self._columns[name], header)
                self._columns[name].write(np.ascontiguousarray(value).tobytes())
        meta: dict[str, Any] = {name: getattr(rows, name) for name in META_FIELDS}
        self._meta = {name: np.array(value) for name, value in meta.items()} | {"schema": np.array(PREDICTIONS_SCHEMA)}

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for handle in self._columns.values():
            handle.close()
        try:
            if kind is None:
                for name, value in self._meta.items():
                    np.save(self._folder / f"{name}.npy", value)
                with atomic_path(self._path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                    for name in (*self._columns, *self._meta):
                        archive.write(self._folder / f"{name}.npy", f"{name}.npy")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
