"""Renders like the world: geometry against the hand model, determinism, mixing, FreiHAND's layout."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from datasets.freihand.files import SIZE, VERSIONS, image_name, read_annotations
from datasets.synthetic.world import hands, mixing, writer
from datasets.synthetic.world.background import SIDE, random_background
from datasets.synthetic.world.mesh import SubdividedHand, bend_forearm, hand_surface
from template import HandModel, axis_angle_to_pose, load_hand_assets
from utils.camera import project_numpy


@pytest.fixture(scope="module")
def one_person() -> list:
    """A person's cut-outs in two postures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hands, "SCENES_A_PERSON", 2)
        return list(hands.person_cutouts(3, 17))


def test_labels_are_those_of_the_hand_model(one_person):
    """Pose, betas, translation and K give the keypoints by the hand model, which the renderer does not use for them."""
    model = HandModel(hand_surface().assets, dtype=torch.float64)
    for _, label in one_person:
        rows = (torch.as_tensor(label[name].astype(np.float64))[None] for name in ("betas", "transl"))
        joints = model(axis_angle_to_pose(torch.as_tensor(label["pose"].astype(np.float64))[None]), *rows).joints[0]
        assert np.abs(joints.numpy() - label["xyz"]).max() < 2e-5
        assert np.abs(project_numpy(joints.numpy(), label["K"].astype(np.float64)) - label["keypoints"]).max() < 0.05


def test_relative_depths_are_along_the_ray_and_of_a_mean_hand(one_person):
    """Against a loop: SciPy's rotation that takes the ray to the axis, bones added up one by one."""
    labels = np.array([label for _, label in one_person])
    depth, pixel = hands.relative_depth(labels)
    mean = load_hand_assets()
    rest = HandModel(mean, dtype=torch.float64)(torch.eye(3).double().expand(1, 16, 3, 3), torch.zeros(1, 10).double())

    def bones(joints: np.ndarray) -> float:
        parents = [0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19]
        return sum(float(np.linalg.norm(joints[i] - joints[parents[i]])) for i in range(1, 21))

    assert bones(rest.joints[0].numpy()) == pytest.approx(hands.MEAN_BONES, abs=5e-4)
    for row, label in enumerate(labels):
        points, K = label["xyz"].astype(np.float64), label["K"].astype(np.float64)
        ray = np.linalg.inv(K) @ [*label["keypoints"].astype(np.float64).mean(axis=0), 1.0]
        turn, _ = Rotation.align_vectors([[0, 0, 1.0]], [ray / np.linalg.norm(ray)])
        turned = turn.apply(points - points.mean(axis=0)) * hands.MEAN_BONES / bones(points)
        assert depth[row] == pytest.approx(turned[:, 2], abs=1e-5)
        assert depth[row].mean() == pytest.approx(0, abs=1e-6)
        across = np.linalg.norm(points.mean(axis=0)) / K[0, 0] * hands.MEAN_BONES / bones(points)  # m of a pixel there
        assert pixel[row] == pytest.approx(across, rel=0.15)


def test_relative_poses_are_in_the_axes_of_relative_depths_and_turn_with_the_crop(one_person):
    """The hand model's joints have the labelled depths, and lie as a crop shows them that is turned by any angle."""
    labels = np.array([label for _, label in one_person])
    depth, _ = hands.relative_depth(labels)
    model, betas = (
        HandModel(hand_surface().assets, dtype=torch.float64),
        torch.as_tensor(labels["betas"].astype(np.float64)),
    )
    turn = torch.linspace(-3, 3, len(labels), dtype=torch.float64)
    there = labels["keypoints"].astype(np.float64)
    zero = torch.zeros(len(labels), 2, dtype=torch.float64)
    affine = mixing.similarity(turn * 0 + 1, turn, turn > 9, zero, zero)
    seen = mixing.invert_points(affine, torch.as_tensor(there)).numpy()
    for pose, picture in (
        (torch.as_tensor(hands.relative_pose(labels)), there),
        (mixing.turned(torch.as_tensor(hands.relative_pose(labels)), turn.float()), seen),
    ):
        joints = model(pose.double(), betas).joints.numpy()
        joints -= joints.mean(axis=1, keepdims=True)
        size = depth.std(axis=1) / joints[:, :, 2].std(axis=1)
        assert np.abs(joints[:, :, 2] * size[:, None] - depth).max() < 2e-4
        about = picture - picture.mean(axis=1, keepdims=True)
        for one, other in zip(joints[:, :, :2], about, strict=True):  # perspective is left
            scale = (one * other).sum() / (one * one).sum()
            assert np.linalg.norm(scale * one - other) < 0.2 * np.linalg.norm(other)


def test_visible_joints_lie_on_the_picture_of_the_hand(one_person):
    on, count = 0, 0
    for rgba, label in one_person:
        pixels = np.round(label["keypoints"][label["visible"]]).astype(int)
        near = cv2.dilate(rgba[..., 3], np.ones((5, 5)))  # fingertips are points of the coarse hand's surface
        on += (near[pixels[:, 1], pixels[:, 0]] > 0).sum()
        count += len(pixels)
        assert (rgba[..., :3][rgba[..., 3] == 0] == 0).all()  # colour is multiplied by alpha
    assert count > 50 and on / count > 0.99


def test_a_person_is_decided_by_seed_and_number(one_person, monkeypatch):
    monkeypatch.setattr(hands, "SCENES_A_PERSON", 1)
    again = next(hands.person_cutouts(3, 17))
    assert (again[0] == one_person[0][0]).all() and again[1] == one_person[0][1]
    other = next(hands.person_cutouts(3, 18))
    assert (other[1]["betas"] != again[1]["betas"]).all()


