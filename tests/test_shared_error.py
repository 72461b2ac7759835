"""The trial that chooses how far keypoints are distrusted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.scenes.calibration_cases import standardised
from benchmarks.scenes.simulation import SimulationOptions, simulate
from benchmarks.studies import choose_shared_error
from benchmarks.studies.choose_shared_error import population_of, try_factor
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.population import calibration_options
from template import load_hand_assets
from template.kinematics import JointsModel
from utils.artifacts import Predictions, save_predictions

PEOPLE, IMAGES, LEFT_OUT = 45, 3, 4


def test_wider_noise_gives_wider_intervals() -> None:
    assets = load_hand_assets()
    world = simulate(assets, PEOPLE, IMAGES, SimulationOptions(1.0, pose_noise=0.1), seed=1)
    random, n = np.random.default_rng(0), PEOPLE * IMAGES
    betas = np.repeat(world.betas.numpy(), IMAGES, 0)
    seen = 0.5 * betas + 0.5 * random.normal(size=(n, 10))
    rows = world.predictions(assets, first_subject=0, betas=seen, dataset="dex_ycb", split="s1_train")
    truth = {
        "betas": betas,
        "joints": world.joints.flatten(0, 1).numpy(),
        "pose": world.pose.flatten(0, 1).numpy(),
        "valid": np.ones(n, dtype=bool),
    }
    last = np.arange(n) >= (PEOPLE - LEFT_OUT) * IMAGES
    rest, own = np.flatnonzero(~last), np.flatnonzero(last)
    population = population_of(rows.select(rest), {key: value[rest] for key, value in truth.items()}, assets)
    assert 0.005 < float(population.keypoint_std_box) < 0.05 and population.network is not None
    left = rows.select(own), {key: value[own] for key, value in truth.items()}
    row = try_factor(2.0, *left, population, assets, IMAGES, "cpu")
    assert 0 <= row["lengths_68"] <= row["lengths_95"] <= 1 and row["betas_68"] <= row["betas_95"] <= 1
    assert 0.5 < row["zero_pose_mpvpe_mm"] < 8 and 1 < row["fit_position_mm"] < 100
    spreads, model = [], JointsModel(assets)
    for factor in (1.0, 4.0):
        options = calibration_options(population, shared_error=factor)
        identities = calibrate_predictions(left[0], assets, options, num_images=IMAGES)
        spreads.append(np.array([np.sqrt(np.diag(identity.covariance)) for identity in identities.values()]))
        found, covariance = (np.array([getattr(i, n) for i in identities.values()]) for n in ("betas", "covariance"))
        true = np.array([betas[number * IMAGES] for number in identities])
        z = standardised(model, *map(torch.as_tensor, (found, covariance, true)))
        np.testing.assert_allclose(z["betas"], ((found - true) / spreads[-1]).flatten())
    assert (spreads[1] > spreads[0]).mean() > 0.8
    assert [len(z[name]) for name in ("hand length", "finger lengths")] == [LEFT_OUT, 5 * LEFT_OUT]


def test_test_people_do_not_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assets = load_hand_assets()
    one = Predictions(
        image_id=np.zeros(1, dtype=np.int64),
        subject_id=np.full(1, 8),
        sequence_id=np.zeros(1, dtype=np.int64),
        is_left=np.zeros(1, dtype=bool),
        K=np.eye(3)[None],
        hand_name=assets.name,
        hand_hash=assets.hash,
        split="s1_test",
    )
    save_predictions(tmp_path / "p.npz", one)
    words = ["command", "--data_root", str(tmp_path), "--predictions", str(tmp_path / "p.npz")]
    monkeypatch.setattr(sys, "argv", words)
    assert choose_shared_error.main() == 2
    assert "'s1_test'" in capsys.readouterr().err
