"""Fitting: truth recovered, bad input named, the reference solver, the commands' pieces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.scenes.simulation import Simulated, SimulationOptions, simulate
from options.fit import get_args_parser
from src.personalization.fitting.adam import AdamOptions, fit_adam
from src.personalization.fitting.batch import fit_predictions, fit_videos, video_order
from src.personalization.fitting.command import fit as fit_command
from src.personalization.fitting.command import fit_options, summarise
from src.personalization.fitting.evidence import reestimated
from src.personalization.fitting.fit import FitOptions, FitResult, PosePriorOptions, fit_frames, keypoint_weights
from src.personalization.fitting.sequence import SequenceOptions
from src.personalization.fitting.translation import wrist_at_depth, wrist_from_keypoints
from src.personalization.pairing import pair_keypoints, rows_of
from src.personalization.registration.register import register_mesh
from src.personalization.shape_source import betas_of
from src.personalization.solver.levenberg_marquardt import LMOptions
from src.personalization.solver.status import CalibrationError, Status, in_range, usable
from src.personalization.terms.frame_problem import ShapePrior
from src.personalization.terms.hand_size import lengths_mm
from src.personalization.terms.noise import KeypointNoise
from template import HandModel, load_hand_assets
from template.kinematics import JointsModel, posed_points
from utils.artifacts import Predictions, save_predictions
from utils.camera import project

N = 12


@pytest.fixture(scope="module")
def model() -> JointsModel:
    return JointsModel(load_hand_assets())


@pytest.fixture(scope="module")
def world() -> Simulated:
    return simulate(load_hand_assets(), N, 1, SimulationOptions(noise_px=1.0, pose_noise=0.15), seed=3)


def fit(model: JointsModel, world: Simulated, options: FitOptions = FitOptions(), **changes: torch.Tensor) -> FitResult:
    given = {
        "pose": world.predicted[:, 0],
        "betas": world.betas,
        "K": world.K[:, 0],
        "keypoints": world.keypoints[:, 0],
    }
    return fit_frames(model, **{**given, **changes}, options=options)


def root_relative_error(result: FitResult, world: Simulated, model: JointsModel) -> torch.Tensor:
    points = posed_points(model, result.pose, model.rest_points(result.betas)).points[:, model.to_standard]
    return (points - (world.joints - world.joints[:, :, :1])[:, 0]).norm(dim=-1).mean(dim=1)


def test_wrist_is_exact_without_noise(model: JointsModel, world: Simulated) -> None:
    relative = (world.joints - world.joints[:, :, :1])[:, 0]
    projections = torch.cat([world.K[:, 0], torch.zeros(N, 3, 1).double()], dim=2)[:, None]
    pixels = project(world.joints[:, 0], world.K[:, 0])
    weights = torch.rand(N, 1, 21, generator=torch.Generator().manual_seed(0)).double()
    wrist, placed = wrist_from_keypoints(relative, projections, pixels[:, None], weights)
    assert placed.all()
    torch.testing.assert_close(wrist, world.joints[:, 0, 0], atol=1e-9, rtol=0)
    behind, placed = wrist_from_keypoints(-relative, projections, pixels[:, None], weights)
    assert torch.isfinite(behind).all() and not placed.all()


def test_fit_beats_the_network_and_its_noise_free_limit_is_exact(model: JointsModel, world: Simulated) -> None:
    result = fit(model, world)
    network = posed_points(model, world.predicted[:, 0], model.rest_points(world.betas)).points[:, model.to_standard]
    before = (network - (world.joints - world.joints[:, :, :1])[:, 0]).norm(dim=-1).mean()
    assert usable(result.status).all()
    assert float(root_relative_error(result, world, model).mean()) < 0.4 * float(before)
    exact = project(world.joints[:, 0], world.K[:, 0])
    perfect = fit(model, world, keypoints=exact, pose=world.pose[:, 0])
    assert float(root_relative_error(perfect, world, model).max()) < 1e-6
    torch.testing.assert_close(perfect.transl, world.transl[:, 0], atol=1e-5, rtol=0)


def unknown_trust(noise_px: float, pose_noise: float, rounds: int) -> tuple[Simulated, FitOptions]:
    """Frames whose errors are not those of the options: 2 px, 0.25 rad."""
    world = simulate(load_hand_assets(), 96, 1, SimulationOptions(noise_px=noise_px, pose_noise=pose_noise), seed=5)
    return world, FitOptions(PosePriorOptions(0.25, 0.25), KeypointNoise(2.0, loss="none"), evidence_rounds=rounds)


@pytest.mark.parametrize(("noise_px", "pose_noise"), [(4.0, 0.25), (1.0, 0.25), (2.0, 0.1), (2.0, 0.5)])
def test_estimated_trust_lowers_the_error(model: JointsModel, noise_px: float, pose_noise: float) -> None:
    errors = []
    for rounds in (0, 2):
        world, options = unknown_trust(noise_px, pose_noise, rounds)
        errors.append(root_relative_error(fit(model, world, options), world, model).mean())
    assert errors[1] < 0.99 * errors[0]


@pytest.mark.parametrize(("noise_px", "pose_noise"), [(4.0, 0.25), (1.0, 0.25), (2.0, 0.5)])
def test_estimated_variances_are_the_simulated_ones(
    model: JointsModel, noise_px: float, pose_noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.personalization.fitting.evidence.NOISE_BELIEF", 1e-3)
    monkeypatch.setattr("src.personalization.fitting.evidence.PRIOR_BELIEF", 1e-3)
    found = []
    monkeypatch.setattr(
        "src.personalization.fitting.fit.reestimated", lambda *given: found.append(reestimated(*given)) or found[-1]
    )
    fit(model, *unknown_trust(noise_px, pose_noise, rounds=8))
    noise, spread = (
        value.median().sqrt()
        for value in (1 / found[-1].weights, 1 / found[-1].pose_priors[0].precision.diagonal(dim1=1, dim2=2))
    )
    assert 0.75 * noise_px < noise < 1.25 * noise_px and 0.75 * pose_noise < spread < 1.25 * pose_noise


def test_trust_is_estimated_of_a_frame_by_itself(model: JointsModel) -> None:
    world, options = unknown_trust(4.0, 0.25, 2)
    together = fit(model, world, options)
    given = world.predicted[7], world.betas[7:8], world.K[7], world.keypoints[7]
    alone = fit_frames(model, *given, options=options)
    torch.testing.assert_close(alone.pose[0], together.pose[7], atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match="evidence_rounds"):
        fit_frames(model, *given, options=options, world=world.joints[7])


def test_of_3d_points_beside_keypoints_the_depth_is_heard(model: JointsModel, world: Simulated) -> None:
    """Across the picture they are the keypoints once more."""
    given = world.predicted[:, 0], world.betas, world.K[:, 0], world.keypoints[:, 0]
    noise = 0.02 * torch.randn(len(world.betas), 21, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    alone, one, across, deep = (
        fit_frames(model, *given, world=points).pose
        for points in (
            None,
            *(world.joints[:, 0] + noise * torch.tensor(axes) for axes in ((0, 0, 0), (1, 1, 0), (0, 0, 1))),
        )
    )
    torch.testing.assert_close(across, one, atol=1e-9, rtol=0)
    assert (deep - one).abs().max() > 1e-2 and (alone - one).abs().max() > 1e-2


def test_outliers_hardly_matter(model: JointsModel, world: Simulated) -> None:
    spoiled = world.keypoints[:, 0].clone()
    spoiled[:, 8] += 80.0
    clean = root_relative_error(fit(model, world), world, model).mean()
    robust = root_relative_error(fit(model, world, keypoints=spoiled), world, model).mean()
    plain = FitOptions(noise=KeypointNoise(loss="none"))
    trusting = root_relative_error(fit(model, world, plain, keypoints=spoiled), world, model).mean()
    assert float(robust) < 1.5 * float(clean) < float(trusting)


def test_alone_or_in_a_batch_or_in_chunks(model: JointsModel, world: Simulated) -> None:
    options = FitOptions(lm=LMOptions(max_steps=30))
    whole = fit(model, world, options)
    chunked = fit(model, world, replace(options, chunk=5))
    for name in ("pose", "transl"):
        torch.testing.assert_close(getattr(chunked, name), getattr(whole, name), atol=1e-6, rtol=0)
    one = fit_frames(model, world.predicted[4], world.betas[4:5], world.K[4], world.keypoints[4], options=options)
    torch.testing.assert_close(one.pose[0], whole.pose[4], atol=1e-6, rtol=0)


def test_bad_frames_are_named_and_leave_no_trace(model: JointsModel, world: Simulated) -> None:
    pose, betas, K, keypoints = (
        world.predicted[:, 0].clone(),
        world.betas.clone(),
        world.K[:, 0].clone(),
        world.keypoints[:, 0].clone(),
    )
    confidence = torch.ones(N, 21).double()
    keypoints[0, 3] = torch.nan
    keypoints[1] = torch.tensor([100.0, 120.0]).double()
    confidence[2] = 0
    K[3] = 0
    K[4, 0, 0] = torch.inf
    pose[5, 2] *= 1.5
    betas[6, 1] = torch.nan
    keypoints[7] = K[7, :2, 2] - 3 * (keypoints[7] - keypoints[7].mean(0))  # a hand upside down and inside out
    result = fit_frames(model, pose, betas, K, keypoints, confidence)
    expected = [
        Status.KEYPOINTS_NOT_FINITE,
        Status.KEYPOINTS_COINCIDE,
        Status.NO_KEYPOINTS,
        Status.BAD_INTRINSICS,
        Status.BAD_INTRINSICS,
        Status.BAD_PREDICTION,
        Status.BAD_PREDICTION,
    ]
    assert result.status[:7].tolist() == expected
    assert usable(result.status[8:]).all()
    for value in vars(result).values():
        assert torch.isfinite(value).all()
    clean = fit(model, world)
    torch.testing.assert_close(result.pose[8:], clean.pose[8:], atol=1e-6, rtol=0)


def test_hidden_keypoints_may_hold_anything(model: JointsModel, world: Simulated) -> None:
    confidence = torch.ones(N, 21).double()
    confidence[:, 5] = 0
    spoiled = world.keypoints[:, 0].clone()
    spoiled[:, 5] = torch.nan
    moved = world.keypoints[:, 0].clone()
    moved[:, 5] += 1000
    first = fit_frames(model, world.predicted[:, 0], world.betas, world.K[:, 0], spoiled, confidence)
    second = fit_frames(model, world.predicted[:, 0], world.betas, world.K[:, 0], moved, confidence)
    assert usable(first.status).all()
    assert torch.equal(first.pose, second.pose)


def test_hand_behind_the_camera(model: JointsModel, world: Simulated) -> None:
    mirrored = 2 * world.K[:, 0, None, :2, 2] - world.keypoints[:, 0]  # the image of points behind the camera
    result = fit(model, world, FitOptions(PosePriorOptions(1e-4, 1e-4)), keypoints=mirrored)
    assert (result.status == Status.BEHIND_CAMERA).sum() > N // 2
    assert torch.isfinite(result.transl).all()


@pytest.mark.parametrize("kind", ["mirrored", "scattered", "a few pixels", "shuffled"])
@pytest.mark.parametrize("solver", ["lm", "adam", "mesh"])
def test_runaways_are_named_and_replaced(model: JointsModel, world: Simulated, kind: str, solver: str) -> None:
    """Keypoints that no hand in front of the camera makes: what is written is a hand in reach, and says what it is."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(N, 21, 2, generator=generator, dtype=torch.float64)
    true, K = world.keypoints[:, 0], world.K[:, 0]
    keypoints = {
        "mirrored": 2 * K[:, None, :2, 2] - true, "scattered": true.mean(1, keepdim=True) + 60 * noise,
        "a few pixels": true.mean(1, keepdim=True) + 2 * noise,
        "shuffled": true[:, torch.randperm(21, generator=generator)],
    }[kind]  # fmt: skip
    pose = world.predicted[:, 0]
    if solver == "lm":
        options = FitOptions(lm=LMOptions(max_steps=60))
        found = fit_frames(model, pose, world.betas, K, keypoints, options=options)
        wrist, rotations = found.transl + model.rest_points(world.betas)[:, 0], found.pose
    elif solver == "adam":
        rows = predictions_of(world, keypoints_2d=keypoints.numpy())
        wild = AdamOptions(translation_steps=200, translation_rate=0.3, pose_steps=1)
        found = fit_predictions(rows, rows.betas, load_hand_assets(), solver="adam", adam=wild)
        rest = model.rest_points(world.betas)[:, 0]
        wrist, rotations = torch.as_tensor(found.predictions.transl) + rest, torch.as_tensor(found.predictions.pose)
    else:
        relative = (world.joints - world.joints[:, :, :1])[:, 0]
        found = register_mesh(relative, relative, K, keypoints)
        wrist, rotations = found.transl, pose
    status = torch.as_tensor(found.status)
    assert in_range(wrist).all()
    lost = ~usable(status)
    assert lost.any() or solver == "adam"
    aim = project(wrist[lost][:, None].double(), K[lost])[:, 0]
    torch.testing.assert_close(aim, keypoints[lost].mean(1), atol=0.05, rtol=0)
    assert ((wrist[lost][:, 2] - 0.85).abs() < 1e-5).all()
    torch.testing.assert_close(rotations[lost].double(), pose[lost], atol=1e-6, rtol=0)


