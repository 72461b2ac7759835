"""METRO: released checkpoints whole, the network that is told the person, and what both are trained for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from unittest import mock

import pytest
import torch

from options.recipes import apply_recipe
from options.run_options import get_args_parser
from src.engine import checkpoint
from src.engine.checkpoint import ModelCard, initialise_from, load_owned, save_checkpoint
from src.engine.config import model_card
from src.engine.networks import read_network
from src.models import build_model
from src.models.mesh_joints import mesh_hand, mesh_joints
from src.models.mesh_objectives import MetroObjective
from src.models.metro.networks import Metro
from src.models.metro.released import UNUSED
from src.models.metro.template_tokens import VERTICES_195, TemplateTokens
from template import HandModel, load_hand_assets, pca_to_pose

ASSETS = load_hand_assets()
SHAPES = json.loads((Path(__file__).parent / "data" / "metro_state_dict_shapes.json").read_text())
SMALL = {"widths": (16, 8, 8), "outputs": (12, 8, 3), "layers": 2}
BODY = {"backbone": "mobilenet_v3_small"}
K = torch.tensor([[300.0, 0, 31.5], [0, 310.0, 30.0], [0, 0, 1]]).repeat(2, 1, 1)


def random_value(shape: list[int], generator: torch.Generator) -> torch.Tensor:
    """One number in the shape of a whole tensor: the file stays small."""
    return torch.rand((), generator=generator).expand(shape)


def released_state(backbone: dict[str, list[int]] | None = None) -> dict[str, torch.Tensor]:
    """A checkpoint with all released names, of random numbers; another backbone in place of HRNet."""
    generator = torch.Generator().manual_seed(0)
    shapes = SHAPES
    if backbone is not None:
        rest = {name: shape for name, shape in SHAPES.items() if not name.startswith("backbone.")}
        shapes = {f"backbone.{name}": shape for name, shape in backbone.items()} | rest
    state = {name: random_value(shape, generator) for name, shape in shapes.items()}
    for name in [name for name in state if name.endswith("bert.position_embeddings.weight")]:
        state[name] = torch.rand(SHAPES[name], generator=generator)
    return state


def check_whole(network: Metro, state: dict[str, torch.Tensor], path: Path) -> int:
    """Load a released state, check that it went nowhere else and comes back; how many tensors were taken."""
    torch.save({"module." + name: value for name, value in state.items()}, path)
    taken = load_owned(path, network)
    unused = [name for name in state if UNUSED.fullmatch(name)]
    assert taken == len(state) - len(unused)
    own = network.state_dict()
    # every number of the file is found once: none was lost, doubled or put into a tensor of the same shape
    expected = sorted(float(value.flatten()[0]) for name, value in state.items() if name not in unused)
    assert sorted(float(value.flatten()[0]) for value in own.values()) == pytest.approx(expected)
    encoder = own["transformer.encoders.1.position"]
    assert torch.equal(encoder, state["trans_encoder.1.bert.position_embeddings.weight"][:216])
    return len(unused)


def test_every_released_tensor_has_its_place(tmp_path: Path) -> None:
    network = build_model("metro", "paper")
    backbone = {name: list(value.shape) for name, value in network.backbone.state_dict().items()}
    backbone |= {"fc.weight": [1000, 2048], "fc.bias": [1000]}
    state = released_state(backbone)
    for number, name in enumerate(name for name in state if "num_batches" in name):
        state[name] = torch.tensor(number + 2)
    assert check_whole(network, state, tmp_path / "metro.bin") == 3 * 7 + 2
    card = ModelCard("metro", "paper", {"backbone": "resnet50"})
    save_checkpoint(tmp_path / "ours.pt", card, network)
    again, _, _ = checkpoint.load_network(tmp_path / "ours.pt", expect="metro")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())


def test_released_networks_know_the_hand_in_its_mean_pose(tmp_path: Path) -> None:
    """Flat, the tokens were 18 mm off those that the released weights were trained with."""
    torch.save(build_model("metro", "paper", backbone="resnet18").state_dict(), tmp_path / "released.bin")
    hand = load_hand_assets()
    network, card, _ = read_network(tmp_path / "released.bin", "cpu", hand, "metro", "resnet18")
    posed = HandModel(hand)(pca_to_pose(hand, torch.zeros(1, 3), torch.zeros(1, 45)), torch.zeros(1, 10))
    expected = torch.cat([posed.joints, posed.vertices[:, list(VERTICES_195)]], dim=1) - posed.joints[:, :1]
    torch.testing.assert_close(network.tokens.template, expected, atol=1e-6, rtol=0)
    flat = build_model("metro", "paper", backbone="resnet18").tokens.template
    assert (flat - expected).norm(dim=-1).mean() > 0.005
    save_checkpoint(tmp_path / "again.pt", card, network)  # whose card keeps the pose
    again = checkpoint.load_network(tmp_path / "again.pt", assets=hand)[0]
    torch.testing.assert_close(again.tokens.template, expected, atol=1e-6, rtol=0)
    args = get_args_parser().parse_args("--phase train --model metro --recipe paper --backbone resnet18".split())
    assert model_card(apply_recipe(args), hand).options["template_pose"] == "mean"
    told = TemplateTokens(mean_pose=True).of_betas(torch.ones(2, 10))
    assert told.shape == (2, 799, 3) and not told[:, 0].any()


def test_all_2198_tensors_with_hrnet(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="HRNet needs pip install timm")
    assert len(SHAPES) == 2198
    state = released_state()
    for number, name in enumerate(name for name in state if "num_batches" in name):
        state[name] = torch.tensor(number + 2)
    assert check_whole(build_model("metro", "paper", backbone="hrnet_w64"), state, tmp_path / "metro.bin") == 3 * 7 + 2


def test_hrnet_without_timm_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm"):
        build_model("metro", "paper", backbone="hrnet_w64")


def test_other_networks_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    network = build_model("metro", "paper", backbone="resnet18")
    good = {name: torch.zeros(1).expand(shape) for name, shape in SHAPES.items() if not name.startswith("backbone.")}
    layer = "trans_encoder.2.bert.encoder.layer"
    cases = {
        "Mesh Graphormer": good | {f"{layer}.3.graph_conv.conv.weight": torch.zeros(1)},
        r"another body part \(445 tokens": good | {"cam_param_fc2.weight": torch.zeros(150, 445)},
        "network for bodies": good | {"upsampling2.weight": torch.zeros(1, 1)},
        "number of layers.* trans_encoder.2 has 3": {n: v for n, v in good.items() if not n.startswith(f"{layer}.3")},
        "misshapen.*cls_head|misshapen.*head": good | {"trans_encoder.2.cls_head.weight": torch.zeros(4, 64)},
    }
    for said, state in cases.items():
        torch.save(state, tmp_path / "other.bin")
        with pytest.raises(checkpoint.CheckpointError, match=said):
            load_owned(tmp_path / "other.bin", network)
    words = ["checkpoint", str(tmp_path / "other.bin"), "--model", "metro", "--backbone", "ResNet18"]
    monkeypatch.setattr("sys.argv", words)
    assert checkpoint.main() == 2 and "head" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["fair", "paper"])
@torch.no_grad()
def test_the_identity_network_starts_as_the_anonymous_one(recipe: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"transformer": SMALL} if recipe == "paper" else {}
    anonymous = build_model("metro", recipe, **BODY, **sizes).eval()
    save_checkpoint(tmp_path / "metro.pt", ModelCard("metro", recipe, BODY), anonymous)
    network = build_model("metro_identity", recipe, **BODY, **sizes).eval()
    initialise_from(network, tmp_path / "metro.pt")
    image = torch.randn(2, 3, 64, 64)
    expected, found = anonymous(image, K=K), network(image, betas=torch.zeros(2, 10), K=K)
    assert expected["vertices"].std() > 1e-4
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)
    betas = torch.zeros(2, 10)
    betas[:, 0] = 2.0
    other = network(image, betas=betas, K=K)
    assert (other["vertices"] - found["vertices"]).abs().max() > 1e-6
    rest = network.tokens.hand.rest(betas) + 0.3  # anywhere
    with mock.patch.object(network.tokens.hand, "rest", return_value=rest):
        torch.testing.assert_close(network(image, betas, K=K)["vertices"], other["vertices"], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="metro_identity needs the subject's betas"):
        network(image, K=K)


@torch.no_grad()
def test_the_fair_network_starts_from_the_turned_template() -> None:
    """With a transformer that finds nothing, the hand is the person's rest hand under one linear map."""
    torch.manual_seed(0)
    network = build_model("metro_identity", "fair", **BODY).eval()
    last = network.transformer.encoders[-1]
    for layer in (last.head, last.residual, network.transformer.upsampling):
        layer.weight.zero_(), layer.bias.zero_()
    network.start.weight.normal_(0, 0.1)
    betas = torch.randn(2, 10)
    found = network(torch.randn(2, 3, 64, 64), betas=betas, K=K)
    rest = network.tokens.hand.rest(betas)
    rest = rest - mesh_joints(rest, network.tokens.hand)[:, :1]
    for points, mesh in zip(rest, found["vertices"], strict=True):
        turned = torch.linalg.lstsq(points.double(), mesh.double())
        assert mesh.abs().max() > 1e-3 and turned.solution.abs().max() > 1e-2
        assert (points.double() @ turned.solution - mesh).abs().max() < 1e-6
    regressed = mesh_joints(found["vertices"], mesh_hand(ASSETS, "dex_ycb"))
    torch.testing.assert_close(found["joints"], regressed, rtol=0, atol=1e-5)
    assert torch.equal(found["vertices_coarse"], found["vertices"][:, list(VERTICES_195)])


