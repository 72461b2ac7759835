"""The CMR family against its formulas written a second time, and its loss against slow sums."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from unittest import mock

import cmr_reference as reference
import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn

from conv.hierarchy import MeshHierarchy
from src.engine.checkpoint import ModelCard, initialise_from, save_checkpoint
from src.models import build_model
from src.models.cmr.boukhayma import Boukhayma
from src.models.cmr.mesh_decoder import FeatureAttention
from src.models.cmr.networks import CmrIdentity, CmrNetwork, CmrPG, CmrPose2D, CmrSG
from src.models.cmr.rest_mesh import hand_size
from src.models.losses_cmr import CmrLoss
from template import HandModel, load_hand_assets
from template.assets import STAND_IN_PATH
from template.cmr_assets import STAND_IN_HIERARCHY, load_hierarchy, read_cmr_template

SIDE = 64


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _shaken(network: nn.Module) -> nn.Module:
    """Eval mode with norm statistics, biases and gates that hide nothing."""
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if name.endswith(("running_var", "norm.weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("bias", "running_mean", "gamma")) and value.is_floating_point():
            value.normal_(std=0.1, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def cmr_sg() -> CmrNetwork:
    return _shaken(CmrSG())


@pytest.fixture(scope="module")
def identity() -> CmrIdentity:
    return _shaken(CmrIdentity(with_mask=False))


@torch.no_grad()
def test_cmr_sg_computes_what_is_written(cmr_sg: CmrNetwork, image: torch.Tensor) -> None:
    state, output = cmr_sg.state_dict(), cmr_sg(image)
    (mask, uv, uvm), feature = reference.cascade(state, image, "mask", third_reads=2)
    torch.testing.assert_close(output["masks"], [mask, uvm[:, 21:]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output["heatmaps"], [uv, uvm[:, :21]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output["feature"], feature, atol=1e-4, rtol=1e-4)
    ups = [torch.tensor(up.toarray(), dtype=torch.float32) for up in cmr_sg.hierarchy.up]
    expected = reference.meshes(state, feature, cmr_sg.hierarchy.spirals, ups)
    for found, mesh, size in zip(output["vertices_levels"], expected, (778, 389, 195, 98), strict=True):
        assert found.shape == (2, size, 3)
        torch.testing.assert_close(found, 0.2 * mesh, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pose_2d_computes_what_is_written(image: torch.Tensor) -> None:
    network = _shaken(CmrPose2D("resnet18"))
    maps, _ = reference.cascade(network.state_dict(), image, "uv_prior", third_reads=1)
    torch.testing.assert_close(network(image)["heatmaps"], maps, atol=1e-5, rtol=1e-4)


def test_cmr_pg_reads_the_first_stage_and_trains_all_it_uses(image: torch.Tensor) -> None:
    network = _shaken(CmrPG())
    output = network(image)
    with torch.no_grad():
        maps, feature = reference.cascade(network.state_dict(), image, "uv_prior", third_reads=1)
    torch.testing.assert_close(output["feature"], feature, atol=1e-4, rtol=1e-4)
    assert len(output["heatmaps"]) == 3 and len(output["masks"]) == 1
    loss = CmrLoss(network.hierarchy)
    total, _ = loss(output, SIDE, torch.full((2, 21, 2), 30.0), torch.zeros(2, 778, 3), torch.ones(2, 1, 64, 64))
    total.backward()
    silent = {name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()}
    assert silent == {"backbone2.fc.weight", "backbone2.fc.bias"}
    assert not any(network.get_parameter(name).requires_grad for name in silent)


def test_attention_is_the_softmax_of_the_outer_product() -> None:
    attention = FeatureAttention(6)
    nn.init.constant_(attention.gamma, 0.7)
    state = {f"attention.{name}": value for name, value in attention.state_dict().items()}
    feature = torch.randn(3, 6) * 2
    torch.testing.assert_close(attention(feature), reference.attended(state, feature))


def test_sizes_that_do_not_halve_are_refused(cmr_sg: CmrNetwork) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        cmr_sg(torch.zeros(1, 3, 100, 100))


@torch.no_grad()
def test_identity_decoder_sees_the_rest_mesh(identity: CmrIdentity, image: torch.Tensor) -> None:
    betas = torch.zeros(2, 10)
    betas[1, 0] = 1.5
    same = image[:1].expand(2, -1, -1, -1)
    output = identity(same, betas=betas)
    assert not output["masks"] and "mask" not in output
    torch.testing.assert_close(output["heatmaps"][2][0], output["heatmaps"][2][1])
    assert (output["vertices"][0] - output["vertices"][1]).abs().max() > 1e-4
    rest = identity.rest.hand.rest(betas)
    with mock.patch.object(identity.rest.hand, "rest", return_value=rest + 0.3):
        moved = identity(same, betas=betas)
    torch.testing.assert_close(moved["vertices"], output["vertices"], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_identity_scales_its_output_by_the_subject(identity: CmrIdentity, image: torch.Tensor) -> None:
    rest = identity.rest.hand.rest(torch.zeros(2, 10)) * torch.tensor([1.0, 1.2])[:, None, None]
    with mock.patch.object(identity.rest.hand, "rest", return_value=rest):
        scaled = identity(image, betas=torch.zeros(2, 10))["vertices"]
        feature = identity.backbone3.feature(identity.encode(image).maps)
        plain = 0.2 * identity.decode_mesh(feature, identity.rest.levels(rest))[0]
    torch.testing.assert_close(scaled, plain * torch.tensor([1.0, 1.2])[:, None, None], rtol=1e-4, atol=1e-6)
    assert hand_size(rest)[1] / hand_size(rest)[0] == pytest.approx(1.2, rel=1e-4)


def test_identity_levels_are_the_rest_mesh_around_the_wrist(identity: CmrIdentity) -> None:
    betas = torch.randn(1, 10, generator=torch.Generator().manual_seed(3))
    levels = identity.rest.levels(identity.rest.hand.rest(betas))
    wrist = identity.rest.hand(torch.eye(3).expand(1, 16, 3, 3), betas).rest_joints[:, 0]
    fine = (identity.rest.hand.rest(betas) - wrist) / 0.2
    for level, down in zip(levels, [None, *identity.hierarchy.down], strict=True):
        fine = fine if down is None else torch.tensor(down.toarray(), dtype=torch.float32) @ fine
        torch.testing.assert_close(level, fine, atol=1e-5, rtol=1e-5)


def test_identity_without_a_subject_says_what_to_pass(identity: CmrIdentity, image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="cmr_identity needs the subject's betas"):
        identity(image)


def test_identity_of_another_mesh_is_refused(identity: CmrIdentity) -> None:
    left = HandModel(load_hand_assets(side="left"))
    with pytest.raises(ValueError, match="not of the hand"):
        CmrIdentity(hierarchy=identity.hierarchy, hand=left)


@torch.no_grad()
def test_boukhayma_reads_its_22_numbers_in_order() -> None:
    network = Boukhayma().eval()
    numbers = torch.linspace(-1, 1, 22)
    network.encoder.fc.weight.zero_()
    network.encoder.fc.bias.copy_(numbers)
    output = network(torch.zeros(1, 3, 64, 64))
    torch.testing.assert_close(output["camera"][0], numbers[:3])
    torch.testing.assert_close(output["betas"][0], numbers[12:])
    assets = load_hand_assets()
    fingers = assets.hands_mean + numbers[6:12].double().numpy() @ assets.hands_components[:6]
    axis_angles = np.concatenate([numbers[3:6].numpy(), fingers]).reshape(16, 3)
    expected = scipy.spatial.transform.Rotation.from_rotvec(axis_angles).as_matrix()
    np.testing.assert_allclose(output["pose"][0], expected, atol=1e-5)


def test_loss_equals_slow_sums(cmr_sg: CmrNetwork) -> None:
    generator = np.random.default_rng(0)
    hierarchy, loss = cmr_sg.hierarchy, CmrLoss(cmr_sg.hierarchy)
    levels = [generator.normal(size=(2, size, 3)) * 0.1 for size in hierarchy.sizes[:4]]
    target = generator.normal(size=(2, 778, 3)) * 0.1
    maps, masks = generator.uniform(0.1, 0.9, (2, 2, 21, 32, 32)), generator.uniform(0.1, 0.9, (2, 2, 1, 32, 32))
    outside, mask = np.full((2, 21, 2), -5.0), np.ones((2, 1, 64, 64))
    output = {
        name: [torch.tensor(v) for v in values]
        for name, values in {"vertices_levels": levels, "heatmaps": maps, "masks": masks}.items()
    }
    total, terms = loss(output, SIDE, *(torch.tensor(value) for value in (outside, target, mask)))
    mesh, level_target = 0.0, target
    for level, down in zip(levels, [scipy.sparse.identity(778), *hierarchy.down], strict=False):
        level_target = np.stack([down @ one for one in level_target])
        mesh += np.abs(level - level_target).mean() / 0.2
    heatmap = sum(-np.log(1 - stage).mean() for stage in maps)  # the true maps are empty
    silhouette = sum(-np.log(stage).mean() for stage in masks)  # the true masks are full
    assert terms["mesh"].item() == pytest.approx(mesh, rel=1e-5)
    assert terms["heatmap"].item() == pytest.approx(heatmap, rel=1e-5)
    assert terms["mask"].item() == pytest.approx(silhouette, rel=1e-5)
    rest = 0.1 * terms["normal"] + terms["edge"]
    assert total.item() == pytest.approx(mesh + 10 * heatmap + 0.5 * silhouette + rest.item(), rel=1e-5)


def test_transform_pickle_of_a_cmr_checkout(tmp_path: Path) -> None:
    ours = load_hierarchy()
    content = {
        "vertices": [ours.vertices[ids] for ids in ours.kept],
        "face": [faces.astype(np.uint32) for faces in ours.faces],
        "adj": [scipy.sparse.identity(3, format="csc")] * 5,
        "down_transform": [scipy.sparse.csc_matrix(down) for down in ours.down],
        "up_transform": [scipy.sparse.coo_matrix(up) for up in ours.up],
    }
    (tmp_path / "transform.pkl").write_bytes(pickle.dumps(content, protocol=2))
    for path in (tmp_path, tmp_path / "transform.pkl"):
        read = load_hierarchy(path=path)
        assert read.hash == ours.hash
        np.testing.assert_array_equal(read.spirals[4], ours.spirals[4])
    del content["face"]
    (tmp_path / "transform.pkl").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match="no face"):
        read_cmr_template(tmp_path)
    with pytest.raises(FileNotFoundError, match="template.ply"):
        read_cmr_template(tmp_path / "..")


def test_damaged_hierarchies_are_named(tmp_path: Path) -> None:
    whole = STAND_IN_HIERARCHY.read_bytes()
    for name, content in (("half.npz", whole[: len(whole) // 2]), ("empty.npz", b""), ("none.pkl", pickle.dumps(None))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            load_hierarchy(path=tmp_path / name)


def test_weights_of_other_mesh_levels_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = build_model("cmr_pg", "paper", backbone="mobilenet_v3_small")
    card = ModelCard("cmr_pg", "paper", {"backbone": "mobilenet_v3_small"}, hierarchy_hash=network.hierarchy_hash)
    save_checkpoint(tmp_path / "own.pt", card, network)
    save_checkpoint(tmp_path / "other.pt", replace(card, hierarchy_hash="0123"), network)
    initialise_from(network, tmp_path / "own.pt")
    assert "mesh levels" not in caplog.text
    initialise_from(network, tmp_path / "other.pt")
    assert "was trained on other mesh levels (0123" in caplog.text


def test_committed_hierarchy_is_of_the_stand_in_hand() -> None:
    """Rebuild with `python -m conv.hierarchy --build` when the stand-in changes."""
    committed, assets = MeshHierarchy.load(STAND_IN_HIERARCHY), load_hand_assets(STAND_IN_PATH)
    assert committed.sizes == (778, 389, 195, 98, 49)
    np.testing.assert_array_equal(committed.faces[0], assets.faces)
    np.testing.assert_allclose(committed.vertices, assets.v_template, atol=1e-6)


def test_rows_that_do_not_sum_to_one_are_kept(tmp_path: Path) -> None:
    """CMR's up matrices have rows down to 0.84; owned weights were trained with them."""
    ours = load_hierarchy()
    content = {
        "vertices": [ours.vertices],
        "face": list(ours.faces),
        "down_transform": list(ours.down),
        "up_transform": [0.9 * up for up in ours.up],
    }
    (tmp_path / "transform.pkl").write_bytes(pickle.dumps(content))
    np.testing.assert_allclose(read_cmr_template(tmp_path).up[0].sum(1), 0.9)
