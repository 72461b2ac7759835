"""Augmentation against a slow float64 oracle, the hand model, and colour libraries."""

from __future__ import annotations

import colorsys
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from datasets.augment import AugmentConfig, change_colours, change_hsv, colour_matrix, prepare_batch
from template import HandModel, axis_angle_to_pose, load_hand_assets
from utils.camera import crop_affine, invert_affine, project, square_box, transform_intrinsics, transform_points

STAND_IN = Path(__file__).parent.parent / "template" / "stand_in.npz"
CROP = 128
GEOMETRIC = AugmentConfig(rotation_deg=180.0, scale=(0.8, 1.25), shift=0.1)
K_IMAGE = np.array([[613.0, 0.0, 312.0], [0.0, 609.0, 245.0], [0.0, 0.0, 1.0]])


def make_batch(count: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random hands before a camera, with the paper's crop and smooth random pictures."""
    rng, random = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    hand = HandModel(load_hand_assets(STAND_IN, "right"))
    pose = axis_angle_to_pose(torch.randn(count, 48, generator=random) * 0.4)
    betas = torch.randn(count, 10, generator=random)
    transl = torch.randn(count, 3, generator=random) * 0.08 + torch.tensor([0.0, 0.0, 0.8])
    output = hand(pose, betas, transl)
    points = project(output.joints, torch.from_numpy(K_IMAGE).float()).numpy().astype(np.float64)
    affine = crop_affine(square_box(points), CROP)
    values = {
        "image": rng.integers(0, 256, (count, CROP, CROP, 3), dtype=np.uint8),
        "K": transform_intrinsics(K_IMAGE, affine).astype(np.float32),
        "K_image": np.broadcast_to(K_IMAGE, (count, 3, 3)).astype(np.float32),
        "crop_to_image": invert_affine(affine).astype(np.float32),
        "keypoints_2d": transform_points(points, affine).astype(np.float32),
        "valid": np.ones(count, dtype=bool),
    }
    hands = {"joints": output.joints, "vertices": output.vertices, "pose": pose, "betas": betas, "transl": transl}
    return {**{key: torch.from_numpy(value) for key, value in values.items()}, **hands}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(image: torch.Tensor) -> np.ndarray:
    """Network input in [-1, 1] back to [0, 255], float64."""
    return (image.double() * 0.5 + 0.5).numpy() * 255


# --- without augmentation ------------------------------------------------------------------------


def test_central_crop_is_exact_to_the_bit() -> None:
    batch = make_batch()
    result = prepare_batch(batch, 96, crop_scale=1.5)
    cut = batch["image"][:, 16:112, 16:112].permute(0, 3, 1, 2).float()
    assert torch.equal(result["image"], (cut / 255 - 0.5) / 0.5)
    assert torch.equal(result["keypoints_2d"], batch["keypoints_2d"] - 16)
    for key in ("joints", "pose", "transl", "vertices"):
        assert torch.equal(result[key], batch[key])
    assert result["image"].is_contiguous(memory_format=torch.channels_last)


def test_the_batch_itself_is_not_changed() -> None:
    batch = make_batch()
    before = {key: value.clone() for key, value in batch.items()}
    prepare_batch(batch, 96, augment=AugmentConfig.fair(), generator=seeded())
    assert all(torch.equal(batch[key], before[key]) for key in before) and batch.keys() == before.keys()


@pytest.mark.parametrize(("input_size", "crop_scale"), [(96, 1.5), (64, 2.0), (32, 2.0), (50, 1.3), (224, 2.0)])
@pytest.mark.parametrize("augment", [None, GEOMETRIC])
def test_projection_agrees_with_keypoints(input_size: int, crop_scale: float, augment: AugmentConfig | None) -> None:
    result = prepare_batch(make_batch(), input_size, augment=augment, generator=seeded(), crop_scale=crop_scale)
    torch.testing.assert_close(project(result["joints"], result["K"]), result["keypoints_2d"], atol=3e-3, rtol=0)


def test_crop_scale_outside_the_sample_is_refused() -> None:
    for crop_scale in (0.0, 2.1):
        with pytest.raises(ValueError, match="crop_scale"):
            prepare_batch(make_batch(1), 96, crop_scale=crop_scale)


# --- geometry ------------------------------------------------------------------------------------


def test_hand_model_reproduces_the_turned_hand() -> None:
    batch = make_batch()
    result = prepare_batch(batch, 96, augment=GEOMETRIC, generator=seeded())
    output = HandModel(load_hand_assets(STAND_IN, "right"))(result["pose"], batch["betas"], result["transl"])
    torch.testing.assert_close(output.joints, result["joints"], atol=1e-6, rtol=0)
    torch.testing.assert_close(output.vertices, result["vertices"], atol=1e-6, rtol=0)
    assert (result["joints"] - batch["joints"]).abs().max() > 0.02


def test_view_rotation_leads_back_to_the_image() -> None:
    batch = make_batch()
    result = prepare_batch(batch, 96, augment=GEOMETRIC, generator=seeded())
    back = result["joints"] @ result["view_rotation"]  # row vectors: R^T p
    torch.testing.assert_close(back, batch["joints"], atol=1e-6, rtol=0)
    in_image = result["keypoints_2d"] @ result["crop_to_image"][:, :, :2].mT + result["crop_to_image"][:, None, :, 2]
    torch.testing.assert_close(in_image, project(batch["joints"], batch["K_image"]), atol=1e-2, rtol=0)


def test_pixels_see_along_the_turned_rays() -> None:
    """Every output pixel shows what the sample's crop has where its ray, turned back, meets the crop."""
    batch = make_batch(3)
    result = prepare_batch(batch, 96, augment=GEOMETRIC, generator=seeded(4))
    images = pixels(result["image"])
    for i in range(3):
        K_new, K_old, turn = (result["K"][i].double(), batch["K"][i].double(), result["view_rotation"][i].double())
        for x, y in np.random.default_rng(i).integers(0, 96, (60, 2)):
            ray = torch.linalg.inv(K_new) @ torch.tensor([x, y, 1.0], dtype=torch.float64)
            source = K_old @ (turn.T @ ray)
            place = [[float(source[1] / source[2])] * 3, [float(source[0] / source[2])] * 3, [0, 1, 2]]
            expected = map_coordinates(batch["image"][i].double().numpy(), place, order=1, mode="grid-constant")
            np.testing.assert_allclose(images[i, :, y, x], expected, atol=0.3)  # noise image: 255 a pixel


@pytest.mark.parametrize("input_size", [96, 48, 24])
def test_a_dot_moves_with_its_keypoint(input_size: int) -> None:
    """Centroid of a soft dot drawn at joint 9, also where the crop is shrunk."""
    batch = make_batch(8)
    v, u = np.mgrid[:CROP, :CROP]
    for i, point in enumerate(batch["keypoints_2d"][:, 9].double().numpy()):
        blob = 255 * np.exp(-((u - point[0]) ** 2 + (v - point[1]) ** 2) / (2 * 3.0**2))
        batch["image"][i] = torch.from_numpy(blob.round().astype(np.uint8))[..., None]
    result = prepare_batch(batch, input_size, augment=GEOMETRIC, generator=seeded(), crop_scale=1.5)
    images = pixels(result["image"])[:, 0]
    y, x = np.mgrid[:input_size, :input_size]
    for image, point in zip(images, result["keypoints_2d"][:, 9].numpy(), strict=True):
        assert 6 < point.min() and point.max() < input_size - 7
        found = np.array([(image * x).sum(), (image * y).sum()]) / image.sum()
        assert np.abs(found - point).max() < 0.03


def test_crop_rule_holds_for_the_turned_joints() -> None:
    config = AugmentConfig(rotation_deg=90.0)
    result = prepare_batch(make_batch(), 96, augment=config, generator=seeded(), crop_scale=1.6)
    low, high = result["keypoints_2d"].amin(1), result["keypoints_2d"].amax(1)
    torch.testing.assert_close((low + high) / 2, torch.full((6, 2), 47.5), atol=2e-3, rtol=0)
    torch.testing.assert_close((high - low).amax(1), torch.full((6,), 96 / 1.6), atol=2e-3, rtol=0)


def test_rotations_and_scales_fill_their_ranges() -> None:
    config = AugmentConfig(rotation_deg=40.0, scale=(0.8, 1.25), shift=0.1)
    result = prepare_batch(make_batch(400), 16, augment=config, generator=seeded(), crop_scale=1.5)
    turn = result["view_rotation"]
    angle = torch.rad2deg(torch.atan2(turn[:, 1, 0], turn[:, 0, 0]))
    assert -40 <= angle.min() < -37 and 37 < angle.max() <= 40
    low, high = result["keypoints_2d"].amin(1), result["keypoints_2d"].amax(1)
    scale = 16 / (high - low).amax(1) / 1.5
    assert 0.8 <= scale.min() + 1e-4 < 0.82 and 1.22 < scale.max() - 1e-4 <= 1.25
    shift = (7.5 - (low + high) / 2).abs() / 16
    assert 0.097 < shift.max() <= 0.1001


def test_unannotated_samples_keep_their_own_crop() -> None:
    batch = make_batch(2)
    batch["keypoints_2d"][1], batch["joints"][1], batch["valid"][1] = 0, 0, False
    result = prepare_batch(batch, 96, augment=AugmentConfig(rotation_deg=30.0), generator=seeded())
    centre = transform_points(np.full((1, 2), 47.5), result["crop_to_image"][1].double().numpy())
    expected = transform_points(np.full((1, 2), 63.5), batch["crop_to_image"][1].double().numpy())
    np.testing.assert_allclose(centre, expected, atol=1e-2)
    assert all(torch.isfinite(value).all() for value in result.values())


def test_shrinking_does_not_alias() -> None:
    batch = make_batch(2)
    board = (np.indices((CROP, CROP)).sum(0) % 2 * 255).astype(np.uint8)
    batch["image"][:] = torch.from_numpy(board)[..., None]
    for augment in (None, GEOMETRIC):
        images = pixels(prepare_batch(batch, 32, augment=augment, generator=seeded(), crop_scale=2.0)["image"])
        assert np.abs(images[:, :, 12:20, 12:20] - 127.5).max() < 40


def test_same_generator_same_batch() -> None:
    batch, config = make_batch(), AugmentConfig.fair()
    first, second, other = (prepare_batch(batch, 96, augment=config, generator=seeded(s)) for s in (1, 1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["image"], other["image"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_draws_the_same_augmentation() -> None:
    cpu, gpu = (prepare_batch(make_batch(), 96, device, AugmentConfig.fair(), seeded()) for device in ("cpu", "cuda"))
    for key, value in cpu.items():
        torch.testing.assert_close(gpu[key].cpu(), value, atol=2e-3, rtol=1e-5)


# --- colours -------------------------------------------------------------------------------------


def test_hsv_agrees_with_colorsys() -> None:
    images = torch.rand(4, 3, 5, 5, generator=seeded(), dtype=torch.float64)
    images[0, :, 0, 0], images[0, :, 0, 1] = 0.5, 0.0  # grey, black
    saturation, hue = torch.tensor([1.5, 0.5, 1.0, 3.0]), torch.tensor([0.0, 0.3, -0.3, 1.0])
    result = change_hsv(images, saturation, hue)
    for i in range(4):
        for row in range(5):
            for column in range(5):
                h, s, v = colorsys.rgb_to_hsv(*images[i, :, row, column].tolist())
                expected = colorsys.hsv_to_rgb(
                    (h + float(hue[i]) / (2 * math.pi)) % 1, min(1.0, s * float(saturation[i])), v
                )
                np.testing.assert_allclose(result[i, :, row, column], expected, atol=1e-6)


def test_colour_matrix_keeps_greys_and_luma() -> None:
    matrix = colour_matrix(torch.tensor([0.5, 1.0, 1.4]), torch.tensor([0.2, 0.0, -0.2]))
    torch.testing.assert_close(matrix @ torch.ones(3), torch.ones(3, 3))
    torch.testing.assert_close(matrix[1], torch.eye(3))
    only_saturation = colour_matrix(torch.tensor([0.0]), torch.tensor([0.0]))[0]
    torch.testing.assert_close(only_saturation @ torch.tensor([1.0, 0.0, 0.0]), torch.full((3,), 0.299))
    turned = colour_matrix(torch.ones(1), torch.full((1,), 2 * math.pi / 3))[0]
    torch.testing.assert_close(turned @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", [AugmentConfig.paper(), AugmentConfig.fair()])
def test_colours_stay_in_range_and_change_half_of_the_time(config: AugmentConfig) -> None:
    images = torch.rand(200, 3, 8, 8, generator=seeded())
    result = change_colours(images.clone(), config, seeded())
    assert result.min() >= 0 and result.max() <= 1
    kinds = 5 if config.noise else 4
    unchanged = ((result - images).abs().amax(dim=(1, 2, 3)) < 1e-5).double().mean()
    assert abs(unchanged - 0.5**kinds) < 0.04


def test_brightness_and_contrast_are_what_they_say() -> None:
    grey = torch.full((500, 3, 2, 2), 0.4)
    brighter = change_colours(grey.clone(), AugmentConfig(brightness=0.2, probability=1.0), seeded())[:, 0, 0, 0]
    assert 0.2 <= brighter.min() < 0.21 and 0.59 < brighter.max() <= 0.6
    contrast = change_colours(grey.clone(), AugmentConfig(contrast=(0.5, 1.5), probability=1.0), seeded())[:, 0, 0, 0]
    assert 0.2 <= contrast.min() < 0.21 and 0.59 < contrast.max() <= 0.6


def test_noise_has_the_drawn_deviation() -> None:
    grey = torch.full((300, 3, 32, 32), 0.5)
    noisy = change_colours(grey.clone(), AugmentConfig(noise=0.06, probability=1.0), seeded())
    deviation = noisy.std(dim=(1, 2, 3))
    assert deviation.min() < 0.003 and 0.055 < deviation.max() < 0.063
    assert (noisy - 0.5).mean().abs() < 1e-3


def test_paper_recipe_moves_nothing() -> None:
    batch = make_batch()
    result = prepare_batch(batch, 96, augment=AugmentConfig.paper(), generator=seeded())
    assert torch.equal(result["keypoints_2d"], batch["keypoints_2d"] - 16)
    assert torch.equal(result["joints"], batch["joints"])
    assert result["image"].abs().max() <= 1


def test_senseless_ranges_are_refused() -> None:
    for wrong in ({"scale": (1.2, 0.8)}, {"noise": -1.0}, {"probability": 1.5}, {"colour_space": "lab"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AugmentConfig(**wrong)
