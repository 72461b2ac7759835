"""torchrun with two gloo processes: trains, writes once, measures each sample once, and one process goes on from it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.scenes.estimator_simulation import estimate, write_results
from options.recipes import apply_recipe
from options.run_options import get_args_parser
from src.engine.distributed import DistributedContext
from src.engine.estimates.command import personalise
from src.engine.predict import merge_shares, predict
from src.engine.train import Trainer
from template import load_hand_assets
from template.assets import STAND_IN_PATH
from tests.dex_ycb_layout import write_dex_ycb
from utils.artifacts import load_predictions

#: Seven validation images and nine test images: neither divides among two processes.
VAL_IMAGES, TEST_IMAGES = 7, 9
#: Pictures of another estimator.
ESTIMATES = 5


def words(phase: str, root: Path, out: Path, *extra: str) -> list[str]:
    network = "--backbone mobilenet_v3_small --crop_size 64 --batch_size 8".split()
    run = f"--phase {phase} --data_root {root} --out_dir {out} --device cpu --threads 1 --cache {root}/cache".split()
    if phase == "train":
        network += ["--input_size", "64", "--crop_scale", "2", "--epochs", "2", "--val_images", str(VAL_IMAGES)]
    return [*run, *network, *extra]


def personalising(source: Path, output: Path) -> list[str]:
    camera = "--K 450,450,319.5,239.5 --image_size 640 480 --device cpu --threads 1".split()
    files = ["--estimates", str(source), "--format", "mediapipe", "--output", str(output)]
    return ["--phase", "personalise", *files, *camera]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Data set, and the folder of what two processes left: a training and predictions from its checkpoint."""
    folder = tmp_path_factory.mktemp("torchrun")
    root, out = write_dex_ycb(folder / "dex_ycb", sequences=1), folder / "out"
    last = out / "dex_ycb/mano_baseline/checkpoints/last.pt"
    saved = ("--checkpoint", str(last), "--predictions", str(out / "two.npz"), "--max_images", str(TEST_IMAGES))
    result = estimate(load_hand_assets(STAND_IN_PATH), "mediapipe", 1, ESTIMATES, seed=5)
    source = write_results(folder / "results", "mediapipe", result, 0)
    lines = [words("train", root, out), words("predict", root, out, *saved), personalising(source, out / "two")]
    commands = folder / "commands.txt"
    commands.write_text("\n".join(map(" ".join, lines)), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, *launcher, "tests/torchrun_member.py", str(commands)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return root, out


def test_files_are_written_once(together: tuple[Path, Path]) -> None:
    folder = together[1] / "dex_ycb/mano_baseline"
    assert {path.name for path in folder.iterdir()} == {"args.json", "log.csv", "board", "checkpoints"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.pt", "best.pt"}
    assert len(list((folder / "board").iterdir())) == 1  # TensorBoard names its files by process
    with open(folder / "log.csv", newline="") as handle:
        assert [row["epoch"] for row in csv.DictReader(handle)] == ["1", "2"]


def test_each_sample_is_measured_once(together: tuple[Path, Path]) -> None:
    """What two processes wrote about the validation split is what one finds for the saved network."""
    root, out = together
    with open(out / "dex_ycb/mano_baseline/log.csv", newline="") as handle:
        logged = list(csv.DictReader(handle))[-1]
    trainer = Trainer(apply_recipe(get_args_parser().parse_args(words("train", root, out / "alone"))))
    trainer.state.load(out / "dex_ycb/mano_baseline/checkpoints/last.pt")
    for name, value in trainer.validate().items():
        assert float(logged[f"val_{name}"]) == pytest.approx(value, rel=1e-4)


def test_predictions_are_those_of_one_process(together: tuple[Path, Path]) -> None:
    root, out = together
    checkpoint = str(out / "dex_ycb/mano_baseline/checkpoints/last.pt")
    alone = ("--checkpoint", checkpoint, "--predictions", str(out / "one.npz"), "--max_images", str(TEST_IMAGES))
    predict(get_args_parser().parse_args(words("predict", root, out, *alone)))
    one, two = load_predictions(out / "one.npz"), load_predictions(out / "two.npz")
    assert len(two) == TEST_IMAGES and one.image_id.tolist() == two.image_id.tolist()
    for name in ("pose", "betas", "K", "keypoints_2d"):
        assert np.abs(getattr(one, name) - getattr(two, name)).max() < 1e-3


def test_personalised_hands_are_those_of_one_process(together: tuple[Path, Path], tmp_path: Path) -> None:
    out = together[1]
    source = together[0].parent / "results"
    personalise(get_args_parser().parse_args(personalising(source, tmp_path / "one")))
    two, one = load_predictions(out / "two/rows.npz"), load_predictions(tmp_path / "one/rows.npz")
    assert two.image_name.tolist() == [f"frame-{number:03d}" for number in range(ESTIMATES)]
    np.testing.assert_allclose(two.transl, one.transl, atol=1e-4)
    np.testing.assert_allclose(two.betas, one.betas, atol=1e-4)
    assert {path.name for path in (out / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    assert (out / "two/changed.txt").read_text() == (tmp_path / "one/changed.txt").read_text()


def test_one_process_goes_on_where_two_stopped(together: tuple[Path, Path]) -> None:
    """The state of the first of two epochs, taken by two processes, is finished by one."""
    root, out = together
    args = apply_recipe(get_args_parser().parse_args(words("train", root, out / "resumed")))
    state = torch.load(out / "dex_ycb/mano_baseline/checkpoints/last.pt", weights_only=True)
    middle = out / "middle.pt"
    torch.save({**state, "position": {"epoch": 1, "batch": 3, "best": state["position"]["best"]}}, middle)
    args.resume = str(middle)
    trainer = Trainer(args)
    steps = []
    step = trainer._step
    trainer._step = lambda raw: steps.append(len(raw["image_id"])) or step(raw)
    trainer.run()
    assert steps == [8] * (len(trainer.loader) - 3)  # the batches that were left, each as large as both shares
    assert trainer.state.position.epoch == 2 and trainer.folder.last.is_file()


def test_shares_of_any_size_come_back_in_order() -> None:
    class Data:
        columns = {"image_id": np.array([40, 30, 20, 10])}

    first = {"image_id": np.array([40, 20]), "x": np.array([0, 2])}
    second = {"image_id": np.array([30]), "x": np.array([1])}
    assert merge_shares([first, {}, second], Data())["x"].tolist() == [0, 1, 2]
    alone = DistributedContext()
    assert alone.gather_all({"a": 2.0}) == [{"a": 2.0}] and alone.gather(3) == [3]
