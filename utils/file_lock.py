"""One process at a time: a lock file that says whose it is, and goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

#: Locks held by this process, which the system does not keep from itself.
_held: set[Path] = set()


class LockedError(ValueError):
    """Another process holds the lock; the message names it."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` (its folder is made); it is deleted afterwards.

    Raises:
        LockedError: another process, or another part of this one, holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    real = path.resolve()
    if real in _held:
        raise LockedError(f"{path.parent} is in use by this process already")
    handle = _take(path)
    _held.add(real)
    try:
        handle.seek(0)
        handle.truncate()
        with contextlib.suppress(OSError):  # on a full disk the lock is held all the same, only not signed
            os.write(handle.fileno(), json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        handle.close()
        _held.discard(real)


def _take(path: Path) -> TextIO:
    """The open lock file. The system frees the lock when its process ends, so what a killed one left is no lock."""
    import fcntl

    while True:
        handle = open(path, "a+", encoding="utf-8")
        handle.seek(0)
        owner = handle.read()
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            handle.close()
            raise LockedError(f"{path.parent} is in use by another process ({owner or 'just starting'})") from error
        except OSError as error:  # a file system without locks
            if owner and not _is_gone(owner):
                handle.close()
                raise LockedError(
                    f"{path.parent} seems to be in use by another process ({owner}), and this file system has no locks "
                    f"({error}). If that process is gone, delete {path}"
                ) from error
        if path.exists() and os.path.samestat(os.fstat(handle.fileno()), path.stat()):
            return handle
        handle.close()  # its owner deleted it just now


def _is_gone(owner: str) -> bool:
    """Whether the process of a lock file's text was of this machine and has ended."""
    try:
        noted = json.loads(owner)
        if noted["host"] == socket.gethostname():
            os.kill(noted["pid"], 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError):
        return False
    return False
