"""From what a network says to a hand in camera space: known hands must come out where they were put."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from datasets import build_dataset
from datasets.synthetic.freihand_writer import write_freihand
from src.engine.checkpoint import ModelCard, load_network
from src.engine.predict import predict_dataset
from src.personalization.calibration.population import load_population
from src.personalization.terms.hand_size import lengths_mm
from src.photos.api import PhotoEstimator
from src.photos.boxes import Region
from src.photos.camera import Camera
from src.photos.detector.search import KeypointReader, window_boxes
from src.photos.estimator import Estimator, HandEstimator, HandInPicture, Keypoints
from src.photos.image import Photo, UnusableImage
from src.photos.keypoint_estimator import KeypointEstimator
from src.photos.result import Result
from src.photos.shape_filter import ShapeFilter
from template import HandModel, load_hand_assets
from tests.photo_cases import ASSETS, hand_at
from utils.artifacts import Identity
from utils.camera import (
    crop_affine,
    mirror_intrinsics,
    project_numpy,
    square_box,
    transform_intrinsics,
    transform_points,
)
from utils.drawing.overlay import mesh_silhouette

K = np.array([[600.0, 0, 330], [0, 610, 235], [0, 0, 1]])
SIZE = (640, 480)


class Told(nn.Module):
    """A network that says what it was told to."""

    def __init__(self, **output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, image: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        assert image.shape == (1, 3, 64, 64)
        return self.output


@pytest.fixture(scope="module")
def true_hand() -> dict[str, np.ndarray]:
    return hand_at(0.62, seed=5)


def saw(hand: dict[str, np.ndarray]) -> Keypoints:
    return Keypoints(project_numpy(hand["joints"], K), np.ones(21), "truth")


def tell(**values: np.ndarray) -> HandEstimator:
    told = Told(**{name: torch.as_tensor(value, dtype=torch.float32)[None] for name, value in values.items()})
    return HandEstimator(told, ModelCard("told", input_size=64), ASSETS)


def estimate(estimator: Estimator, seen: Keypoints, shape: ShapeFilter) -> Result:
    box = square_box(seen.points, 1.0)
    return estimator.estimate(HandInPicture(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), K, box, shape, seen))


def test_pose_and_shape_are_put_where_they_are(true_hand: dict[str, np.ndarray]) -> None:
    estimator = tell(pose=true_hand["pose"], betas=true_hand["betas"])
    found = estimate(estimator, saw(true_hand), ShapeFilter(ASSETS))
    assert np.abs(found.vertices - true_hand["vertices"]).max() < 5e-4 and found.reprojection_px < 0.1
    length = lengths_mm(ASSETS, true_hand["betas"], None, ("hand",))["hand"][0]
    assert found.length.mm == pytest.approx(length, abs=0.01) and found.length.interval_95 is None


@pytest.mark.parametrize("with_mask", [False, True])
def test_meshes_are_put_where_they_are(true_hand: dict[str, np.ndarray], with_mask: bool) -> None:
    regressed = HandModel(ASSETS, joint_type="regressed").regressor.numpy().T @ true_hand["vertices"]
    seen = Keypoints(project_numpy(regressed, K), np.ones(21), "truth")
    box, extra = square_box(seen.points, 1.0), {}
    if with_mask:  # the silhouette at half the input's size
        crop_K = transform_intrinsics(K, crop_affine(box * [1, 1, 1.5], 32))
        extra["mask"] = mesh_silhouette(true_hand["vertices"], ASSETS.faces, crop_K, 32, 32)[None].astype(np.float32)
    estimator = tell(vertices=true_hand["vertices"] - regressed[:1], **extra)
    found = estimate(estimator, seen, ShapeFilter(ASSETS))
    assert np.abs(found.vertices - true_hand["vertices"]).max() < (6e-3 if with_mask else 5e-4)
    assert found.pose is None and found.length.interval_95 is None and 150 < found.length.mm < 240
    if with_mask:
        inside = transform_points(np.argwhere(found.mask > 0.5)[:, ::-1].astype(float), found.mask_to_image)
        pixels = project_numpy(true_hand["vertices"], K)
        assert (inside.min(0) > pixels.min(0) - 4).all() and (inside.max(0) < pixels.max(0) + 4).all()
        assert np.allclose(found.mirrored().mirrored().mask_to_image, found.mask_to_image)


def test_keypoints_alone_give_the_hand_of_a_known_shape(true_hand: dict[str, np.ndarray]) -> None:
    identity = Identity(true_hand["betas"], ASSETS.name, ASSETS.hash, 190.0, hand_length_std_mm=2.0)
    shape = ShapeFilter(ASSETS, identity)
    estimator = KeypointEstimator(ASSETS, landmarks=None)  # the truth's own joints, not a detector's landmarks
    found = estimate(estimator, saw(true_hand), shape)
    assert found.reprojection_px < 4.0  # a detector's keypoints are trusted to a twentieth of the box
    assert np.linalg.norm(found.joints - true_hand["joints"], axis=1).mean() < 0.03  # one view leaves depth to priors
    assert found.length.mm == 190 and found.length.interval_95 == pytest.approx((186.08, 193.92))
    box = square_box(saw(true_hand).points, 1.0)
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    again = estimator.estimate(HandInPicture(image, K, box, shape, saw(true_hand), found))
    assert np.abs(again.joints - found.joints).max() < 5e-3
    with pytest.raises(UnusableImage, match="no keypoints"):
        estimator.estimate(HandInPicture(image, K, box, shape))


def test_left_hands_are_mirrored_right_hands(true_hand: dict[str, np.ndarray]) -> None:
    estimator = tell(pose=true_hand["pose"], betas=true_hand["betas"])
    tools = PhotoEstimator(estimator)
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    seen = saw(true_hand)
    flipped = Keypoints(np.stack([SIZE[0] - 1 - seen.points[:, 0], seen.points[:, 1]], axis=1), seen.confidence, "t")
    region = Region(square_box(flipped.points, 1.0), "given", True, "given", flipped)
    camera = Camera(mirror_intrinsics(K, SIZE[0]), "given")
    left = tools.estimate(Photo("a", Path("a.png"), image), camera, region, tools.shape())
    assert left.side == "left" and (left.K == camera.K).all()
    assert np.abs(left.vertices * [-1, 1, 1] - true_hand["vertices"]).max() < 5e-4
    assert np.abs(project_numpy(left.joints, camera.K) - flipped.points).max() < 0.5
    posed = HandModel(load_hand_assets("template/stand_in.npz", "left"))(
        *(torch.as_tensor(v[None], dtype=torch.float32) for v in (left.pose, left.betas, left.transl))
    )
    assert np.abs(posed.vertices[0].numpy() - left.vertices).max() < 1e-5
    assert np.array_equal(np.sort(left.faces, axis=1), np.sort(ASSETS.faces, axis=1))


def test_nothing_to_see_is_no_hand(true_hand: dict[str, np.ndarray]) -> None:
    estimator = tell(pose=true_hand["pose"], betas=true_hand["betas"])
    blind = Keypoints(saw(true_hand).points, np.zeros(21), "nobody")
    with pytest.raises(UnusableImage, match="no usable hand: no keypoints"):
        estimate(estimator, blind, ShapeFilter(ASSETS))


def test_frames_of_one_video_count_as_one_picture() -> None:
    population = load_population("weights/prior.npz", ASSETS.hash)
    once, often = (ShapeFilter(ASSETS, population=population) for _ in range(2))
    betas = np.linspace(-0.8, 0.8, 10)
    once.update(betas)
    for _ in range(5):
        often.update(betas)
    assert once.length.mm == pytest.approx(often.length.mm) and once.length.std_mm == pytest.approx(often.length.std_mm)
    assert 5 < once.length.std_mm < 15 and np.linalg.norm(once.betas) > 0


def test_crops_are_those_of_the_data_set(tmp_path: Path) -> None:
    """The same box gives the network the same input as prediction over a data set does."""
    write_freihand(tmp_path, 1, 2, seed=3)
    dataset = build_dataset("freihand", tmp_path, "evaluation")
    network, card, _ = load_network("weights/pose_2d.safetensors")
    expected = predict_dataset(network, card, dataset, torch.device("cpu"), dataset_name="freihand", progress=False)
    reader = KeypointReader(network, card, torch.device("cpu"))
    for row in range(2):
        sample, image = dataset[row], dataset.full_image(row)
        keypoints = transform_points(sample["keypoints_2d"].astype(float), sample["crop_to_image"].astype(float))
        found, confidence = reader.read(image, square_box(keypoints, 1.0)[None])
        assert np.abs(found[0] - expected.keypoints_2d[row]).max() < 0.02
        assert np.abs(confidence[0] - expected.keypoint_confidence[row]).max() < 1e-3


def test_windows_cover_the_picture() -> None:
    for width, height in ((640, 480), (100, 700), (50, 50)):
        boxes = window_boxes(width, height)
        covered = np.zeros((height, width), bool)
        for x, y, side in boxes[boxes[:, 2] == boxes[:, 2].min()]:
            left, top = max(0, round(x - side / 2)), max(0, round(y - side / 2))
            covered[top : round(y + side / 2) + 1, left : round(x + side / 2) + 1] = True
        assert covered.all() and boxes[:, 2].max() == min(width, height)
