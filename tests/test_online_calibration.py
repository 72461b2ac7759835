"""Calibration while watching: against finite differences, the calibration of all frames at once, and other people."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.scenes.simulation import Simulated, SimulationOptions, detected, simulate
from src.personalization.calibration.from_keypoints import keypoint_options, keypoints_of, predictions_from_keypoints
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.merging import merge_identities
from src.personalization.calibration.multi_frame import calibrate_frames
from src.personalization.calibration.online import OnlineCalibration, OnlineOptions
from src.personalization.calibration.population import CalibrationOptions, Population
from src.personalization.calibration.view_evidence import solve_frames
from src.personalization.fitting.fit import PosePriorOptions, observe
from src.personalization.landmarks.model import load_landmarks
from src.personalization.solver.levenberg_marquardt import LMOptions, minimise
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.frame_problem import FrameProblem
from src.personalization.terms.hand_size import lengths_mm
from src.personalization.terms.inputs import check_frames
from src.personalization.terms.noise import KeypointNoise
from template import load_hand_assets
from template.kinematics import JointsModel
from utils.identity import load_identity

ASSETS = load_hand_assets()
MODEL = JointsModel(ASSETS)
PEOPLE = Population(hand_hash=ASSETS.hash)
BELIEFS = CalibrationOptions(PosePriorOptions(0.25, 0.25), KeypointNoise(std_px=1.0, loss="none"), population=PEOPLE)
NOISY = SimulationOptions(noise_px=1.0)


def started(options: CalibrationOptions = BELIEFS, **more: object) -> OnlineCalibration:
    return OnlineCalibration(options=options, assets=ASSETS, **more)


def feed(
    online: OnlineCalibration, world: Simulated, person: int = 0, frames: slice = slice(None), **more: object
) -> None:
    for pose, K, keypoints in zip(
        *(value[person, frames] for value in (world.predicted, world.K, world.keypoints)), strict=True
    ):
        online.add(keypoints, K=K, pose=pose, **more)


@pytest.fixture(scope="module")
def world() -> Simulated:
    return simulate(ASSETS, 2, 8, NOISY, seed=5)


def test_what_a_frame_says_of_the_betas_is_the_slope_and_curvature_of_its_best_fit() -> None:
    """Pose and place integrated out: against differences of the cost, which is fitted anew for every shape."""
    exact = simulate(ASSETS, 1, 1, SimulationOptions(noise_px=0.0, pose_noise=0.0), seed=2)
    pose, K, keypoints = (value[0] for value in (exact.pose, exact.K, exact.keypoints))
    seen = observe(MODEL, check_frames(pose, exact.betas, K, keypoints, None), BELIEFS)
    tight = LMOptions(max_steps=60, tolerance=1e-13, relative_tolerance=0.0)
    start = {"pose": pose, "wrist": exact.joints[0, :, 0], "betas": exact.betas}
    moved = exact.betas + 0.3 * torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, _, away = solve_frames(MODEL, seen, {**start, "betas": moved}, tight)
    _, _, here = solve_frames(MODEL, seen, start, tight)

    def best(betas: torch.Tensor) -> float:
        return float(minimise(FrameProblem(MODEL, seen), {**start, "betas": betas}, tight).cost)

    step = 1e-3 * torch.eye(10, dtype=torch.float64)
    told = away.precision[0] @ moved[0] - away.pull[0]
    bend = here.precision[0].diagonal()
    for row, one in list(enumerate(step))[:4]:
        slope = (best(moved + one) - best(moved - one)) / 2e-3
        assert float(told[row]) == pytest.approx(slope, rel=1e-3, abs=1e-3)
        # Where nothing is left over, Gauss-Newton's curvature is the true one.
        curved = (best(exact.betas + 20 * one) + best(exact.betas - 20 * one)) / 4e-4
        assert float(bend[row]) == pytest.approx(curved, rel=0.05, abs=1e-3)


def test_the_end_is_the_calibration_of_all_frames_at_once(world: Simulated) -> None:
    online = started(online=OnlineOptions(shared=0.3))
    feed(online, world)
    online.settle()
    beliefs = replace(BELIEFS, error_correlation=0.3)
    together = calibrate_frames(
        MODEL, world.predicted[:1], torch.zeros(1, 10), world.K[:1], world.keypoints[:1], options=beliefs
    )
    std = together.covariance[0].diagonal().sqrt()
    assert float(((online.betas - together.betas[0]) / std).abs().max()) < 0.1
    torch.testing.assert_close(online.covariance.diagonal().sqrt(), std, rtol=0.03, atol=0)
    assert online.identity().n_images == 8


def test_a_detectors_video_is_the_calibration_of_all_its_frames() -> None:
    """Without a length: own points solved for, and the poses' room corrected (z of 8 people: -1.7 without)."""
    landmarks, generator = load_landmarks("mediapipe", ASSETS.hash), np.random.default_rng(3)
    world = simulate(ASSETS, 1, 12, SimulationOptions(0.0, 0, 0.1, (0.5, 0.08)), seed=7)
    truth = lengths_mm(ASSETS, world.betas[0].numpy(), None, ("hand",))["hand"][0]
    own = truth / 1000 * landmarks.own_share[:, None] * generator.normal(size=(21, 3))
    keypoints = detected(ASSETS, world, 0, replace(landmarks, offsets=landmarks.offsets + own), generator)
    beliefs = keypoint_options(ASSETS, PEOPLE, landmarks=landmarks)
    online = started(beliefs, K=world.K[0, 0].numpy())
    for frame in keypoints:
        online.add(frame)
    found = online.settle()
    rows = predictions_from_keypoints(keypoints_of(keypoints, world.K[0, 0].numpy()), ASSETS, beliefs, 1)
    together = calibrate_predictions(rows, ASSETS, replace(beliefs, same_video=True))[1]
    assert abs(found.hand_length_mm - together.hand_length_mm) < 0.3 * together.hand_length_std_mm
    assert found.hand_length_std_mm == pytest.approx(together.hand_length_std_mm, rel=0.1)
    assert abs(found.hand_length_mm - truth) < 2 * found.hand_length_std_mm
    apart = found.landmarks["mediapipe"] - together.landmarks["mediapipe"]
    assert np.abs(apart).max() < 0.002


