"""From the command line: calibration with several cameras and with depth maps, and the evaluation of its identity."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import roma
import torch

import calibrate_from_shape_params
import run
from datasets import build_dataset
from datasets.synthetic.data_set import SynthesisOptions, write_data_set
from src.personalization.calibration.data_set_evidence import DEPTH_RANGE, view_groups, wrist_depths
from src.personalization.pairing import rows_of
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import lengths_mm
from template import load_hand_assets
from utils.artifacts import Predictions, load_identity, save_predictions
from utils.camera import project_numpy

SUBJECT, SPLIT = 7, "s1_val"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two sequences of two instants by eight cameras with depth maps; a network 0.1 rad off, keypoints 1 px off.

    Attributes: root, dataset, rows (`Predictions`), predictions and keypoints (files), depth (N,) true wrist's, m.
    """
    folder = tmp_path_factory.mktemp("cues")
    options = SynthesisOptions(2, 2, seed=11, render_scale=0.25, depth=True, left_fraction=0.5)
    write_data_set(folder / "data", options, subjects=[SUBJECT], workers=1)
    dataset = build_dataset("dex_ycb", folder / "data", SPLIT, side="both", allow_missing_subjects=True)
    columns = {name: value[dataset.columns["valid"]] for name, value in dataset.columns.items()}
    n, random = len(columns["image_id"]), np.random.default_rng(0)
    turns = roma.rotvec_to_rotmat(torch.as_tensor(0.1 * random.normal(size=(n, 16, 3)))).numpy()
    joints, K = (columns[name].astype(np.float64) for name in ("joints", "K_image"))
    assets = load_hand_assets()
    common = {name: columns[name] for name in ("image_id", "subject_id", "sequence_id", "is_left")}
    common |= {"K": K, "hand_name": assets.name, "hand_hash": assets.hash, "dataset": "dex_ycb", "split": SPLIT}
    rows = Predictions(
        **common,
        pose=columns["pose"] @ turns,
        betas=np.zeros((n, 10)),
        keypoints_2d=project_numpy(joints, K) + random.normal(size=(n, 21, 2)),
    )
    shapes = Predictions(**common, pose=rows.pose, betas=rows.betas)
    keypoints = Predictions(**common, keypoints_2d=rows.keypoints_2d)
    save_predictions(folder / "predictions.npz", shapes)
    save_predictions(folder / "keypoints.npz", keypoints)
    return SimpleNamespace(
        root=folder / "data",
        dataset=dataset,
        rows=rows,
        depth=joints[:, 0, 2],
        assets=assets,
        predictions=folder / "predictions.npz",
        keypoints=folder / "keypoints.npz",
    )


