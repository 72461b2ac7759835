"""Joints without the mesh, where tips follow their own finger: the plain layer, finite differences (and, in
`test_hand_layer`, the slow loop)."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
from random_assets import random_assets
from test_hand_layer import random_input

from template import HandAssets, HandModel, load_hand_assets, mirror_assets
from template.fast_joints import JointTables, PosedJoints
from utils.joints import tip_vertices

RIGHT = random_assets(seed=7, tips_on_own_finger=True)
LEFT = mirror_assets(RIGHT)


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hands are no few."""
    monkeypatch.setattr("template.layer.MOST", 0)


@pytest.mark.parametrize("translated", [True, False])
def test_gradcheck(translated: bool) -> None:
    """Any 16 matrices, rotations or not."""
    model = HandModel(RIGHT, dtype=torch.float64)
    pose, betas, transl = random_input(2)
    pose = pose + 0.3 * torch.randn(pose.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    arguments = tuple(value.requires_grad_() for value in (pose, betas, transl)[: 3 if translated else 2])
    assert torch.autograd.gradcheck(model.joints, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 130])
@pytest.mark.parametrize("assets", [RIGHT, LEFT, load_hand_assets()], ids=["right", "left", "stand_in"])
def test_value_and_gradient_equal_the_plain_layer(assets: HandAssets, batch: int, dtype: torch.dtype) -> None:
    results = []
    for plain in (False, True):
        model = HandModel(assets, dtype=dtype, plain=plain)
        arguments = [value.requires_grad_() for value in random_input(batch, dtype)]
        joints = model.joints(*arguments)
        cotangent = torch.randn(joints.shape, generator=torch.Generator().manual_seed(5), dtype=dtype)
        results.append([joints, *torch.autograd.grad(joints, arguments, cotangent)])
    for fast, plain in zip(*results, strict=True):
        scale = plain.detach().abs().max()
        assert (fast - plain).abs().max() <= (3e-6 if dtype == torch.float32 else 1e-13) * scale


def test_a_gradient_of_the_gradient_is_refused_and_the_plain_layer_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [value.requires_grad_() for value in random_input(2)]

    def first(plain: bool) -> torch.Tensor:
        joints = HandModel(RIGHT, dtype=torch.float64, plain=plain).joints(*arguments)
        return torch.autograd.grad(joints.square().sum(), arguments[0], create_graph=True)[0]

    pose, betas, _ = random_input(2)
    hand = HandModel(RIGHT, dtype=torch.float64)
    for most in (0, 32):  # either way to pose all vertices, and the joints alone
        monkeypatch.setattr("template.layer.MOST", most)
        for of_it in (lambda shape: hand(pose, shape).vertices.sum(), lambda shape: hand.joints(pose, shape).sum()):
            with pytest.raises(RuntimeError, match=r"HandModel\(..., plain=True\)"):
                torch.autograd.functional.hessian(of_it, betas)
    first(plain=True).square().sum().backward()
    assert arguments[0].grad.isfinite().all()
    plain = HandModel(RIGHT, dtype=torch.float64, plain=True)
    assert torch.autograd.gradgradcheck(plain.joints, arguments, fast_mode=True)


def test_autocast_and_reduced_products_do_not_lower_the_precision() -> None:
    model = HandModel(RIGHT)
    arguments = [value.requires_grad_() for value in random_input(40, torch.float32)]
    expected = model.joints(*arguments)
    gradients = torch.autograd.grad(expected.square().sum(), arguments)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")  # what a training script asks of its network's products
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model.joints(*arguments)
            reduced = torch.autograd.grad(found.square().sum(), arguments)
    finally:
        torch.set_float32_matmul_precision(before)
    for mine, right in zip((found, *reduced), (expected, *gradients), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-6)


def test_empty_strided_and_half_precision_batches() -> None:
    model = HandModel(RIGHT)
    empty = [value.requires_grad_() for value in random_input(0, torch.float32)]
    model.joints(*empty).sum().backward()
    assert empty[0].grad.shape == (0, 16, 3, 3) and empty[1].grad.shape == (0, 10)
    pose, betas, transl = random_input(3, torch.float32)
    strided = pose.permute(1, 3, 2, 0).contiguous().permute(3, 0, 2, 1)
    expected = model.joints(pose, betas, transl)
    assert torch.equal(model.joints(strided, betas, transl), expected)
    half = HandModel(RIGHT, dtype=torch.bfloat16).joints(pose.bfloat16(), betas.bfloat16(), transl.bfloat16())
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=0.03)


def test_a_hand_whose_tips_follow_other_fingers_goes_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Mock(wraps=PosedJoints.apply)
    monkeypatch.setattr(PosedJoints, "apply", apply)
    pose, betas, transl = random_input(2)
    HandModel(RIGHT, dtype=torch.float64).joints(pose, betas, transl)
    assert apply.call_count == 1
    assets = random_assets(seed=7)
    assert not JointTables.follow_own_finger(assets.weights[list(tip_vertices("manopth"))])
    crossed = [
        HandModel(assets, dtype=torch.float64, plain=plain).joints(pose, betas, transl) for plain in (True, False)
    ]
    torch.testing.assert_close(*crossed)
    assert apply.call_count == 1
