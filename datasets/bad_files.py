"""The error for a file that is there but cannot be used."""

from __future__ import annotations

from pathlib import Path


class BadFileError(ValueError):
    """A data file is truncated, malformed or holds impossible values; the message names it and the remedy."""


def bad_file(path: str | Path, reason: str) -> BadFileError:
    """The error to raise for ``path``, with the remedy that fits every data file."""
    return BadFileError(f"{path}: {reason}. Copy or extract this file again, or skip such files with --skip_bad")