def test_forearm_bends_and_the_hand_stays():
    surface = hand_surface()
    flat, bent = (
        surface.posed(np.zeros(45), np.zeros(10), wrist) for wrist in (np.zeros(3), np.array([0.8, 0.2, 0.5]))
    )
    fingers, elbow = surface.rest[:, 0] < -0.05, surface.rest[:, 0] > 0.2
    assert np.abs(flat.vertices[fingers] - bent.vertices[fingers]).max() < 1e-6
    assert np.linalg.norm(flat.vertices[elbow] - bent.vertices[elbow], axis=1).min() > 0.1
    # Far from the wrist the forearm turns as a whole: its cross-section keeps its size.
    end = surface.rest[:, 0] > surface.rest[:, 0].max() - 1e-3
    spread = [np.linalg.norm(v[end] - v[end].mean(axis=0), axis=1).mean() for v in (flat.vertices, bent.vertices)]
    assert abs(spread[0] / spread[1] - 1) < 1e-3


def test_no_turn_is_no_change():
    points = np.random.default_rng(0).normal(size=(50, 3))
    assert np.allclose(bend_forearm(points, np.ones(50), np.zeros(3)), points)


def test_any_hand_model_gets_a_forearm():
    surface = SubdividedHand(load_hand_assets())
    mesh = trimesh.Trimesh(surface.rest, surface.faces, process=False)
    assert mesh.is_winding_consistent and surface.rest[:, 0].max() > 0.4
    assert mesh.face_normals[:, 1][surface.rest[surface.faces, 1].mean(axis=1) > 0.02].mean() > 0  # outwards


def test_backgrounds_are_pictures():
    for number in range(12):
        picture = random_background(np.random.default_rng(number))
        assert picture.shape == (SIDE, SIDE, 3) and picture.dtype == np.uint8
    assert (picture == random_background(np.random.default_rng(number))).all()


@pytest.mark.parametrize("flip", [False, True])
def test_resampled_points_follow_the_pixels(flip):
    """A dot goes where its keypoint goes; and OpenCV's warp agrees."""
    source = torch.zeros(1, 1, 96, 96)
    point = torch.tensor([[[61.0, 30.0]]])
    source[0, 0, 28:33, 59:64] = 1
    affine = mixing.similarity(
        torch.tensor([0.8]),
        torch.tensor([0.7]),
        torch.tensor([flip]),
        torch.tensor([[50.0, 45.0]]),
        torch.tensor([[40.0, 42.0]]),
    )
    moved = mixing.resample(source, affine, 80)[0, 0]
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(80.0), indexing="ij")
    centre = torch.stack([(moved * x).sum(), (moved * y).sum()]) / moved.sum()
    assert (centre - mixing.invert_points(affine, point)[0, 0]).abs().max() < 0.05
    by_cv2 = cv2.warpAffine(
        source[0, 0].numpy(), affine[0].numpy(), (80, 80), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    assert np.abs(by_cv2 - moved.numpy()).max() < 0.05


def test_writes_freihands_layout_and_goes_on(tmp_path):
    root = tmp_path / "world"
    assert writer.write_world(root, 7, seed=5) == 8
    labels = read_annotations(root, "training")
    assert len(labels["K"]) == 2 and "xyz" in labels
    pictures = {path.name: path.read_bytes() for path in (root / "training" / "rgb").iterdir()}
    assert sorted(pictures) == [image_name(number) for number in range(2 * len(VERSIONS))]
    assert cv2.imread(str(root / "training" / "rgb" / image_name(3))).shape == (SIZE, SIZE, 3)
    model = HandModel(hand_surface().assets, tips="freihand", joint_type="regressed", dtype=torch.float64)
    mano = torch.as_tensor(labels["mano"])
    axis_angle = mano[:, :48].clone()
    axis_angle[:, 3:] += model.hands_mean
    posed = model(axis_angle_to_pose(axis_angle), mano[:, 48:58])
    relative = (posed.joints - posed.joints[:, 9:10]).numpy()
    assert np.abs(relative - (labels["xyz"] - labels["xyz"][:, 9:10])).max() < 1e-6
    pixels = project_numpy(labels["xyz"][0], labels["K"][0])
    assert (pixels > -SIZE).all() and (pixels < 2 * SIZE).all()

    def lists() -> list:
        return [
            json.loads((root / f"training_{name}.json").read_text()) for name in ("K", "xyz", "mano", "verts", "scale")
        ]

    before = lists()
    # A stopped run: the lists are not there, one sample is not whole.
    (root / "labels").mkdir()
    row = dict(zip(("K", "xyz", "mano", "verts", "scale"), (rows[0] for rows in before), strict=True))
    (root / "labels" / "00000000.json").write_text(json.dumps(row))
    for name in ("K", "xyz", "mano", "verts", "scale"):
        (root / f"training_{name}.json").unlink()
    (root / "training" / "rgb" / image_name(1)).unlink()
    assert writer.write_world(root, 8, seed=5) == 8
    assert lists() == before
    assert {path.name: path.read_bytes() for path in (root / "training" / "rgb").iterdir()} == pictures
    with pytest.raises(FileExistsError, match="another data set"):
        writer.write_world(root, 8, seed=6)
    with pytest.raises(ValueError, match="num_images is 0"):
        writer.write_world(tmp_path / "none", 0)
