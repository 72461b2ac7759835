"""What calibration is given: views of one instant, which images, copies, populations and a network's errors."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import roma
import torch

from benchmarks.scenes.calibration_cases import simulated_scores
from benchmarks.scenes.simulation import SimulationOptions, second_camera, simulate
from datasets import open_labels
from src.personalization.calibration.data_set_evidence import with_evidence
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.images import Images, ViewGroups, choose_images, rows_by_subject
from src.personalization.calibration.measure_population import measure_network, pose_error_covariance
from src.personalization.calibration.population import (
    CalibrationOptions,
    Population,
    calibration_options,
    with_population,
)
from src.personalization.fitting.fit import FitOptions, observe
from src.personalization.pairing import annotations_of
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.frame_terms import join_views
from src.personalization.terms.inputs import check_frames
from template import load_hand_assets
from template.assets import STAND_IN_PATH
from template.kinematics import JointsModel
from utils.artifacts import Predictions

ASSETS = load_hand_assets()
CLEAN = SimulationOptions(0.0, 0.0, 0.0, (0.85, 0.05))


def rows_of(
    persons: int, frames: int, options: SimulationOptions = CLEAN, **changes: object
) -> tuple[Predictions, object]:
    """Predictions of simulated people and the world that they are of."""
    world = simulate(ASSETS, persons, frames, options, seed=5)
    betas = np.repeat(world.betas.numpy(), frames, axis=0)
    return world.predictions(ASSETS, first_subject=1, betas=betas, **changes), world


def test_views_of_an_instant_are_one_frame() -> None:
    """Of a true hand: the first usable view's frame, its wrist and pose, seen by both cameras where the points are."""
    model, first = JointsModel(ASSETS), simulate(ASSETS, 1, 3, CLEAN, seed=2)
    second, camera = second_camera(first, CLEAN)
    pose, K, keypoints = (
        torch.stack([getattr(one, name)[0] for one in (first, second)], dim=1).flatten(0, 1)
        for name in ("pose", "K", "keypoints")
    )
    keypoints[4] = torch.nan  # the first view of the last instant is of no use
    inputs = check_frames(pose, first.betas.expand(6, 10), K, keypoints, None)
    views = ViewGroups(np.repeat([7, 3, 9], 2), np.tile(np.stack([np.eye(4), camera.numpy()]), (3, 1, 1)))
    seen, starts, status = join_views(
        observe(model, inputs, CalibrationOptions()), inputs, views.instant, views.camera_to_world
    )
    assert status.tolist() == [0, 0, 0] and starts.shape == (3, 16, 3, 3)
    order = [1, 0, 2]  # instants by their numbers: 3, 7, 9
    frames = [(first, 1), (first, 0), (second, 2)]
    for row, (instant, (one, frame)) in enumerate(zip(order, frames, strict=True)):
        assert instant == frame
        torch.testing.assert_close(starts[row], one.pose[0, frame], atol=1e-6, rtol=0)
        points = one.joints[0, frame][model.from_standard]
        homogeneous = torch.cat([points, torch.ones(21, 1).double()], dim=1)
        for view in range(2):
            if bool((seen.weights[row, view] == 0).all()):
                assert (row, view) == (2, 1)  # the spoiled one, which is put last
                continue
            image = homogeneous @ seen.projections[row, view].T
            torch.testing.assert_close(image[:, :2] / image[:, 2:], seen.keypoints[row, view], atol=1e-4, rtol=0)


def test_images_of_an_instant_that_do_not_count_are_not_counted() -> None:
    rows, first = rows_of(1, 4)
    second, camera = second_camera(first, CLEAN)
    both = {
        name: np.stack([getattr(rows, name), getattr(second, of)[0].numpy()], axis=1).reshape(8, *shape)
        for name, of, shape in (
            ("K", "K", (3, 3)),
            ("pose", "predicted", (16, 3, 3)),
            ("keypoints_2d", "keypoints", (21, 2)),
        )
    }
    both["keypoints_2d"][[2, 3, 5]] = 50.0  # both views of one instant, and one of another
    wide = {
        name: np.repeat(getattr(rows, name), 2, axis=0) for name in ("subject_id", "sequence_id", "is_left", "betas")
    }
    views = ViewGroups(np.repeat([7, 3, 9, 5], 2), np.tile(np.stack([np.eye(4), camera.numpy()]), (4, 1, 1)))
    pairs = replace(rows, image_id=np.arange(8), **wide, **both)
    identity = calibrate_predictions(pairs, ASSETS, options=CalibrationOptions(population=Population()), views=views)[1]
    assert (identity.n_images, identity.image_ids) == (5, [0, 1, 4, 6, 7])
    with pytest.raises(CalibrationError, match="--cameras and --wrist_depth"):
        with_evidence(pairs, None, np.arange(8), 2, True)


