"""Joint maps: what is drawn is read back without bias."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from src.models.cmr.joint_maps import joint_map_targets, joints_from_maps


def _random_joints(count: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 20 + 184 * torch.rand(count, 21, 2, generator=generator)


def test_consistent_chain_reads_back_what_was_drawn() -> None:
    joints = _random_joints()
    found, confidence = joints_from_maps(joint_map_targets(joints, 224, 112), 224)
    torch.testing.assert_close(found, joints, atol=2e-3, rtol=0)
    assert confidence.min() > 0.9 and confidence.max() <= 1


def test_consistent_target_is_a_gaussian_in_input_pixels() -> None:
    u, v = 100.7, 57.2
    found = joint_map_targets(torch.tensor([u, v]).expand(1, 21, 2), 224, 112)[0, 0]
    row, column = 27, 51  # its area's centre lies on input pixel (102.5, 54.5)
    expected = np.exp(-((102.5 - u) ** 2 + (54.5 - v) ** 2) / (2 * 3.5**2))
    assert found[row, column].item() == pytest.approx(expected, rel=1e-4)


def test_joints_outside_have_empty_maps() -> None:
    joints = torch.full((1, 21, 2), 50.0)
    joints[0, 4] = torch.tensor([-1.0, 50.0])
    joints[0, 5] = torch.tensor([50.0, 224.0])
    maps = joint_map_targets(joints, 224, 112)
    empty = ~maps.flatten(2).any(-1)[0]
    assert empty.nonzero().flatten().tolist() == [4, 5]


def test_reading_flat_and_border_maps_stays_finite_and_inside() -> None:
    maps = torch.zeros(1, 21, 16, 16)
    maps[0, 1, 0, 15] = 1.0
    found, confidence = joints_from_maps(maps, 32)
    assert torch.isfinite(found).all()
    assert found[0, 1].tolist() == [30.5, 0.5]
    assert confidence[0, :2].tolist() == [0.0, 1.0]


def test_the_released_recipe_reads_joints_a_pixel_too_far_to_the_upper_left() -> None:
    """docs/facts.md 7.4: drawn on the truncated pixel, halved, and the brightest cell's number doubled. Half of that is
    the reading, which `joints_from_maps` does not do on the very same maps, and half the drawing."""
    joints = _random_joints(4)
    maps = np.zeros((4, 21, 112, 112), np.float32)
    steps = np.arange(-6, 7)
    gaussian = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 3.5**2))
    for index in np.ndindex(4, 21):
        drawn = np.zeros((224, 224), np.float32)
        x, y = (int(value) for value in joints[index])
        drawn[y - 6 : y + 7, x - 6 : x + 7] = gaussian
        maps[index] = cv2.resize(drawn, (112, 112))
    brightest = maps.reshape(4, 21, -1).argmax(axis=-1)
    released = 2 * np.stack([brightest % 112, brightest // 112], axis=-1) - joints.numpy()
    np.testing.assert_allclose(released.mean(axis=(0, 1)), -1.0, atol=0.2)
    ours = joints_from_maps(torch.as_tensor(maps), 224)[0] - joints
    np.testing.assert_allclose(ours.mean(dim=(0, 1)), -0.5, atol=0.1)
