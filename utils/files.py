"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

#: What NumPy, zipfile, json, PyYAML, Pillow and our own conversions raise on damaged content of any kind: text in place
#: of a file (a web page, a git-lfs pointer), zeros, half of a file, other types and shapes, numbers that do not fit.
READ_ERRORS = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, OSError, MemoryError, RuntimeError,
    AssertionError, SyntaxError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_reason(error: BaseException) -> str:
    """What a library said of damaged content, without NumPy's and PyTorch's advice to read it unsafely."""
    advises = any(word in str(error) for word in ("allow_pickle", "weights_only"))
    words = re.sub(r" ?<[\w.]+ object at 0x[0-9a-f]+>", "", str(error))  # nor addresses in memory
    return "it holds something else than numbers" if advises else words


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping for ``json.loads(object_pairs_hook=...)``, which by itself takes the last of two equal names.

    Raises:
        ValueError: a name stands there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def what_it_is(path: str | os.PathLike, error: BaseException) -> str:
    """What a file is that a library cannot read, by its first bytes where these tell, else the library's words."""
    path = Path(path)
    if not path.is_file():
        return read_reason(error).partition("\n")[0]
    with open(path, "rb") as handle:
        start = handle.read(40)
    if start.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer; git lfs pull fetches the file"
    if len(start) < 40 or start.lstrip()[:1] in (b"<", b"{", b"\0"):
        return f"{path.stat().st_size} bytes that begin with {start[:20]!r}"
    return read_reason(error).partition("\n")[0]


_NO_ROOM = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "larger than a file may be here",
}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    The parent folder is made. The temporary name ends in the same suffix (some writers choose the
    format by it). If the block raises, the temporary file is removed and ``path`` is as it was.

    Raises:
        OSError: the disk is full, whatever the writer made of that; names the file, the room and the remedy. Or
            ``path`` is a device or a pipe, in whose place a file would come (of /dev/null, for everybody).
    """
    path = Path(path)
    _refuse_devices(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except Exception as error:
        temporary.unlink(missing_ok=True)
        explained = no_room_error(path, error)
        if explained is None:
            raise
        raise explained from error
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_devices(path: Path, said: str = "") -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"{said}{path}: is a device or a pipe, not a file to be replaced; choose another")


def no_room_error(path: Path, error: BaseException) -> OSError | None:
    """What to tell where ``path`` could not be written for want of room: file, room and remedy; else None.

    The whole chain of errors is looked at: PyTorch's writer raises an error of its own while it handles the system's;
    NumPy's has no number; that of safetensors is none of the system's, but says its words.
    """
    number: int | None = None
    cause: BaseException | None = error
    while number is None and cause is not None:
        number = next((code for code in _NO_ROOM if os.strerror(code) in str(cause)), None)
        if isinstance(cause, OSError):
            if cause.errno in _NO_ROOM:
                number = cause.errno
            elif cause.errno is None and " requested and " in str(cause):
                number = errno.ENOSPC
        cause = cause.__cause__ or cause.__context__
    if number is None:
        return None
    free = shutil.disk_usage(path.parent).free / 1e6
    before = "The file of that name is as it was. " if path.exists() else ""
    return OSError(
        number,
        f"{path}: not written, {_NO_ROOM[number]} ({free:.0f} MB free in {path.parent}). {before}"
        "Make room or choose another folder, then run the command again (a training with --resume)",
    )


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: str | os.PathLike, text: str, private: bool = False) -> None:
    """Write UTF-8 text atomically; ``private``: readable by its owner only, whatever the umask."""
    mode = 0o600 if private else 0o666
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as handle,
    ):
        if private:
            os.fchmod(handle.fileno(), mode)
        handle.write(text)


def writable_folder(path: str | os.PathLike, option: str = "--output") -> Path:
    """Make the folder and see whether a file can be written there, before any work is done.

    Raises:
        OSError: naming the folder and what is wrong with it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"{option} {folder}: cannot be written to ({error.strerror or error}); choose another") from error
    return folder


def writable_file(
    path: str | os.PathLike, option: str, others: Mapping[str, str | os.PathLike | None] = MappingProxyType({})
) -> Path:
    """See whether a file of that name can be written, before any work is done; its folder is made.

    Args:
        others: files by option, read or written beside it, which it must not be.

    Raises:
        OSError: naming what ``option`` gave and what is wrong with it.
    """
    path = Path(path)
    if path.is_dir():
        raise OSError(f"{option} {path}: is a folder; give the name of a file")
    _refuse_devices(path, f"{option} ")
    for name, other in others.items():
        if other is not None and Path(other).resolve() == path.resolve():
            raise OSError(f"{option} {path}: is the file of {name} as well, which would be lost; name another")
    writable_folder(path.parent, option)
    return path


class Spool:
    """Text that grows, kept on disk: pieces are added one by one, and read again from the first to the last."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", newline="")  # noqa: SIM115
        self.pieces = 0

    def add(self, text: str) -> None:
        """Another piece."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(text)
        self.pieces += 1

    def __iter__(self) -> Iterator[str]:
        """All of it, in parts of any length."""
        self._file.seek(0)
        while part := self._file.read(1 << 16):
            yield part
