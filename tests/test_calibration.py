"""Calibration: averages, the joint estimate and its covariance, cues, cameras, choice of images, merging."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.scenes.simulation import Simulated, SimulationOptions, second_camera, simulate
from options.calibrate import get_args_parser
from src.evaluation.shape import zero_pose_mpvpe
from src.personalization.calibration.data_set_evidence import group_views, mirror_extrinsics
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.images import ViewGroups, average_weights, choose_images, greedy_informative
from src.personalization.calibration.measure_population import shrunk_covariance
from src.personalization.calibration.merging import merge_identities
from src.personalization.calibration.multi_frame import calibrate_frames, image_information
from src.personalization.calibration.population import CalibrationOptions, Population, load_population, save_population
from src.personalization.fitting.fit import PosePriorOptions
from src.personalization.shape_source import betas_of, load_identities
from src.personalization.solver.levenberg_marquardt import LMOptions
from src.personalization.solver.status import CalibrationError, Status
from src.personalization.terms.hand_size import (
    LENGTHS,
    LengthCue,
    describe_lengths,
    identity_lengths,
    length_gradient,
    lengths_as_json,
    lengths_mm,
    parse_known_bone,
)
from src.personalization.terms.noise import KeypointNoise
from template import HandAssets, HandModel
from template.kinematics import JointsModel
from utils.artifacts import ArtifactError, HandMismatchError, Predictions, save_identity
from utils.camera import project

KNOWN = CalibrationOptions(
    PosePriorOptions(0.1, 0.1), KeypointNoise(std_px=1.0, loss="none"), 0.85, 0.05, laplace=False
)


@pytest.fixture(scope="module")
def model(assets: HandAssets) -> JointsModel:
    return JointsModel(assets)


def people(assets: HandAssets, persons: int, frames: int, seed: int = 0) -> Simulated:
    return simulate(assets, persons, frames, SimulationOptions(1.0, 0, 0.1, (0.85, 0.05)), seed)


def solve(model: JointsModel, world: Simulated, options: CalibrationOptions = KNOWN, **more: object):
    start = torch.zeros(len(world.betas), 10)
    return calibrate_frames(model, world.predicted, start, world.K, world.keypoints, options=options, **more)


def predictions_of(world: Simulated, assets: HandAssets, **changes: object) -> Predictions:
    betas = world.betas.numpy().repeat(world.predicted.shape[1], axis=0)
    generator = np.random.default_rng(0)
    given = {
        "betas": betas + generator.normal(size=betas.shape),
        "confidence": generator.normal(size=len(betas)),
        "keypoint_confidence": np.ones((len(betas), 21)),
        "dataset": "dex_ycb",
        "split": "s1_test",
    }
    return world.predictions(assets, **(given | changes))


def test_average_weights() -> None:
    confidence = np.array([0.0, 3.0, 1.0, 2.0])
    np.testing.assert_allclose(average_weights(4, "mean", None), 0.25)
    np.testing.assert_allclose(average_weights(4, "top_k", confidence, top_k=2), [0, 0.5, 0, 0.5])
    soft = average_weights(4, "confidence", confidence, temperature=0.5)
    np.testing.assert_allclose(np.log(soft[1] / soft[3]), (3 - 2) / 0.5)
    np.testing.assert_allclose(soft.sum(), 1)
    np.testing.assert_allclose(average_weights(4, "confidence", 1e6 * confidence), [0, 1, 0, 0])
    with pytest.raises(CalibrationError, match="mano_baseline_conf"):
        average_weights(4, "confidence", None)
    with pytest.raises(CalibrationError, match="no image"):
        average_weights(0, "mean", None)


def test_lengths_and_their_gradient(assets: HandAssets, model: JointsModel) -> None:
    betas = torch.randn(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    flat = torch.eye(3, dtype=torch.float64).expand(3, 16, 3, 3)
    joints = HandModel(assets, dtype=torch.float64).joints(flat, betas, torch.zeros(3, 3, dtype=torch.float64))
    for name in ("hand", "thumb", "palm_width", "wrist-index_mcp"):
        length, gradient = length_gradient(model, betas.detach(), name)
        chain = joints[:, list(LENGTHS[name])]
        expected = (chain[:, 1:] - chain[:, :-1]).norm(dim=-1).sum(dim=-1)
        torch.testing.assert_close(length, expected)
        torch.testing.assert_close(torch.autograd.grad(expected.sum(), betas, retain_graph=True)[0], gradient)
    found = lengths_mm(assets, np.zeros(10), np.eye(10))
    assert 150 < found["hand"][0] < 230 and 2 < found["hand"][1] < 30
    assert lengths_mm(assets, np.zeros(10), None)["hand"][1] is None


def test_intervals_hold_what_they_say(assets: HandAssets, model: JointsModel) -> None:
    """Betas drawn from the identity's own covariance: 95% of each length lies in its interval."""
    rows = predictions_of(people(assets, 1, 5), assets)
    identity = calibrate_predictions(rows, assets, options=KNOWN)[8]
    lengths = identity_lengths(identity, assets)
    assert list(lengths) == ["hand", "thumb", "index", "middle", "ring", "little"]
    assert lengths["hand"].mm == pytest.approx(identity.hand_length_mm)
    assert lengths["hand"].std_mm == pytest.approx(identity.hand_length_std_mm)
    drawn = np.random.default_rng(0).multivariate_normal(identity.betas, identity.covariance, size=4000)
    for name, length in lengths.items():
        found = 1000 * length_gradient(model, torch.as_tensor(drawn), name)[0].numpy()
        low, high = length.interval_95
        assert 0.935 < ((found > low) & (found < high)).mean() < 0.965
    words = describe_lengths(identity, assets)
    assert words.startswith("mm [95% interval]: hand ") and str(lengths["little"]) in words
    written = lengths_as_json({8: identity}, assets)["subject-08"]["thumb"]
    assert written["low_95_mm"] == pytest.approx(lengths["thumb"].interval_95[0], abs=0.01)
    plain = replace(identity, covariance=None, method="mean")
    assert "no interval" in describe_lengths(plain, assets)
    assert lengths_as_json({8: plain}, assets)["subject-08"]["hand"]["high_95_mm"] is None