def test_only_confidences_that_mean_something_count(model: JointsModel, world: Simulated) -> None:
    def fitted(values: list[float]) -> FitResult:
        confidence = torch.full((N, 21), 0.5).double()
        confidence[:, : len(values)] = torch.tensor(values).double()
        given = (world.predicted[:, 0], world.betas, world.K[:, 0], world.keypoints[:, 0])
        return fit_frames(model, *given, confidence)

    odd, plain = fitted([1e30, -3.0, torch.nan, torch.inf]), fitted([1.0, 0.0, 0.0, 0.0])
    assert torch.equal(odd.pose, plain.pose) and torch.equal(odd.transl, plain.transl)


def test_a_summary_counts_by_status(world: Simulated, caplog: pytest.LogCaptureFixture) -> None:
    keypoints = world.keypoints[:, 0].numpy().copy()
    keypoints[:2] = 100.0
    keypoints[2] = 2 * world.K[2, 0, :2, 2].numpy() - keypoints[2]
    rows = predictions_of(world, keypoints_2d=keypoints)
    fitted = fit_predictions(rows, rows.betas, load_hand_assets(), options=FitOptions(PosePriorOptions(0.01, 0.01)))
    assert "3 of 12 frames" in caplog.text and "2 keypoints coincide, 1 behind camera" in caplog.text
    report = summarise(rows, fitted, None, load_hand_assets())
    assert report["n_fitted"] == N - 3 and sum(report["status"].values()) == N
    unknown = {"valid": np.zeros(N, dtype=bool), "betas": np.zeros((N, 10), np.float32)}  # as HO-3D's evaluation part
    assert summarise(rows, fitted, unknown, load_hand_assets()).keys() == report.keys()
    with pytest.raises(CalibrationError, match="none of its images has an annotated shape"):
        betas_of("gt", rows, unknown, {})
    used = usable(torch.as_tensor(fitted.status)).numpy()
    assert report["reprojection_rmse_px"] == pytest.approx(np.sqrt(np.mean(fitted.reprojection_px[used] ** 2)))


