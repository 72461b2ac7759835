"""The yardstick of the fitting benchmark computes the same hand, and its ratios are what their names say."""

from __future__ import annotations

import pytest
import roma
import torch

from benchmarks.fit_speed import ratios
from benchmarks.scenes.reference_hand import ReferenceHand, smplx_hand
from template import HandModel
from tests.random_assets import random_assets


def hand_inputs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    vectors, betas, transl = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4, 16, 3), (4, 10), (4, 3))
    )
    return roma.rotvec_to_rotmat(0.6 * vectors).to(dtype), betas.to(dtype), transl.to(dtype)


def test_reference_hand_is_the_hand_and_its_gradient() -> None:
    assets = random_assets()
    pose, betas, transl = hand_inputs(torch.float64)
    found = []
    for layer in (ReferenceHand(assets, dtype=torch.float64), HandModel(assets, dtype=torch.float64).joints):
        transl = transl.detach().requires_grad_()
        vectors = roma.rotmat_to_rotvec(pose).requires_grad_()
        joints = layer(roma.rotvec_to_rotmat(vectors), betas, transl)
        gradients = torch.autograd.grad(joints.square().sum(), (vectors, transl))
        found.append((joints.detach(), *gradients))
    for reference, own in zip(*found, strict=True):
        torch.testing.assert_close(reference, own, atol=1e-9, rtol=1e-9)


def test_smplx_is_the_same_hand() -> None:
    assets = random_assets()
    layer = smplx_hand(assets)
    if layer is None:
        pytest.skip("smplx is not installed")
    pose, betas, transl = hand_inputs(torch.float32)
    expected = HandModel(assets).joints(pose, betas, transl)
    torch.testing.assert_close(layer(pose, betas, transl), expected, atol=2e-5, rtol=0)


def test_ratios_compare_like_with_like() -> None:
    seconds = {"adam": 8.0, "adam_joints_only": 1.0, "lm": 0.1}
    rows = [
        {"frames": frames, "noise_px": noise, "prior": 0.2, "solver": name, "seconds": value * noise * frames / 256}
        for frames in (16, 256)
        for noise in (1.0, 2.0, 4.0)
        for name, value in seconds.items()
    ]
    rows.append({"frames": 16, "noise_px": 1.0, "prior": 0.2, "solver": "lm", "seconds": 1e-6})
    found = ratios(rows)
    assert found["lm_over_adam_256"] == pytest.approx(80.0)
    assert found["adam_joints_only_over_adam_256"] == pytest.approx(8.0)
    assert found["lm_over_adam_smplx_256"] is None
