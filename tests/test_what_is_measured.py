"""What is measured, left out and told: of splits, shards, damaged pictures and identities that do not go together."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from datasets import build_dataset
from datasets.synthetic.freihand_writer import write_freihand
from datasets.synthetic.ho3d_writer import write_ho3d
from datasets.synthetic.humbi_writer import write_humbi
from options.recipes import apply_recipe
from options.run_options import get_args_parser
from src.engine.config import build_optimizer
from src.engine.evaluate import evaluate
from src.engine.predict import predict
from src.engine.train import Trainer
from src.evaluation.submission_checks import SubmissionError
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.pairing import apart_from_calibration, rows_with
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import lengths_mm
from template import load_hand_assets
from tests.dex_ycb_layout import write_dex_ycb
from utils.artifacts import Identity, Predictions, load_identity, load_predictions, save_identity

ASSETS = load_hand_assets("template/stand_in.npz")


@pytest.fixture(autouse=True)
def _logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dex_ycb(tmp_path_factory.mktemp("dex_ycb"), subjects=(8,), draw_dots=True)


@pytest.fixture
def person(tmp_path: Path) -> Path:
    """A right hand's identity of subject 8."""
    path = tmp_path / "identity_subject-08.json"
    length = lengths_mm(ASSETS, np.zeros(10), None, ("hand",))["hand"][0]
    save_identity(path, Identity(np.zeros(10), ASSETS.name, ASSETS.hash, length, "right", subject_id=8))
    return path


def options(phase: str, root: Path, *extra: str) -> SimpleNamespace:
    words = f"--phase {phase} --data_root {root} --device cpu --threads 1"
    few = [] if "--dataset" in extra else ["--allow_missing_subjects"]
    return get_args_parser().parse_args([*words.split(), *few, *extra])


IDENTITY_AWARE = ("--model", "mano_identity", "--checkpoint", "weights/mano_identity.safetensors")


def test_an_identity_that_is_not_told_is_refused(root: Path, person: Path) -> None:
    """The network would be told the true shape, and the numbers stand beside the identity's."""
    with pytest.raises(ValueError, match="--shape calibrated"):
        evaluate(options("eval", root, *IDENTITY_AWARE, "--identity", str(person)))


def test_an_identity_of_the_other_side_is_refused_before_the_prediction(
    root: Path, person: Path, tmp_path: Path
) -> None:
    words = (
        *IDENTITY_AWARE,
        "--shape",
        "calibrated",
        "--identity",
        str(person),
        "--predictions",
        str(tmp_path / "p.npz"),
    )
    with pytest.raises(ValueError, match="show the other hand"):
        predict(options("predict", root, *words, "--side", "left"))
    assert not (tmp_path / "p.npz").exists()


def rows_of_split(split: str) -> Predictions:
    numbers = np.arange(4)
    zero = np.zeros(4, dtype=np.int64)
    return Predictions(
        numbers, zero + 8, zero, zero.astype(bool), np.tile(np.eye(3), (4, 1, 1)), dataset="dex_ycb", split=split
    )


def test_images_of_another_split_are_not_taken_for_the_calibrations(caplog: pytest.LogCaptureFixture) -> None:
    """Numbers count within a split."""
    own = Identity(np.zeros(10), "hand", "0", 187.0, image_ids=[1, 3], images_of="dex_ycb s1_test", subject_id=8)
    assert apart_from_calibration(rows_of_split("s1_test"), {8: own}).tolist() == [True, False, True, False]
    assert apart_from_calibration(rows_of_split("s0_test"), {8: own}).all()
    assert "calibrated on images of dex_ycb s1_test, these are of dex_ycb s0_test" in caplog.text
    older = dataclasses.replace(own, images_of="")
    assert apart_from_calibration(rows_of_split("s0_test"), {8: older}).tolist() == [True, False, True, False]


def test_numbers_in_any_order_find_their_rows() -> None:
    ids = np.array([7, 2, 9, 4])
    assert rows_with(ids, np.array([9, 7, 4, 2, 9])).tolist() == [2, 0, 3, 1, 2]


