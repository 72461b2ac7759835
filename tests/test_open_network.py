"""Checkpoints of ours and of others are opened in one way, with the hand that they belong to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from photo_cases import ASSETS, arguments
from torch import nn

from src.engine import checkpoint, networks
from src.engine.checkpoint import ModelCard, load_network, save_checkpoint
from src.engine.networks import for_inference, open_network, read_network
from src.models import build_model
from src.photos.setup import open_tools


def test_a_network_is_posed_with_no_hand_but_its_own(tmp_path: Path) -> None:
    card = ModelCard("mano_baseline", options={"backbone": "mobilenet_v3_small"}, hand_name="theirs", hand_hash="0123")
    save_checkpoint(tmp_path / "n.pt", card, card.build(ASSETS))
    with pytest.raises(ValueError, match=rf"theirs \(0123\).*stand-in \({ASSETS.hash}\)"):
        open_tools(arguments("--images", ".", "--checkpoint", str(tmp_path / "n.pt")))


def test_a_released_network_looks_at_pictures_in_one_way(tmp_path: Path) -> None:
    torch.save(build_model("boukhayma", "paper", hand=ASSETS).state_dict(), tmp_path / "released.pth")
    args = arguments("--images", ".", "--model", "boukhayma", "--checkpoint", str(tmp_path / "released.pth"))
    card = open_tools(args).estimator.card
    assert (card.input_size, card.crop, card.crop_scale) == (256, "joints", 2.0)
    args.phase = "predict"
    assert card == open_network(args, torch.device("cpu"), ASSETS)[1]


@pytest.mark.parametrize(("masks", "crop"), [(1, "image"), (0, "joints")])
def test_a_released_cascade_says_by_its_tensors_what_it_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masks: int, crop: str
) -> None:
    def build(model: str, recipe: str, with_mask: bool = True, **_: object) -> nn.Module:
        return nn.Linear(2, 21 + with_mask)

    monkeypatch.setattr(checkpoint, "build_model", build)
    monkeypatch.setattr(networks, "mesh_parts", lambda *_: {})
    torch.save(nn.Linear(2, 21 + masks).state_dict(), tmp_path / "released.pth")
    assert read_network(tmp_path / "released.pth", "cpu", ASSETS, "cmr_pg")[1].crop == crop
    torch.save(nn.Linear(2, 5).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="Is it a cmr_pg"):
        read_network(tmp_path / "other.pth", "cpu", ASSETS, "cmr_pg")


@pytest.mark.parametrize("name", ["pose_2d", "hand_detector"])
def test_networks_for_inference_give_the_same(name: str) -> None:
    network, card, _ = load_network(f"weights/{name}.safetensors")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    quick = for_inference(network)
    norms = [sum(isinstance(module, nn.BatchNorm2d) for module in one.modules()) for one in (network, quick)]
    assert norms[1] < 0.1 * norms[0]
    image = torch.rand(2, 3, card.input_size, card.input_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected, found = network(image), quick(image)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=2e-4, rtol=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_file_of_another_network_than_named_is_refused(tmp_path: Path) -> None:
    card = ModelCard(
        "pose_2d", options={"backbone": "mobilenet_v3_small"}, hand_name=ASSETS.name, hand_hash=ASSETS.hash
    )
    save_checkpoint(tmp_path / "n.pt", card, card.build(ASSETS))
    for words, said in (
        ("--model cmr_sg", "is a pose_2d, but a cmr_sg is needed"),
        ("--backbone resnet50", "leave --backbone out"),
        ("--hierarchy none.pkl", "leave --hierarchy out"),
    ):
        args = arguments("--images", ".", "--checkpoint", str(tmp_path / "n.pt"), *words.split())
        args.phase = "predict"
        with pytest.raises(ValueError, match=said):
            open_network(args, torch.device("cpu"), ASSETS)


def test_a_released_network_on_the_stand_in_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(build_model("boukhayma", "paper", hand=ASSETS).state_dict(), tmp_path / "released.pth")
    read_network(tmp_path / "released.pth", "cpu", ASSETS, "boukhayma")
    assert "released networks know MANO's hand, in use is the stand-in" in caplog.text