def test_weights_follow_confidence(world: Simulated) -> None:
    confidence = torch.full((N, 21), 0.25).double()
    fixed = keypoint_weights(KeypointNoise(std_px=2.0), world.keypoints[:, 0], confidence)
    torch.testing.assert_close(fixed, torch.full((N, 21), 0.25 / 4).double())
    scaled = keypoint_weights(KeypointNoise(std_box=0.02), world.keypoints[:, 0], confidence)
    side = (world.keypoints[:, 0].amax(1) - world.keypoints[:, 0].amin(1)).amax(-1)
    torch.testing.assert_close(scaled[:, 0], 0.25 / (0.02 * side) ** 2)


def test_free_shape_and_depth_prior(model: JointsModel, world: Simulated) -> None:
    from src.personalization.terms.frame_problem import ShapePrior

    prior = ShapePrior(torch.zeros(10).double(), 1e8 * torch.eye(10).double())
    held = fit(model, world, FitOptions(shape_prior=prior))
    assert float(held.betas.abs().max()) < 1e-2  # an iron prior at zero wins over the betas given
    near = fit(model, world, FitOptions(depth_mean=0.6, depth_std=1e-5))
    wrist = near.transl + model.rest_points(world.betas)[:, 0]
    torch.testing.assert_close(wrist[:, 2], torch.full((N,), 0.6).double(), atol=1e-3, rtol=0)