@pytest.mark.parametrize("wanted", [1, 3, 5, 9])
def test_whole_instants_are_chosen(wanted: int) -> None:
    instant = np.array([4, 4, 2, 2, 9])
    rows = choose_images(5, wanted, seed=1, instant=instant)
    assert all(set(np.flatnonzero(instant == name)) <= set(rows) for name in instant[rows])
    assert len(rows) == 5 if wanted >= 5 else 0 < len(rows) <= max(wanted, 2)
    with pytest.raises(CalibrationError, match="with several cameras use random"):
        choose_images(5, wanted, "confidence", confidence=np.arange(5.0), instant=instant)


def test_the_same_image_again_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    rows, _ = rows_of(1, 4, replace(CLEAN, noise_px=1.0))
    same = [0, 1, 2, 1, 0]
    again = {name: getattr(rows, name)[same] for name in ("pose", "betas", "keypoints_2d", "K", "is_left")}
    five = {"subject_id": np.ones(5, dtype=int), "sequence_id": np.zeros(5, dtype=int)}
    twice = replace(rows, image_id=np.arange(10, 15), **again, **five)
    with caplog.at_level(logging.WARNING):
        assert Images(twice).of_person(np.arange(5)).predictions.image_id.tolist() == [10, 11, 12]
    assert "2 images are copies of others (e.g. image 13)" in caplog.text
    assert Images(rows).of_person(np.array([3, 1])).predictions.image_id.tolist() == [3, 1]
    other = replace(twice, confidence=np.arange(5.0))  # one picture, but another opinion of it
    assert len(Images(other).of_person(np.arange(5)).predictions) == 5


def test_some_of_the_images() -> None:
    rows, world = rows_of(1, 4)
    views = ViewGroups(np.array([0, 0, 1, 1]), np.tile(np.eye(4), (4, 1, 1)))
    part = Images(rows, np.arange(4.0), views).rows(np.array([2, 0]))
    assert part.predictions.image_id.tolist() == [2, 0] and part.wrist_depth.tolist() == [2.0, 0.0]
    assert part.views.instant.tolist() == [1, 0]
    pose, betas, K, keypoints, trust, depth = part.tensors
    assert pose.shape == (1, 2, 16, 3, 3) and K.shape == (1, 2, 3, 3) and trust is None
    torch.testing.assert_close(keypoints[0], world.keypoints[0, [2, 0]].float())
    torch.testing.assert_close(betas[0].double(), world.betas.expand(2, 10), atol=1e-6, rtol=1e-6)
    assert depth.tolist() == [[2.0, 0.0]]
    nothing = Images(replace(rows, betas=None)).tensors
    assert not nothing[1].any() and nothing[5] is None
    told = Images(replace(rows, model_name="cmr_identity"))
    assert told.predicted_betas is None and Images(rows).predicted_betas.dtype == np.float64


def test_rows_of_each_subject() -> None:
    rows, _ = rows_of(3, 2)
    mixed = rows.select(np.array([4, 0, 2, 1, 5, 3]))
    found = rows_by_subject(mixed)
    assert {number: own.tolist() for number, own in found.items()} == {1: [1, 3], 2: [2, 5], 3: [0, 4]}
    assert list(rows_by_subject(mixed, 3)) == [3]
    with pytest.raises(CalibrationError, match=r"no image of subject 8; it has \[1, 2, 3\]"):
        rows_by_subject(mixed, 8)
    with pytest.raises(CalibrationError, match="is empty"):
        rows_by_subject(mixed.select(np.zeros(6, dtype=bool)))


def test_what_was_measured_replaces_what_was_assumed() -> None:
    """And what was not measured leaves the options as they are."""
    error, options = 0.01 * np.eye(48), FitOptions(depth_mean=0.4, depth_std=0.1)
    people = Population(depth=np.array([0.9, 0.2]), pose_error=error, keypoint_std_box=np.array(0.03))
    found = with_population(options, people, shared_error=1.5)
    assert (found.depth_mean, found.depth_std, found.noise.std_box) == (0.9, 0.2, pytest.approx(0.045))
    torch.testing.assert_close(
        found.prior.precision(torch.float64, torch.device("cpu"))[0], 100 * torch.eye(48).double()
    )
    kept = with_population(options, people, keep_depth=True)
    assert (kept.depth_mean, kept.depth_std) == (0.4, 0.1)
    assert with_population(options, Population()) == options
    calibrated = calibration_options(people)
    assert calibrated.population is people and calibrated.noise.std_box == pytest.approx(0.06)