def test_joint_calibration_finds_the_person(assets: HandAssets, model: JointsModel) -> None:
    world = people(assets, 2, 8)
    result = solve(model, world)
    assert (result.status == Status.CONVERGED).all()
    hand = HandModel(assets, dtype=torch.float64)
    error = zero_pose_mpvpe(hand, result.betas, world.betas).mean()
    assert error < 0.6 * zero_pose_mpvpe(hand, 0 * world.betas, world.betas).mean()
    exact = people(assets, 1, 6)
    patient = LMOptions(max_steps=100, tolerance=1e-12, relative_tolerance=0)
    sharp = replace(KNOWN, population=Population(betas_covariance=1e4 * np.eye(10)), depth_mean=None, lm=patient)
    depth = exact.joints[:, :, 0, 2]
    keypoints = project(exact.joints.flatten(0, 1), exact.K.flatten(0, 1))[None]
    sharp = replace(sharp, wrist_depth_std=1e-4)
    perfect = calibrate_frames(model, exact.pose, torch.zeros(1, 10), exact.K, keypoints, None, sharp, depth)
    rest = model.rest_points(perfect.betas) - model.rest_points(exact.betas)
    assert float((rest - rest[:, :1]).abs().max()) < 1e-4  # betas that joints do not show stay open


def test_covariance_against_monte_carlo(assets: HandAssets, model: JointsModel) -> None:
    """Many noisy copies of the same kind of frames: standardised errors must have unit size."""
    options = replace(
        KNOWN, prior=PosePriorOptions(0.05, 0.05), noise=KeypointNoise(std_px=0.5, loss="none"), laplace=True
    )
    world = simulate(assets, 32, 3, SimulationOptions(0.5, 0, 0.05, (0.85, 0.05)), seed=5)
    result = solve(model, world, options)
    error = result.betas - world.betas
    squared = torch.einsum("pi,pij,pj->p", error, torch.linalg.inv(result.covariance), error)
    # Mean of a chi-square with 10 degrees of freedom over 32 persons: 10 +- 0.8.
    assert 7.5 < float(squared.mean()) < 13.0
    length, slope = length_gradient(model, result.betas, "hand")
    std = torch.einsum("pi,pij,pj->p", slope, result.covariance, slope).sqrt()
    inside = ((length - length_gradient(model, world.betas, "hand")[0]).abs() < std).double().mean()
    assert 0.5 < float(inside) < 0.85


