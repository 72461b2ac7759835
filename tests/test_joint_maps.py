"""Joint maps: the corrected chain is unbiased, the paper's is what its code did."""

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
    found, confidence = joints_from_maps(joint_map_targets(joints, 224), 224)
    torch.testing.assert_close(found, joints, atol=2e-3, rtol=0)
    assert confidence.min() > 0.9 and confidence.max() <= 1


def test_paper_chain_has_the_measured_bias() -> None:
    joints = _random_joints()
    found, _ = joints_from_maps(joint_map_targets(joints, 224, placement="paper"), 224, placement="paper")
    bias = (found - joints).mean((0, 1))
    torch.testing.assert_close(bias, torch.tensor([-1.0, -1.0]), atol=0.1, rtol=0)


def test_paper_target_equals_pasting_and_resizing() -> None:
    """Paste a 13 x 13 Gaussian at the truncated pixel, halve with OpenCV's bilinear."""
    joint = np.array([100.7, 57.2])
    full = np.zeros((224, 224), np.float32)
    offsets = np.arange(-6, 7)
    patch = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 3.5**2))
    full[57 - 6 : 57 + 7, 100 - 6 : 100 + 7] = patch
    expected = cv2.resize(full, (112, 112), interpolation=cv2.INTER_LINEAR)
    found = joint_map_targets(torch.tensor(joint).expand(1, 21, 2), 224, placement="paper")
    np.testing.assert_allclose(found[0, 3], expected, atol=1e-6)


def test_consistent_target_is_a_gaussian_in_input_pixels() -> None:
    u, v = 100.7, 57.2
    found = joint_map_targets(torch.tensor([u, v]).expand(1, 21, 2), 224)[0, 0]
    row, column = 27, 51  # its area's centre lies on input pixel (102.5, 54.5)
    expected = np.exp(-((102.5 - u) ** 2 + (54.5 - v) ** 2) / (2 * 3.5**2))
    assert found[row, column].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("placement", ["consistent", "paper"])
def test_joints_outside_have_empty_maps(placement: str) -> None:
    joints = torch.full((1, 21, 2), 50.0)
    joints[0, 4] = torch.tensor([-1.0, 50.0])
    joints[0, 5] = torch.tensor([50.0, 224.0])
    maps = joint_map_targets(joints, 224, placement=placement)
    empty = ~maps.flatten(2).any(-1)[0]
    assert empty.nonzero().flatten().tolist() == [4, 5]


def test_reading_flat_and_border_maps_stays_finite_and_inside() -> None:
    maps = torch.zeros(1, 21, 16, 16)
    maps[0, 1, 0, 15] = 1.0
    found, confidence = joints_from_maps(maps, 32)
    assert torch.isfinite(found).all()
    assert found[0, 1].tolist() == [30.5, 0.5]
    assert confidence[0, :2].tolist() == [0.0, 1.0]


def test_unknown_placement_and_impossible_size_are_refused() -> None:
    joints = _random_joints(1)
    with pytest.raises(ValueError, match="middle"):
        joint_map_targets(joints, 224, placement="middle")
    with pytest.raises(ValueError, match="half the input"):
        joint_map_targets(joints, 224, map_size=56, placement="paper")
