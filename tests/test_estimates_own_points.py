"""A detector's results: calibrated as its photos are, and fitted through the person's own points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.scenes.simulation import Simulated, SimulationOptions, detected, simulate
from src.personalization.calibration.from_keypoints import (
    keypoint_options,
    keypoints_of,
    predictions_from_keypoints,
)
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.estimates.evidence import Estimates, prepare
from src.personalization.estimates.people import people_of
from src.personalization.estimates.personalise import calibrate_estimates, personalise_rows
from src.personalization.landmarks.model import LandmarkModel, load_landmarks
from src.personalization.terms.hand_size import LengthCue, lengths_mm
from template import HandAssets, load_hand_assets
from template.assets import STAND_IN_PATH
from template.kinematics import joints_model, posed_points
from utils.artifacts import Identity, Predictions
from utils.camera import project

ASSETS: HandAssets = load_hand_assets(STAND_IN_PATH)
LANDMARKS: LandmarkModel = load_landmarks("mediapipe", ASSETS.hash)
COUNT = 24
#: m, of a coordinate of the people's own points.
OWN = 0.006


@pytest.fixture(scope="module")
def people() -> tuple[Simulated, list[Identity]]:
    """Two people of `COUNT` pictures each, whose points lie at places of their own."""
    world = simulate(ASSETS, 2, COUNT, SimulationOptions(depth=(0.35, 0.7), uniform_depth=True, focal=700.0), seed=12)
    own = OWN * np.random.default_rng(0).normal(size=(2, 21, 3))
    lengths = [lengths_mm(ASSETS, betas.numpy(), None, ("hand",))["hand"][0] for betas in world.betas]
    return world, [
        Identity(betas.numpy(), ASSETS.name, ASSETS.hash, length, landmarks={"mediapipe": points})
        for betas, length, points in zip(world.betas, lengths, own, strict=True)
    ]


def ready(world: Simulated, identities: list[Identity], rows: list[int]) -> Estimates:
    """What mediapipe would say of the pictures of these people, with little noise."""
    points, generator = [], torch.Generator().manual_seed(1)
    for row in rows:
        model = joints_model(ASSETS, LANDMARKS.of_person(identities[row]))
        rest = model.rest_points(world.betas[row][None]).expand(COUNT, -1, -1)
        points.append(
            posed_points(model, world.pose[row], rest).points[:, model.to_standard] + world.joints[row, :, :1]
        )
    seen, K = torch.cat(points), torch.cat([world.K[row] for row in rows])
    keypoints = project(seen, K) + torch.randn(len(seen), 21, 2, generator=generator, dtype=torch.float64)
    number = np.arange(len(seen))
    found = Predictions(
        image_id=number, subject_id=np.repeat(rows, COUNT), sequence_id=0 * number, is_left=number < 0,
        model_name="mediapipe", K=K.numpy(), keypoints_2d=keypoints.numpy(), joints_3d=(seen - seen[:, :1]).numpy(),
    )  # fmt: skip
    return prepare(found, ASSETS, people_of(ASSETS), landmarks=LANDMARKS, theirs=False)


def error(found: np.ndarray, world: Simulated, rows: list[int]) -> float:
    """Mean distance of joints (N,21,3) m about the wrist, mm."""
    true = torch.cat([world.joints[row] for row in rows]).numpy()
    return 1000 * float(np.linalg.norm(found - found[:, :1] - true + true[:, :1], axis=2).mean())


@pytest.mark.parametrize("rows", [[0], [0, 1]])
def test_own_points_are_used(people: tuple[Simulated, list[Identity]], rows: list[int]) -> None:
    world, identities = people
    seen = ready(world, identities, rows)
    known = {row: identities[row] for row in rows}
    plain = {row: replace(identity, landmarks={}) for row, identity in known.items()}
    own, without = (error(personalise_rows(seen, who, ASSETS).joints, world, rows) for who in (known, plain))
    assert own < 0.8 * without
    if len(rows) == 2:  # who has none of his own among those who have
        mixed = personalise_rows(seen, {0: plain[0], 1: known[1]}, ASSETS)
        split = [slice(0, COUNT), slice(COUNT, None)]
        each = [error(mixed.joints[part], world, [row]) for part, row in zip(split, rows, strict=True)]
        assert each[1] < 5.0 < each[0] and (mixed.rows.subject_id == seen.rows.subject_id).all()


def test_a_calibration_solves_for_them(people: tuple[Simulated, list[Identity]]) -> None:
    world, identities = people
    seen = ready(world, identities, [0])
    cue = LengthCue("hand", identities[0].hand_length_mm / 1000, 0.002)
    found = calibrate_estimates(seen, ASSETS, people_of(ASSETS), (cue,), same_video=False)[0]
    off, true = found.landmarks["mediapipe"], identities[0].landmarks["mediapipe"]
    assert np.linalg.norm(off - true, axis=1).mean() < 0.8 * np.linalg.norm(true, axis=1).mean()
    trusted = replace(seen, trust=replace(seen.trust, finger_std=0.5))  # measured by the user: as it says
    assert not calibrate_estimates(trusted, ASSETS, people_of(ASSETS), same_video=False)[0].landmarks


def test_sizes_are_not_drawn_small() -> None:
    """Of hands whose size nothing tells: noise, and points that lie elsewhere than on others, say neither small nor
    large (28 mm too small, before points were taken relative to the hand's size and poses integrated out)."""
    world = simulate(ASSETS, 8, 12, SimulationOptions(depth=(0.35, 0.7), uniform_depth=True, focal=700.0), seed=1)
    generator, people, errors = np.random.default_rng(1), people_of(ASSETS), []
    options = replace(keypoint_options(ASSETS, people, landmarks=LANDMARKS), same_video=False)
    for number, (betas, K) in enumerate(zip(world.betas, world.K, strict=True)):
        length = lengths_mm(ASSETS, betas.numpy(), None, ("hand",))["hand"][0]
        own = {"mediapipe": 0.188 * LANDMARKS.own_share[:, None] * generator.normal(size=(21, 3))}
        person = Identity(betas.numpy(), ASSETS.name, ASSETS.hash, length, landmarks=own)
        keypoints = detected(ASSETS, world, number, LANDMARKS.of_person(person), generator)
        rows = predictions_from_keypoints(keypoints_of(keypoints, K), ASSETS, options, 1)
        found = calibrate_predictions(rows, ASSETS, options, num_images=None)[1]
        errors.append(found.hand_length_mm - length)
    assert abs(np.mean(errors)) < 8
