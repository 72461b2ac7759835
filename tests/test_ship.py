"""What ships says how it came to be, back to the run that began from nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from src.engine.checkpoint import CheckpointError, ModelCard, load_network, save_checkpoint
from src.engine.ship import ship
from src.models import build_model
from utils.low_bits import LEAST, pack, unpack

OPTIONS = {"backbone": "mobilenet_v3_small"}


def finished_run(folder: Path, start: Path | None, score: float) -> Path:
    torch.manual_seed(0)
    (folder / "checkpoints").mkdir(parents=True)
    options = {"seed": 3, "data_root": str(folder / "data"), "init_from": start and str(start / "checkpoints/last.pt")}
    notes = {"command": ["run.py", "--exp_name", folder.name], "args": options, "versions": {"git": "abc"}}
    (folder / "args.json").write_text(json.dumps({**notes, "computed_on": "a GPU"}))
    (folder / "log.csv").write_text(f"epoch,lr,val_keypoints_px\n1,0.1,9\n2,0.1,{score}\n")
    card = ModelCard("pose_2d", "fair", OPTIONS, 64, 64)
    save_checkpoint(folder / "checkpoints/last.pt", card, build_model("pose_2d", **OPTIONS))
    return folder


def test_shipped_file_and_index_tell_the_history(tmp_path: Path) -> None:
    body = finished_run(tmp_path / "body", None, 3.0)
    path = ship(finished_run(tmp_path / "model", body, 2.5), "pose_2d", tmp_path / "weights")
    entry = json.loads((tmp_path / "weights/weights.json").read_text())["pose_2d.safetensors"]
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry["validation"] == {"keypoints_px": 2.5} and entry["command"] == "python run.py --exp_name model"
    assert entry["computed_on"] == "a GPU" and entry["data"] == "data" and entry["seed"] == 3
    assert entry["started_from"]["validation"] == {"keypoints_px": 3.0} and "started_from" not in entry["started_from"]
    network, card, _ = load_network(path)
    assert card.model == "pose_2d" and card.input_size == 64
    expected = build_model("pose_2d", **OPTIONS)
    expected.load_state_dict(torch.load(tmp_path / "model/checkpoints/last.pt", weights_only=True)["model"])
    for name, value in expected.state_dict().items():
        assert torch.allclose(network.state_dict()[name].float(), value.float(), rtol=2e-3, atol=1e-6), name


def test_a_changed_weight_of_a_shipped_file_is_told_by_its_hash(tmp_path: Path) -> None:
    path = ship(finished_run(tmp_path / "run", None, 3.0), "pose_2d", tmp_path / "weights")
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pose_2d.safetensors: .*SHA-256 is not the one in .*weights.json"):
        load_network(path)
    (tmp_path / "weights/weights.json").write_text("{}")
    load_network(path)


@pytest.mark.parametrize("bits", [2, 5, 6, 8])
def test_packed_weights_are_rounded_to_their_nearest_multiples(bits: int) -> None:
    """Against one number at a time, as Python's own integers and strings of bits have it."""
    value = (
        torch.randn(7, 3, 11, generator=torch.Generator().manual_seed(bits)) * torch.logspace(-3, 2, 7)[:, None, None]
    )
    value[3] = 0
    packed, scale = pack(value, bits)
    text = "".join(f"{byte:08b}" for byte in packed.tolist())
    assert packed.numel() == -(-value.numel() * bits // 8)
    found, largest = unpack(packed, scale, list(value.shape), bits), 2 ** (bits - 1) - 1
    for place in range(0, value.numel(), 13):
        row = place // 33
        number, one = int(text[place * bits : (place + 1) * bits], 2) - largest, float(scale[row])
        wanted = max(-largest, min(largest, round(float(value.flatten()[place]) / one)))
        assert number == wanted and float(found.flatten()[place]) == pytest.approx(number * one)
    assert not found[3].any()  # a row of zeros stays one
    with pytest.raises(ValueError, match="are no"):
        unpack(packed[1:], scale, list(value.shape), bits)
    with pytest.raises(ValueError, match="2 to 8"):
        pack(value, 9)


def test_a_file_of_few_bits_is_read_like_any_other(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "model", None, 2.5)
    half = ship(run, "half", tmp_path / "weights")
    small = ship(run, "small", tmp_path / "weights", bits=6)
    assert small.stat().st_size < 0.5 * half.stat().st_size
    networks = [load_network(path)[0] for path in (half, small)]
    states = [network.state_dict() for network in networks]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        off = float((states[1][name] - value).float().norm() / value.float().norm().clamp_min(1e-9))
        assert off < 0.04 if value.numel() >= LEAST and value.ndim > 1 else off == 0, (name, off)


def test_a_damaged_index_or_a_name_with_a_path_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", None, 5.0)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/weights.json").write_text("{")
    for name, said in (("net", "weights.json: not whole JSON"), ("../net", "without a path")):
        with pytest.raises(ValueError, match=said):
            ship(run, name, tmp_path / "weights")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "model", None, 2.5)
    (run / "log.csv").unlink()
    with pytest.raises(FileNotFoundError, match="log.csv"):
        ship(run, "pose_2d", tmp_path / "weights")
