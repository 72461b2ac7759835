"""The files that one script leaves for the next, used where a command is given none, as the released commands did."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

_CODE = Path(__file__).resolve().parents[2]
#: Where the scripts write: the clone they are in; of an installed package, the current folder.
ROOT = _CODE if (_CODE / "scripts").is_dir() else Path()
PREDICTIONS = Path("out/dex_ycb/predictions")
KEYPOINTS = (PREDICTIONS / "keypoints.npz", "scripts/predict_2d.sh")
IDENTITIES = (Path("out/dex_ycb/identities"), "scripts/calibrate.sh")


def fill_in(args: argparse.Namespace, files: Mapping[str, tuple[Path, str | None]]) -> None:
    """Give options that are None the file (or folder) of the scripts, and say so in the log.

    Args:
        args: changed in place.
        files: option's name -> path from `ROOT`, and the script that writes it; None: it will be written.

    Raises:
        FileNotFoundError: it is not there; names the script that writes it.
    """
    for name, (path, script) in files.items():
        if getattr(args, name) is not None:
            continue
        path = ROOT / path
        if script is not None and not path.exists():
            raise FileNotFoundError(
                f"--{name} is not given, and {path} does not exist; {_writer(name, script)} writes it"
            )
        setattr(args, name, str(path))
        logger.info("--%s is not given: %s", name, path)


def _writer(name: str, script: str) -> str:
    """What writes the file of an option: the script, or, without a clone, the command in it."""
    if (_CODE / "scripts").is_dir():
        return script
    return "handid-calibrate --output DIR" if name == "identity" else "handid --phase predict --predictions FILE"