def test_pose_errors_are_measured() -> None:
    """Errors drawn with a known covariance, which so many images fix to a few percent."""
    random = np.random.default_rng(0)
    spread = np.tile([0.05, 0.1, 0.2], 16)
    errors = torch.as_tensor(random.normal(size=(4000, 48)) * spread).view(4000, 16, 3)
    truth = roma.random_rotmat(4000 * 16, dtype=torch.float64).view(4000, 16, 3, 3)
    found = pose_error_covariance(truth @ roma.rotvec_to_rotmat(errors), truth)
    believed = (4000 * spread**2 + 50 * 0.15**2) / 4050  # fifty images' worth of the assumption, 0.15 rad
    np.testing.assert_allclose(np.sqrt(np.diag(found)), np.sqrt(believed), rtol=0.05)
    correlation = found / np.outer(spread, spread)
    assert np.abs(correlation - np.diag(np.diag(correlation))).max() < 0.08


def test_keypoint_errors_are_measured_over_the_box(caplog: pytest.LogCaptureFixture) -> None:
    rows, world = rows_of(2, 200, model_name="net")
    random, size = np.random.default_rng(1), 0.03
    box = np.ptp(rows.keypoints_2d, axis=1).max(axis=1)
    noisy = rows.keypoints_2d + size * box[:, None, None] * random.normal(size=rows.keypoints_2d.shape)
    truth = {
        "pose": world.pose.flatten(0, 1).numpy(),
        "joints": world.joints.flatten(0, 1).numpy(),
        "betas": rows.betas,
        "valid": np.arange(400) % 10 > 0,
    }
    noisy[::10] = 0.0  # what is not annotated does not count
    with caplog.at_level(logging.WARNING):
        found = measure_network(replace(rows, keypoints_2d=noisy), truth)
    assert "2 people: predicted shapes will not be evidence" in caplog.text and "network_gain" not in found
    assert found["model_name"] == "net" and float(found["keypoint_std_box"]) == pytest.approx(size, rel=0.12)
    assert np.diag(found["pose_error"]).max() < 0.02  # the poses are true: only the assumption is left


def test_labels_are_opened_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both hands, whoever is there; looked up by image number."""
    rows, _ = rows_of(1, 3, dataset="dex_ycb", split="s1_val")
    columns = {"image_id": np.array([2, 5, 0, 1]), "subject_id": np.ones(4, dtype=int), "pose": np.arange(4),
               "is_left": np.zeros(4, dtype=bool), "K_image": rows.K[[2, 0, 0, 1]]}  # fmt: skip
    opened = []
    monkeypatch.setattr(
        "datasets.build_dataset",
        lambda *given, **options: opened.append((given, options)) or SimpleNamespace(columns=columns, root="there"),
    )
    dataset = open_labels("dex_ycb", "root", rows.split, mano_dir="there")
    whole = {"side": "both", "allow_missing_subjects": True, "labels_only": True}
    assert opened[0] == (("dex_ycb", "root", "s1_val"), whole | {"mano_dir": "there"})
    assert annotations_of(dataset, rows)["pose"].tolist() == [2, 3, 0]
    with pytest.raises(CalibrationError, match=r"image 7 \(1 in all\) is not in split 's1_val'"):
        annotations_of(dataset, replace(rows, image_id=np.array([0, 1, 7])))
    with pytest.raises(CalibrationError, match="subject_id of image"):
        annotations_of(dataset, replace(rows, subject_id=np.full(3, 4)))
    with pytest.raises(
        CalibrationError, match="is_left of image 1 is True in Predictions, but False in the data set at"
    ):
        annotations_of(dataset, replace(rows, is_left=np.array([False, True, False])))
    with pytest.raises(CalibrationError, match="K of image 0"):
        annotations_of(dataset, replace(rows, K=rows.K.swapaxes(1, 2)))


def test_the_simulation_of_calibrations_runs() -> None:
    """One ruler a person, each with an error of its own."""
    args = SimpleNamespace(counts=[2], persons=4)
    scores = simulated_scores(args, load_hand_assets(STAND_IN_PATH))
    assert {name for name, _ in scores.errors} >= {"joint", "joint, ruler", "joint, two cameras", "mean", "bound"}
    assert all(np.isfinite(values).all() and len(values) == 4 for values in scores.errors.values())
