"""Training: resumes to the bit, stops on signals and on NaN, saves atomically; checkpoints are strict."""

from __future__ import annotations

import csv
import functools
import logging
import math
import shutil
import signal
import threading
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

from options.recipes import apply_recipe
from options.run_options import get_args_parser
from src.engine import checkpoint
from src.engine.config import autocast_dtype
from src.engine.evaluate import evaluate
from src.engine.predict import ShapeSource, predict
from src.engine.ship import export_weights, ship
from src.engine.train import NonFiniteLossError, Trainer, train
from src.models.backbones import classifier
from src.personalization.terms.hand_size import lengths_mm
from template import load_hand_assets
from tests.interrupting import interrupt
from utils.artifacts import Identity, load_predictions, save_identity
from utils.torch_files import UnreadableCheckpointError


def options(root: Path, out: Path, *extra: str, phase: str = "train", model: str = "mano_baseline") -> object:
    words = ["--phase", phase, "--model", model, "--data_root", str(root), "--out_dir", str(out), "--device", "cpu"]
    words += ["--backbone", "mobilenet_v3_small", "--crop_size", "64", "--batch_size", "8"]
    words += ["--cache", str(root / "cache")]
    if phase == "train":
        words += ["--input_size", "64", "--crop_scale", "2", "--epochs", "2", "--val_images", "4"]
    return get_args_parser().parse_args([*words, *extra])


