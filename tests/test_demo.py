"""The demo on a small set with the shipped weights: everything is written and every number is finite."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.engine.checkpoint import ModelCard
from src.engine.demo.synthetic import demo_hand, read_hand
from template import load_hand_assets
from tests.mano_pickle import write_mano_pickle


def run_demo(output: Path, *extra: str) -> subprocess.CompletedProcess:
    words = [sys.executable, "run.py", "--phase", "demo", "--output", str(output), "--demo_sequences", "5"]
    words += ["--demo_frames", "1", "--pictures", "1", "--calibration_images", "8", "--device", "cpu", *extra]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    return [value] if isinstance(value, (int, float)) else []


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo")
    finished = run_demo(output)
    assert finished.returncode == 0, finished.stderr
    return output


def test_results(output: Path) -> None:
    results = json.loads((output / "results.json").read_text())
    assert set(results["variants"]) == {"baseline", "identity_gt", "identity_calibrated"}
    for variant in results["variants"].values():
        for stage in ("network", "fitted"):
            assert {"mpjpe_mm", "mpvpe_mm", "pa_mpjpe_mm"} <= set(variant[stage])
    assert set(results["calibration"]) == {"subject-08", "subject-09"}
    for row in results["calibration"].values():
        assert row["n_images"] == 8
        assert {"zero_pose_mpvpe_mm", "zero_pose_mpvpe_mean_shape_mm"} <= set(row)
        assert list(row["lengths"]) == ["hand", "thumb", "index", "middle", "ring", "little"]
        assert list(row["true_lengths_mm"]) == list(row["lengths"])
        for length in row["lengths"].values():
            assert length["low_95_mm"] < length["mm"] < length["high_95_mm"]
    assert all(math.isfinite(number) for number in numbers(results))
    assert len(list((output / "pictures").glob("*"))) == 3 and len(list((output / "meshes").glob("*.ply"))) == 1


@pytest.mark.parametrize("damage", ["shape", "code"])
def test_mano_folder_that_is_not_what_it_should_be(tmp_path: Path, damage: str) -> None:
    target = tmp_path / "MANO_RIGHT.pkl"
    if damage == "shape":
        write_mano_pickle(target, load_hand_assets("template/stand_in.npz"), weights=np.zeros((778, 15)))
    else:
        target.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    finished = run_demo(tmp_path / "out", "--mano_dir", str(tmp_path))
    assert finished.returncode != 0 and "MANO_RIGHT.pkl" in finished.stderr
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_the_same_hand_in_mano_form_is_used(tmp_path: Path) -> None:
    stand_in = load_hand_assets("template/stand_in.npz")
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", stand_in)
    given = read_hand(str(tmp_path))
    assert given.hash == stand_in.hash
    assert demo_hand(given, ModelCard("mano_baseline", hand_hash=stand_in.hash), Path("w")) is given


def test_the_demo_poses_a_network_with_no_other_hand_than_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in = load_hand_assets("template/stand_in.npz")
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", stand_in, v_template=1.1 * stand_in.v_template)
    given = read_hand(str(tmp_path))
    belongs = ModelCard("mano_baseline", hand_name="stand-in", hand_hash=stand_in.hash)
    assert demo_hand(given, belongs, Path("w")).hash == stand_in.hash
    assert f"w belongs to the hand model stand-in ({stand_in.hash})" in caplog.text
    with pytest.raises(ValueError, match=rf"theirs \(0123\).*MANO \({given.hash}\)"):
        demo_hand(given, ModelCard("mano_baseline", hand_name="theirs", hand_hash="0123"), Path("w"))
