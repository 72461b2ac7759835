"""``--engine onnx``: the same numbers as PyTorch for any batch, exported once, and PyTorch where it cannot be."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_cases import Fixed
from torch import nn

from src.engine.checkpoint import ModelCard, load_network
from src.engine.export import sample_inputs
from src.engine.networks import for_inference, is_told_shape
from src.photos import onnx_network
from src.photos.api import PhotoEstimator
from src.photos.onnx_network import FOR_TRAINING, OnnxNetwork, through_onnx
from src.photos.setup import compute_by_onnx

WEIGHTS = Path(__file__).parents[1] / "weights"

# Beside mediapipe, which wants an older protobuf, onnx is installed and cannot be imported.
pytest.importorskip("onnx", reason="needs pip install -r requirements-export.txt", exc_type=ImportError)
pytest.importorskip("onnxruntime", reason="needs pip install -r requirements-export.txt", exc_type=ImportError)


@pytest.mark.parametrize("name", ["world_keypoints", "hand_detector", "mano_identity"])
def test_a_shipped_network_gives_the_same(name: str, tmp_path: Path) -> None:
    network, card, _ = load_network(WEIGHTS / f"{name}.safetensors")
    quick = for_inference(network)
    engine = through_onnx(quick, card, tmp_path)
    assert isinstance(engine, OnnxNetwork)
    for batch in (1, 2, 5):
        image, betas, K = sample_inputs(["image", "betas", "K"], card.input_size, batch, seed=10 + batch)
        known = {"betas": betas, "K": K} if card.model.startswith("mano") else {}
        with torch.inference_mode():
            expected, found = quick(image, **known), engine(image, **known)
        assert set(found) == {key for key, value in expected.items() if value is not None} - FOR_TRAINING
        for key, value in found.items():
            largest = max(float(expected[key].abs().max()), 1.0)
            assert value.shape == expected[key].shape
            assert float((value - expected[key]).abs().max()) < 1e-4 * largest, key
    if is_told_shape(card):  # neither betas nor K became a constant
        moved = engine(image, betas=betas + 1, K=K)["pose"]
        assert float((moved - found["pose"]).abs().max()) > 1e-4


class Small(nn.Module):
    """A network with a number that is no tensor of weights, and one that no exported file has a place for."""

    def __init__(self, extra: str = "is_hand") -> None:
        super().__init__()
        self.conv, self.extra, self.rating = nn.Conv2d(3, 21, 3), extra, "kept"

    def forward(self, image: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = self.conv(image).mean(dim=(2, 3))
        return {"keypoint_confidence": seen, self.extra: seen[:, 0]}


def test_exported_once_and_again_where_the_file_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, card = Small(), ModelCard("pose_2d", input_size=32)
    written: list[Path] = []
    write = onnx_network.write_onnx
    monkeypatch.setattr(onnx_network, "write_onnx", lambda *given: (written.append(given[2]), write(*given)))
    engine = through_onnx(network, card, tmp_path)
    assert engine.rating == "kept" and not hasattr(engine, "attention")
    assert through_onnx(engine, card, tmp_path) is engine
    through_onnx(network, card, tmp_path)
    assert len(written) == 1 and len(list(tmp_path.iterdir())) == 1
    next(tmp_path.iterdir()).write_bytes(b"half a file")
    image = torch.rand(2, 3, 32, 32)
    found = through_onnx(network, card, tmp_path)(image)["is_hand"]
    assert len(written) == 2
    np.testing.assert_allclose(found.numpy(), network(image)["is_hand"].detach().numpy(), atol=1e-5)
    nn.init.zeros_(network.conv.weight)  # other weights, another file
    through_onnx(network, card, tmp_path)
    assert len(written) == 3 and len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_exported_stays_in_pytorch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    card = ModelCard("pose_2d", input_size=32)
    with caplog.at_level(logging.WARNING):
        network = Small("silhouette")
        assert through_onnx(network, card, tmp_path) is network
    assert "stays in PyTorch: its outputs silhouette have no place" in caplog.text
    assert not list(tmp_path.iterdir())
    caplog.clear()
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert through_onnx(Small(), card, tmp_path / "file") is not None
    assert "stays in PyTorch" in caplog.text


def test_a_missing_package_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnx_network, "REQUIRED", ("onnx", "no_such_runtime"))
    network = Small()
    assert through_onnx(network, ModelCard("pose_2d", input_size=32), tmp_path) is network
    assert "no_such_runtime not installed" in caplog.text and "export" in caplog.text


def test_an_engine_without_a_network_is_refused() -> None:
    alone = PhotoEstimator(Fixed(), detector=lambda image: [])
    with pytest.raises(ValueError, match="--engine onnx: none of our networks computes here"):
        compute_by_onnx(alone)
