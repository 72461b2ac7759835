"""Images that repeat each other: frames of a video tell less than their number, independent images do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.scenes.simulation import Simulated, SimulationOptions, simulate
from options.calibrate import get_args_parser
from src.personalization.calibration.command import stated_options
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.images import mean_hand_points
from src.personalization.calibration.population import CalibrationOptions, Population
from src.personalization.calibration.views import Repeats, videos_of, views_of
from src.personalization.fitting.fit import PosePriorOptions
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.noise import KeypointNoise
from template import load_hand_assets
from template.kinematics import JointsModel
from utils.artifacts import Predictions
from utils.identity import Identity

ASSETS = load_hand_assets()
MODEL = JointsModel(ASSETS)
BELIEFS = CalibrationOptions(
    PosePriorOptions(0.25, 0.25), KeypointNoise(std_px=2.0, loss="none"), population=Population(hand_hash=ASSETS.hash)
)


def rows_of(world: Simulated, person: int, times: int = 1, jitter_px: float = 0.0) -> Predictions:
    """Each image of a person so many times: its errors are those of the first, but for ``jitter_px``."""
    pose, K, keypoints = (
        value[person].repeat_interleave(times, dim=0).numpy() for value in (world.predicted, world.K, world.keypoints)
    )
    count = len(pose)
    moved = jitter_px * np.random.default_rng(person).normal(size=keypoints.shape)
    none = np.zeros(count, dtype=np.int64)
    return Predictions(
        np.arange(count), none + 1, none, none > 0, K, pose=pose, keypoints_2d=keypoints + moved,
        hand_name=ASSETS.name, hand_hash=ASSETS.hash,
    )  # fmt: skip


def calibrated(rows: Predictions, options: CalibrationOptions = BELIEFS) -> Identity:
    return calibrate_predictions(rows, ASSETS, options, num_images=None)[1]


def test_the_interval_of_a_video_holds_although_neighbours_share_their_errors() -> None:
    """Four views, each for sixteen frames: as independent images they were four times too sure."""
    world = simulate(ASSETS, 6, 4, SimulationOptions(), seed=31)
    standardised: dict[str, list[np.ndarray]] = {"told": [], "each": []}
    for person, truth in enumerate(world.betas.numpy()):
        rows = rows_of(world, person, 16, jitter_px=0.1)
        for name, options in (("told", BELIEFS), ("each", replace(BELIEFS, same_video=False))):
            found = calibrated(rows, options)
            standardised[name].append((found.betas - truth) / np.sqrt(np.diag(found.covariance)))
        assert found.evidence["repeats"]["worth"] == 64
    told, each = (np.array(standardised[name]) for name in ("told", "each"))
    assert (np.abs(told) < 1.96).mean() > 0.9 and np.sqrt((told**2).mean()) < 1.3
    assert (np.abs(each) < 1.96).mean() < 0.75  # so the case is one


def test_frames_of_a_view_tell_as_much_as_one_and_views_share_some() -> None:
    world = simulate(ASSETS, 1, 3, SimulationOptions(), seed=4)
    once, often = calibrated(rows_of(world, 0)), calibrated(rows_of(world, 0, 9, 1e-4))
    told = {"views": 3, "videos": 1, "in_common": [0.0, 0.3], "worth": pytest.approx(3 / 1.6, abs=0.01)}
    assert often.evidence["repeats"] == told
    shared = calibrated(rows_of(world, 0), replace(BELIEFS, error_correlation=0.3))
    np.testing.assert_allclose(often.covariance, shared.covariance, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(often.betas, shared.betas, atol=0.01)
    assert often.n_images == 27 and often.hand_length_std_mm > once.hand_length_std_mm


def test_independent_images_count_in_full() -> None:
    world = simulate(ASSETS, 1, 8, SimulationOptions(), seed=12)
    told, stated = (calibrated(rows_of(world, 0), replace(BELIEFS, same_video=same)) for same in (None, False))
    np.testing.assert_array_equal(told.betas, stated.betas)
    assert told.evidence["repeats"] == {"views": 8, "videos": 0, "in_common": [0.0, 0.3], "worth": 8.0}
    video = calibrated(rows_of(world, 0), replace(BELIEFS, same_video=True))
    assert video.evidence["repeats"]["worth"] == pytest.approx(8 / (1 + 0.3 * 7), abs=0.01)
    assert np.linalg.slogdet(video.covariance)[1] > np.linalg.slogdet(told.covariance)[1] + 0.5


def test_what_is_repeated_is_told_from_the_hands() -> None:
    """A hand that turns by 0.05 rad a frame, and one that is held still in between."""
    angle = torch.tensor([0, 0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 1.5], dtype=torch.float64)
    pose = torch.eye(3, dtype=torch.float64).repeat(len(angle), 16, 1, 1)
    pose[:, 0, 0, 0] = pose[:, 0, 2, 2] = angle.cos()
    pose[:, 0, 0, 2], pose[:, 0, 2, 0] = angle.sin(), -angle.sin()
    pose[4:7] = pose[4]
    points = mean_hand_points(MODEL, pose)
    step = float((points[1] - points[0]).norm(dim=-1).mean())  # some 4 mm
    np.testing.assert_array_equal(views_of(points, 1.5 * step), [0, 0, 1, 1, 2, 2, 2, 3])
    assert set(videos_of(points, np.zeros(8))) == {0}
    assert len(set(videos_of(points, np.array([0, 1, 2, 3, 4, 5, 6, 7])))) == 8
    pose[2] = torch.nan
    assert list(views_of(mean_hand_points(MODEL, pose), 1.5 * step)) == [0, 0, 1, 2, 2, 2, 2, 3]


def test_weights_of_views_and_videos() -> None:
    """Two videos: one of two views, seen three times and once, one of one view seen twice; and an image."""
    repeats = Repeats(np.array([0, 0, 0, 3, 4, 4, 6]), np.array([0, 0, 0, 0, 4, 4, 6]))
    two = 1 / 1.3
    np.testing.assert_allclose(repeats.weights(0.3), [two / 3, two / 3, two / 3, two, 0.5, 0.5, 1])
    used = np.array([True, False, True, False, True, True, True])  # the second view is not seen then
    np.testing.assert_allclose(repeats.weights(0.3, used)[used], [0.5, 0.5, 0.5, 0.5, 1])
    assert repeats.weights(1.0).sum() == pytest.approx(3)


def test_what_is_assumed_can_be_stated() -> None:
    def stated(*words: str) -> CalibrationOptions:
        return stated_options(get_args_parser().parse_args(["--predictions", "a.npz", *words]), BELIEFS)

    assert stated().same_video is None and stated("--same_video").same_video is True
    assert stated("--no-same_video").same_video is False
    part = stated("--error_correlation", "0.5")
    assert (part.error_correlation, part.video_correlation, part.in_common) == (0.5, 0.5, (0.5, 0.0))
    assert replace(BELIEFS, errors_repeat=True).in_common == (1.0, 0.0) and BELIEFS.in_common == (0.0, 0.3)
    with pytest.raises(SystemExit):
        stated("--error_correlation", "1.5")
    with pytest.raises(CalibrationError, match="0 to 1"):
        CalibrationOptions(error_correlation=-0.1)