def test_a_view_again_is_no_more_than_the_view(world: Simulated) -> None:
    once, often = started(), started()
    feed(once, world, frames=slice(0, 1))
    for _ in range(12):
        feed(often, world, frames=slice(0, 1))
    once.settle(), often.settle()
    torch.testing.assert_close(often.covariance, once.covariance, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(often.betas, once.betas, rtol=0, atol=0.02)
    assert often.identity().n_images == 12
    feed(often, world, frames=slice(1, 2))
    assert float(often.covariance.logdet()) < float(once.covariance.logdet()) - 0.1


def test_the_interval_shrinks_but_not_below_what_views_share(world: Simulated) -> None:
    online, widths = started(online=OnlineOptions(shared=1.0)), []
    for frame in range(8):
        feed(online, world, frames=slice(frame, frame + 1))
        widths.append(float(online.covariance.logdet()))
    free = started(online=OnlineOptions(shared=0.0))
    feed(free, world)
    assert widths[-1] > widths[0] - 3  # eight views whose errors are the same tell about as much as one
    assert float(free.covariance.logdet()) < widths[-1] - 4
    prior = lengths_mm(ASSETS, PEOPLE.betas_mean, PEOPLE.betas_covariance)["hand"][1]
    assert free.identity().hand_length_std_mm < online.identity().hand_length_std_mm < prior


def test_few_key_frames_are_kept_and_little_is_lost(world: Simulated) -> None:
    all_of_them, few = started(), started(online=OnlineOptions(kept=3))
    for online in (all_of_them, few):
        feed(online, world)
        online.settle()
    assert sum(view.seen is not None for view in few._own.all) == 3
    std = all_of_them.covariance.diagonal().sqrt()
    assert float(((few.betas - all_of_them.betas) / std).abs().max()) < 0.5


def test_a_ruler_counts_from_the_start_and_is_doubted_where_it_contradicts(world: Simulated) -> None:
    told = started(hand_length_mm=170.0, hand_length_std_mm=3.0)
    empty = told.identity()
    assert empty.n_images == 0 and not told.is_ready
    assert abs(empty.length_mm - 170) < 1.5 and empty.hand_length_std_mm < 3.0
    feed(told, world)
    assert told.identity().scale_evidence == "ruler" and told.conflict() is None and told.is_ready
    feed(wrong := started(hand_length_mm=110.0, hand_length_std_mm=1.0), world)
    assert "110.0 ± 1.0 mm" in str(wrong.conflict()) and not wrong.is_ready


def test_another_persons_hand_is_noticed_and_the_same_hand_is_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    exact = replace(BELIEFS, noise=KeypointNoise(std_px=0.3, loss="none"), prior=PosePriorOptions(0.05, 0.05))
    world = simulate(ASSETS, 2, 12, SimulationOptions(noise_px=0.3, pose_noise=0.05), seed=11)
    online = started(exact, online=OnlineOptions(probation=4, shared=0.0))
    feed(online, world, frames=slice(0, 6))
    alone = online.identity()
    feed(online, world, person=1, frames=slice(0, 6), track=7)
    assert "would look so different" in online.strangers[7] and "track 7 is another person's hand" in caplog.text
    np.testing.assert_array_equal(online.identity().betas, alone.betas)
    feed(online, world, frames=slice(6, 12), track=8)
    assert 8 not in online.strangers and online.identity().n_images == 12


def test_two_hands_of_one_side_at_once_are_two_peoples(world: Simulated) -> None:
    online = started(online=OnlineOptions(probation=3, beside=2))
    for frame, (first, second) in enumerate(((1, 2), (2, 1))):  # whichever comes first
        assert not online.strangers  # a side may be named wrongly once
        for track in (first, second):
            one = slice(frame, frame + 1)
            feed(online, world, frames=one, track=track, instant=float(frame))
    assert online.strangers == {2: "two right hands are seen at once"}
    assert online.identity().n_images == 2
    feed(online, world, frames=slice(2, 5), track=3, instant=9.0)  # alone: the same person, come back
    assert online.identity().n_images == 5


def test_a_left_hand_is_a_right_one_in_the_mirror(world: Simulated) -> None:
    right, left = started(), started()
    feed(right, world, frames=slice(0, 3))
    flip = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    for frame in range(3):
        K = world.K[0, frame].clone()
        K[0, 1:] *= -1
        left.add(world.keypoints[0, frame] * flip, K=K, pose=world.predicted[0, frame], hand="left")
    np.testing.assert_allclose(left.identity().betas, right.identity().betas, atol=1e-9)
    assert (left.identity().side, right.identity().side) == ("left", "right")


def test_keypoints_alone_are_enough(world: Simulated) -> None:
    online = OnlineCalibration(world.K[0, 0], assets=ASSETS)
    for frame in range(2):
        identity = online.add(world.keypoints[0, frame], np.ones(21))
    assert identity.n_images == 2 and identity.method == "online"


def test_frames_that_cannot_be_used_change_nothing(world: Simulated) -> None:
    online = started()
    feed(online, world, frames=slice(0, 2))
    before = online.identity()
    bad = world.keypoints[0, 2].clone()
    bad[3] = torch.nan
    for keypoints, confidence in ((bad, None), (world.keypoints[0, 2], np.zeros(21)), (bad * 0 + 5, None)):
        online.add(keypoints, confidence, K=world.K[0, 2], pose=world.predicted[0, 2])
    after = online.identity()
    np.testing.assert_array_equal(after.betas, before.betas)
    assert after.n_images == 2 and sum(online.skipped.values()) == 3


def test_what_is_no_frame_is_refused_with_the_remedy(world: Simulated) -> None:
    with pytest.raises(CalibrationError, match="need K"):
        started().add(world.keypoints[0, 0])
    with pytest.raises(CalibrationError, match=r"\(21,2\) px"):
        started().add(world.keypoints[0, 0, :20], K=world.K[0, 0])
    with pytest.raises(CalibrationError, match=r"confidence spans \[90, 90\]"):
        started().add(world.keypoints[0, 0], np.full(21, 90.0), K=world.K[0, 0])
    for name, value in (("pose", np.zeros((16, 3))), ("betas", np.zeros(11))):
        with pytest.raises(CalibrationError, match=f"{name} has shape"):
            started().add(world.keypoints[0, 0], K=world.K[0, 0], **{name: value})
    for K in (world.K[0, 0].T, -world.K[0, 0]):
        with pytest.raises(ValueError, match="of all frames: K is"):
            OnlineCalibration(K=K)
    with pytest.raises(CalibrationError, match="depth"):
        started(replace(BELIEFS, depth_mean=0.8))


def test_the_identity_is_a_file_like_any_other(world: Simulated, tmp_path) -> None:
    first, second = started(), started()
    feed(first, world, frames=slice(0, 4))
    feed(second, world, frames=slice(4, 8))
    first.settle().save(tmp_path / "first.json")
    merged = merge_identities([load_identity(tmp_path / "first.json"), second.settle()], ASSETS, PEOPLE)
    assert merged.n_images == 8 and merged.hand_length_std_mm < first.identity().hand_length_std_mm
    with pytest.raises(CalibrationError, match="share images"):
        merge_identities([first.identity(), first.identity()], ASSETS, PEOPLE)
    again = keypoints_of(world.keypoints[0, :4].numpy(), world.K[0, :4].numpy())
    assert set(first.identity().image_ids) <= set(again.image_id.tolist())  # of the same frames, calibrated at once