def test_adam_is_the_papers_loop(world: Simulated) -> None:
    hand = HandModel(load_hand_assets(), dtype=torch.float64)
    rows = slice(0, 3)
    given = (world.predicted[rows, 0], world.betas[rows], world.K[rows, 0], world.keypoints[rows, 0])
    start = wrist_at_depth(given[3][:, 0], given[2], 0.85)
    torch.testing.assert_close(project(start[:, None], given[2])[:, 0], given[3][:, 0])
    still = fit_adam(hand.joints, *given, options=AdamOptions(translation_steps=0, pose_steps=0))
    torch.testing.assert_close(still.transl + hand.rest_joints(given[1])[:, 0], start)
    short = AdamOptions(translation_steps=40, pose_steps=20)
    full = fit_adam(lambda *a: hand(*a).joints, *given, options=short)
    few = fit_adam(hand.joints, *given, options=short)
    torch.testing.assert_close(full.loss.sqrt(), few.loss.sqrt(), atol=1e-4, rtol=0)
    assert (full.loss < still.loss).all()
    once = fit_adam(hand.joints, *given, options=short, pose_once=True)
    torch.testing.assert_close(once.loss, few.loss, atol=1e-6, rtol=0)
    seen = torch.ones(3, 21).double()
    seen[:, [0, 8]] = 0
    blank = torch.where(seen[..., None] > 0, given[3], 0.0)  # as `check_frames` gives what is not seen
    hidden = [fit_adam(hand.joints, *given[:3], points, seen, options=short) for points in (blank, given[3])]
    assert (hidden[0].loss < 1.5 * few.loss).all()
    torch.testing.assert_close(hidden[0].pose, hidden[1].pose, atol=1e-9, rtol=0)
    alone = fit_adam(hand.joints, *(value[:1] for value in given), options=short)
    torch.testing.assert_close(alone.pose[0], few.pose[0], atol=1e-9, rtol=0)  # no influence of the batch size