def test_pictures_that_cannot_be_read_are_predicted_but_not_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The servers want a row for each; a black picture's hand says nothing of the network."""
    root, file = tmp_path / "freihand", str(tmp_path / "p.npz")
    write_freihand(root, 1, 3, seed=3)
    picture = root / "evaluation" / "rgb" / "00000001.jpg"
    picture.write_bytes(picture.read_bytes()[:300])
    words = ("--dataset", "freihand", "--split", "evaluation", "--checkpoint", "weights/mano_baseline_conf.safetensors")
    words += ("--model", "mano_baseline_conf", "--skip_bad")
    predict(options("predict", root, *words, "--predictions", file))
    assert "1 of 3 pictures could not be read" in caplog.text
    assert load_predictions(file).readable.tolist() == [True, False, True]
    with pytest.raises(CalibrationError, match="does not say who is in its pictures.* give --subject 0"):
        calibrate_predictions(load_predictions(file), load_hand_assets(), method="mean")
    one = calibrate_predictions(load_predictions(file), load_hand_assets(), method="mean", subject=0)[0]
    assert one.image_ids == [0, 2] and "1 pictures could not be read, and do not count" in caplog.text
    direct = evaluate(options("eval", root, *words))
    again = evaluate(options("eval", root, *words[:4], "--predictions", file))
    assert direct["n_images"] == again["n_images"] == 2 and direct["mpjpe_mm"] == pytest.approx(again["mpjpe_mm"])


def test_black_pictures_of_sets_without_labels_are_marked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """None of theirs is valid, which once hid the ones that could not be read; nor does a cache hide them."""
    root, file = tmp_path / "ho3d", str(tmp_path / "p.npz")
    write_ho3d(root, num_images=3, version="v3")
    picture = sorted(root.rglob("rgb/*.*"))[1]
    picture.write_bytes(b"")
    words = ("--dataset", "ho3d", "--split", "evaluation", "--checkpoint", "weights/mano_baseline_conf.safetensors")
    predict(options("predict", root, *words, "--model", "mano_baseline_conf", "--skip_bad", "--predictions", file))
    assert load_predictions(file).readable.sum() == 2 and "1 of 3 pictures could not be read" in caplog.text