def test_more_images_and_cues_tell_more(assets: HandAssets, model: JointsModel) -> None:
    world = people(assets, 1, 4)

    def spread(name: str, options: CalibrationOptions, frames: int = 4, **more: object) -> float:
        part = [value[:, :frames] for value in (world.predicted, world.K, world.keypoints)]
        result = calibrate_frames(model, part[0], torch.zeros(1, 10), part[1], part[2], options=options, **more)
        slope = length_gradient(model, result.betas, name)[1][0]
        return float((slope @ result.covariance[0] @ slope).sqrt())

    blind = replace(KNOWN, depth_mean=None)
    assert spread("hand", blind, 4) < spread("hand", blind, 1)
    truth = float(length_gradient(model, world.betas, "hand")[0][0])
    ruler = replace(blind, cues=(LengthCue("hand", truth, 0.001),))
    assert spread("hand", ruler) < 0.00101 < 0.5 * spread("hand", blind)
    bone = replace(blind, cues=(LengthCue("index", float(length_gradient(model, world.betas, "index")[0][0]), 0.001),))
    assert spread("hand", bone) < spread("hand", blind)
    depth = world.joints[:, :, 0, 2]
    assert spread("hand", replace(blind, wrist_depth_std=0.005), wrist_depth=depth) < 0.6 * spread("hand", blind)


def test_filler_frames_and_bad_frames_add_nothing(assets: HandAssets, model: JointsModel) -> None:
    world = people(assets, 2, 5)
    options = KNOWN
    clean = solve(model, Simulated(*(v[:, :4] if v.dim() > 2 else v for v in vars(world).values())), options)
    confidence = torch.ones(2, 5, 21)
    confidence[0, 4] = 0
    keypoints = world.keypoints.clone()
    keypoints[1, 4] = torch.nan
    result = calibrate_frames(model, world.predicted, torch.zeros(2, 10), world.K, keypoints, confidence, options)
    torch.testing.assert_close(result.betas, clean.betas, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.covariance, clean.covariance, atol=1e-4, rtol=1e-3)
    assert result.frame_status[:, 4].tolist() == [Status.NO_KEYPOINTS, Status.KEYPOINTS_NOT_FINITE]


