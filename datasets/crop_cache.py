"""All crops of a data set in one memory-mapped array, so that training never decodes a JPEG again."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.files import READ_ERRORS, atomic_path, writable_folder, write_json

logger = logging.getLogger(__name__)

_CACHE_VERSION = 1
_ROWS_PER_TASK = 64


class CropCache:
    """Crops (N, C, C, channels) uint8 in a ``.npy`` file with a small JSON beside it that says what they are.

    The JSON is written last, so an interrupted build leaves nothing that looks finished.

    Attributes:
        crops: (N, C, C, channels) uint8, memory-mapped, read-only.
        readable: (N,) bool, False where the image could not be read (its crop is black).
    """

    def __init__(self, folder: Path, name: str, key: str, count: int, crop_size: int, channels: int = 3) -> None:
        """Name the cache; nothing is read yet.

        Args:
            folder: where it lives.
            name: readable part of the file name, such as the split.
            key: names the data's state; a cache with another key is another file.
            count: number of crops N.
            crop_size: C, pixels.
            channels: 3, or 4 with a mask behind the colours.
        """
        masked = "" if channels == 3 else f"_{channels}channels"
        stem = f"crops_{name}_{crop_size}px{masked}_v{_CACHE_VERSION}_{key}"
        self.shape = (count, crop_size, crop_size, channels)
        self.array_path = folder / f"{stem}.npy"
        self.json_path = folder / f"{stem}.json"
        self.crops: np.ndarray | None = None
        self.readable = np.ones(count, dtype=bool)

    def open(self) -> bool:
        """Map the crops if a finished cache is there; say whether it was."""
        if not (self.json_path.is_file() and self.array_path.is_file()):
            return False
        try:
            crops = np.load(self.array_path, mmap_mode="r", allow_pickle=False)
            unreadable = np.array(json.loads(self.json_path.read_bytes())["unreadable"], dtype=np.int64)
            if crops.shape != self.shape or crops.dtype != np.uint8:
                raise ValueError(f"holds {crops.dtype} {crops.shape} instead of uint8 {self.shape}")
            self.readable[unreadable] = False
        except READ_ERRORS as error:
            logger.warning("%s is damaged and will be built again (%s)", self.array_path, error)
            self.readable[:] = True
            return False
        self.crops = crops
        return True

    def build(self, make: Callable[[int], tuple[np.ndarray, bool]], workers: int) -> None:
        """Make every crop and map the result.

        Threads do it: decoding and resampling release the interpreter's lock.

        Args:
            make: row -> (crop (C, C, channels) uint8, whether the image was readable). What it raises ends the build.
            workers: number of threads.

        Raises:
            OSError: if the disk has too little room.
        """
        writable_folder(self.array_path.parent, "--cache")
        for leftover in self.array_path.parent.glob(f".{self.array_path.stem}.*.tmp.npy"):  # of a build that was killed
            leftover.unlink(missing_ok=True)
        needed, free = int(np.prod(self.shape)), shutil.disk_usage(self.array_path.parent).free
        if needed > free:
            raise OSError(
                f"the crop cache needs {needed / 1e9:.1f} GB and {self.array_path.parent} has {free / 1e9:.1f} GB "
                "free; choose another --cache folder or a smaller crop"
            )
        starts = range(0, self.shape[0], _ROWS_PER_TASK)
        with atomic_path(self.array_path) as temporary:
            crops = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=self.shape)

            def fill(start: int) -> int:
                rows = range(start, min(start + _ROWS_PER_TASK, self.shape[0]))
                for row in rows:
                    crops[row], self.readable[row] = make(row)  # noqa: F821 (deleted at the end, to close the file)
                return len(rows)

            with (
                tqdm(total=self.shape[0], desc="crop cache", unit="image", disable=None) as bar,
                ThreadPoolExecutor(max(workers, 1)) as pool,
            ):
                try:
                    for done in pool.map(fill, starts):
                        bar.update(done)
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
            crops.flush()
            del crops
        told = {"shape": list(self.shape), "unreadable": np.flatnonzero(~self.readable).tolist()}
        write_json(self.json_path, told)
        logger.info("wrote crop cache %s (%.2f GB)", self.array_path, needed / 1e9)
        self.crops = np.load(self.array_path, mmap_mode="r", allow_pickle=False)


@contextlib.contextmanager
def one_builder(path: Path) -> Iterator[None]:
    """Around "is it there? else build it": of all processes on machines that share ``path``, one at a time is inside.

    So under torchrun one process builds and the others, let in after it, find the finished file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path.with_name(f".{path.stem.rpartition('_')[2]}.lock"), "a")
    except OSError as error:  # a folder that is only for reading, where nobody builds: what is finished there serves
        logger.info("%s: no lock (%s)", path, error)
        yield
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that builds %s", path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks: every process builds its own, the last one's stays
            logger.warning("%s: no lock (%s), so several processes may build it at once", path, error)
        yield


def state_of(root: Path, watched: list[Path], digest: hashlib._Hash) -> str:
    """Short hash of ``digest`` and of the names below ``root`` and the times of these files and folders."""
    for path in watched:
        changed = path.stat().st_mtime_ns if path.exists() else None
        digest.update(f"{path.relative_to(root)} {changed}\n".encode())
    return digest.hexdigest()[:16]


def usable_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
