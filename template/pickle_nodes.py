"""From the inert nodes of a pickle to arrays: every size, index and dtype is checked before use."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse


class PickleFormatError(ValueError):
    """A pickle is damaged or says something inconsistent."""


class Kind(enum.Enum):
    """What an allowed name of a pickle stands for."""

    NDARRAY = enum.auto()
    DTYPE = enum.auto()
    RECONSTRUCT = enum.auto()
    FROM_BUFFER = enum.auto()
    SCALAR = enum.auto()
    ENCODE = enum.auto()
    NO_BYTES = enum.auto()
    SPARSE = enum.auto()
    CH = enum.auto()
    SELECT = enum.auto()
    CONTAINER = enum.auto()
    OBJECT = enum.auto()
    RECONSTRUCTOR = enum.auto()
    INERT = enum.auto()


@dataclass(frozen=True)
class Name:
    """A class or function named by a pickle; never the thing itself."""

    kind: Kind
    text: str

    @property
    def is_class(self) -> bool:
        """Whether empty instances of it may be made."""
        return self.kind in (Kind.SPARSE, Kind.CH, Kind.SELECT, Kind.INERT)


@dataclass(eq=False)
class Node:
    """A "call" of a name with its arguments and, later, the state that was set on the result."""

    name: Name
    arguments: tuple = field(repr=False)
    state: Any = field(default=None, repr=False)


@dataclass(eq=False)
class InertObject:
    """An object of a class that was let in by name: its attributes, none of its behaviour."""

    class_name: str
    attributes: dict[str, Any]


def resolve(value: Any) -> Any:
    """The tree under ``value`` with every `Node` computed; shared parts stay shared.

    Raises:
        PickleFormatError: sizes, dtypes or indices do not fit together, or the tree has a cycle.
    """
    return _Resolver().resolve(value)


class _Resolver:
    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()

    def resolve(self, value: Any) -> Any:
        if not isinstance(value, (list, tuple, dict, Node, Name)):
            return value
        key = id(value)  # the tree is alive all the while, so ids are unique
        if key not in self._done:
            if key in self._open:
                raise PickleFormatError("an object of the pickle contains itself")
            self._open.add(key)
            self._done[key] = self._compute(value)
            self._open.remove(key)
        return self._done[key]

    def _compute(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.resolve(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.resolve(item) for item in value)
        if isinstance(value, Name):
            return value.text
        handler = getattr(self, f"_{value.name.kind.name.lower()}", None)
        if handler is None:
            raise PickleFormatError(f"{value.name.text} is called")
        return handler(value)

    def _dtype(self, node: Node) -> np.dtype:
        code = _text(node.arguments[0])
        if not re.fullmatch(r"[<>|=]?([biufc]\d{1,2}|[SU]\d{1,4}|\?)", code):
            raise PickleFormatError(f"dtype {code!r} is not a plain number or text type")
        dtype = np.dtype(code)
        order = _text(node.state[1]) if node.state else "|"
        return dtype if order not in ("<", ">") else dtype.newbyteorder(order)

    def _reconstruct(self, node: Node) -> np.ndarray:
        if not isinstance(node.state, tuple) or len(node.state) not in (4, 5):
            raise PickleFormatError("an array without its data")
        shape, dtype, is_fortran, data = self.resolve(node.state)[-4:]
        return _array(data, dtype, shape, "F" if is_fortran else "C")

    def _from_buffer(self, node: Node) -> np.ndarray:
        data, dtype, shape, order = self.resolve(node.arguments)
        return _array(data, dtype, shape, order)

    def _scalar(self, node: Node) -> np.generic:
        dtype, data = self.resolve(node.arguments)
        return _array(data, dtype, (), "C")[()]

    def _encode(self, node: Node) -> bytes:
        text, encoding = self.resolve(node.arguments)
        if encoding not in ("latin1", "latin-1"):
            raise PickleFormatError(f"bytes in the encoding {encoding!r}; only latin1 is used by pickle")
        return text.encode("latin1")

    def _no_bytes(self, node: Node) -> bytes:
        if node.arguments:
            raise PickleFormatError(f"{node.name.text} is called with arguments")
        return b""

    def _container(self, node: Node) -> list:
        items = self.resolve(node.arguments)
        return list(items[0]) if items else []

    def _inert(self, node: Node) -> InertObject:
        return InertObject(node.name.text, self._attributes(node))

    def _attributes(self, node: Node) -> dict[str, Any]:
        return self.resolve(_state(node))

    def _attribute(self, node: Node, key: str) -> Any:
        # One attribute alone: chumpy's objects also keep caches and bookkeeping, which are left alone.
        if key not in _state(node):
            raise PickleFormatError(f"{node.name.text} without its attribute {key!r}")
        return self.resolve(node.state[key])

    def _ch(self, node: Node) -> np.ndarray:
        return np.asarray(self._attribute(node, "x"))

    def _select(self, node: Node) -> np.ndarray:
        # chumpy.reordering.Select: a.ravel()[idxs], reshaped to preferred_shape
        source = np.ravel(self._attribute(node, "a"))
        indices = np.asarray(self._attribute(node, "idxs"))
        if indices.dtype.kind not in "iu" or (indices.size and not 0 <= indices.min() <= indices.max() < source.size):
            raise PickleFormatError(f"{node.name.text}: indices do not fit an array of {source.size} values")
        selected = source[indices]
        if "preferred_shape" not in _state(node):
            return selected
        return selected.reshape([int(size) for size in self._attribute(node, "preferred_shape")])

    def _sparse(self, node: Node) -> scipy.sparse.spmatrix:
        attributes = self._attributes(node)
        shape = tuple(int(size) for size in self._attribute(node, "_shape" if "_shape" in attributes else "shape"))
        data = self._attribute(node, "data")
        if "coo" in node.name.text:
            coordinates = attributes.get("coords") or [self._attribute(node, key) for key in ("row", "col")]
            matrix = scipy.sparse.coo_matrix((data, tuple(coordinates)), shape=shape)
            matrix._check()
            return matrix
        parts = (data, self._attribute(node, "indices"), self._attribute(node, "indptr"))
        make = scipy.sparse.csc_matrix if "csc" in node.name.text else scipy.sparse.csr_matrix
        matrix = make(parts, shape=shape)
        matrix.check_format(full_check=True)  # an index outside the matrix would be read as memory
        return matrix


def _state(node: Node) -> dict[str, Any]:
    state = {} if node.state is None else node.state
    if not isinstance(state, dict):
        raise PickleFormatError(f"{node.name.text} with a state that is no dict")
    return state


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _array(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """An array of exactly ``data``: nothing is allocated on the word of ``shape`` alone."""
    if isinstance(data, str):  # Python 2's byte strings
        data = data.encode("latin1")
    if not isinstance(data, bytes) or not isinstance(dtype, np.dtype):
        raise PickleFormatError(f"an array of {type(data).__name__} with dtype {dtype!r:.40}")
    shape = (shape,) if isinstance(shape, int) else shape
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise PickleFormatError(f"an array of shape {shape!r:.80}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise PickleFormatError(f"an array of shape {shape} and dtype {dtype} with {len(data)} bytes of data")
    native = np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")
    return native.astype(dtype.newbyteorder("="))
