"""Reading single samples out of tars by their tables, and telling what is wrong with a damaged one."""

from __future__ import annotations

import io
import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.bad_files import BadFileError, bad_file
from datasets.shards.index import BLOCK, padded, sample_key

_OPEN_FILES = 64


class ShardFiles:
    """Shards by number; at most 64 are open at a time. Travels to loader processes without its open files."""

    def __init__(self, paths: Sequence[Path], split: str) -> None:
        """Open nothing yet.

        Args:
            paths: of the tars.
            split: that they were written from; samples are named after it.
        """
        self.paths, self._split = list(paths), split
        self._open: OrderedDict[int, int] = OrderedDict()

    def read(self, shard: int, row: np.void) -> tuple[bytes, bytes, bytes]:
        """Encoded image, labels and mask (empty if there is none) of a sample.

        Args:
            shard: number of the tar.
            row: `datasets.shards.index.SAMPLE_ROW` of the sample.

        Raises:
            BadFileError: the shard is cut short or altered; names it and the sample.
        """
        data = self._read_bytes(shard, int(row["offset"]), int(row["length"]))
        if len(data) < row["length"]:
            raise self.cut_short(shard, row)
        if zlib.crc32(data) != row["crc32"]:
            raise self.bad(shard, row, "sample {key} is not what was written (its checksum differs)")
        parts, start = [], 0
        for name in ("image_size", "labels_size", "mask_size"):
            size = int(row[name])
            parts.append(data[start + BLOCK : start + BLOCK + size])
            start += BLOCK + padded(size)
        return parts[0], parts[1], parts[2]

    def cut_short(self, shard: int, row: np.void) -> BadFileError:
        """The error for a sample beyond the end of its shard."""
        size, end = os.stat(self.paths[shard]).st_size, row["offset"] + row["length"]
        return self.bad(shard, row, f"cut short: it ends at byte {size}, its sample {{key}} would end at {end}")

    def bad(self, shard: int, row: np.void, reason: str) -> BadFileError:
        """The error for a sample; ``{key}`` in the reason becomes its name."""
        key = f"{sample_key(self._split, row['image_id'])} (image {row['image_id']})"
        return bad_file(self.paths[shard], reason.format(key=key))

    def _read_bytes(self, shard: int, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._handle(shard), length, offset)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.paths[shard])) from error

    def _handle(self, shard: int) -> int:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        if len(self._open) >= _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        self._open[shard] = os.open(self.paths[shard], os.O_RDONLY)
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        for handle in self.__dict__.get("_open", {}).values():
            os.close(handle)


def encode_image(image: np.ndarray, ending: str, quality: int = 95) -> bytes:
    """Encode a crop (C, C, 3) uint8 RGB, or a mask (C, C), as "png" (exact) or "jpg" (4:4:4, of that quality)."""
    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling] if ending == "jpg" else []
    pixels = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
    return cv2.imencode(f".{ending}", pixels, options)[1].tobytes()


def decode_image(data: bytes) -> np.ndarray | None:
    """Inverse of `encode_image`: (C, C, 3) RGB or, for a mask, (C, C) uint8; None if unreadable."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    return pixels if pixels is None or pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])


def encode_labels(record: np.ndarray) -> bytes:
    """One record (structured array of shape ()) as the bytes of a ``.npy`` file."""
    handle = io.BytesIO()
    np.lib.format.write_array(handle, record, allow_pickle=False)
    return handle.getvalue()


class LabelDecoder:
    """Inverse of `encode_labels`, quick for many records of one kind: the header is taken apart once."""

    def __init__(self) -> None:
        self._header, self._dtype = b"", np.dtype("u1")

    def __call__(self, data: bytes) -> np.ndarray:
        """A record (structured array of shape ()); ValueError if the bytes are none."""
        if not (self._header and data.startswith(self._header)):
            record = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            self._header, self._dtype = data[: len(data) - record.nbytes], record.dtype
        return np.frombuffer(data, self._dtype, count=1, offset=len(self._header))[0]