def test_an_evaluation_of_calibration_images_alone_says_so(root: Path, person: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.npz"
    words = ("--checkpoint", "weights/mano_baseline_conf.safetensors", "--model", "mano_baseline_conf")
    predict(options("predict", root, *words, "--predictions", str(file)))
    rows = load_predictions(file)
    own = dataclasses.replace(load_identity(person), image_ids=rows.image_id.tolist(), images_of=rows.images_of)
    save_identity(tmp_path / "all.json", dataclasses.replace(own, subject_id=int(rows.subject_id[0])))
    told = ("--predictions", str(file), "--identity", str(tmp_path / "all.json"))
    with pytest.raises(ValueError, match="every image served to calibrate: nothing is left to measure"):
        evaluate(options("eval", root, *told))


def test_a_crop_cache_is_of_the_boxes_it_shows(tmp_path: Path) -> None:
    """Labels that are written over in place move the boxes; the folder's time does not."""
    root, cache = tmp_path / "humbi", tmp_path / "cache"
    write_humbi(root, 9, 1, num_cameras=2, seed=1)
    opened = {"mano_dir": "template/stand_in.npz", "crop_size": 64}
    before = build_dataset("humbi", root, "split_5_train", cache=cache, **opened)
    first = before[0]["image"]
    for path in root.rglob("vertices_r.txt"):
        moved = tmp_path / "moved.txt"
        np.savetxt(moved, np.loadtxt(path) + [0.02, 0.0, 0.0])
        shutil.copyfile(moved, path)
    cached = build_dataset("humbi", root, "split_5_train", cache=cache, **opened)[0]["image"]
    fresh = build_dataset("humbi", root, "split_5_train", **opened)[0]["image"]
    assert not np.array_equal(first, fresh) and np.array_equal(cached, fresh)


def test_a_schedule_that_never_divides_its_rate_says_so(caplog: pytest.LogCaptureFixture) -> None:
    args = argparse.Namespace(
        body_lr=None, lr=1e-3, optimizer="adam", weight_decay=0.0, schedule="multistep", model="mano_baseline"
    )
    for epochs in (5, 6):
        build_optimizer(args, nn.Linear(2, 2), 20 * epochs, 20)
    assert caplog.text.count("after epochs") == 1
    assert "divides the rate after epochs 5 and 10, so not at all in --epochs 5" in caplog.text


def test_every_groups_rate_falls_to_a_hundredth_of_its_own() -> None:
    network = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    args = argparse.Namespace(
        body_lr=5e-6, lr=1e-3, optimizer="adamw", weight_decay=0.0, schedule="cosine", model="mano_baseline"
    )
    optimizer, schedule = build_optimizer(args, network, 200, 20)
    rates = []
    for _ in range(200):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr())
    rates = np.array(rates)
    assert rates.max(axis=0) == pytest.approx([1e-3, 5e-6]) and rates[-1] == pytest.approx([1e-5, 5e-8])
    assert torch.isfinite(torch.tensor(rates)).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--predictions a.txt --identity me.json", "an official file does not use --identity"),
        ("--predictions a.json --dataset freihand --submit freihand", "an official file does not use --submit"),
        ("--predictions a.txt --side right", "an official file does not use --side"),
        ("--predictions a.npz --submit dexycb --side right", "--submit dexycb, of both sides, does not use --side"),
        ("--predictions a.npz --exp_name e", "eval of --predictions without --submit does not use --exp_name"),
        ("--predictions a.txt --out_dir o", "eval of --predictions without --submit does not use --out_dir"),
        ("--checkpoint c --split s1_val --setup s1", "--phase eval of a --split does not use --setup"),
        ("--predictions a.npz --max_images 3", "--phase eval of --predictions does not use --max_images"),
        ("--predictions a.txt --checkpoint c", "--phase eval of --predictions does not use --checkpoint"),
        ("--checkpoint c --resume d", "--checkpoint and --resume both name the network; give one"),
        ("--dataset freihand --allow_missing_subjects", "--dataset freihand does not use --allow_missing_subjects"),
    ],
)
def test_what_would_not_be_listened_to_is_refused(words: str, said: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        get_args_parser().parse_args(["--phase", "eval", *words.split()])
    assert re.search(said, " ".join(capsys.readouterr().err.split()))


def test_a_setup_that_the_predictions_are_not_of_is_refused(root: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "p.npz")
    summary = evaluate(options("eval", root, *IDENTITY_AWARE, "--predictions", file))  # writes them, as --phase predict
    assert evaluate(options("eval", root, "--predictions", file)) == summary
    with pytest.raises(ValueError, match="is of split s1_test, not of --setup s0"):
        evaluate(options("eval", root, "--predictions", file, "--setup", "s0"))
    with pytest.raises(ValueError, match="is of mano_identity, not of --model mano_baseline"):
        evaluate(options("eval", root, "--predictions", file, "--model", "mano_baseline"))


def test_a_servers_file_without_every_image_is_not_written(tmp_path: Path) -> None:
    """The server's program stops at the first image that is missing."""
    root = write_dex_ycb(tmp_path / "dex_ycb", subjects=(8,))
    (root / "synthetic.json").write_text("{}")
    next(root.rglob("labels_*.npz")).write_bytes(b"damaged")
    words = ("--submit", "dexycb", "--side", "both", "--skip_bad", "--out_dir", str(tmp_path / "out"))
    with pytest.raises(SubmissionError, match="1 labels files of .* could not be read: the server wants every image"):
        evaluate(options("eval", root, *IDENTITY_AWARE, *words))
    assert not list(tmp_path.glob("out/**/*.txt"))


def test_shards_do_not_replace_the_data_set_for_the_servers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "index.json").write_text("{}")
    with pytest.raises(SystemExit):  # they hold whom they hold
        get_args_parser().parse_args(["--phase", "eval", "--data_root", str(tmp_path), "--allow_missing_subjects"])
    assert "a folder of shards does not use --allow_missing_subjects" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--submit freihand needs the data set itself"):
        evaluate(options("eval", tmp_path, *IDENTITY_AWARE, "--dataset", "freihand", "--submit", "freihand"))


def test_validation_on_images_that_are_trained_on_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_dex_ycb(tmp_path / "dex_ycb", subjects=(1, 7))
    words = f"--phase train --data_root {root} --allow_missing_subjects --device cpu --threads 1 --out_dir {tmp_path}"
    words += " --crop_size 32 --input_size 32 --backbone mobilenet_v3_small --batch_size 4 --epochs 1"
    Trainer(apply_recipe(get_args_parser().parse_args(words.split())))
    assert "are trained on, too" not in caplog.text
    Trainer(apply_recipe(get_args_parser().parse_args([*words.split(), "--split", "all"])))
    assert "8 of the 8 validation images (s1_val) are trained on, too" in caplog.text
