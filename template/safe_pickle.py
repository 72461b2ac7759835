"""Reads the pickles that hand models are published as, without running anything that they name.

A pickle is a program: `pickle.load` imports the names that it holds and calls them. Here, as Python's documentation
advises ("Restricting Globals"), every name is looked up in a table of our own stand-ins: for NumPy's arrays, SciPy's
sparse matrices and chumpy's ``Ch`` and ``Select`` (no chumpy is needed). Any other name ends the reading with
`UnsafePickleError`. Sizes, types and indices are checked before NumPy and SciPy see them.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

#: The official files are 4 MB; anything this large is not one of them.
MAX_FILE_BYTES = 256 * 2**20
_DTYPE = re.compile(r"[<>|=]?([biufc]\d{1,2}|[SU]\d{1,4}|\?)")
_MAX_DEPTH = 20


class UnsafePickleError(pickle.UnpicklingError, ValueError):
    """A pickle names something that the reader does not know, or uses a name as it must not."""


class PickleFormatError(ValueError):
    """A pickle is damaged or says something inconsistent."""


def safe_load(path: str | os.PathLike) -> Any:
    """Read a pickle (Python 2 or 3, any protocol) of numbers, text and arrays.

    Returns:
        Numbers, text (Python 2 strings as latin-1), bytes, lists, tuples, dicts, NumPy arrays (also for chumpy
        objects) and SciPy sparse matrices.

    Raises:
        UnsafePickleError: the file names a class or function that is not known; nothing was run.
        PickleFormatError: the file is too large, truncated, not a pickle, or inconsistent.
        OSError: the file cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise PickleFormatError(f"{path}: {size} bytes; more than {MAX_FILE_BYTES} is not read as a pickle")
    try:
        return _resolve(_RestrictedUnpickler(path.read_bytes()).load(), {}, 0)
    except UnsafePickleError as error:
        advice = "Use the original file of its publisher, or convert it to .npz"
        raise UnsafePickleError(f"{path}: refused, nothing was run: the pickle {error}. {advice}.") from error
    except Exception as error:  # a damaged file can fail anywhere in the opcode machine, in any way
        raise PickleFormatError(f"{path}: not a readable pickle ({type(error).__name__}: {error})") from error


class _Stub:
    """An instance of a class that a pickle names: its state, none of its behaviour."""

    __slots__ = ("state",)

    def build(self, state: Any) -> None:
        if hasattr(self, "state") or not isinstance(state, dict):
            raise PickleFormatError(f"state of {type(self).__name__} is set twice, or is a {type(state).__name__}")
        self.state = state


class _Chumpy(_Stub):
    __slots__ = ()

    def resolve(self) -> np.ndarray:
        return np.asarray(_resolve(self.state["x"], {}, 0))


class _ChumpySelect(_Stub):
    """a.ravel()[idxs], reshaped to preferred_shape."""

    __slots__ = ()

    def resolve(self) -> np.ndarray:
        source, indices = (np.asarray(_resolve(self.state[key], {}, 0)) for key in ("a", "idxs"))
        if indices.dtype.kind not in "iu" or (indices.size and not 0 <= indices.min() <= indices.max() < source.size):
            raise PickleFormatError(f"indices do not fit an array of {source.size} values")
        return source.ravel()[indices].reshape(self.state.get("preferred_shape", indices.shape))


class _Sparse(_Stub):
    __slots__ = ()

    def resolve(self) -> scipy.sparse.spmatrix:
        state, shape = self.state, self.state["_shape" if "_shape" in self.state else "shape"]
        if type(self) is _Coo:
            places = state["coords"] if "coords" in state else (state["row"], state["col"])
            return scipy.sparse.coo_matrix((state["data"], tuple(places)), shape=shape)  # which checks the indices
        make = scipy.sparse.csc_matrix if type(self) is _Csc else scipy.sparse.csr_matrix
        matrix = make(tuple(state[key] for key in ("data", "indices", "indptr")), shape=shape)
        matrix.check_format(full_check=True)  # an index outside the matrix would be read as memory
        return matrix


_Csc, _Csr, _Coo = (type(name, (_Sparse,), {"__slots__": ()}) for name in ("_Csc", "_Csr", "_Coo"))


class _Dtype:
    """A plain type of numbers or text; BUILD gives it its byte order."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not _DTYPE.fullmatch(code):
            raise PickleFormatError(f"dtype {code!r} is not a plain number or text type")
        self.dtype = np.dtype(code)

    def build(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


def _reconstructor(target: Any, base: Any, state: None) -> _Stub:
    """copy_reg._reconstructor(cls, object, None): Python 2's way to make an empty instance."""
    if not (isinstance(target, type) and issubclass(target, _Stub)) or base != "object" or state is not None:
        raise UnsafePickleError(f"makes an instance of {target!r:.80} with base {base!r:.40}")
    return target()


