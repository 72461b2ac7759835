"""Reads the pickles that hand models are published as, without executing anything.

A pickle is a program: `pickle.load` imports whatever names it holds and calls them. The reader here
runs the same opcodes but imports nothing and calls nothing. Every name on a short list becomes an
inert `Node`, "calling" a name only notes its arguments, and the finished tree of nodes is then
turned into arrays by `template.pickle_nodes`, which checks every size first. A name that is not on
the list ends the reading with `UnsafePickleError`, which says the file and the name.

Known are: NumPy arrays, dtypes and scalars (NumPy 1 and 2 names), SciPy's csc/csr/coo matrices
(old and new names), chumpy's `Ch` and `reordering.Select` (no chumpy is needed), byte strings.
Further classes can be let in by name as plain containers of their attributes (`inert`).
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from template.pickle_nodes import Kind, Name, Node, PickleFormatError, resolve

#: The official files are 4 MB; anything this large is not one of them.
MAX_FILE_BYTES = 256 * 2**20

_ALLOWED: dict[tuple[str, str], Kind] = {
    ("numpy", "ndarray"): Kind.NDARRAY,
    ("numpy", "dtype"): Kind.DTYPE,
    ("_codecs", "encode"): Kind.ENCODE,
    # protocols below 3 write empty bytes as a call of bytes()
    ("__builtin__", "bytes"): Kind.NO_BYTES,
    ("builtins", "bytes"): Kind.NO_BYTES,
    ("chumpy.ch", "Ch"): Kind.CH,
    ("chumpy.reordering", "Select"): Kind.SELECT,
    # chumpy keeps a set of dirty variables beside its array: read as an unordered container
    ("__builtin__", "set"): Kind.CONTAINER,
    ("builtins", "set"): Kind.CONTAINER,
    ("__builtin__", "object"): Kind.OBJECT,
    ("builtins", "object"): Kind.OBJECT,
    ("copy_reg", "_reconstructor"): Kind.RECONSTRUCTOR,
    ("copyreg", "_reconstructor"): Kind.RECONSTRUCTOR,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = Kind.RECONSTRUCT
    _ALLOWED[f"{_core}.multiarray", "scalar"] = Kind.SCALAR
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = Kind.FROM_BUFFER
for _format in ("csc", "csr", "coo"):
    for _module in (f"scipy.sparse.{_format}", f"scipy.sparse._{_format}"):
        for _class in (f"{_format}_matrix", f"{_format}_array"):
            _ALLOWED[_module, _class] = Kind.SPARSE


class UnsafePickleError(pickle.UnpicklingError, ValueError):
    """A pickle names something that the reader does not know, or uses a name as it must not."""


def safe_load(path: str | os.PathLike, inert: Iterable[tuple[str, str]] = ()) -> Any:
    """Read a pickle (Python 2 or 3, any protocol) without importing or calling anything it names.

    Args:
        path: the file.
        inert: further (module, class) names to accept as containers of their attributes, for
            instance ``[("psbody.mesh.mesh", "Mesh")]``.

    Returns:
        Numbers, text (Python 2 strings as latin-1), bytes, lists, tuples, dicts, NumPy arrays (also
        for chumpy objects), SciPy sparse matrices, and a `template.pickle_nodes.InertObject` for
        each object of an ``inert`` class.

    Raises:
        UnsafePickleError: the file names a class or function that is not known; nothing was run.
        PickleFormatError: the file is too large, truncated, not a pickle, or inconsistent.
        OSError: the file cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise PickleFormatError(f"{path}: {size} bytes; more than {MAX_FILE_BYTES} is not read as a pickle")
    reader = _InertUnpickler(io.BytesIO(path.read_bytes()), path, dict.fromkeys(inert, Kind.INERT))
    try:
        return resolve(reader.load())
    except UnsafePickleError:
        raise
    except PickleFormatError as error:
        raise PickleFormatError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file can fail anywhere in the opcode machine, in any way
        raise PickleFormatError(
            f"{path}: not a readable pickle ({type(error).__name__}: {error}); is the file truncated?"
        ) from error


