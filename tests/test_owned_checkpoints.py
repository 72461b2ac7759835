"""Checkpoints that users own: every recorded name and shape, strict loading, and what is said when it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from src.models.cmr.networks import CmrPG, CmrPose2D, CmrSG
from src.models.paper_mano import PaperMano
from src.models.state_dicts import StateDictError, clean_state_dict, load_strict

SHAPES = json.loads((Path(__file__).parent / "data" / "state_dict_shapes.json").read_text())
BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "cmr_sg_resnet18": lambda: CmrSG("ResNet18"),
    "cmr_pg_resnet18": lambda: CmrPG("resnet18"),
    "pose_2d_resnet50": lambda: CmrPose2D("resnet50"),
    "mano_baseline_resnet50": PaperMano,
    "mano_baseline_conf_resnet50": lambda: PaperMano(has_confidence=True),
    "mano_identity_resnet50": lambda: PaperMano(sees_shape=True),
}


def _without_values(name: str) -> nn.Module:
    with torch.device("meta"):
        return BUILDERS[name]()


def _random_state(name: str) -> dict[str, torch.Tensor]:
    """Values that differ inside and between tensors; cut from one stretch of noise, for speed."""
    longest = max(torch.Size(shape).numel() for shape in SHAPES[name].values())
    noise = torch.rand(longest, generator=torch.Generator().manual_seed(0))
    return {
        key: torch.tensor(number)
        if key.endswith("num_batches_tracked")
        else noise[: torch.Size(shape).numel()].view(shape) + number
        for number, (key, shape) in enumerate(SHAPES[name].items())
    }


def test_every_recorded_network_is_covered() -> None:
    assert set(BUILDERS) == set(SHAPES)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_names_and_shapes_equal_the_recorded_ones(name: str) -> None:
    ours = {key: list(value.shape) for key, value in _without_values(name).state_dict().items()}
    hand_model = ("th_selected_comps", "th_hands_mean", "j_regressor", "mano_layer.")
    assert ours == {key: shape for key, shape in SHAPES[name].items() if not key.startswith(hand_model)}


def _assert_loads(name: str, content: dict, state: dict[str, torch.Tensor]) -> None:
    network = _without_values(name).to_empty(device="cpu")
    taken = load_strict(network, clean_state_dict(content))
    loaded = network.state_dict()
    assert taken == len(loaded)
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_random_checkpoints_load_whole(name: str) -> None:
    state = _random_state(name)
    _assert_loads(name, state, state)


@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
def test_wrapped_and_prefixed_files_load_whole(prefix: str, tmp_path: Path) -> None:
    name = "mano_baseline_conf_resnet50"
    state = _random_state(name)
    content = {"model_state_dict": {prefix + key: value.clone() for key, value in state.items()}, "epoch": 15}
    torch.save(content, tmp_path / "owned.pt")
    _assert_loads(name, torch.load(tmp_path / "owned.pt", weights_only=True), state)


def test_a_checkpoint_that_does_not_fit_is_named_and_changes_nothing() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    shapes = {"0.weight": (3, 2), "0.bias": (4,), "1.weight": (1, 3), "spare": (1,)}
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    with pytest.raises(StateDictError) as failure:
        load_strict(network, state)
    message = str(failure.value)
    assert "1 missing: 1.bias" in message
    assert "1 left over: spare" in message
    assert "1 misshapen: 0.bias (4,), the model's is (3,)" in message
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_prefix_is_only_taken_off_when_all_have_it() -> None:
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert set(clean_state_dict(state)) == {"module.a", "b"}


def test_only_entries_of_the_hand_model_are_dropped() -> None:
    dropped = ["mano_layer.th_betas", "j_regressor", "th_hands_mean", "th_selected_comps"]
    kept = ["head.j_regressor", "fc.weight"]
    assert list(clean_state_dict({name: torch.zeros(1) for name in dropped + kept})) == kept


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(1)], {"model_state_dict": {"a": 1}}])
def test_files_without_weights_are_refused(content: object) -> None:
    with pytest.raises(StateDictError, match="no named tensors"):
        clean_state_dict(content)
