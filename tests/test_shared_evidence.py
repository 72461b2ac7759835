"""What one person's files and images share: merged identities, numbers of images, unseen points, written points."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import handid
from benchmarks.scenes.estimator_simulation import SIZE, estimate, write_results
from benchmarks.scenes.simulation import SimulationOptions, detected, simulate
from src.engine.estimates.tracks import frames_of
from src.estimators import read_estimates, write_estimates
from src.personalization.calibration.from_keypoints import keypoint_options, keypoints_of, predictions_from_keypoints
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.merging import merge_identities
from src.personalization.calibration.online import OnlineCalibration
from src.personalization.calibration.population import shapes_of
from src.personalization.fitting.fit import PosePriorOptions
from src.personalization.landmarks.model import load_landmarks
from src.personalization.pairing import content_ids
from template import load_hand_assets
from utils.artifacts import Identity

ASSETS = load_hand_assets(side="right")
LANDMARKS = load_landmarks("mediapipe", ASSETS.hash)


@pytest.fixture(scope="module")
def seen() -> SimpleNamespace:
    """24 pictures of a person by a detector, keypoints (24,21,2) px, noise of which a part repeats."""
    world, generator = (
        simulate(ASSETS, 1, 24, SimulationOptions(0.0, 0, 0.1, (0.5, 0.08)), seed=7),
        np.random.default_rng(2),
    )
    return SimpleNamespace(keypoints=detected(ASSETS, world, 0, LANDMARKS, generator, 0.3), K=world.K[0, 0].numpy())


def identity_of(seen: SimpleNamespace, part: slice) -> Identity:
    options = replace(keypoint_options(ASSETS, shapes_of(ASSETS), landmarks=LANDMARKS), same_video=False)
    rows = predictions_from_keypoints(keypoints_of(seen.keypoints[part], seen.K), ASSETS, options, 1)
    return calibrate_predictions(rows, ASSETS, options, num_images=None)[1]


def test_errors_that_files_share_count_once(seen: SimpleNamespace) -> None:
    """Four quarters merged know what all images know together, not more: intervals were 0.7 as wide."""
    whole, people = identity_of(seen, slice(None)), shapes_of(ASSETS)
    quarters = [identity_of(seen, slice(first, first + 6)) for first in range(0, 24, 6)]
    merged = merge_identities(quarters, ASSETS, people)
    assert merged.hand_length_std_mm == pytest.approx(whole.hand_length_std_mm, rel=0.1)
    assert abs(merged.hand_length_mm - whole.hand_length_mm) < 0.5 * whole.hand_length_std_mm
    one = merge_identities(quarters[:2], ASSETS, people)
    chained = merge_identities([one, merge_identities(quarters[2:], ASSETS, people)], ASSETS, people)
    assert chained.hand_length_std_mm == pytest.approx(merged.hand_length_std_mm, rel=0.02)
    assert merged.evidence["repeats"]["worth"] == pytest.approx(whole.evidence["repeats"]["worth"], abs=0.02)


def test_a_watched_hand_says_what_its_frames_share(seen: SimpleNamespace) -> None:
    online = OnlineCalibration(
        seen.K, options=keypoint_options(ASSETS, shapes_of(ASSETS), landmarks=LANDMARKS), assets=ASSETS
    )
    for keypoints in seen.keypoints[:4]:
        found = online.add(keypoints)
    repeats = found.evidence["repeats"]
    assert repeats["views"] == online.views and repeats["in_common"] == [0.3, 0.3]
    assert repeats["worth"] == pytest.approx(online.views / (1 + 0.3 * (online.views - 1)), abs=0.01)


def test_images_without_numbers_are_numbered_by_what_they_hold(seen: SimpleNamespace) -> None:
    """Else two sources, both numbered from 0, would seem to share images and could not be merged."""
    ids = content_ids(seen.keypoints, np.arange(24) % 2 == 0)
    assert len(set(ids)) == 24 and (ids >= 0).all()
    assert content_ids(seen.keypoints[5:7], np.array([False, True])).tolist() == ids[5:7].tolist()
    first, second = (handid.calibrate(seen.keypoints[part], K=seen.K) for part in (slice(0, 8), slice(8, 16)))
    assert not set(first.image_ids) & set(second.image_ids)


def test_points_of_no_confidence_may_be_anything(seen: SimpleNamespace) -> None:
    confidence = np.ones((8, 21))
    confidence[np.arange(8), np.arange(8)] = 0
    found = []
    for unseen in (0.0, np.nan, -3000.0):
        keypoints = np.where(confidence[..., None] > 0, seen.keypoints[:8], unseen)
        found.append(handid.calibrate(keypoints, K=seen.K, confidence=confidence, hand_length_mm=190))
    for other in found[1:]:
        np.testing.assert_allclose(other.betas, found[0].betas, atol=1e-9)
    noise = np.random.default_rng(0).uniform(100, 400, (3, 21, 2))
    keypoints, confidence = np.concatenate([noise, seen.keypoints[:8]]), np.ones((11, 21))
    keypoints[:, 20], confidence[:, 20] = -3000.0, 0.0
    assert handid.calibrate(keypoints, K=seen.K, confidence=confidence, hand_length_mm=190).n_images == 8


def test_unseen_points_do_not_tear_a_track(tmp_path: Path, seen: SimpleNamespace) -> None:
    frames, generator = 12, np.random.default_rng(0)
    keypoints = np.repeat(seen.keypoints[:1] - seen.keypoints[0].mean(axis=0) + [300, 220], frames, axis=0)
    hidden = generator.random((frames, 21)) < 0.15
    hidden[::2] = False
    keypoints[hidden] = 0.0
    names = np.array([f"frame_{number:04d}" for number in range(frames)])
    np.savez(tmp_path / "j.npz", keypoints_2d=keypoints, confidence=(~hidden).astype(float), K=seen.K,
             is_left=np.zeros(frames, bool), image=names, image_size=(640, 480))  # fmt: skip
    assert len(set(frames_of(read_estimates(tmp_path / "j.npz", "joints")).track)) == 1


def test_a_person_in_many_pictures_is_one(tmp_path: Path) -> None:
    """An entry's number in its picture says whose it is, not its number in the file."""
    found = estimate(ASSETS, "mediapipe", 1, 3, seed=4)
    instances = [
        {"frame_id": number, "instances": [{"keypoints": points.tolist(), "keypoint_scores": [0.9] * 21,
                                            "bbox": [[0, 0, 9, 9]], "bbox_score": 0.9}]}
        for number, points in enumerate(found.keypoints[0].numpy())
    ]  # fmt: skip
    (tmp_path / "video.json").write_text(json.dumps({"meta_info": {}, "instance_info": instances}))
    camera = {"K": found.world.K[0, 0].numpy()}
    rows = read_estimates(tmp_path / "video.json", "mmpose", image_size=SIZE, side="right", **camera)
    assert rows.subject_id.tolist() == [0, 0, 0]
    two = [{**one, "instances": 2 * one["instances"]} for one in instances]
    (tmp_path / "two.json").write_text(json.dumps({"meta_info": {}, "instance_info": two}))
    rows = read_estimates(tmp_path / "two.json", "mmpose", image_size=SIZE, side="right", **camera)
    assert rows.subject_id.tolist() == [0, 1] * 3