def weights(out: Path, name: str = "mano_baseline") -> dict[str, torch.Tensor]:
    return torch.load(out / f"dex_ycb/{name}/checkpoints/last.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    train(options(root, out))
    return out


def test_writes_what_a_run_should_leave(whole: Path) -> None:
    folder = whole / "dex_ycb/mano_baseline"
    assert {path.name for path in folder.iterdir()} == {"args.json", "log.csv", "board", "checkpoints"}
    with open(folder / "log.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["epoch"] for row in rows] == ["1", "2"] and float(rows[0]["val_mpjpe_mm"]) > 0
    assert (folder / "checkpoints/best.pt").is_file()


@pytest.mark.parametrize("batches", [3, 8])
def test_killed_and_resumed_is_the_same_to_the_bit(root: Path, whole: Path, tmp_path: Path, batches: int) -> None:
    trainer = Trainer(apply_recipe(options(root, tmp_path)))
    assert len(trainer.loader) == 7  # so that the two cases stop in the first and in the second epoch
    assert interrupt(trainer, batches).code == 128 + signal.SIGTERM
    train(options(root, tmp_path, "--resume"))
    expected, found = weights(whole), weights(tmp_path)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert threading.current_thread() is threading.main_thread()


@pytest.mark.parametrize(
    ("model", "extra"),
    [
        ("mano_identity", ["--recipe", "paper", "--backbone", "resnet18"]),
        ("pose_2d", ["--recipe", "paper", "--backbone", "resnet18"]),
        ("pose_2d", []),
        ("mano_identity", ["--blind_decoder", "--crop_geometry", "no"]),
    ],
)
def test_every_network_and_recipe_trains(root: Path, tmp_path: Path, model: str, extra: list[str]) -> None:
    train(options(root, tmp_path, "--epochs", "1", "--batch_size", "28", *extra, model=model))
    with open(tmp_path / f"dex_ycb/{model}/log.csv", newline="") as handle:
        row = next(csv.DictReader(handle))
    score = "val_keypoints_px" if model == "pose_2d" else "val_mpjpe_mm"
    assert 0 < float(row[score]) < 1000 and 0 < float(row["train_loss"]) < 1000


def test_other_batches_begin_the_epoch_again(root: Path, tmp_path: Path) -> None:
    """A state in the middle of an epoch was called damaged where epochs have fewer batches now."""
    interrupt(Trainer(apply_recipe(options(root, tmp_path))), 6)
    train(options(root, tmp_path, "--resume", "--override", "--batch_size", "28", "--epochs", "1"))
    assert checkpoint.read_checkpoint(tmp_path / "dex_ycb/mano_baseline/checkpoints/last.pt")["position"]["epoch"] == 1


def test_nan_stops_and_keeps_the_last_good_state(root: Path, tmp_path: Path) -> None:
    trainer = Trainer(apply_recipe(options(root, tmp_path)))
    step = trainer._step

    def poisoned(raw: dict) -> dict:
        if trainer.state.position.epoch == 1:
            with torch.no_grad():
                trainer.model.feature.bias.fill_(float("nan"))
        return step(raw)

    trainer._step = poisoned
    with pytest.raises(NonFiniteLossError, match="epoch 2, batch 0, images"):
        trainer.run()
    state = torch.load(tmp_path / "dex_ycb/mano_baseline/checkpoints/last.pt", weights_only=True)
    assert state["position"]["epoch"] == 1 and all(value.isfinite().all() for value in state["model"].values())


def test_resume_refuses_another_run(root: Path, whole: Path, tmp_path: Path) -> None:
    last = str(whole / "dex_ycb/mano_baseline/checkpoints/last.pt")
    with pytest.raises(checkpoint.CheckpointError, match="--seed"):
        train(options(root, tmp_path, "--seed", "5", "--resume", last))
    with pytest.raises(checkpoint.CheckpointError, match="12 missing"):
        train(options(root, tmp_path, "--resume", last, "--override", model="mano_identity"))
    with pytest.raises(checkpoint.CheckpointError, match="--model was mano_baseline, is mano_identity"):
        train(options(root, tmp_path, "--resume", last, model="mano_identity"))


def test_interrupted_write_leaves_the_previous_checkpoint(whole: Path, tmp_path: Path, monkeypatch: object) -> None:
    path = tmp_path / "last.pt"
    model, card, _ = checkpoint.load_network(whole / "dex_ycb/mano_baseline/checkpoints/last.pt")
    checkpoint.save_checkpoint(path, card, model)
    before = path.read_bytes()

    def half(value: object, target: BinaryIO) -> None:
        target.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save_checkpoint(path, card, model)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_confidence_stage_moves_nothing_else(root: Path, whole: Path, tmp_path: Path) -> None:
    baseline = whole / "dex_ycb/mano_baseline/checkpoints/last.pt"
    train(options(root, tmp_path, "--init_from", str(baseline), model="mano_baseline_conf"))
    before, after = weights(whole), weights(tmp_path, "mano_baseline_conf")
    assert all(torch.equal(before[name], after[name]) for name in before)  # BatchNorm statistics too
    added = set(after) - set(before)
    assert added and all(name.startswith("confidence.") for name in added)


def test_a_run_goes_on_from_what_it_began_from(root: Path, whole: Path, tmp_path: Path) -> None:
    """The scripts always say both: after the baseline was trained anew, the old networks on it were called trained."""
    base = tmp_path / "base.pt"
    shutil.copyfile(whole / "dex_ycb/mano_baseline/checkpoints/last.pt", base)
    words = ("--init_from", str(base), "--epochs")
    train(options(root, tmp_path, *words, "1", model="mano_baseline_conf"))
    train(options(root, tmp_path, *words, "1", "--resume", model="mano_baseline_conf"))
    with pytest.raises(checkpoint.CheckpointError, match="began from all parts, not from backbone"):
        train(options(root, tmp_path, *words, "1", "--init_parts", "backbone", "--resume", model="mano_baseline_conf"))
    shutil.copyfile(whole / "dex_ycb/mano_baseline/checkpoints/best.pt", base)
    for more in (("1",), ("1", "--override")):
        with pytest.raises(checkpoint.CheckpointError, match=r"began from base.pt \(.*--overwrite begins anew"):
            train(options(root, tmp_path, *words, *more, "--resume", model="mano_baseline_conf"))
    train(options(root, tmp_path, "--epochs", "1", "--resume", model="mano_baseline_conf"))


def test_a_run_from_nothing_is_not_called_one_from_weights(root: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    last = tmp_path / "out/dex_ycb/mano_baseline/checkpoints/last.pt"
    torch.save(classifier("mobilenet_v3_small").state_dict(), tmp_path / "imagenet.pth")
    given = {"init_from": last.with_name("best.pt"), "backbone_weights": tmp_path / "imagenet.pth"}
    for name, file in given.items():
        words = ("--resume", "--override", "--epochs", "3", f"--{name}", str(file))
        with pytest.raises(checkpoint.CheckpointError, match=f"began without --{name}, not from {file.name}"):
            train(options(root, tmp_path / "out", *words))
    state = torch.load(last, weights_only=True)
    torch.save({**state, "began_from": ""}, last)  # as older ones are, which did not note backbone weights
    train(options(root, tmp_path / "out", "--resume", "--backbone_weights", str(given["backbone_weights"])))


def test_confidence_stage_needs_a_baseline_of_the_same_input(root: Path, whole: Path, tmp_path: Path) -> None:
    """Without one, or with one of another size, it would rank the shapes of a network that sees nothing."""
    baseline = str(whole / "dex_ycb/mano_baseline/checkpoints/last.pt")
    with pytest.raises(ValueError, match="trains its branch alone.*--init_from"):
        train(options(root, tmp_path, model="mano_baseline_conf"))
    with pytest.raises(ValueError, match="trains its branch alone"):
        train(options(root, tmp_path, "--resume", model="mano_baseline_conf"))  # there is nothing to go on from
    for words, name in ((("--input_size", "56"), "input_size"), (("--crop_scale", "1.5"), "crop_scale")):
        with pytest.raises(checkpoint.CheckpointError, match=f"its {name} is .*, here {words[1]}"):
            train(options(root, tmp_path, "--init_from", baseline, *words, model="mano_baseline_conf"))
    assert not list(tmp_path.iterdir())


def test_what_a_network_cannot_start_from_is_said_before_the_data_are_read(whole: Path, tmp_path: Path) -> None:
    baseline = whole / "dex_ycb/mano_baseline/checkpoints/last.pt"
    state = torch.load(baseline, weights_only=True)
    state["model"]["feature.bias"].fill_(float("nan"))
    torch.save(state, tmp_path / "nan.pt")
    deep = checkpoint.ModelCard("mano_baseline", options={"backbone": "resnet34"})
    checkpoint.save_checkpoint(tmp_path / "deep.pt", deep, deep.build())
    for words, said in (
        (("--init_from", str(tmp_path / "nan.pt")), "NaN or infinity in feature.bias"),
        (("--init_from", str(baseline), "--init_parts", "backbone", "foo"), "shares no module foo"),
        (("--init_from", "nothing.pt"), "nothing.pt: no such checkpoint"),
        (
            ("--init_from", str(tmp_path / "deep.pt"), "--backbone", "resnet18"),
            "its backbone is resnet34, here resnet18",
        ),
        (("--backbone", "resnet7"), "resnet7"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            train(options(tmp_path / "no_data", tmp_path, *words))


@pytest.mark.parametrize(
    "damage",
    [{"position": None}, {"position": {"epoch": -1}}, {"position": {"batch": 99}}, {"optimizer": {}}, {"scheduler": {}},
     {"random": torch.zeros(5, dtype=torch.uint8)}],
    ids=str,
)  # fmt: skip
def test_a_state_that_cannot_be_taken_up_is_named(
    root: Path, whole: Path, tmp_path: Path, damage: dict[str, object]
) -> None:
    state = torch.load(whole / "dex_ycb/mano_baseline/checkpoints/last.pt", weights_only=True)
    torch.save(state | damage, tmp_path / "damaged.pt")
    with pytest.raises(UnreadableCheckpointError, match="damaged.pt: holds no whole state of a training"):
        train(options(root, tmp_path / "out", "--resume", str(tmp_path / "damaged.pt")))


def test_a_flipped_byte_or_another_versions_card_is_no_network(whole: Path, tmp_path: Path) -> None:
    baseline = whole / "dex_ycb/mano_baseline/checkpoints/last.pt"
    content = bytearray(baseline.read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "flipped.pt").write_bytes(content)
    with pytest.raises(UnreadableCheckpointError, match="flipped.pt.*the checksum of .* differs"):
        checkpoint.load_network(tmp_path / "flipped.pt")
    state = torch.load(baseline, weights_only=True)
    state["card"]["options"]["banana"] = 1
    torch.save(state, tmp_path / "newer.pt")
    with pytest.raises(checkpoint.CheckpointError, match="newer.pt: its card describes no network.*banana"):
        checkpoint.load_network(tmp_path / "newer.pt")


@pytest.mark.parametrize("confidence", ["pairs", "within_person"])
def test_confidence_stage_has_a_best_state_whatever_the_last_batch(
    root: Path, whole: Path, tmp_path: Path, confidence: str
) -> None:
    baseline = whole / "dex_ycb/mano_baseline/checkpoints/last.pt"
    words = ("--init_from", str(baseline), "--confidence", confidence, "--epochs", "1", "--val_images", "5")
    train(options(root, tmp_path, *words, "--batch_size", "4", model="mano_baseline_conf"))  # 5 images: 4, then one
    folder = tmp_path / "dex_ycb/mano_baseline_conf"
    with open(folder / "log.csv", newline="") as handle:
        row = next(csv.DictReader(handle))
    assert 0 <= float(row["val_ranking_error"]) <= 1 and 0 <= float(row["train_accuracy"]) <= 1
    assert (folder / "checkpoints/best.pt").is_file()
    words = (*words, "--epochs", "2", "--batch_size", "3", "--resume", "--override")
    train(options(root, tmp_path, *words, model="mano_baseline_conf"))  # other batches hold other pairs
    assert (folder / "checkpoints/best_before.pt").is_file()


def test_shipped_weights_predict_like_the_checkpoint(root: Path, whole: Path, tmp_path: Path) -> None:
    pt = whole / "dex_ycb/mano_baseline/checkpoints/last.pt"
    shipped = tmp_path / "baseline.safetensors"
    export_weights(pt, shipped, command="test", scores={"mpjpe_mm": 1.0})
    files = []
    for number, path in enumerate((pt, shipped)):
        files.append(tmp_path / f"{number}.npz")
        predict(options(root, tmp_path, "--checkpoint", str(path), "--predictions", str(files[-1]), phase="predict"))
    first, second = map(load_predictions, files)
    assert abs(first.pose - second.pose).max() < 0.02 and (first.image_id == second.image_id).all()
    words = f"--phase eval --data_root {root} --predictions {files[0]}".split()
    summary = evaluate(get_args_parser().parse_args(words))
    assert summary["n_images"] == len(first) and summary["mpjpe_mm"] > 0
    assert checkpoint.read_checkpoint(shipped)["scores"] == {"mpjpe_mm": 1.0}


def test_checkpoints_of_others_are_refused(whole: Path, tmp_path: Path) -> None:
    pt = whole / "dex_ycb/mano_baseline/checkpoints/last.pt"
    with pytest.raises(checkpoint.CheckpointError, match="is a mano_baseline, but a mano_identity"):
        checkpoint.load_network(pt, expect="mano_identity")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        checkpoint.load_network(tmp_path / "nothing.pt")
    (tmp_path / "short.pt").write_bytes(pt.read_bytes()[:1000])
    with pytest.raises(checkpoint.CheckpointError, match="short.pt"):
        checkpoint.load_network(tmp_path / "short.pt")
    state = torch.load(pt, weights_only=True)
    state["model"].pop("shape.0.weight")
    state["model"]["odd"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(checkpoint.CheckpointError, match=r"shape\.0\.weight.*odd"):
        checkpoint.load_network(tmp_path / "odd.pt")


def test_shape_source(tmp_path: Path) -> None:
    batch = {"betas": torch.ones(2, 10), "subject_id": torch.tensor([8, 9])}
    assert ShapeSource("gt")(batch) is batch["betas"]
    assert not ShapeSource("mean")(batch).any()
    assets = load_hand_assets()
    for subject in (8, 9):
        own = np.full(10, subject / 10)
        length = lengths_mm(assets, own, None)["hand"][0]
        identity = Identity(own, assets.name, assets.hash, length, subject_id=subject)
        save_identity(tmp_path / f"identity_subject-{subject:02d}.json", identity)
    betas = ShapeSource("calibrated", tmp_path, assets)(batch)
    assert torch.allclose(betas[:, 0], torch.tensor([0.8, 0.9]))
    with pytest.raises(ValueError, match="--identity"):
        ShapeSource("calibrated")


def test_compiled_training_is_the_training_without(
    root: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = functools.partial(torch.compile, backend="eager")  # the graph alone: a compiler would take a minute
    monkeypatch.setattr(torch, "compile", compiled)
    trainer = Trainer(apply_recipe(options(root, tmp_path, "--compile")))
    assert trainer.network is not trainer.model
    trainer.run()
    expected, found = weights(whole), weights(tmp_path)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_samples_in_the_devices_memory_train_to_the_same_weights(root: Path, whole: Path, tmp_path: Path) -> None:
    train(options(root, tmp_path, "--resident", "yes"))
    expected, found = weights(whole), weights(tmp_path)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(("capability", "wanted"), [("AVX512", torch.bfloat16), ("AVX2", None), ("DEFAULT", None)])
def test_bf16_is_the_default_only_where_it_is_quick(
    monkeypatch: pytest.MonkeyPatch, capability: str, wanted: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    cpu = torch.device("cpu")
    assert autocast_dtype("auto", cpu) is wanted
    assert autocast_dtype("bf16", cpu) is torch.bfloat16 and autocast_dtype("no", cpu) is None
    assert autocast_dtype("auto", torch.device("cuda")) is torch.bfloat16


def test_a_confidence_branch_needs_the_whole_baseline(root: Path, whole: Path, tmp_path: Path) -> None:
    """What is missing would stay random, and the branch rank the errors of random betas."""
    baseline = str(whole / "dex_ycb/mano_baseline/checkpoints/last.pt")
    with pytest.raises(
        checkpoint.CheckpointError, match="gives no feature, heatmaps, pose, shape of mano_baseline_conf"
    ):
        train(options(root, tmp_path, "--init_from", baseline, "--init_parts", "backbone", model="mano_baseline_conf"))
    assert not list(tmp_path.iterdir())


def test_scores_of_other_images_are_not_compared(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On one image the first epochs scored better than any later one on all of them can."""
    caplog.set_level(logging.INFO)
    best = tmp_path / "dex_ycb/mano_baseline/checkpoints/best.pt"
    train(options(root, tmp_path, "--epochs", "1"))
    state = checkpoint.read_checkpoint(best)
    torch.save(state | {"position": state["position"] | {"best": 0.0}}, best)
    train(options(root, tmp_path, "--epochs", "2", "--resume", "--override"))
    assert checkpoint.read_checkpoint(best)["position"]["best"] == 0  # of the same images
    train(options(root, tmp_path, "--epochs", "3", "--resume", "--override", "--val_images", "3"))
    assert 0 < checkpoint.read_checkpoint(best)["position"]["best"] < math.inf
    assert best.with_name("best_before.pt").is_file() and "best.pt starts anew" in caplog.text
    first = best.with_name("best_before.pt").read_bytes()
    train(options(root, tmp_path, "--epochs", "4", "--resume", "--override", "--val_images", "4"))
    assert best.with_name("best_before.pt").read_bytes() == first and best.with_name("best_before_2.pt").is_file()
    last = best.with_name("last.pt")
    state = checkpoint.read_checkpoint(last)
    torch.save(state | {"position": state["position"] | {"best": 0.0}}, last)
    train(
        options(
            root, tmp_path, "--epochs", "5", "--resume", str(last), "--override", "--val_images", "4", "--exp_name", "b"
        )
    )
    assert (tmp_path / "dex_ycb/b/checkpoints/best.pt").is_file()  # a branch has its own, however good the stem was


def test_another_grouping_of_the_parameters_starts_their_moments_anew(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train(options(root, tmp_path, "--epochs", "1"))
    train(options(root, tmp_path, "--epochs", "2", "--resume", "--override", "--body_lr", "1e-4"))
    assert "moments start anew" in caplog.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model mano_baseline --blind_decoder", "--blind_decoder"),
        ("--model mano_baseline --init_from x.pt --backbone_weights y.pth", "--backbone_weights"),
    ],
)
def test_options_that_a_training_does_not_hear(words: str, said: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        get_args_parser().parse_args(["--phase", "train", *words.split()])
    assert said in capsys.readouterr().err


def test_networks_that_another_command_trains(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="world.train"):
        train(options(root, tmp_path, model="hand_detector"))
    with pytest.raises(ValueError, match="released cascade, without it"):
        train(options(root, tmp_path, "--backbone", "resnet18", "--crop_geometry", "no", model="cmr_pg"))
    assert not list(tmp_path.iterdir())


def test_a_run_from_a_bare_file_name_ships(
    root: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(whole / "dex_ycb/mano_baseline/checkpoints/last.pt", tmp_path / "base.pt")
    monkeypatch.chdir(tmp_path)
    train(options(root, tmp_path / "out", "--epochs", "1", "--init_from", "base.pt"))
    assert ship(tmp_path / "out/dex_ycb/mano_baseline", "mine", tmp_path / "weights").is_file()
