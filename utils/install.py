"""How to install what is missing, into the Python that is running: a bare ``pip`` is often another one's."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def pip_install(*what: str) -> str:
    """The command that installs packages, as a shell takes it."""
    return shlex.join([sys.executable, "-m", "pip", "install", *what])


def pip_install_extra(name: str) -> str:
    """The command for an optional part: of ``requirements-NAME.txt`` in a clone, else of the wheel's extra."""
    file = ROOT / f"requirements-{name}.txt"
    return pip_install("-r", os.path.relpath(file)) if file.is_file() else pip_install(f"handid[{name}]")