def test_every_bad_frame_is_named_and_adds_nothing(assets: HandAssets, model: JointsModel) -> None:
    world = people(assets, 1, 12)
    predicted, K, keypoints = world.predicted.clone(), world.K.clone(), world.keypoints.clone()
    confidence = torch.ones(1, 12, 21).double()
    keypoints[0, 0] = torch.nan
    keypoints[0, 1] = 200.0
    confidence[0, 2] = 0
    K[0, 3, 0, 0] = 0  # not invertible
    K[0, 4] = torch.nan
    predicted[0, 5, 3] = 0
    keypoints[0, 6] = 2 * K[0, 6, :2, 2] - world.keypoints[0, 6]  # the image of points behind the camera
    start = torch.zeros(1, 10)
    result = calibrate_frames(model, predicted, start, K, keypoints, confidence, KNOWN)
    expected = [
        Status.KEYPOINTS_NOT_FINITE,
        Status.KEYPOINTS_COINCIDE,
        Status.NO_KEYPOINTS,
        Status.BAD_INTRINSICS,
        Status.BAD_INTRINSICS,
        Status.BAD_PREDICTION,
        Status.BEHIND_CAMERA,
        *[Status.CONVERGED] * 5,
    ]
    assert result.frame_status[0].tolist() == expected
    assert result.offsets is None  # of the hand's own joints
    for name, value in vars(result).items():
        assert name == "offsets" or torch.isfinite(value).all()
    good = Simulated(*(v[:, 7:] if v.dim() > 2 else v for v in vars(world).values()))
    clean = solve(model, good)
    torch.testing.assert_close(result.betas, clean.betas, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.covariance, clean.covariance, atol=1e-4, rtol=1e-3)
    batch = (predicted[0], torch.zeros(12, 10), K[0], keypoints[0], confidence[0])
    information = image_information(model, *batch, KNOWN)
    assert torch.isfinite(information).all() and not information[:7].any() and information[7:].any()


def test_bad_frames_of_several_cameras(assets: HandAssets) -> None:
    """A view that is of no use leaves its instant to the others."""
    _, views, rows = two_views(assets)
    spoiled = rows.keypoints_2d.copy()
    spoiled[1] = 200.0  # all at one point, second camera of the first instant
    spoiled[2:4] = 100.0  # no view of the second instant
    given = {"options": replace(KNOWN, depth_mean=None), "views": views}
    found = calibrate_predictions(replace(rows, keypoints_2d=spoiled), assets, **given)[8]
    whole = calibrate_predictions(rows, assets, **given)[8]
    assert np.isfinite(found.covariance).all()
    assert whole.hand_length_std_mm < found.hand_length_std_mm < 2 * whole.hand_length_std_mm
    assert abs(found.hand_length_mm - whole.hand_length_mm) < 3 * found.hand_length_std_mm


def test_a_person_without_usable_frames_gets_the_prior(assets: HandAssets, model: JointsModel) -> None:
    world = people(assets, 1, 2)
    result = calibrate_frames(
        model, world.predicted, torch.zeros(1, 10), world.K, world.keypoints, torch.zeros(1, 2, 21), KNOWN
    )
    assert result.status.tolist() == [Status.NO_KEYPOINTS]
    torch.testing.assert_close(result.betas, torch.zeros(1, 10).double(), atol=1e-6, rtol=0)
    rows = predictions_of(world, assets, keypoint_confidence=np.zeros((2, 21)))
    with pytest.raises(CalibrationError, match="no usable frame"):
        calibrate_predictions(rows, assets)


def test_identity_of_every_subject(assets: HandAssets) -> None:
    world = people(assets, 2, 6)
    rows = predictions_of(world, assets)
    found = calibrate_predictions(rows, assets, num_images=20, options=KNOWN)
    assert sorted(found) == [8, 9] and found[8].n_images == 6
    assert found[9].image_ids == list(range(6, 12)) and found[9].scale_evidence == "prior"
    assert found[8].hand_length_std_mm > 0.5 and found[8].covariance.shape == (10, 10)
    mean = calibrate_predictions(rows, assets, method="mean", num_images=3, seed=1)
    again = calibrate_predictions(rows, assets, method="mean", num_images=3, seed=1)
    other = calibrate_predictions(rows, assets, method="mean", num_images=3, seed=2)
    np.testing.assert_array_equal(mean[8].betas, again[8].betas)
    assert mean[8].image_ids != other[8].image_ids and mean[8].covariance is None
    chosen = np.isin(rows.image_id, mean[8].image_ids)
    np.testing.assert_allclose(mean[8].betas, rows.betas[chosen].mean(0), atol=1e-6)