# Python's own pure-Python opcode machine, not the C one, whose memo is an array that one opcode makes 30 GB large.
class _RestrictedUnpickler(pickle._Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._budget = 16 * len(data) + 2**20  # bytes of arrays: one piece of data may be used several times
        self._names: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): "numpy.ndarray", ("numpy", "dtype"): _Dtype, ("_codecs", "encode"): self._encode,
            ("chumpy.ch", "Ch"): _Chumpy, ("chumpy.reordering", "Select"): _ChumpySelect,
        }  # fmt: skip
        for module in ("__builtin__", "builtins"):
            self._names |= {(module, "object"): "object", (module, "bytes"): lambda: b"",
                            (module, "set"): lambda items=(): list(items)}  # fmt: skip
        for module in ("copy_reg", "copyreg"):
            self._names[module, "_reconstructor"] = _reconstructor
        for module in ("numpy.core", "numpy._core"):
            self._names[f"{module}.multiarray", "_reconstruct"] = lambda *_: np.zeros(0, "b")  # BUILD fills it
            self._names[f"{module}.multiarray", "scalar"] = lambda dtype, data: self._array(data, dtype, (), "C")[()]
            self._names[f"{module}.numeric", "_frombuffer"] = self._array
        for kind, stub in (("csc", _Csc), ("csr", _Csr), ("coo", _Coo)):
            for module in (f"scipy.sparse.{kind}", f"scipy.sparse._{kind}"):
                self._names |= {(module, f"{kind}_{ending}"): stub for ending in ("matrix", "array")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            raise UnsafePickleError(f"names {module}.{name}, which is not needed for array data")
        return self._names[module, name]

    def _bytes(self, data: Any) -> bytes:
        data = data.encode("latin1") if isinstance(data, str) else data  # Python 2's byte strings
        if not isinstance(data, (bytes, bytearray)):
            raise PickleFormatError(f"{type(data).__name__} in place of an array's bytes")
        self._budget -= len(data)
        if self._budget < 0:
            raise PickleFormatError("its arrays would be far larger than the file")
        return bytes(data)

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise PickleFormatError(f"bytes in the encoding {encoding!r}; only latin1 is used by pickle")
        return self._bytes(text)

    def _array(self, data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
        """An array of exactly ``data``, in native byte order: nothing is allocated on the word of ``shape`` alone."""
        data, kind, shape = self._bytes(data), dtype.dtype, (shape,) if isinstance(shape, int) else shape
        if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise PickleFormatError(f"an array of shape {shape!r:.80}")
        if math.prod(shape) * kind.itemsize != len(data):
            raise PickleFormatError(f"an array of shape {shape} and dtype {kind} with {len(data)} bytes of data")
        return np.frombuffer(data, kind).reshape(shape, order=order).astype(kind.newbyteorder("="))

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, (_Stub, _Dtype)):
            target.build(state)
        elif type(target) is np.ndarray and target.shape == (0,) and target.dtype == "b":
            shape, dtype, is_fortran, data = state[-4:]
            whole = self._array(data, dtype, shape, "F" if is_fortran else "C")
            target.__setstate__((1, whole.shape, whole.dtype, bool(is_fortran), whole.tobytes("A")))
        else:
            raise UnsafePickleError(f"sets the state of {target!r:.80}")

    def load_setitems(self) -> None:
        self._update(self.pop_mark())

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._update(items)

    def _update(self, items: list) -> None:
        # Plain keys only: hashing a tuple nested 100,000 deep would overflow the C stack.
        if type(self.stack[-1]) is not dict or not all(type(key) in (str, int, bytes) for key in items[::2]):
            raise UnsafePickleError(f"sets items of a {type(self.stack[-1]).__name__}, or with keys that are not plain")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    dispatch = dict(pickle._Unpickler.dispatch)
    for (
        _name
    ) in "EXT1 EXT2 EXT4 EMPTY_SET FROZENSET ADDITEMS NEWOBJ_EX PERSID BINPERSID NEXT_BUFFER READONLY_BUFFER".split():
        del dispatch[getattr(pickle, _name)[0]]
    dispatch |= {pickle.BUILD[0]: load_build, pickle.DICT[0]: load_dict,
                 pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems}  # fmt: skip


def _resolve(value: Any, done: dict[int, Any], depth: int) -> Any:
    """``value`` with every stub in it computed; shared parts stay shared."""
    if not isinstance(value, (list, tuple, dict, _Stub)):
        return value
    if depth > _MAX_DEPTH:
        raise PickleFormatError(f"lists in lists, {_MAX_DEPTH} deep, or one that contains itself")
    if id(value) not in done:
        if isinstance(value, _Stub):
            done[id(value)] = value.resolve()
        elif isinstance(value, dict):
            done[id(value)] = {key: _resolve(item, done, depth + 1) for key, item in value.items()}
        else:
            done[id(value)] = type(value)(_resolve(item, done, depth + 1) for item in value)
    return done[id(value)]