# Python's own pure-Python opcode machine, not the C one: its memo is a dict (the C memo is an array
# that one opcode can make 30 GB large) and its table of opcodes can be cut down to an allow list.
class _InertUnpickler(pickle._Unpickler):
    """The opcode machine with every opcode that could import, call or mutate replaced or removed."""

    def __init__(self, file: io.BytesIO, path: Path, inert: dict[tuple[str, str], Kind]) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path
        self._inert = inert
        self._bytes_available = file.getbuffer().nbytes

    def find_class(self, module: str, name: str) -> Name:
        """The inert `Name` of an allowed (module, name); dotted names match nothing."""
        kind = _ALLOWED.get((module, name)) or self._inert.get((module, name))
        if kind is None:
            raise self._refusal(f"names {module}.{name}, which is not needed for array data")
        return Name(kind, f"{module}.{name}")

    def _refusal(self, what: str) -> UnsafePickleError:
        return UnsafePickleError(f"{self._path}: refused, nothing was run: the pickle {what}. "
                                 "Use the original file of its publisher, or convert it to .npz.")

    def _construct(self, function: Any, arguments: Any) -> Node:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise self._refusal(f"calls {function!r:.80}")
        if function.kind is Kind.RECONSTRUCTOR:
            # copy_reg._reconstructor(cls, object, None): Python 2's way to make an empty instance
            target, base, state = arguments
            if not (isinstance(target, Name) and target.is_class and isinstance(base, Name)
                    and base.kind is Kind.OBJECT and state is None):
                raise self._refusal(f"calls {function.text} with {arguments!r:.120}")
            return Node(target, ())
        if function.kind is Kind.OBJECT:
            raise self._refusal(f"calls {function.text}")
        return Node(function, arguments)

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._construct(self.stack[-1], arguments)

    def _load_newobj(self) -> None:
        arguments = self.stack.pop()
        target = self.stack.pop()
        if not isinstance(target, Name) or not target.is_class:
            raise self._refusal(f"makes an instance of {target!r:.80}")
        self.append(Node(target, arguments))

    def _load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Node) or target.state is not None:
            raise self._refusal(f"sets the state of {target!r:.80}")
        target.state = state

    def _load_append(self) -> None:
        item = self.stack.pop()
        self._extend(self.stack[-1], [item])

    def _load_appends(self) -> None:
        items = self.pop_mark()
        self._extend(self.stack[-1], items)

    def _extend(self, target: Any, items: list) -> None:
        if type(target) is not list:
            raise self._refusal(f"appends to {target!r:.80}")
        target.extend(items)

    def _load_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._update(self.stack[-1], [key, value])

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        self._update(self.stack[-1], items)

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._update(self.stack[-1], items)

    def _update(self, target: Any, items: list) -> None:
        # Plain keys only: hashing a tuple nested 100,000 deep would overflow the C stack.
        keys = items[::2]
        if type(target) is not dict or not all(type(key) in (str, int, bytes) for key in keys):
            raise self._refusal(f"sets items of {type(target).__name__} with keys {keys!r:.80}")
        target.update(zip(keys, items[1::2], strict=True))

    def _load_bytearray8(self) -> None:
        # Protocol 5 arrays. The original opcode allocates the length before it reads.
        length = int.from_bytes(self.read(8), "little")
        if length > self._bytes_available:
            raise PickleFormatError(f"announces {length} bytes, more than the file holds")
        self.append(self.read(length))

    _UNCHANGED = (
        "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 "
        "FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES "
        "SHORT_BINBYTES BINBYTES8 TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST EMPTY_DICT "
        "GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL"
    ).split()
    dispatch: dict[int, Callable[[_InertUnpickler], None]] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _UNCHANGED
    }
    dispatch |= {
        pickle.REDUCE[0]: _load_reduce, pickle.NEWOBJ[0]: _load_newobj, pickle.BUILD[0]: _load_build,
        pickle.APPEND[0]: _load_append, pickle.APPENDS[0]: _load_appends, pickle.DICT[0]: _load_dict,
        pickle.SETITEM[0]: _load_setitem, pickle.SETITEMS[0]: _load_setitems,
        pickle.BYTEARRAY8[0]: _load_bytearray8,
    }
