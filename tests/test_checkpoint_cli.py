"""``python -m src.engine.checkpoint``: takes an owned checkpoint whole, or names what does not fit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from src.engine import checkpoint
from src.models import build_model


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


def test_shipped_weights_and_nonsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert run(monkeypatch, "weights/pose_2d.safetensors", "--model", "pose_2d") == 0
    assert run(monkeypatch, "weights/pose_2d.safetensors", "--model", "mano_identity") == 2
    assert "is a pose_2d" in capsys.readouterr().err
    (tmp_path / "text.pt").write_text("hello")
    assert run(monkeypatch, str(tmp_path / "text.pt"), "--model", "mano_identity") == 2
    assert run(monkeypatch, str(tmp_path / "none.pt"), "--model", "mano_identity") == 2