def test_a_contradicting_ruler_is_refused_with_its_distance(assets: HandAssets) -> None:
    rows = predictions_of(people(assets, 1, 6), assets)
    wrong = replace(KNOWN, cues=(LengthCue("hand", 0.120, 0.003),))
    with pytest.raises(CalibrationError, match="standard deviations apart") as refused:
        calibrate_predictions(rows, assets, options=wrong)
    without = calibrate_predictions(rows, assets, options=KNOWN)[8]
    length, std = without.hand_length_mm, without.hand_length_std_mm
    apart = (length - 120) / np.hypot(std, 3)
    assert f"120.0 ± 3.0 mm, but the images and the prior say {length:.1f} ± {std:.1f} mm" in str(refused.value)
    assert f"{apart:.1f} standard deviations" in str(refused.value) and "--accept_conflict" in str(refused.value)
    truth = length_gradient(JointsModel(assets), people(assets, 1, 6).betas, "index")[0][0]
    bone = replace(KNOWN, cues=(LengthCue("index", float(truth) + 0.05, 0.001),))
    with pytest.raises(CalibrationError, match="index was measured as"):
        calibrate_predictions(rows, assets, options=bone)
    taken = calibrate_predictions(rows, assets, options=replace(wrong, accept_conflict=True))
    assert taken[8].scale_evidence == "ruler"


def test_known_bones_are_parsed(caplog: pytest.LogCaptureFixture) -> None:
    assert parse_known_bone("index=72±2") == LengthCue("index", 0.072, 0.002)
    assert parse_known_bone("index_mcp-index_pip=42.5+-1").length == pytest.approx(0.0425)
    assert parse_known_bone("index=72.5 +- .5").std == pytest.approx(0.0005)
    with pytest.raises(CalibrationError, match="known bone 'index=7.2.1±2' is not of the form"):
        parse_known_bone("index=7.2.1±2")
    thumb = parse_known_bone("thumb_cmc-thumb_mcp=45±2")
    assert LENGTHS[thumb.name] == (1, 2) and not caplog.records
    assert "from its base beside the wrist" in " ".join(get_args_parser().format_help().split())
    assert parse_known_bone("thumb_mcp-thumb_pip=45±2") == thumb and "is taken for thumb_cmc-thumb_mcp" in caplog.text
    for text in ("index=72", "index", "toe=50±2", "index=7200±2", "index=72±0"):
        with pytest.raises(CalibrationError):
            parse_known_bone(text)


