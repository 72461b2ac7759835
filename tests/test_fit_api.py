"""The door of fitting: NumPy and torch, one camera or many, both sides, with and without a known shape."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.scenes.simulation import Simulated, SimulationOptions, simulate
from src.personalization.api import fit
from src.personalization.terms.hand_size import lengths_mm
from template import HandModel, load_hand_assets, mirror_assets
from utils.artifacts import ArtifactError
from utils.identity import Identity
from utils.joints import tip_vertices

N = 4


@pytest.fixture(scope="module")
def world() -> Simulated:
    options = SimulationOptions(noise_px=0.5, pose_noise=0.1, depth=(0.5, 0.02))
    return simulate(load_hand_assets(), 1, N, options, seed=2)


def test_known_shape_beats_unknown_and_a_pose_is_a_start(world: Simulated) -> None:
    keypoints, K, truth = world.keypoints[0].numpy(), world.K[0, 0].numpy(), world.joints[0].numpy()
    known = fit(keypoints, K, betas=world.betas[0].numpy(), keypoint_std_px=0.5)
    unknown = fit(keypoints, K, keypoint_std_px=0.5)
    started = fit(keypoints, K, betas=world.betas[0].numpy(), pose=world.predicted[0].numpy(), keypoint_std_px=0.5)
    errors = [1000 * np.linalg.norm(hands.joints - truth, axis=-1).mean() for hands in (known, unknown, started)]
    assert known.usable.all() and isinstance(known.joints, np.ndarray) and known.joints.dtype == np.float32
    assert errors[0] < 10 and errors[2] < 10 and errors[1] > errors[0]
    layer = HandModel(load_hand_assets(), dtype=torch.float64)
    posed = layer(*(torch.as_tensor(value).double() for value in (known.pose, known.betas, known.transl)))
    np.testing.assert_allclose(known.vertices, posed.vertices, atol=1e-6)
    assert set(known.status) <= {"converged", "iteration_limit", "stalled"} and (known.reprojection_px < 2).all()


def test_torch_in_torch_out_and_a_left_hand_is_the_mirror_image(world: Simulated) -> None:
    given = {"betas": world.betas[0], "pose": world.predicted[0], "keypoint_std_px": 1.0}
    right = fit(world.keypoints[0], world.K[0], **given)
    assert isinstance(right.joints, torch.Tensor)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    mirrored = world.keypoints[0].clone()
    mirrored[..., 0] = 640 - mirrored[..., 0]
    K = world.K[0].clone()
    K[:, 0, 2] = 640 - K[:, 0, 2]
    other = world.predicted[0] * (flip[:, None] * flip).double()
    left = fit(mirrored, K, **{**given, "pose": other}, side="left")
    torch.testing.assert_close(left.joints, right.joints * flip, atol=1e-5, rtol=0)
    skewed = [camera.clone() for camera in (world.K[0], K)]
    for camera, sign in zip(skewed, (1, -1), strict=True):
        camera[:, 0, 1] = sign * 20
    tilted = world.keypoints[0].clone()
    tilted[..., 0] += 20 * (tilted[..., 1] - world.K[0][:, None, 1, 2]) / world.K[0][:, None, 1, 1]
    mirrored[..., 0] = 640 - tilted[..., 0]
    right = fit(tilted, skewed[0], **given)
    left = fit(mirrored, skewed[1], **{**given, "pose": other}, side="left")
    torch.testing.assert_close(left.joints, right.joints * flip, atol=1e-5, rtol=0)
    assert (right.joints - world.joints[0]).norm(dim=-1).mean() < 0.02
    layer = HandModel(mirror_assets(load_hand_assets()), tips="manopth")
    posed = layer(left.pose, left.betas, left.transl)
    torch.testing.assert_close(left.vertices, posed.vertices, atol=1e-5, rtol=0)
    tips = left.vertices[:, list(tip_vertices("manopth"))]  # mirrored, not the left hand's own
    torch.testing.assert_close(left.joints[:, 4::4], tips, atol=1e-5, rtol=0)


def test_identity_and_mistakes_are_named(world: Simulated, caplog: pytest.LogCaptureFixture) -> None:
    assets, keypoints, K = load_hand_assets(), world.keypoints[0], world.K[0]
    length = lengths_mm(assets, world.betas[0].numpy(), None, ("hand",))["hand"][0]
    identity = Identity(world.betas[0].numpy(), assets.name, assets.hash, length)
    given = {"pose": world.predicted[0]}
    same = fit(keypoints, K, identity=identity, **given)
    torch.testing.assert_close(same.joints, fit(keypoints, K, betas=world.betas[0], **given).joints)
    with pytest.raises(ValueError, match="betas or an identity, not both"):
        fit(keypoints, K, betas=world.betas[0], identity=identity)
    with pytest.raises(ArtifactError):
        fit(keypoints, K, identity=Identity(world.betas[0].numpy(), "another", "0" * 12, length))
    fit(keypoints, K, identity=replace(identity, hand_length_mm=150.0), **given)
    assert "states a hand of 150.0 mm" in caplog.text
    with pytest.raises(ValueError, match=r"keypoints has shape \(21, 2\); it must be \(None, 21, 2\)"):
        fit(keypoints[0], K[0])
    for hand in (HandModel(assets), "MANO_RIGHT.pkl"):
        with pytest.raises(TypeError, match=r"hand is a (HandModel|str); HandAssets are meant, of load_hand_assets"):
            fit(keypoints, K, hand=hand)
    with pytest.raises(ValueError, match="side is 'both'"):
        fit(keypoints, K, side="both")
    lost = fit(torch.full_like(keypoints, 50.0), K, **given)
    assert lost.status == ["keypoints_coincide"] * N and not lost.usable.any() and torch.isfinite(lost.joints).all()


def test_points_that_may_not_be_meant_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """A missing keypoint in some hands, another order, the other side, y before x; not what is right."""
    options = SimulationOptions(noise_px=2, pose_noise=0.1, depth=(0.5, 0.02))
    world = simulate(load_hand_assets(), 1, 10, options, seed=2)
    keypoints, K, pose, joints = world.keypoints[0], world.K[0], world.predicted[0], world.joints[0]
    missing, off, mixed = keypoints.clone(), joints.clone(), torch.randperm(21, generator=torch.manual_seed(1))
    missing[:4, 8] = -1
    off[3, 8] += 0.1
    for given, more, told in (
        ({"keypoints": keypoints, "K": K}, {}, ""),
        ({"keypoints": missing, "K": K}, {}, r"[1-4] of 10 hands lie .* \(rows (0|1|2|3|, )+\)"),
        ({"keypoints": keypoints[:, mixed], "K": K}, {"pose": pose}, "10 of 10 hands lie"),
        ({"keypoints": keypoints, "K": K}, {"side": "left"}, "10 left hands are a right hand's, all together"),
        ({"keypoints": keypoints[..., [1, 0]], "K": K}, {}, "a left hand's, all together .* x before y"),
        ({"joints": joints}, {}, ""),
        ({"joints": off}, {}, r"1 of 10 hands lie more than 16 mm off their joints \(rows 3\)"),
    ):
        caplog.clear()
        fit(**given, **more)
        assert re.search(told, caplog.text) if told else not caplog.text, told


@pytest.mark.parametrize("std", [0, -1, float("nan"), float("inf"), np.array([1.0, 2.0])])
def test_numbers_that_are_none_are_refused(world: Simulated, std: Any) -> None:
    keypoints, K, joints = world.keypoints[0], world.K[0], world.joints[:, 0]
    with pytest.raises(ValueError, match=re.escape(f"keypoint_std_px is {std}; it must be a positive number")):
        fit(keypoints, K, keypoint_std_px=std)
    with pytest.raises(ValueError, match=re.escape(f"joint_std_mm is {std}")):
        fit(joints=joints, joint_std_mm=std)
    with pytest.raises(ValueError, match="keypoint_std_px is of keypoints"):
        fit(joints=joints, keypoint_std_px=2.0)
    with pytest.raises(ValueError, match="joint_std_mm is of joints"):
        fit(keypoints, K, joint_std_mm=2.0)
    with pytest.raises(ValueError, match="betas are not finite"):
        fit(keypoints, K, betas=np.full(10, np.nan))


def test_arrays_of_any_kind_are_numbers(world: Simulated) -> None:
    """Views that run backwards (keypoints[..., ::-1] of row, column), objects, read-only arrays and lists."""
    keypoints, K, given = world.keypoints[0].numpy(), world.K[0], {"betas": world.betas[0], "pose": world.predicted[0]}
    backwards = np.ascontiguousarray(keypoints[..., ::-1])[..., ::-1]
    plain = fit(keypoints, K, **given)
    for same in (backwards, keypoints.astype(object), np.broadcast_to(keypoints, keypoints.shape), keypoints.tolist()):
        np.testing.assert_array_equal(fit(same, K, **given).joints, plain.joints)
    with pytest.raises(ValueError, match="keypoints is not numbers"):
        fit([[["a", "b"]] * 21], K)


def test_a_camera_that_sees_the_mirror_image_is_none(world: Simulated) -> None:
    keypoints, K = world.keypoints[0], world.K[0]
    mirrors = K[0] * torch.tensor([[-1.0, 0, 1], [0, 1, 1], [0, 0, 1]])
    with pytest.raises(ValueError, match="of all hands: K is"):
        fit(keypoints, mirrors)
    with pytest.raises(ValueError, match="is it transposed"):
        fit(keypoints, K[0].T)
    with pytest.raises(ValueError, match="of hand 0: K is .*is it transposed"):
        fit(keypoints, K.mT)
    with pytest.raises(ValueError, match="of hand 1: K is"):
        fit(keypoints[:2], torch.stack([K[0], K[1] * torch.tensor([[-1.0], [-1], [1]])]))
    with pytest.raises(ValueError, match=r"confidence spans \[90, 90\]"):
        fit(keypoints, K, confidence=torch.full(keypoints.shape[:2], 90.0))
    found = fit(keypoints[:2], torch.stack([mirrors, K[1]]), betas=world.betas[0], pose=world.predicted[0][:2])
    assert found.status[0] == "bad_intrinsics" and found.usable.tolist() == [False, True]
    found = fit(keypoints[:2], torch.stack([K[0].T, K[1]]), betas=world.betas[0])
    assert found.status[0] == "bad_intrinsics" and found.usable.tolist() == [False, True]


def test_a_hand_far_to_the_side_is_not_usable(world: Simulated) -> None:
    """Depth alone does not say where a hand is: keypoints of 1e30 px put it 1e29 m beside the camera."""
    found = fit(1e30 * world.keypoints[0], world.K[0], betas=world.betas[0])
    assert not found.usable.any() and found.reprojection_px.isnan().all()  # 0 px would be the best fit of all
