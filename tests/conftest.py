"""Fixtures that several test files share; a file may have a ``root`` of its own."""

from __future__ import annotations

import shutil
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
