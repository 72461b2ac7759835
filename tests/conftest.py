"""Fixtures that several test files share; a file may have a ``root`` of its own."""

from __future__ import annotations

import resource
import shutil
import signal
from pathlib import Path

import pytest

from template import HandAssets, load_hand_assets
from tests.dex_ycb_layout import write_dex_ycb


@pytest.fixture(scope="session")
def assets() -> HandAssets:
    return load_hand_assets()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten subjects of one sequence each, in DexYCB's layout."""
    return write_dex_ycb(tmp_path_factory.mktemp("dex_ycb"), sequences=1)


@pytest.fixture
def copy(tmp_path: Path, root: Path) -> Path:
    """A copy, free to be damaged."""
    return Path(shutil.copytree(root, tmp_path / "copy"))


@pytest.fixture
def small_files() -> object:
    """Lets files grow to so many bytes at most, for the system itself to refuse the rest as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda most=2_000_000: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)
