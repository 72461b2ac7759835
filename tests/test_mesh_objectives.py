"""What the mesh networks are trained for: the silhouette against filled triangles, and no error for the truth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from src.models.losses_cmr import CmrLoss
from src.models.mesh_joints import mesh_hand
from src.models.mesh_objectives import BoukhaymaObjective, MeshObjective, silhouette, weak_perspective
from template import HandModel, axis_angle_to_pose, load_hand_assets
from template.cmr_assets import load_hierarchy
from utils.camera import project

ASSETS = load_hand_assets("template/stand_in.npz")
SIZE = 96


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pose = axis_angle_to_pose(torch.randn(4, 48, generator=generator) * torch.tensor([1.0] * 3 + [0.2] * 45))
    K = torch.tensor([[300.0, 0, 48], [0, 310, 47], [0, 0, 1]]).repeat(4, 1, 1)
    transl = torch.tensor([-0.05, 0.0, 0.7]) + torch.randn(4, 3, generator=generator) * 0.02
    image = torch.zeros(4, 3, SIZE, SIZE)
    betas = torch.randn(4, 10, generator=generator)
    return {"pose": pose, "betas": betas, "transl": transl, "K": K, "image": image}


def test_silhouette_is_the_filled_mesh(batch: dict[str, torch.Tensor]) -> None:
    hand = HandModel(ASSETS)
    vertices = hand(batch["pose"], batch["betas"], batch["transl"]).vertices
    found = silhouette(vertices, hand.faces, batch["K"], SIZE, SIZE // 2)
    assert found.shape == (4, 1, 48, 48) and 0 <= found.min() and found.max() == 1
    fine = 16  # pixels of the exact picture to one of the map
    pixels = project(vertices, batch["K"]).numpy()
    for row in range(4):
        exact = np.zeros((48 * fine, 48 * fine), np.uint8)
        corners = (pixels[row] + 0.5) * (fine / 2) - 0.5
        for face in ASSETS.faces:
            cv2.fillConvexPoly(exact, corners[face].round().astype(np.int32), 1)
        cover = exact.reshape(48, fine, 48, fine).mean((1, 3))
        own = found[row, 0].numpy()
        assert np.abs(own - cover).sum() < 0.15 * cover.sum() and abs(own.sum() / cover.sum() - 1) < 0.1
        near = cv2.dilate(cover, np.ones((3, 3)))
        assert not own[near == 0].any() and own[cover > 0.999].min() == 1


def test_a_hand_behind_or_beside_the_view_marks_nothing(batch: dict[str, torch.Tensor]) -> None:
    hand = HandModel(ASSETS)
    vertices = hand(batch["pose"], batch["betas"], batch["transl"]).vertices
    for shift in ([0.0, 0.0, -2.0], [3.0, 0.0, 0.0]):
        assert not silhouette(vertices + torch.tensor(shift), hand.faces, batch["K"], SIZE, 48).any()


@pytest.mark.parametrize("tips", ["dex_ycb", "freihand"])
def test_the_true_mesh_has_no_error(batch: dict[str, torch.Tensor], tips: str) -> None:
    hierarchy = load_hierarchy(ASSETS)
    objective = MeshObjective(mesh_hand(ASSETS, tips), CmrLoss(hierarchy))
    truth = objective.truth(batch)
    elsewhere = truth["vertices"] - truth["vertices"][:, :1]  # another root: only differences count
    output = {"vertices": elsewhere, "keypoints_2d": truth["keypoints"] + torch.tensor([3.0, 4.0])}
    scores = objective.scores(output, batch)
    assert scores["mpjpe_mm"].max() < 1e-3 and scores["mpvpe_mm"].max() < 1e-3
    torch.testing.assert_close(scores["keypoints_px"], torch.full((4,), 5.0))
    relative = truth["vertices"] - truth["joints"][:, :1]
    levels = [relative[:, torch.as_tensor(ids)] for ids in hierarchy.kept][:4]
    _, terms = objective.criterion.mesh(levels, relative)
    assert terms["mesh"] == 0 and terms["edge"] == 0
    assert objective.criterion.mesh([level * 1.1 for level in levels], relative)[1]["mesh"] > 0.01


def test_boukhayma_learns_its_camera_only_where_it_is_told_to(batch: dict[str, torch.Tensor]) -> None:
    hand = HandModel(ASSETS)
    joints = hand.joints(batch["pose"], batch["betas"])
    camera = torch.tensor([[0.4, 0.1, -0.2]]).repeat(4, 1).requires_grad_()
    true_2d = weak_perspective(joints - joints[:, :1], camera.detach(), SIZE)
    assert torch.allclose(true_2d[:, 0], torch.tensor([1.1, 0.8]) * SIZE / 2 - 0.5)  # the wrist is at the shift
    given = batch | {"keypoints_2d": true_2d + 6.0}
    output = {"pose": batch["pose"], "betas": batch["betas"], "camera": camera, "pose_6d": torch.zeros(4, 96)}
    loss, terms = BoukhaymaObjective(hand, projected=True, frame="wrist").loss(output, given)
    assert float(terms["keypoints"].detach()) == pytest.approx(6 / SIZE, rel=1e-4)
    loss.backward()
    assert camera.grad.abs().sum() > 0
    _, terms = BoukhaymaObjective(hand, projected=False, frame="mano").loss(output, given)
    assert "keypoints" not in terms
