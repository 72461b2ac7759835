"""docs/estimators.md as a newcomer follows it: every line of it runs on files of each format."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import handid
from calibrate_from_shape_params import run as calibrate
from options.calibrate import get_args_parser
from tests import test_estimators as files
from utils.artifacts import load_identity

PAGE = (Path(__file__).parents[1] / "docs" / "estimators.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^calibrate_from_shape_params\.py (.*)$", PAGE.partition("## From each demo")[2], re.MULTILINE)
READS = re.findall(r"^(?:hands = )?(handid\.read_estimates\(.*?\))(?:  #.*)?$", PAGE, re.MULTILINE)
NAMES = {"hamer": files.hamer, "wilor_mini": files.wilor_mini, "fasthamer": files.fasthamer, "hawor": files.hawor,
         "sam3d_body": files.sam3d_body, "mediapipe": files.mediapipe, "frankmocap": files.frankmocap,
         "mmpose": files.mmpose, "joints": files.joints_npz}  # fmt: skip


def lay_out(name: str, path: Path) -> None:
    """What the estimator's demo would have left where the page says, and the picture."""
    case = NAMES[name](False)
    content: Any = case.content
    if name == "joints":
        content = {**content, "joints_3d": content["joints_3d"] / 1000}  # the page's are metres
    folder = path.parent if path.suffix else path
    folder.mkdir(parents=True, exist_ok=True)
    files.put(path if path.suffix else path / f"b{case.suffix}", content)
    pictures = path.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    for stem in ("b", path.stem):
        Image.new("RGB", files.SIZE).save(pictures / f"{stem}.jpg")


def test_the_page_shows_every_format() -> None:
    shown = {re.search(r"--format (\w+)", command).group(1) for command in COMMANDS}
    assert shown == set(NAMES) - {"hawor"}  # which has no keypoints
    assert {re.search(r', "(\w+)"', read).group(1) for read in READS} == set(NAMES)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: re.search(r"--format (\w+)", command).group(1))
def test_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    args = get_args_parser().parse_args([*shlex.split(command), "--device", "cpu"])
    lay_out(args.format, Path(args.estimates))
    calibrate(args)
    identity = load_identity(args.output)
    assert 120 < identity.hand_length_mm < 240 and identity.covariance is not None


@pytest.mark.parametrize("read", READS, ids=lambda read: re.search(r', "(\w+)"', read).group(1))
def test_reading_lines_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str) -> None:
    monkeypatch.chdir(tmp_path)
    path, name = re.search(r'\("([\w.]+)", "(\w+)"', read).groups()
    lay_out(name, Path(path))
    size = (1280, 720) if "1280" in read else files.SIZE
    K = np.array([[900.0, 0, (size[0] - 1) / 2], [0, 900, (size[1] - 1) / 2], [0, 0, 1]])
    found = eval(read, {"handid": handid, "K": K, "np": np})
    assert len(found) == (2 if name == "sam3d_body" else 1)
    assert found.model_name == name and (name == "joints" or found.camera == "given")
