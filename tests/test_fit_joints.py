"""Hands from 21 points in space, against the truth, a numerical posterior, and what comes in broken."""

from __future__ import annotations

import numpy as np
import pytest
import roma
import torch

import handid
from benchmarks.scenes.simulation import Simulated, SimulationOptions, simulate
from src.personalization.fitting.from_joints import LM, JointFitOptions, fit_joints
from src.personalization.solver.status import Status
from src.personalization.terms.frame_problem import ShapePrior
from src.personalization.terms.hand_size import length_gradient
from template import HandModel, load_hand_assets
from template.assets import STAND_IN_PATH
from template.kinematics import JointsModel

ASSETS = load_hand_assets(STAND_IN_PATH)
HAND = HandModel(ASSETS, dtype=torch.float64)
EXACT = JointFitOptions(std=1e-4, dtype=torch.float64)


@pytest.fixture(scope="module")
def world() -> Simulated:
    return simulate(ASSETS, 40, 1, seed=3)


def noisy(world: Simulated, std: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return world.joints[:, 0] + std * torch.randn(len(world.betas), 21, 3, generator=generator, dtype=torch.float64)


def vertex_error(found: object, world: Simulated) -> torch.Tensor:
    one = HAND(found.pose, found.betas, found.transl).vertices  # type: ignore[attr-defined]
    return (one - HAND(world.pose[:, 0], world.betas, world.transl[:, 0]).vertices).norm(dim=-1).mean(dim=1)


def test_exact_points_give_the_hand(world: Simulated) -> None:
    found = fit_joints(ASSETS, world.joints[:, 0], options=EXACT)
    assert (found.status == Status.CONVERGED).all()
    assert found.residual.max() < 1e-4 and vertex_error(found, world).max() < 1.5e-3
    known = fit_joints(ASSETS, world.joints[:, 0], betas=world.betas, options=EXACT)
    assert torch.equal(known.betas, world.betas) and vertex_error(known, world).max() < 5e-4
    assert not known.covariance[:, 51:].any()


def test_single_precision_and_far_away(world: Simulated) -> None:
    far = world.joints[:, 0] + torch.tensor([50.0, -20.0, 9.0])
    found = fit_joints(ASSETS, far, options=JointFitOptions(std=1e-3))
    near = fit_joints(ASSETS, world.joints[:, 0], options=JointFitOptions(std=1e-3, dtype=torch.float64))
    assert (found.betas - near.betas).abs().max() < 0.02
    torch.testing.assert_close(found.transl - near.transl, far[:, 0] - world.joints[:, 0, 0], atol=2e-4, rtol=0)


def test_the_closed_form_is_near(world: Simulated) -> None:
    from dataclasses import replace

    start = fit_joints(ASSETS, world.joints[:, 0], options=JointFitOptions(std=1e-3, lm=replace(LM, max_steps=0)))
    assert vertex_error(start, world).mean() < 6e-3 and (start.status == Status.ITERATION_LIMIT).all()


@pytest.mark.parametrize("std", [0.002, 0.008])
def test_noise_is_learnt(world: Simulated, std: float) -> None:
    found = fit_joints(ASSETS, noisy(world, std))
    assert 0.8 * std < found.std < 1.25 * std


def test_one_bad_hand_says_nothing_about_the_others(world: Simulated) -> None:
    points = noisy(world, 0.001)[:20] - world.joints[:20, 0, :1] + 0.2
    points[0, 8] = 0
    found = handid.fit(joints=points, hand=ASSETS)
    assert found.std_mm < 1.5 and found.usable.tolist() == [False] + 19 * [True]


def test_covariance_is_that_of_many_draws() -> None:
    """One hand, its points drawn anew: errors about the prior's truth spread as the covariance says (betas, wrist)."""
    count, std = 300, 0.003
    generator = torch.Generator().manual_seed(9)
    mean, components = torch.as_tensor(ASSETS.hands_mean), torch.as_tensor(ASSETS.hands_components)
    betas = torch.randn(count, 10, generator=generator, dtype=torch.float64)
    fingers = mean + torch.randn(count, 45, generator=generator, dtype=torch.float64) @ components
    turn = roma.random_rotmat(count).double()
    pose = torch.cat([turn[:, None], roma.rotvec_to_rotmat(fingers.view(count, 15, 3))], dim=1)
    joints = HAND(pose, betas, torch.zeros(count, 3, dtype=torch.float64)).joints
    points = joints + std * torch.randn(count, 21, 3, generator=generator, dtype=torch.float64)
    found = fit_joints(ASSETS, points, options=JointFitOptions(std=std))
    wrist = found.transl + JointsModel(ASSETS).rest_points(found.betas)[:, 0]
    off = torch.cat([wrist - joints[:, 0], found.betas - betas], dim=1)
    covariance = found.covariance[:, 48:, 48:]
    chi = (off[:, None] @ torch.linalg.solve(covariance, off[..., None]))[:, 0, 0]
    assert 0.8 < float(chi.mean()) / 13 < 1.25
    assert (torch.linalg.eigvalsh(found.covariance) > -1e-12).all()


def test_missing_points_cost_little_and_widen(world: Simulated) -> None:
    points, trust = noisy(world, 0.002), torch.ones(40, 21)
    trust[:, [3, 8, 14]] = 0
    points[:, [3, 8, 14]] = torch.nan
    some = fit_joints(ASSETS, points, trust, options=JointFitOptions(std=0.002))
    whole = fit_joints(ASSETS, noisy(world, 0.002), options=JointFitOptions(std=0.002))
    assert (some.status == Status.CONVERGED).all() and vertex_error(some, world).mean() < 4e-3
    spread = [f.covariance.diagonal(dim1=1, dim2=2).sum() for f in (some, whole)]
    assert spread[0] > spread[1]


def test_broken_points_are_named(world: Simulated) -> None:
    points, trust = world.joints[:5, 0].clone(), torch.ones(5, 21)
    points[0, 4, 1] = torch.inf
    trust[1, 3:] = 0
    found = fit_joints(ASSETS, points, trust)
    assert [Status(s) for s in found.status[:2].tolist()] == [Status.KEYPOINTS_NOT_FINITE, Status.NO_KEYPOINTS]
    assert all(torch.isfinite(v).all() for v in (found.pose, found.betas, found.transl, found.covariance))
    assert vertex_error(found, Simulated(*(v[:5] for v in vars(world).values())))[2:].max() < 4e-3
    assert len(fit_joints(ASSETS, points[:0]).pose) == 0


def test_a_scale_that_is_free(world: Simulated) -> None:
    """Points, and their noise, 1.3 times as large: the shape is told by their proportions, the pose is the same."""
    one, other = (
        fit_joints(ASSETS, f * world.joints[:, 0], options=JointFitOptions(std=f * 5e-4, scale_std=torch.inf))
        for f in (1.0, 1.3)
    )
    assert (one.betas - other.betas).abs().max() < 0.02
    angle = roma.rotmat_to_rotvec(one.pose.mT @ other.pose).norm(dim=-1)
    assert angle.max() < 0.02


def test_noise_does_not_make_hands_small_whose_scale_is_free() -> None:
    """A point's error does not shrink with the hand: else the smaller of two hands of one form fits better."""
    world = simulate(ASSETS, 200, 1, SimulationOptions(pose_spread=0.7), seed=4)
    options = JointFitOptions(std=0.008, scale_std=0.3)
    found = fit_joints(ASSETS, noisy(world, 0.008), options=options)
    model = JointsModel(ASSETS)
    length, true = (1000 * length_gradient(model, betas, "hand")[0] for betas in (found.betas, world.betas))
    assert abs(float((length - true).mean())) < 2.0


def test_the_prior_on_shapes_is_used(world: Simulated) -> None:
    firm = ShapePrior(torch.full((10,), 0.5).double(), 1e6 * torch.eye(10).double())
    found = fit_joints(ASSETS, noisy(world, 0.003), options=JointFitOptions(std=0.003, shape_prior=firm))
    assert (found.betas - 0.5).abs().max() < 0.05


def test_the_door(world: Simulated) -> None:
    """handid.fit(joints=...): a left hand is the mirror image of the right one."""
    points = noisy(world, 0.002)[:4].numpy()
    right = handid.fit(joints=points, hand=ASSETS, joint_std_mm=2)
    left = handid.fit(joints=points * [-1, 1, 1], hand=ASSETS, side="left", joint_std_mm=2)
    np.testing.assert_allclose(left.vertices, right.vertices * [-1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(left.betas, right.betas, atol=1e-5)
    assert right.covariance.shape == (4, 61, 61) and right.usable.all() and right.std_mm == pytest.approx(2)
    known = handid.fit(joints=points, hand=ASSETS, betas=world.betas[:4].numpy())
    np.testing.assert_allclose(known.betas, world.betas[:4], atol=1e-6)
    with pytest.raises(ValueError, match="without keypoints"):
        handid.fit(points[..., :2], np.eye(3), joints=points)
    with pytest.raises(ValueError, match="give keypoints"):
        handid.fit(points[..., :2])


def test_points_that_are_no_hands_are_not_usable(world: Simulated) -> None:
    """In millimetres, all in one place, in one line, absurdly large: no hands, and every number finite."""
    points = world.joints[:4, 0].clone()
    line = torch.linspace(0, 0.4, 21, dtype=torch.float64)[None, :, None].expand(1, 21, 3)
    odd = torch.cat([1000 * points[:1], 0 * points[:1], line, 1e200 * points[:1]])
    for std in (None, 0.005):
        found = fit_joints(ASSETS, odd, options=JointFitOptions(std=std))
        assert found.status.tolist() == [
            Status.OUT_OF_RANGE, Status.KEYPOINTS_COINCIDE, Status.OUT_OF_RANGE, Status.OUT_OF_RANGE
        ]  # fmt: skip
        for value in (found.pose, found.betas, found.transl, found.residual, found.covariance):
            assert torch.isfinite(value).all()
    both = fit_joints(ASSETS, torch.cat([odd[[0, 1, 3, 3]], points]))
    torch.testing.assert_close(both.pose[4:], fit_joints(ASSETS, points).pose, atol=1e-3, rtol=0)


def test_who_is_not_usable_has_no_residual(world: Simulated) -> None:
    found = handid.fit(joints=1000 * world.joints[:4, 0], hand=ASSETS)
    assert not found.usable.any() and torch.isnan(torch.as_tensor(found.residual_mm)).all()


def test_no_hands_and_autocast(world: Simulated) -> None:
    none = handid.fit(joints=np.zeros((0, 21, 3)), hand=ASSETS)
    assert none.joints.shape == (0, 21, 3) and none.status == [] and none.covariance.shape == (0, 61, 61)
    with torch.autocast("cpu", torch.bfloat16):
        found = fit_joints(ASSETS, world.joints[:2, 0])
    torch.testing.assert_close(found.pose, fit_joints(ASSETS, world.joints[:2, 0]).pose, rtol=0, atol=0)


def test_torchs_default_precision_changes_nothing(world: Simulated) -> None:
    points = noisy(world, 0.003)
    usual = fit_joints(ASSETS, points)
    try:
        torch.set_default_dtype(torch.float64)
        found = fit_joints(ASSETS, points)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found.pose, usual.pose, atol=1e-6, rtol=0)
