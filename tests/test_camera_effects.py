"""What cameras do to the world's pictures, effect by effect, and where its cameras stand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch

from datasets.synthetic.world.cameras import HAND_SHARE, random_view
from datasets.synthetic.world.photography import add_noise, blur, expose, jpeg, lower_resolution, photograph
from template import load_hand_assets
from template.kinematics import JointsModel


def pictures(count: int = 8, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_no_strength_no_effect() -> None:
    image = pictures()
    torch.testing.assert_close(expose(image, 0.0), image, atol=1e-5, rtol=0)
    assert torch.equal(lower_resolution(image, 0.0), image)
    assert torch.equal(add_noise(image, 0.0), image)
    assert torch.equal(jpeg(image, 0.0), image)


def test_the_whole_chain_stays_a_picture_and_differs_from_one_to_the_next() -> None:
    torch.manual_seed(0)
    image = pictures(1).expand(8, -1, -1, -1)
    found = photograph(image)
    assert found.shape == image.shape and float(found.min()) >= 0 and float(found.max()) <= 1
    means = found.mean(dim=(1, 2, 3))
    assert len(torch.unique(means)) == 8 and float((found - image).abs().mean(dim=(1, 2, 3)).min()) > 1e-3


def test_exposure_keeps_grey_grey_and_the_order_of_light() -> None:
    """Saturation does nothing to grey; without noise, what was lighter in a row of equal light stays lighter."""
    torch.manual_seed(1)
    ramp = torch.linspace(0.2, 0.8, 32).expand(16, 3, 32, 32)
    found = expose(ramp.transpose(2, 3), 0.4)[:, 0]
    assert float(found.diff(dim=1).min()) >= -0.05  # a slope of light may take back a little
    balanced = expose(torch.full((64, 3, 8, 8), 0.5), 0.0)
    torch.testing.assert_close(balanced, torch.full_like(balanced, 0.5))


def test_blur_is_a_mean_of_neighbours() -> None:
    torch.manual_seed(2)
    flat = torch.full((4, 3, 16, 16), 0.3)
    torch.testing.assert_close(blur(flat), flat)
    point = torch.zeros(16, 3, 33, 33)
    point[..., 16, 16] = 1.0
    spread = blur(point)
    torch.testing.assert_close(spread.sum(dim=(2, 3)), torch.ones(16, 3), atol=1e-5, rtol=0)
    assert torch.equal(spread[:, 0], spread[:, 2]) and float(spread.min()) >= 0
    torch.testing.assert_close(
        spread, spread.flip(2, 3), atol=1e-6, rtol=0
    )  # a Gaussian has no direction, only an axis
    assert len(torch.unique(spread[:, 0, 16, 16])) == 16


def test_lower_resolution_takes_detail_and_leaves_the_mean() -> None:
    torch.manual_seed(3)
    image = pictures(16)
    found = lower_resolution(image, 1.0)
    assert found.shape == image.shape
    detail = [value.diff(dim=3).abs().mean(dim=(1, 2, 3)) for value in (image, found)]
    assert bool((detail[1] < detail[0]).all())
    torch.testing.assert_close(found.mean(dim=(2, 3)), image.mean(dim=(2, 3)), atol=0.05, rtol=0)


def test_noise_has_no_bias_and_is_stronger_where_it_is_light() -> None:
    torch.manual_seed(4)
    dark, light = (add_noise(torch.full((128, 3, 16, 16), value), 0.1) - value for value in (0.0, 1.0))
    for noise in (dark, light):
        assert abs(float(noise.mean())) < 3 * float(noise.std()) / math.sqrt(noise.numel() / 4)
    assert float(light.std() / dark.std()) == pytest.approx(3.0, abs=0.6)  # 0.5 + image


def test_jpeg_rounds_each_coefficient_to_its_step() -> None:
    """In SciPy's transform: all coefficients are whole multiples of the picture's step, coarser for fine detail."""
    image = pictures(3, 16)
    torch.manual_seed(5)
    found = jpeg(image, 1.0).numpy()
    torch.manual_seed(5)
    steps = np.exp(np.log(0.004) + torch.rand(3).numpy() * (np.log(0.05) - np.log(0.004)))
    frequency = 1 + np.arange(8)[:, None] + np.arange(8)
    for number, step in enumerate(steps):
        for row in (0, 8):
            for column in (0, 8):
                block = found[number, 1, row : row + 8, column : column + 8]
                multiples = scipy.fft.dctn(block, norm="ortho") / (step * frequency)
                np.testing.assert_allclose(multiples, multiples.round(), atol=2e-2)
        assert np.abs(found[number] - image[number].numpy()).max() > step / 4


def test_cameras_see_the_hand_large_enough_and_from_outside_the_arm() -> None:
    model = JointsModel(load_hand_assets())
    joints = model.rest_points(torch.zeros(10).double()).numpy()[np.asarray(model.to_standard)]
    arm = joints[0] - joints[9]
    arm = arm / np.linalg.norm(arm)
    generator, distances = np.random.default_rng(0), []
    for _ in range(60):
        view = random_view(generator, joints, arm)
        np.testing.assert_allclose(view.rotation @ view.rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(view.rotation) > 0 and (view.to_camera(joints)[:, 2] >= 0.05).all()
        seen = view.project(joints)
        share = np.ptp(seen, axis=0).max() / view.size
        assert HAND_SHARE[0] - 1e-6 <= share <= HAND_SHARE[1] + 1e-6
        centre = (seen.min(axis=0) + seen.max(axis=0)) / 2
        assert (np.abs(centre - (view.size - 1) / 2) <= 0.45 * view.size + 1e-6).all()
        position = -view.rotation.T @ view.translation
        along = np.clip((position - joints[0]) @ arm, 0, 0.5)
        assert np.linalg.norm(position - joints[0] - along * arm) >= 0.07
        distances.append(np.linalg.norm(position - joints.mean(axis=0)))
    assert min(distances) < 0.3 and max(distances) > 1.0