def test_written_points_are_those_that_the_detector_names(tmp_path: Path) -> None:
    """MediaPipe's wrist and tips lie elsewhere on the hand than joints: its file is written in its own points."""
    found = estimate(ASSETS, "mediapipe", 1, 10, seed=4)
    write_results(tmp_path / "mp", "mediapipe", found, 0)
    K = found.world.K[0, 0].numpy()
    rows = read_estimates(tmp_path / "mp", "mediapipe", K=K, image_size=SIZE)
    hands = handid.personalise(rows, hand_length_mm=185)
    write_estimates(tmp_path / "new", hands.released, tmp_path / "mp", "mediapipe", K=K, image_size=SIZE)
    again = read_estimates(tmp_path / "new", "mediapipe", K=K, image_size=SIZE)
    moved = handid.personalise(again, identity=hands.identities[0])
    depth = moved.joints[:, 0, 2] / hands.joints[:, 0, 2]
    assert np.abs(np.median(depth) - 1) < 0.02, depth


def test_a_pose_that_somebody_gives_brings_no_depth_and_no_network_of_ours() -> None:
    """2.5 m away and with a pose of its own network: -375 mm, and 12 px where that pose is off by 0.25 rad."""
    world = simulate(ASSETS, 1, 20, SimulationOptions(noise_px=1.0, depth=(2.5, 1e-3), focal=900.0), seed=3)
    keypoints, K, betas = world.keypoints[0].numpy(), world.K[0].numpy(), world.betas[0].numpy()
    found = handid.fit(keypoints, K, pose=world.pose[0].numpy(), betas=betas)
    off = found.joints[:, 0, 2] - world.joints[0, :, 0, 2].numpy()
    assert np.abs(off.mean()) < 0.03, off
    world = simulate(ASSETS, 1, 20, SimulationOptions(1.0, 0, 0.25, (0.8, 1e-3)), seed=3)
    given = {"pose": world.predicted[0].numpy(), "betas": world.betas[0].numpy()}
    found = handid.fit(world.keypoints[0].numpy(), world.K[0].numpy(), **given)
    assert found.reprojection_px.mean() < 3


def test_one_stated_spread_leaves_the_other_as_measured() -> None:
    root = torch.randn(48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    measured = PosePriorOptions(covariance=root @ root.T + torch.eye(48))
    stated = measured.stated(root_std=0.1).covariance
    torch.testing.assert_close(stated[3:, 3:], measured.covariance[3:, 3:])
    torch.testing.assert_close(stated[:3, :3], 0.01 * torch.eye(3, dtype=torch.float64))
    assert not stated[:3, 3:].any() and not stated[3:, :3].any()
    assert PosePriorOptions(torch.inf, torch.inf).stated(finger_std=0.1) == PosePriorOptions(torch.inf, 0.1)
