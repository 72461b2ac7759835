"""How an MP4 or QuickTime file wants its frames to be shown: mirrored too, which OpenCV takes for turned alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

#: Bytes of the box that describes all tracks, of an hour-long video a few million.
_LARGEST_BOX = 1 << 28
#: Where the matrix begins in a track's header of version 0 and 1 (ISO/IEC 14496-12, 8.3.2).
_MATRIX_AT = (40, 52)


def mirroring(path: str | Path) -> np.ndarray | None:
    """The matrix [[a, c], [b, d]] of 0, 1 and -1 of the first video track, by which its pixels (x, y) are shown, where
    it mirrors; None: it does not, or there is none."""
    try:
        with open(path, "rb") as handle:
            for name, size in _boxes_of_file(handle):
                if name == b"moov" and size <= _LARGEST_BOX:
                    return _of_tracks(handle.read(size))
                handle.seek(size, 1)
    except (OSError, struct.error, OverflowError):  # no such file, or damaged: OpenCV says so
        pass
    return None


def _of_tracks(moov: bytes) -> np.ndarray | None:
    for name, track in _boxes(moov):
        parts = dict(_boxes(track)) if name == b"trak" else {}
        kind = dict(_boxes(parts.get(b"mdia", b""))).get(b"hdlr", b"")[8:12]
        header = parts.get(b"tkhd", b"")
        if kind == b"vide" and header and header[0] < len(_MATRIX_AT):
            a, b, _, c, d = struct.unpack_from(">5i", header, _MATRIX_AT[header[0]])
            matrix = np.array([[a, c], [b, d]]) / 65536
            known = np.isin(np.abs(matrix), (0, 1)).all() and abs(np.linalg.det(matrix)) == 1
            return matrix.astype(int) if known and np.linalg.det(matrix) < 0 else None
    return None


def _boxes_of_file(handle: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and size of what follows in each box, the file standing behind its head."""
    while len(head := handle.read(8)) == 8:
        size, name = struct.unpack(">I4s", head)
        if size == 1:
            size = struct.unpack(">Q", handle.read(8))[0] - 8
        if size < 8:  # the last one, or none
            return
        yield name, size - 8


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, place)
        if size < 8:
            return
        yield name, content[place + 8 : place + size]
        place += size


def shown(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A frame (H,W,3) as the matrix of `mirroring` shows it."""
    if matrix[0, 0] == 0:
        image = image.transpose(1, 0, 2)
    signs = matrix.sum(axis=1)  # of x and of y as shown
    return np.ascontiguousarray(image[:: signs[1], :: signs[0]])
