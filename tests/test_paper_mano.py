"""The released code's MANO regressors against their formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.models.paper_mano import PaperMano


def _network(**options: object) -> PaperMano:
    torch.manual_seed(0)
    return PaperMano("resnet18", **options).eval()


def _mlp(network: torch.nn.Sequential, x: np.ndarray) -> np.ndarray:
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    for layer in (0, 3, 6, 9):
        x = x @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]
        x = x if layer == 9 else np.maximum(x, 0)
    return x


def _gram_schmidt(six: np.ndarray) -> np.ndarray:
    """(16, 6), two rows each -> (16, 3, 3)."""
    first = six[:, :3] / np.linalg.norm(six[:, :3], axis=1, keepdims=True)
    second = six[:, 3:] - (six[:, 3:] * first).sum(1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=1)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_identity_multiplies_rotations(image: torch.Tensor) -> None:
    network = _network(sees_shape=True)
    betas = torch.ones(2, 10)
    output = network(image, betas=betas)
    assert output["betas"] is betas and "confidence" not in output
    arrays = (output[key].double().numpy() for key in ("feature", "pose", "pose_6d"))
    for feature, found, six in zip(*arrays, strict=True):
        pose = np.tile(np.eye(3), (16, 1, 1))
        for step in network.pose_6d_extractor:
            rows = pose[:, :2].reshape(-1)
            pose = _gram_schmidt(_mlp(step, np.concatenate([feature, rows])).reshape(16, 6)) @ pose
        np.testing.assert_allclose(found, pose, atol=1e-4)
        np.testing.assert_allclose(six, pose[:, :2].reshape(-1), atol=1e-4)


@torch.no_grad()
def test_baseline_adds_to_the_released_start(image: torch.Tensor) -> None:
    network = _network(has_confidence=True)
    output = network(image)
    for row, feature in enumerate(output["feature"].double().numpy()):
        six = np.tile([1.0, 0, 0, 1, 0, 0], 16)
        for step in network.pose_6d_extractor:
            six = six + _mlp(step, np.concatenate([feature, six]))
        np.testing.assert_allclose(output["pose_6d"][row], six, atol=1e-4)
        np.testing.assert_allclose(output["pose"][row], _gram_schmidt(six.reshape(16, 6)), atol=1e-3)
        np.testing.assert_allclose(output["betas"][row], _mlp(network.shape_extractor, feature), atol=1e-4)
        weight, bias = (value.double().numpy() for value in network.conf_branch[0].parameters())
        np.testing.assert_allclose(output["confidence"][row], (feature @ weight.T + bias)[0], atol=1e-4)


def test_confidence_does_not_train_the_feature(image: torch.Tensor) -> None:
    network = _network(has_confidence=True)
    network(image)["confidence"].sum().backward()
    assert network.conf_branch[0].weight.grad is not None
    assert network.feature_extractor.fc.weight.grad is None


def test_identity_without_betas_says_what_to_pass(image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="--identity FILE"):
        _network(sees_shape=True)(image)


def test_unknown_backbone_is_named() -> None:
    with pytest.raises(ValueError, match="resnet101"):
        PaperMano("resnet101")