def test_rows_of_one_video_follow_each_other(model: JointsModel, world: Simulated) -> None:
    K = np.stack([np.eye(3)] * 4 + [2 * np.eye(3)] * 2)
    order, video = video_order(np.array([6, 5, 8, 9, 10, 11]), np.array([1, 1, 1, 1, 1, 1]), K)
    assert order.tolist() == [1, 0, 2, 3, 4, 5] and video.tolist() == [0, 0, 1, 1, 2, 2]
    arrays = (world.predicted[:, 0], world.betas, world.K[:, 0], world.keypoints[:, 0])
    apart = fit_videos(model, arrays, None, np.arange(N)[::-1].copy(), np.arange(N), SequenceOptions())
    alone = fit_frames(model, *arrays)
    assert usable(apart.status).all()
    # Videos of one frame are frames: the same minimum, each in its own row.
    close = (apart.pose - alone.pose).abs().amax(dim=(1, 2, 3)) < 2e-2
    assert close.double().mean() > 0.9


def predictions_of(world: Simulated, **changes: object) -> Predictions:
    given = {"subject_id": np.full(N, 8), "betas": world.betas.numpy(), "dataset": "dex_ycb", "split": "s1_test"}
    return world.predictions(load_hand_assets(), **(given | changes))


@pytest.mark.parametrize("solver", ["lm", "adam"])
def test_fitting_predictions(world: Simulated, solver: str) -> None:
    rows = predictions_of(world)
    adam = AdamOptions(translation_steps=5, pose_steps=2)
    fitted = fit_predictions(rows, rows.betas, load_hand_assets(), solver=solver, adam=adam)
    assert fitted.predictions.transl.shape == (N, 3) and np.isfinite(fitted.predictions.pose).all()
    assert usable(torch.as_tensor(fitted.status)).all()
    if solver == "lm":
        assert fitted.reprojection_px.mean() < 3


