"""The paper's and the mesh family's heads on the body of the fair networks."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

from src.engine.checkpoint import ModelCard, initialise_from, save_checkpoint
from src.models import build_model
from src.models.losses_cmr import CmrLoss
from src.models.mesh_joints import mesh_hand
from src.models.mesh_objectives import MeshObjective
from template import load_hand_assets
from utils.rotations import matrix_to_rotation_6d

BACKBONE = {"backbone": "mobilenet_v3_small"}
SIZE = 64


def batch_of(count: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    K = torch.tensor([[300.0, 0, 31.5], [0, 300.0, 31.5], [0, 0, 1]]).expand(count, 3, 3)
    return {
        "image": torch.rand(count, 3, SIZE, SIZE, generator=generator) * 2 - 1,
        "K": K,
        "betas": torch.randn(count, 10, generator=generator),
        "pose": torch.eye(3).expand(count, 16, 3, 3),
        "transl": torch.tensor([0.0, 0, 0.9]).expand(count, 3),
    }


def test_every_head_starts_from_the_fair_body(tmp_path: Path) -> None:
    body = build_model("mano_baseline", "fair", **BACKBONE)
    save_checkpoint(tmp_path / "body.pt", ModelCard("mano_baseline", "fair", BACKBONE), body)
    names = {name for name in body.state_dict() if name.startswith("backbone.")}
    for model, recipe in (
        ("mano_baseline", "paper"),
        ("mano_identity", "paper"),
        ("boukhayma", "paper"),
        ("cmr_pg", "paper"),
        ("cmr_identity", "paper"),
    ):
        network = build_model(model, recipe, **BACKBONE)
        assert names <= set(network.state_dict()), model
        initialise_from(network, tmp_path / "body.pt")
        for name in names:
            assert torch.equal(network.state_dict()[name], body.state_dict()[name]), (model, name)
        batch = batch_of()
        output = network.eval()(batch["image"], betas=batch["betas"], K=batch["K"])
        assert all(torch.isfinite(v).all() for v in output.values() if isinstance(v, torch.Tensor)), model


@pytest.fixture(scope="module")
def identity() -> nn.Module:
    torch.manual_seed(0)
    return build_model("cmr_identity", **BACKBONE).eval()


@torch.no_grad()
def test_mesh_turns_with_the_ray_and_grows_with_the_subject(identity: nn.Module) -> None:
    batch = batch_of(1)
    rest = identity.rest.hand.rest(torch.zeros(1, 10))

    def mesh_of(rest_mesh: torch.Tensor) -> torch.Tensor:
        with mock.patch.object(identity.rest.hand, "rest", return_value=rest_mesh):
            return identity(batch["image"], betas=batch["betas"], K=batch["K"])["vertices"]

    mesh = mesh_of(rest)
    assert mesh.shape == (1, 778, 3) and mesh.abs().max() < 1
    moved = mesh_of(rest + 0.1)
    assert torch.allclose(moved, mesh, atol=1e-5)
    larger = mesh_of(1.2 * rest)
    assert torch.allclose(larger, 1.2 * mesh, atol=1e-5)  # all that a size can change
    longer = rest * torch.tensor([1.2, 1.0, 1.0])
    scale = (mesh_of(longer) / mesh).flatten()
    assert torch.allclose(scale, scale[:1].expand_as(scale), atol=1e-3)  # proportions are seen through zeros at first
    with pytest.raises(ValueError, match="cmr_identity needs the subject's betas"):
        identity(batch["image"], K=batch["K"])
    with pytest.raises(ValueError, match="crop's K"):
        identity(batch["image"], betas=batch["betas"])


@torch.no_grad()
def test_proportions_are_of_the_template_and_forget_the_size(identity: nn.Module) -> None:
    rest = identity.rest.hand.rest(torch.zeros(1, 10))
    for level in identity.rest.proportions(1.3 * rest):
        assert level.abs().max() < 1e-4
    betas = torch.randn(2, 10, generator=torch.Generator().manual_seed(4))
    levels = identity.rest.proportions(identity.rest.hand.rest(betas))
    assert [level.shape[1] for level in levels] == list(identity.hierarchy.sizes)
    assert 0.05 < levels[0].abs().mean() < 5


def test_loss_reaches_every_parameter_and_falls(identity: nn.Module) -> None:
    batch = batch_of()
    hand = mesh_hand(load_hand_assets(), "dex_ycb")
    objective = MeshObjective(hand, CmrLoss(identity.hierarchy))
    identity.train()
    optimizer = torch.optim.Adam(identity.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        loss, terms = objective.loss(objective.forward(identity, batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert {"mesh", "normal", "edge", "heatmap", "keypoints"} == set(terms)
    untouched = [name for name, p in identity.named_parameters() if p.grad is None]
    # attention's projections wait behind gamma, which starts at zero: their gradient exists and is zero
    assert untouched == []
    assert losses[-1] < 0.9 * losses[0]
    scores = objective.scores(objective.forward(identity.eval(), batch), batch)
    assert scores["mpjpe_mm"].shape == (2,) and torch.isfinite(scores["mpjpe_mm"]).all()


def test_paper_heads_keep_their_update(identity: nn.Module) -> None:
    network = build_model("mano_identity", "paper", **BACKBONE).eval()
    batch = batch_of()
    output = network(batch["image"], betas=batch["betas"])
    assert output["betas"] is batch["betas"]
    assert torch.allclose(matrix_to_rotation_6d(output["pose"]).flatten(1), output["pose_6d"], atol=1e-5)