def two_views(assets: HandAssets, frames: int = 6) -> tuple[Simulated, ViewGroups, Predictions]:
    """Every instant seen by two cameras; rows alternate."""
    world = people(assets, 1, frames, seed=2)
    other, second = second_camera(world, SimulationOptions(1.0, 0, 0.1))

    def weave(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.stack([a, b], dim=1).flatten(0, 1)[None]

    both = replace(
        world,
        predicted=weave(world.predicted[0], other.predicted[0]),
        K=weave(world.K[0], world.K[0]),
        keypoints=weave(world.keypoints[0], other.keypoints[0]),
    )
    poses = np.tile(np.stack([np.eye(4), second.numpy()]), (frames, 1, 1))
    return both, ViewGroups(np.repeat(np.arange(frames), 2), poses), predictions_of(both, assets)


def test_two_cameras_see_the_size(assets: HandAssets, model: JointsModel) -> None:
    world, views, rows = two_views(assets)
    blind = replace(KNOWN, depth_mean=None)
    one = calibrate_predictions(rows.select(np.arange(0, 12, 2)), assets, options=blind)[8]
    two = calibrate_predictions(rows, assets, options=blind, views=views)[8]
    truth = 1000 * float(length_gradient(model, world.betas, "hand")[0][0])
    assert two.hand_length_std_mm < 0.25 * one.hand_length_std_mm
    assert abs(two.hand_length_mm - truth) < 4 * two.hand_length_std_mm
    assert two.scale_evidence == "cameras" and two.n_images == 12
    turned = np.eye(4)
    turned[:3] = np.random.default_rng(0).normal(size=(3, 4))  # any other world gives the same
    elsewhere = ViewGroups(views.instant, turned @ views.camera_to_world)
    again = calibrate_predictions(rows, assets, options=blind, views=elsewhere)[8]
    np.testing.assert_allclose(again.betas, two.betas, atol=1e-4)


def test_views_that_contradict_each_other_are_told(assets: HandAssets, caplog: pytest.LogCaptureFixture) -> None:
    _, views, rows = two_views(assets)
    noisy = rows.keypoints_2d + np.random.default_rng(0).normal(0, 1.5, rows.keypoints_2d.shape)
    rows = replace(rows, keypoints_2d=noisy, keypoint_confidence=np.ones(noisy.shape[:2]))
    options, told = replace(KNOWN, depth_mean=None), "of 6 pairs of views contradict each other"
    calibrate_predictions(rows, assets, options=options, views=views)
    assert told not in caplog.text
    poses = views.camera_to_world.copy()
    poses[2:6] = np.linalg.inv(poses[2:6])
    calibrate_predictions(rows, assets, options=options, views=ViewGroups(views.instant, poses))
    assert f"2 {told}" in caplog.text
    with pytest.raises(CalibrationError, match=rf"{told}.*extrinsics \(camera to world, m\)"):
        inverted = ViewGroups(views.instant, np.linalg.inv(views.camera_to_world))
        calibrate_predictions(rows, assets, options=options, views=inverted)


def test_views_are_grouped() -> None:
    instant = np.array([3, 3, 5, 5, 5, 7])
    assert group_views(instant, 2)[:2].tolist() == [0, 1] and len(group_views(instant, 2)) == 4
    assert group_views(instant, 3).tolist() == [2, 3, 4]
    for cameras in (1, 4):
        with pytest.raises(CalibrationError):
            group_views(instant, cameras)
    pose = np.eye(4)
    pose[0, 3] = 2.0
    assert mirror_extrinsics(pose)[0, 3] == -2.0
    np.testing.assert_array_equal(mirror_extrinsics(mirror_extrinsics(pose)), pose)


def test_informative_images_beat_random_ones(assets: HandAssets, model: JointsModel) -> None:
    world = people(assets, 1, 24)
    batch = (world.predicted[0], torch.zeros(24, 10), world.K[0], world.keypoints[0], None)
    information = image_information(model, *batch, KNOWN).numpy()
    assert np.linalg.eigvalsh(information).min() > -1e-6
    rows = choose_images(24, 5, "informative", information=information)

    def volume(chosen: np.ndarray) -> float:
        return np.linalg.slogdet(np.eye(10) + information[chosen].sum(0))[1]

    drawn = [volume(choose_images(24, 5, "random", seed)) for seed in range(50)]
    assert volume(rows) > max(drawn)
    assert sorted(greedy_informative(information, 5, np.eye(10))) == rows.tolist()
    assert choose_images(3, 5, "random").tolist() == [0, 1, 2]
    assert choose_images(4, 2, "confidence", confidence=np.array([0.0, 5, 1, 7])).tolist() == [1, 3]
    with pytest.raises(CalibrationError):
        choose_images(4, 2, "informative")


def test_merging_two_days_is_like_all_images_at_once(assets: HandAssets) -> None:
    world = people(assets, 1, 12, seed=4)
    rows = predictions_of(world, assets)
    halves = (slice(0, 6), slice(6, 12))
    parts = [calibrate_predictions(rows.select(part), assets, options=KNOWN)[8] for part in halves]
    whole = calibrate_predictions(rows, assets, options=KNOWN)[8]
    merged = merge_identities(parts, assets, KNOWN.population)
    scale = np.sqrt(np.diag(whole.covariance))
    np.testing.assert_allclose((merged.betas - whole.betas) / scale, 0, atol=1.0)
    assert np.abs((merged.betas - whole.betas) / scale).mean() < 0.4
    np.testing.assert_allclose(np.sqrt(np.diag(merged.covariance)) / scale, 1, atol=0.2)
    assert merged.n_images == 12
    with pytest.raises(CalibrationError, match="share images"):
        merge_identities([parts[0], parts[0]], assets, KNOWN.population)
    with pytest.raises(CalibrationError, match="subjects differ"):
        merge_identities([parts[0], replace(parts[1], subject_id=9)], assets, KNOWN.population)
    with pytest.raises(CalibrationError, match="sides differ"):
        merge_identities([parts[0], replace(parts[1], side="left")], assets, KNOWN.population)
    with pytest.raises(CalibrationError, match="no covariance"):
        merge_identities([parts[0], replace(parts[1], covariance=None)], assets, KNOWN.population)


def test_identities_of_another_hand_or_subject(assets: HandAssets, tmp_path) -> None:
    rows = predictions_of(people(assets, 1, 3), assets)
    identity = calibrate_predictions(rows, assets, method="mean")[8]
    path = tmp_path / "identity_subject-08.json"
    save_identity(path, identity)
    assert load_identities(tmp_path, rows.subject_id, assets)[8].subject_id == 8
    np.testing.assert_allclose(betas_of("calibrated", rows, None, {8: identity})[2], identity.betas, atol=1e-6)
    with pytest.raises(CalibrationError, match="subject 8"):
        load_identities(path, np.array([9]), assets)
    with pytest.raises(FileNotFoundError):
        load_identities(tmp_path, np.array([9]), assets)
    save_identity(tmp_path / "identity_subject-07.json", identity)
    with pytest.raises(CalibrationError, match="name says subject 7, its content subject 8"):
        load_identities(tmp_path, np.array([7]), assets)
    both = np.append(rows.is_left, True), np.append(rows.subject_id, 8)
    assert load_identities(path, both[1], assets, both[0])[8].side == "right"  # a warning
    with pytest.raises(CalibrationError, match="of a right hand, but all 3 images of subject 8"):
        load_identities(path, rows.subject_id, assets, ~rows.is_left)
    save_identity(path, replace(identity, side="both"))
    assert load_identities(path, rows.subject_id, assets, ~rows.is_left)[8].side == "both"
    save_identity(path, replace(identity, hand_hash="another"))
    with pytest.raises(HandMismatchError):
        load_identities(path, rows.subject_id, assets)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(ArtifactError, match="schema"):
        load_identities(path, rows.subject_id, assets)
    with pytest.raises(CalibrationError, match="data_root"):
        betas_of("gt", rows, None, {})


def test_population_files(tmp_path) -> None:
    samples = np.random.default_rng(0).normal(size=(2000, 10)) * np.arange(1, 11) + 3
    mean, covariance = shrunk_covariance(samples, np.eye(10), 10)
    np.testing.assert_allclose(mean, 3, atol=0.7)
    np.testing.assert_allclose(np.diag(covariance), np.arange(1, 11) ** 2, rtol=0.15)
    few = shrunk_covariance(samples[:2], np.eye(10), 10)[1]
    assert np.linalg.eigvalsh(few).min() > 0.5
    path = tmp_path / "population.npz"
    population = Population(mean, covariance, np.array([0.8, 0.1]), np.zeros((48, 48)), np.array(0.02), "abc")
    save_population(path, population)
    np.testing.assert_array_equal(load_population(path, "abc").betas_covariance, covariance)
    with pytest.raises(CalibrationError, match="hand model"):
        load_population(path, "other")
    path.write_bytes(b"nonsense")
    with pytest.raises(CalibrationError, match="not a population file"):
        load_population(path, "abc")