def test_nothing_to_fit_is_said(world: Simulated, tmp_path: Path) -> None:
    nothing = predictions_of(world).select(np.zeros(0, dtype=np.int64))
    save_predictions(tmp_path / "none.npz", nothing)
    given = ["--predictions", str(tmp_path / "none.npz"), "--output", str(tmp_path / "out.npz")]
    with pytest.raises(CalibrationError, match="none.npz is empty"):
        fit_command(get_args_parser().parse_args(given))
    empty = SimpleNamespace(columns={"image_id": np.zeros(0, dtype=np.int64)})
    with pytest.raises(CalibrationError, match="has no image"):
        rows_of(empty, predictions_of(world))


def test_files_that_do_not_belong_together(world: Simulated) -> None:
    rows = predictions_of(world)
    with pytest.raises(CalibrationError, match="no 2D keypoints"):
        pair_keypoints(predictions_of(world, keypoints_2d=None), None)
    with pytest.raises(CalibrationError, match="no image in common"):
        pair_keypoints(rows, predictions_of(world, image_id=np.arange(N) + 100))
    with pytest.raises(CalibrationError, match="s0_test"):
        pair_keypoints(rows, predictions_of(world, split="s0_test"))
    shuffled = predictions_of(world).select(np.arange(N)[::-1])
    paired = pair_keypoints(rows, shuffled.select(np.arange(N - 2)))
    np.testing.assert_array_equal(paired.image_id, np.arange(2, N))
    np.testing.assert_array_equal(paired.keypoints_2d, rows.keypoints_2d[2:])


def test_videos_of_different_people_have_no_part_in_each_other(world: Simulated) -> None:
    """Each person's shape is free alone, and a video that does not converge keeps no other from it."""
    second = np.arange(N) >= N // 2
    rows = predictions_of(world, subject_id=8 + second, sequence_id=second.astype(np.int64))
    prior = ShapePrior(torch.zeros(10), torch.eye(10))
    for options in (FitOptions(), FitOptions(shape_prior=prior)):
        both = fit_predictions(rows, rows.betas, load_hand_assets(), options=options, video=True).predictions
        for person in (8, 9):
            own = rows.select(rows.subject_id == person)
            alone = fit_predictions(own, own.betas, load_hand_assets(), options=options, video=True).predictions
            together = both.select(both.subject_id == person)
            np.testing.assert_array_equal(together.image_id, alone.image_id)
            np.testing.assert_array_equal(together.betas, alone.betas)
            np.testing.assert_array_equal(together.transl, alone.transl)
    first, other = (both.betas[both.subject_id == person] for person in (8, 9))
    assert np.ptp(first, axis=0).max() == np.ptp(other, axis=0).max() == 0 and np.abs(first[0] - other[0]).max() > 0.1


def test_a_free_shape_does_not_shrink_with_the_length_of_a_video() -> None:
    """Smoothness, in metres, says the less the smaller and nearer a hand is: 60 frames made one of 78 mm."""
    assets, count = load_hand_assets(), 60
    world = simulate(assets, count, 1, SimulationOptions(), seed=5)
    rows = predictions_of(world, subject_id=np.full(count, 8), sequence_id=np.zeros(count, np.int64))
    options = FitOptions(shape_prior=ShapePrior(torch.zeros(10), torch.eye(10)))
    found = fit_predictions(rows, np.zeros((count, 10), np.float32), assets, options=options, video=True).predictions
    true, fitted = (
        lengths_mm(assets, np.asarray(one[0], float), None)["hand"][0] for one in (world.betas, found.betas)
    )
    assert abs(fitted - true) < 20


def test_trust_that_is_stated_replaces_the_measured_one() -> None:
    words = "--predictions p --output o --prior weights/prior.npz"
    parse = get_args_parser().parse_args
    measured, stated = (
        fit_options(
            parse([*words.split(), *more]), load_hand_assets("template/stand_in.npz"), torch.device("cpu")
        ).prior
        for more in ((), ("--root_std", "0.02"))
    )
    assert torch.equal(stated.covariance[3:, 3:], measured.covariance[3:, 3:])
    assert torch.allclose(stated.covariance[:3, :3], 4e-4 * torch.eye(3).to(stated.covariance))
