"""``python -m src.engine.checkpoint``: takes an owned checkpoint whole, or names what does not fit."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from conv.hierarchy import build_hierarchy
from src.engine import checkpoint
from src.engine.checkpoint import ModelCard
from src.engine.ship import export_weights
from src.models import build_model
from src.models.backbones import Backbone
from src.models.cmr.encoders import build_resnet
from template import load_hand_assets


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["checkpoint", *words])
    return checkpoint.main()


def test_owned_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    state = build_model("mano_identity", "paper", backbone="resnet18").state_dict()
    wrapped = {"model_state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 15}
    path = tmp_path / "owned.pt"
    torch.save(wrapped, path)
    assert run(monkeypatch, str(path), "--model", "mano_identity", "--backbone", "ResNet18") == 0
    assert f"{len(state)} tensors" in capsys.readouterr().out
    wrapped["model_state_dict"].pop("module.pose_6d_extractor.0.0.weight")
    torch.save(wrapped, path)
    assert run(monkeypatch, str(path), "--model", "mano_identity", "--backbone", "ResNet18") == 2
    assert "pose_6d_extractor.0.0.weight" in capsys.readouterr().err


def test_cascades_without_silhouettes_are_taken_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    torch.save(build_model("cmr_pg", "paper", with_mask=False).state_dict(), tmp_path / "pg.pt")
    assert run(monkeypatch, str(tmp_path / "pg.pt"), "--model", "cmr_pg") == 0
    torch.save({"foo": torch.zeros(2)}, tmp_path / "other.pt")
    assert run(monkeypatch, str(tmp_path / "other.pt"), "--model", "cmr_pg") == 2
    assert "other.pt" in capsys.readouterr().err


def test_networks_of_other_mesh_levels_are_taken_with_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    hand, levels = load_hand_assets("template/stand_in.npz"), str(tmp_path / "levels.npz")
    moved = hand.v_template + np.random.default_rng(0).normal(0, 0.002, hand.v_template.shape)
    hierarchy = build_hierarchy(moved, hand.faces.astype(np.int64))
    hierarchy.save(levels)
    network = build_model("cmr_sg", backbone="resnet18", hierarchy=hierarchy)
    card = ModelCard("cmr_sg", "fair", {"backbone": "resnet18"}, hierarchy_hash=network.hierarchy_hash)
    checkpoint.save_checkpoint(tmp_path / "c.pt", card, network)
    words = (str(tmp_path / "c.pt"), "--model", "cmr_sg", "--mano_dir", "template/stand_in.npz")
    assert run(monkeypatch, *words) == 2 and "--hierarchy" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--hierarchy", levels) == 0
    for unheard in (("--hierarchy", levels, "--model", "pose_2d"), ("--backbone", "ResNet18")):
        with pytest.raises(SystemExit):
            run(monkeypatch, *words, *unheard)


def test_shipped_weights_and_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run(monkeypatch, "weights/pose_2d.safetensors", "--model", "pose_2d") == 0
    assert run(monkeypatch, "weights/pose_2d.safetensors", "--model", "mano_identity") == 2
    assert "is a pose_2d" in capsys.readouterr().err
    (tmp_path / "text.pt").write_text("hello")
    assert run(monkeypatch, str(tmp_path / "text.pt"), "--model", "mano_identity") == 2
    assert run(monkeypatch, str(tmp_path / "none.pt"), "--model", "mano_identity") == 2


class Harmful:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_numpy_scalars_and_namespaces_beside_the_weights_are_read(tmp_path: Path) -> None:
    state = build_model("mano_identity", "paper", backbone="resnet18").state_dict()
    beside = {
        "loss": np.float64(3.5), "epoch": np.int64(4), "flag": np.bool_(True), "curve": np.arange(3.0),
        "args": argparse.Namespace(lr=1e-4, name="x"),
    }  # fmt: skip
    path = tmp_path / "owned.pt"
    torch.save({"model_state_dict": state, **beside}, path)
    found = checkpoint.load_harmless(path)
    assert found["loss"] == 3.5 and found["epoch"] == 4 and found["flag"] and found["args"].lr == 1e-4
    assert found["curve"].tolist() == [0, 1, 2]
    assert checkpoint.load_owned(path, build_model("mano_identity", "paper", backbone="resnet18")) == len(state)


def test_objects_whose_reading_runs_code_are_refused_with_our_own_advice(tmp_path: Path) -> None:
    path, made = tmp_path / "owned.pt", tmp_path / "made"
    torch.save({"model_state_dict": {"a": torch.zeros(1)}, "x": Harmful(made)}, path)
    for read in (checkpoint.load_harmless, checkpoint.read_checkpoint):
        with pytest.raises(
            checkpoint.CheckpointError, match=r"owned\.pt: holds a .* could run code.*state_dict\(\)"
        ) as refused:
            read(path)
        assert "weights_only" not in str(refused.value) and "safe_globals" not in str(refused.value)
    assert not made.exists()


def test_what_half_precision_cannot_hold_ships_in_single(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"backbone": "mobilenet_v3_small"}
    model = build_model("pose_2d", **options)
    name, small = (name for name, value in list(model.named_parameters())[:2])
    with torch.no_grad():
        model.get_parameter(name).flatten()[0] = 1e5
        model.get_parameter(small).fill_(1e-9)
    card = checkpoint.ModelCard("pose_2d", "fair", options, 64, 64)
    checkpoint.save_checkpoint(tmp_path / "c.pt", card, model)
    export_weights(tmp_path / "c.pt", tmp_path / "c.safetensors")
    shipped = checkpoint.read_checkpoint(tmp_path / "c.safetensors")["model"]
    for key, value in model.state_dict().items():
        assert torch.allclose(shipped[key].float(), value.float(), rtol=1e-3, atol=1e-3 * float(value.abs().max())), key
    assert name in caplog.text and small in caplog.text
    with torch.no_grad():
        model.get_parameter(name).flatten()[0] = float("inf")
    checkpoint.save_checkpoint(tmp_path / "c.pt", card, model)
    with pytest.raises(checkpoint.CheckpointError, match=f"{name} holds numbers that are not finite"):
        export_weights(tmp_path / "c.pt", tmp_path / "d.safetensors")
    assert not (tmp_path / "d.safetensors").exists()


@pytest.mark.parametrize(
    "card",
    ["x", {"bar": 1}, {"model": "mano_baseline", "bar": 1}, {"model": "mano_baseline", "input_size": 0},
     {"model": "mano_baseline", "crop_scale": 99}, {"model": "mano_baseline", "input_size": "96"},
     {"model": "mano_baseline", "options": [1]}],
)  # fmt: skip
def test_cards_that_cannot_be_are_named(tmp_path: Path, card: object) -> None:
    path = tmp_path / "odd.pt"
    torch.save({"card": card, "model": {}}, path)
    with pytest.raises(checkpoint.CheckpointError, match=r"odd\.pt: its card"):
        checkpoint.load_network(path)


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 a picture", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_checkpoint_is_not_advised_to_be_read_unsafely(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=r"a\.pt: cannot be read as a checkpoint") as refused:
        checkpoint.load_harmless(tmp_path / "a.pt")
    assert "weights_only" not in str(refused.value) and "arbitrary code" not in str(refused.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_training_that_diverged_are_refused(tmp_path: Path, value: float) -> None:
    network = build_model("mano_identity", "paper", backbone="resnet18")
    state = network.state_dict()
    name = next(key for key, tensor in state.items() if key.endswith("weight") and tensor.ndim == 4)
    state[name].view(-1)[3] = value
    torch.save(state, tmp_path / "diverged.pt")
    with pytest.raises(checkpoint.CheckpointError, match=f"diverged.pt: NaN or infinity in {name} .1 of"):
        checkpoint.load_owned(tmp_path / "diverged.pt", build_model("mano_identity", "paper", backbone="resnet18"))


def test_backbone_weights_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"<html>not found</html>")
    for build in (lambda path: Backbone("resnet18", path), lambda path: build_resnet("resnet18", path)):
        with pytest.raises(ValueError, match=r"a\.pth: cannot be read as a checkpoint") as refused:
            build(tmp_path / "a.pth")
        assert "weights_only" not in str(refused.value)
        with pytest.raises(FileNotFoundError, match="b.pth"):
            build(tmp_path / "b.pth")