@dataclass
class Commands:
    """Runs a command's ``main`` as the shell would, without paying for a new interpreter each time."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture
    caplog: pytest.LogCaptureFixture

    def run(self, main: Callable[[], int], *words: str) -> tuple[int, str]:
        """Exit status, and what was said on the log and on stderr."""
        self.monkeypatch.setattr(sys, "argv", ["command.py", *map(str, words)])
        self.caplog.clear()
        with self.caplog.at_level(logging.INFO):
            status = main()
        return status, self.caplog.text + self.capsys.readouterr().err

    def calibrate(self, world: SimpleNamespace, output: Path, *extra: str) -> tuple[int, str]:
        words = ["--predictions", world.predictions, "--keypoints", world.keypoints, "--output", output]
        words += ["--num_images", 8, "--root_std", 0.1, "--finger_std", 0.1, "--keypoint_std", 1, "--loss", "none"]
        return self.run(calibrate_from_shape_params.main, *words, "--device", "cpu", *extra)


@pytest.fixture
def commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> Commands:
    return Commands(monkeypatch, capsys, caplog)


def test_both_sides_are_there(world: SimpleNamespace) -> None:
    assert world.rows.is_left.any() and not world.rows.is_left.all()
    rows = rows_of(world.dataset, world.rows)
    assert len(np.unique(view_groups(world.dataset, rows, world.rows.is_left).instant)) == 4


def test_depth_maps_are_read_at_the_wrist(world: SimpleNamespace) -> None:
    """The reading is the true depth of the joint but for the flesh; an object in front of a wrist may hide it."""
    found = wrist_depths(world.dataset, rows_of(world.dataset, world.rows), world.rows)
    known = np.isfinite(found)
    assert known.mean() > 0.8
    off = (found - world.depth)[known]
    assert abs(np.median(off)) < 0.015 and (np.abs(off) < 0.03).mean() > 0.7
    for is_left in (False, True):  # a map not mirrored with its hand would show the table
        assert abs(np.median(off[world.rows.is_left[known] == is_left])) < 0.02


def test_depth_maps_without_a_reading(world: SimpleNamespace, tmp_path: Path) -> None:
    few = world.rows.select(np.arange(2))
    rows = rows_of(world.dataset, few)

    class Elsewhere:
        """The data set with other depth maps: one of zeros (nothing measured), one missing."""

        root, columns = tmp_path, world.dataset.columns

        def image_path(self, row: int) -> Path:
            return tmp_path / f"color_{row:06d}.jpg"

    with pytest.raises(CalibrationError, match="holds no depth maps"):
        wrist_depths(Elsewhere(), rows, few)
    first = np.flatnonzero(world.dataset.columns["image_id"] == few.image_id[0])[0]
    path = tmp_path / f"aligned_depth_to_color_{first:06d}.png"
    for value, is_known in ((0, False), (DEPTH_RANGE[1] + 1, False), (700, True)):
        cv2.imwrite(str(path), np.full((480, 640), value, dtype=np.uint16))
        assert np.isfinite(wrist_depths(Elsewhere(), rows, few)).tolist() == [is_known, False]
    unseen = replace(few, keypoint_confidence=np.zeros((2, 21), dtype=np.float32))
    assert np.isnan(wrist_depths(Elsewhere(), rows, unseen)).all()  # a wrist that may lie on anything
    cv2.imwrite(str(path.with_name(f"color_{first:06d}.jpg")), np.zeros((240, 320, 3), dtype=np.uint8))
    with pytest.raises(CalibrationError, match="640 x 480 px, its picture is 320 x 240"):
        wrist_depths(Elsewhere(), rows, few)
    cv2.imwrite(str(path), np.full((480, 640), 200, dtype=np.uint8))
    with pytest.raises(CalibrationError, match="uint8 of shape .*; a depth map is 16-bit grey, mm"):
        wrist_depths(Elsewhere(), rows, few)


def test_cues_from_the_command_line(world: SimpleNamespace, tmp_path: Path, commands: Commands) -> None:
    truth = lengths_mm(world.assets, world.dataset.subject_betas[SUBJECT], None)["hand"][0]
    found = {}
    data = ("--data_root", str(world.root))
    for name, extra in {"prior": (), "cameras": (*data, "--cameras", "2"), "depth": (*data, "--wrist_depth")}.items():
        status, said = commands.calibrate(world, tmp_path / name, *extra)
        assert status == 0, said
        found[name] = load_identity(tmp_path / name / f"identity_subject-{SUBJECT:02d}.json")
        assert found[name].scale_evidence == name and found[name].n_images >= 6
        assert "mm [95% interval]: hand " in said and "little" in said
        assert abs(found[name].hand_length_mm - truth) < 3.5 * found[name].hand_length_std_mm
    assert found["cameras"].hand_length_std_mm < 0.5 * found["prior"].hand_length_std_mm
    assert found["depth"].hand_length_std_mm < 0.9 * found["prior"].hand_length_std_mm


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (("--cameras", "2"), "--data_root"),
        (("--wrist_depth",), "--data_root"),
        (("--data_root", "ROOT", "--cameras", "9"), "9 cameras"),
        (("--data_root", "ROOT", "--cameras", "2", "--select", "informative"), "with several cameras use random"),
    ],
)
def test_cues_that_cannot_be_used(
    world: SimpleNamespace, tmp_path: Path, commands: Commands, extra: tuple[str, ...], said: str
) -> None:
    words = (world.root if word == "ROOT" else word for word in extra)
    status, found = commands.calibrate(world, tmp_path, *words)
    assert status == 2 and said in found
    assert not list(tmp_path.glob("*.json"))


def test_evaluation_shows_the_persons_size(world: SimpleNamespace, tmp_path: Path, commands: Commands) -> None:
    identity, results = tmp_path / "me.json", tmp_path / "results.json"
    assert commands.calibrate(world, identity)[0] == 0
    words = ["--phase", "eval", "--dataset", "dex_ycb", "--data_root", world.root, "--predictions", world.predictions]
    words += ["--identity", identity, "--side", "both", "--allow_missing_subjects", "--device", "cpu"]
    status, said = commands.run(run.main, *words, "--results", results)
    assert status == 0, said
    assert f"subject {SUBJECT}: mm [95% interval]: hand " in said
    lengths = json.loads(results.read_text())["identities"][f"subject-{SUBJECT:02d}"]
    assert list(lengths) == ["hand", "thumb", "index", "middle", "ring", "little"]
    assert all(length["low_95_mm"] < length["mm"] < length["high_95_mm"] for length in lengths.values())