def test_a_template_of_another_topology_is_refused() -> None:
    hand = HandModel(ASSETS)
    hand.assets = dataclasses.replace(ASSETS, v_template=ASSETS.v_template[:700])
    with pytest.raises(ValueError, match="has 700 vertices; METRO's tokens are a selection of MANO's 778"):
        TemplateTokens(hand)


def test_the_objective_is_zero_at_the_truth() -> None:
    generator = torch.Generator().manual_seed(0)
    hand = mesh_hand(ASSETS, "dex_ycb")
    batch = {
        "image": torch.zeros(2, 3, 64, 64), "K": K, "pose": torch.eye(3).expand(2, 16, 3, 3),
        "betas": torch.randn(2, 10, generator=generator), "transl": torch.tensor([[0.0, 0.0, 1e4]] * 2),
    }  # fmt: skip
    objective = MetroObjective(hand, as_released=True)
    truth = objective.truth(batch)
    relative = truth["vertices"] - truth["joints"][:, :1]
    # from far away the true camera is a weak-perspective one: u = f / (32 z) (x + tx), in half sides of 64 px
    output = {
        "vertices": relative, "vertices_coarse": relative[:, list(VERTICES_195)], "joints": mesh_joints(relative, hand),
    }  # fmt: skip
    focal = torch.tensor([300.0, 310.0])
    wrist = truth["joints"][:, 0]
    scale = focal[0] / (32 * wrist[:, 2])
    shift = ((wrist[:, :2] * focal / wrist[:, 2:] + K[:, :2, 2] + 0.5) / 32 - 1) / scale[:, None]
    output["camera"] = torch.cat([scale[:, None], shift], dim=1)
    loss, terms = objective.loss(output, batch)
    assert set(terms) == {"joints", "mesh", "keypoints"} and loss < 1e-6
    output["vertices"] = relative + torch.tensor([0.0, 0.0, 0.01])
    shifted, terms = objective.loss(output, batch)
    assert terms["mesh"] == pytest.approx(0.01 / 3 / 2, rel=1e-3) and terms["joints"] < 1e-6  # about the wrist
