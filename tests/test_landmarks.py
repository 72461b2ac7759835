"""Landmark models: learning against known offsets, fitting with them, files, and what a shared error is worth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import roma
import torch

from src.personalization.api import fit
from src.personalization.calibration.from_keypoints import keypoint_options, keypoints_of, predictions_from_keypoints
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.merging import merge_identities
from src.personalization.calibration.multi_frame import calibrate_frames
from src.personalization.calibration.population import CalibrationOptions, Population
from src.personalization.fitting.from_keypoints import KeypointFitOptions, fit_keypoints
from src.personalization.landmarks.detections import Detections, read_detections
from src.personalization.landmarks.model import LandmarkModel, load_landmarks
from src.personalization.landmarks.noise_fit import noise_sums, shared_part
from src.personalization.landmarks.shared_fit import SharedFit, SharedFitOptions, fit_shared
from src.personalization.landmarks.two_cameras import chain, read_two_cameras, shared_at_least
from src.personalization.terms.hand_size import LengthCue, lengths_mm
from src.photos.keypoint_estimator import KeypointEstimator
from template import HandAssets, HandModel
from template.kinematics import joints_model, posed_points
from utils.artifact_checks import ArtifactError, HandMismatchError
from utils.identity import Identity

K = torch.tensor([[900.0, 0, 320], [0, 900, 240], [0, 0, 1]], dtype=torch.float64)


def made_up(assets: HandAssets, spread: float = 0.008) -> LandmarkModel:
    """Points some way from the joints, a wrist far towards the fingers; the fingers' own on their bent skin."""
    offsets = np.random.default_rng(1).normal(0, spread, (21, 3)) * [1, 0.5, 1]
    offsets[0], many, bends = [-0.02, 0, 0], np.ones(21), np.zeros((21, 3))
    bends[5:] = np.tile([[0.002, -0.012, 0], [0.008, -0.004, 0], [0.005, -0.006, 0], [0.002, 0.012, 0]], (4, 1))
    return LandmarkModel(
        "made up", assets.name, assets.hash, offsets, 0.01 * many, 0.3, 0.02 * many, 0.1, 1.0, bends=bends
    )


def hands(assets: HandAssets, source: LandmarkModel, n: int, turn: float, flat: int = 0) -> tuple[torch.Tensor, ...]:
    """Points (N,21,3) m of a source on random hands, standard order, by the plain layer; their pose and betas.

    The first ``flat`` of them lie flat, the palm's normal (y at rest) along the optical axis. Betas have mean zero.
    """
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(n, 45, generator=generator, dtype=torch.float64)
    fingers = torch.as_tensor(assets.hands_mean) + scores @ torch.as_tensor(assets.hands_components)
    root = turn * torch.randn(n, 1, 3, generator=generator, dtype=torch.float64)
    pose = roma.rotvec_to_rotmat(torch.cat([root, fingers.view(n, 15, 3)], dim=1))
    pose[:flat] = torch.eye(3, dtype=torch.float64)
    pose[:flat, 0] = roma.rotvec_to_rotmat(torch.tensor([torch.pi / 2, 0, 0], dtype=torch.float64))
    betas = torch.randn(n, 10, generator=generator, dtype=torch.float64)
    betas -= betas.mean(dim=0)
    found = HandModel(assets, dtype=torch.float64, plain=True)(pose, betas)
    # The bone that ends at each point, spelled out: joints of MANO's order whose rotation carries it.
    bones = [0, 0, 13, 14, 15, 0, 1, 2, 3, 0, 4, 5, 6, 0, 10, 11, 12, 0, 7, 8, 9]
    others = [0, 13, 14, 15, 14, 1, 2, 3, 2, 4, 5, 6, 5, 10, 11, 12, 11, 7, 8, 9, 8]
    offsets, bends = torch.as_tensor(source.offsets)[..., None], torch.as_tensor(source.bends)[..., None]
    own, other = (found.transforms[:, frames, :, :3] for frames in (bones, others))
    return found.joints + (own @ (offsets - bends) + other @ bends)[..., 0], pose, betas


def test_solvers_points_are_those_of_the_plain_layer(assets: HandAssets) -> None:
    source = made_up(assets)
    wanted, pose, betas = hands(assets, source, 5, 2.0)
    model = joints_model(assets, source)
    rest = model.rest_points(betas)
    points = (posed_points(model, pose, rest).points + rest[:, :1])[:, model.to_standard]
    torch.testing.assert_close(points, wanted)


def test_learning_recovers_offsets(assets: HandAssets) -> None:
    source, n, flat = made_up(assets, 0.005), 40, 8
    points, *_ = hands(assets, source, n, 1.0, flat)
    points = (points - points.mean(dim=1, keepdim=True)).numpy()
    generator = np.random.default_rng(0)
    pixels = 1000 * points[..., :2] + generator.normal(0, 1.0, (n, 21, 2))
    seen = Detections(
        pixels - pixels.mean(axis=1, keepdims=True),
        np.ones((n, 21), dtype=bool),
        np.ptp(pixels, axis=1).max(axis=1),
        points + generator.normal(0, 0.01, points.shape),
        np.arange(n),
        [str(i) for i in range(n)],
        np.where(np.arange(n) < flat, 1000.0, np.nan),
        np.zeros(n, dtype=bool),
    )
    options = SharedFitOptions(std_box=(0.01,) * 21, world_std=(0.012,) * 21, pose_spread=1.0, steps=200)
    learned = fit_shared(assets, seen, options=options)
    # Along the fingers and across the palm; above it the prior decides.
    off = (learned.offsets - source.offsets)[:, [0, 2]]
    assert np.sqrt((off**2).mean()) < 0.5 * np.sqrt((source.offsets[:, [0, 2]] ** 2).mean())
    assert learned.misfit < 0.7 * fit_shared(assets, seen, (np.zeros((21, 3)),) * 2, options).misfit


def test_two_cameras_tell_offsets_out_of_the_palm_too(assets: HandAssets) -> None:
    source = made_up(assets, 0.005)
    points, *_ = hands(assets, source, 12, 1.0, 12)
    flat = (points - points.mean(dim=1, keepdim=True)).numpy()
    pixels = 1000 * flat[..., :2]
    seen = Detections(
        pixels,
        np.ones((12, 21), dtype=bool),
        np.ptp(pixels, axis=1).max(axis=1),
        flat,
        np.arange(12),
        [str(i) for i in range(12)],
        np.full(12, 1000.0),
        np.zeros(12, dtype=bool),
    )
    bent, *_ = hands(assets, source, 20, 1.0)
    more = seen.and_in_space(1.2 * bent.numpy() + [0.3, 0, 2], "two cameras")
    assert more.in_space.sum() == 20 and not more.inside[more.in_space].any() and len(more.names) == 13
    options = SharedFitOptions(space_std=0.003, pose_spread=1.0, steps=200)
    errors = []
    for evidence in (seen, more):
        off = fit_shared(assets, evidence, options=options).offsets - source.offsets
        errors.append(np.sqrt(np.square(off - off.mean(axis=0)).mean()))  # all moved alike is a place of the hand
    assert errors[1] < 0.75 * errors[0], errors


def test_skin_of_bent_fingers_is_learned(assets: HandAssets) -> None:
    source = made_up(assets, 0.004)
    points, *_ = hands(assets, source, 60, 1.0)
    seen = Detections.in_space_only(points.numpy(), np.arange(60) // 3, [str(i) for i in range(20)])
    options = SharedFitOptions(space_std=0.002, pose_spread=1.0, steps=250)
    found, plain = (fit_shared(assets, seen, options=replace(options, bend_std=std)) for std in ((0.01,) * 3, None))
    assert not plain.bends.any()
    off = (found.bends - source.bends)[5:, :2]
    assert np.sqrt((off**2).mean()) < 0.5 * np.sqrt((source.bends[5:, :2] ** 2).mean())


def test_noise_is_learned(assets: HandAssets) -> None:
    source, n, noise = made_up(assets, 0.005), 24, 0.02
    points, *_ = hands(assets, source, n, 0.8)
    points = (points - points.mean(dim=1, keepdim=True)).numpy()
    box = np.ptp(points[..., :2], axis=1).max(axis=1)
    generator = np.random.default_rng(0)
    pixels = 1000 * (points[..., :2] + noise * box[:, None, None] * generator.normal(size=(n, 21, 2)))
    seen = Detections(
        pixels - pixels.mean(axis=1, keepdims=True),
        np.ones((n, 21), dtype=bool),
        1000 * box,
        points,
        np.arange(n),
        [str(i) for i in range(n)],
        np.full(n, np.nan),
        np.zeros(n, dtype=bool),
    )
    for start in (0.012, 0.035):
        model = replace(source, std_box=np.full(21, start))
        for _ in range(3):
            model = noise_sums(assets, seen, model).improved(model)
        assert 0.75 * noise < model.std_box.mean() < 1.25 * noise, start
        assert 0.6 < model.pose_spread < 1.6


def test_what_repeats_in_a_persons_pictures() -> None:
    generator, people, pictures = np.random.default_rng(0), 30, 12
    n = people * pictures
    person = np.repeat(np.arange(people), pictures)
    turns = roma.random_rotmat(n * 21).view(n, 21, 3, 3).double().numpy()
    seen = Detections(
        np.zeros((n, 21, 2)),
        np.ones((n, 21), dtype=bool),
        np.ones(n),
        np.zeros((n, 21, 3)),
        person,
        [str(i) for i in range(people)],
        np.full(n, np.nan),
        np.zeros(n, dtype=bool),
    )
    for share in (0.0, 0.3, 0.8):
        fixed = np.sqrt(share) * generator.normal(size=(people, 21, 3))[person]
        own = np.sqrt(1 - share) * generator.normal(size=(n, 21, 3))
        residuals = np.einsum("nlab,nlb->nla", turns, fixed + own)[..., :2]
        fit = SharedFit(np.zeros((21, 3)), np.zeros((21, 3)), np.zeros((people, 10)), 0.0, residuals, turns)
        assert shared_part(fit, seen) == pytest.approx(share, abs=0.05)


def test_two_cameras_are_read(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    points = generator.uniform(-0.1, 0.1, (6, 21, 3)) + [0, 0, 0.8]
    rotation = roma.rotvec_to_rotmat(torch.tensor([0.0, -0.5, 0.1], dtype=torch.float64)).numpy()
    shift, distortion = np.array([0.4, 0.0, 0.2]), np.array([0.1, -0.05, 0.001, 0.002, 0.0])
    views = []
    for rotate, move in ((np.eye(3), np.zeros(3)), (rotation, shift)):
        spread = cv2.projectPoints(points.reshape(-1, 3), rotate, move, K.numpy(), distortion)[0]
        views.append(spread.reshape(6, 21, 2))
    frames = [
        {f"camera_{c}": [{"keypoints_2d": views[c][i].tolist()}] * (1 + (i == 5)) for c in (0, 1)} for i in range(6)
    ]
    camera = {"K": K.tolist(), "distortion": distortion.tolist()}
    content = {"cameras": [camera] * 2, "R": rotation.tolist(), "T": shift.tolist(), "frames": frames}
    (tmp_path / "two.json").write_text(json.dumps(content))
    found = read_two_cameras(tmp_path / "two.json")
    assert len(found.hands) == 5  # two hands at the last instant
    np.testing.assert_allclose(found.points[0], points[:5], atol=1e-5)
    np.testing.assert_allclose(found.points[1], points[:5] @ rotation.T + shift, atol=1e-5)
    half = found.first_half(0.187)
    assert len(half.hands) == 2 and np.median(chain(half.points[1])) == pytest.approx(0.187)
    scene = json.loads((tmp_path / "two.json").read_text())
    scene["frames"][0]["camera_0"][0]["side"] = "left"
    (tmp_path / "left.json").write_text(json.dumps(scene))
    with pytest.raises(ValueError, match="left.json: a left hand"):
        read_two_cameras(tmp_path / "left.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="bad.json is no file of two cameras"):
        read_two_cameras(tmp_path / "bad.json")


def test_the_shipped_files_part_that_repeats(assets: HandAssets) -> None:
    """As the command in the file finds it, whatever calibrations of today solve for besides."""
    file = Path(__file__).resolve().parents[2] / "shared/data/detections/stereo_desk.json"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    source = load_landmarks("mediapipe", assets.hash)
    scene = read_two_cameras(file).first_half(0.187)
    assert shared_at_least(assets, scene, source, 0.187) == source.correlation


def test_hands_are_fitted_better_through_their_landmarks(assets: HandAssets) -> None:
    source = made_up(assets)
    points, pose, betas = hands(assets, source, 6, 0.4)
    image = (points + torch.tensor([0.0, 0, 0.6], dtype=torch.float64)) @ K.mT
    keypoints = image[..., :2] / image[..., 2:]
    truth = HandModel(assets, dtype=torch.float64)(pose, betas).joints
    errors = []
    for options in (KeypointFitOptions(), KeypointFitOptions.of_source(source)):
        found = fit_keypoints(assets, keypoints, K.expand(6, 3, 3), betas=betas, world=points, options=options)
        joints = HandModel(assets, dtype=torch.float64)(found.pose, found.betas).joints
        errors.append(float(((joints - joints[:, :1]) - (truth - truth[:, :1])).norm(dim=-1).mean()))
    assert errors[1] < 0.004 < 0.5 * errors[0], errors


def test_named_landmarks_from_python(assets: HandAssets) -> None:
    source = load_landmarks("mediapipe", assets.hash)
    points, _, betas = hands(assets, source, 3, 0.3)
    image = (points + torch.tensor([0.0, 0, 0.6], dtype=torch.float64)) @ K.mT
    keypoints = image[..., :2] / image[..., 2:]
    plain, through = (fit(keypoints, K, betas=betas, landmarks=name) for name in (None, "mediapipe"))
    assert bool(through.usable.all())
    assert (through.reprojection_px < 0.5 * plain.reprojection_px).all()
    with pytest.raises(FileNotFoundError, match="there is mediapipe"):
        fit(keypoints, K, landmarks="somebody")


def test_a_persons_own_points(assets: HandAssets) -> None:
    """A detector's points lie elsewhere on somebody's hand: told from shape, kept, and used for the next picture."""
    source, own = made_up(assets), np.random.default_rng(5).normal(0, 0.004, (21, 3))
    theirs = replace(source, offsets=source.offsets + own)
    generator = torch.Generator().manual_seed(4)
    betas, n = 0.5 * torch.randn(1, 10, generator=generator, dtype=torch.float64), 24
    _, pose, _ = hands(assets, source, n, 0.6)
    model = joints_model(assets, theirs)
    place = torch.tensor([0.0, 0, 0.6], dtype=torch.float64)
    points = posed_points(model, pose, model.rest_points(betas).expand(n, -1, -1)).points[:, model.to_standard]
    seen = points + place
    image = seen @ K.mT
    keypoints = image[..., :2] / image[..., 2:]
    first, last = keypoints[:16], keypoints[16:]
    length = lengths_mm(assets, betas[0].numpy(), None, ("hand",))["hand"][0]
    beliefs = replace(
        keypoint_options(assets, Population(), landmarks=source), cues=(LengthCue("hand", length / 1000, 0.002),)
    )
    rows = predictions_from_keypoints(keypoints_of(first.numpy(), K.numpy()), assets, beliefs, 1)
    found = {
        free: calibrate_predictions(rows, assets, replace(beliefs, own_points=free), num_images=None)[1]
        for free in (False, True)
    }
    assert not found[False].landmarks and found[True].landmarks["made up"].shape == (21, 3)
    assert np.corrcoef(found[True].landmarks["made up"].ravel(), own.ravel())[0, 1] > 0.7
    truth, errors = points[16:] - points[16:].mean(dim=1, keepdim=True), []
    for identity in found.values():
        through = source.of_person(identity)
        shape = torch.as_tensor(identity.betas).expand(len(last), 10)
        options = KeypointFitOptions.of_source(through)
        posed = fit_keypoints(assets, last, K.expand(len(last), 3, 3), betas=shape, options=options)
        model = joints_model(assets, through)
        rest = model.rest_points(shape)
        there = posed_points(model, posed.pose, rest).points[:, model.to_standard]
        errors.append(float((there - there.mean(dim=1, keepdim=True) - truth).norm(dim=-1).median()))
    assert errors[1] < 0.8 * errors[0], errors
    named, told = fit(last, K, identity=found[True], landmarks=source), fit(last, K, betas=found[True].betas)
    assert named.reprojection_px.mean() < told.reprojection_px.mean()
    # Files that are merged keep the mean over their images.
    other = replace(found[True], image_ids=[100], landmarks={"made up": -own}, n_images=found[True].n_images)
    merged = merge_identities([found[True], other], assets, Population(), accept_conflict=True)
    np.testing.assert_allclose(merged.landmarks["made up"], (found[True].landmarks["made up"] - own) / 2)


def test_an_estimator_for_a_person_and_back(assets: HandAssets) -> None:
    source = made_up(assets)
    anybody, off = KeypointEstimator(assets, None, source), np.full((21, 3), 0.003)
    known = Identity(np.zeros(10), assets.name, assets.hash, 185.0, landmarks={"made up": off})
    own = anybody.of_person(known)
    np.testing.assert_allclose(own.options.landmarks.offsets, source.offsets + off)
    assert own.of_person(known) is own  # not twice
    assert own.of_person(None) is anybody and anybody.of_person(replace(known, landmarks={})) is anybody
    assert KeypointEstimator(assets).of_person(known).options.landmarks is None


def test_files(tmp_path: Path, assets: HandAssets) -> None:
    source = made_up(assets)
    source.save(tmp_path / "own.json")
    found = load_landmarks(tmp_path / "own.json", assets.hash)
    np.testing.assert_allclose(found.offsets, source.offsets, atol=6e-6)
    np.testing.assert_allclose(found.bends, source.bends, atol=6e-6)
    np.testing.assert_allclose(found.std_box, source.std_box, atol=1e-5)
    assert (found.name, found.correlation, found.pose_spread) == ("made up", 0.3, 1.0)
    with pytest.raises(HandMismatchError, match="was made with the hand model"):
        load_landmarks(tmp_path / "own.json", "0123456789ab")
    content = json.loads((tmp_path / "own.json").read_text())
    assert content["schema"] == 2
    old = {key: value for key, value in content.items() if key != "bends_mm"}
    (tmp_path / "old.json").write_text(json.dumps({**old, "schema": 1}))
    assert load_landmarks(tmp_path / "old.json", assets.hash).bends is None
    faults = {"offsets_mm": [[1, 2, 3]], "correlation": 2.0, "schema": 99, "more": 1, "std_box": [0] * 21}
    faults["bends_mm"] = [[1, 2]]
    for change in ({name: value} for name, value in faults.items()):
        (tmp_path / "bad.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(ArtifactError, match="bad.json is no landmark file"):
            load_landmarks(tmp_path / "bad.json", assets.hash)


def test_detections_are_read_by_person(tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform(10, 90, (21, 2))
    hand = {"side": "left", "side_score": 0.9, "inside": [True] * 21, "keypoints_2d": points.tolist()}
    hand["world_m"] = np.zeros((21, 3)).tolist()
    unsure = {**hand, "side_score": 0.6}
    content = {
        "many": {"pictures": [{"picture": i, "person": None, "hands": [hand, unsure]} for i in range(3)]},
        "one": {"pictures": [{"picture": i, "hands": [hand]} for i in range(50)]},
    }
    (tmp_path / "d.json").write_text(json.dumps(content))
    seen = read_detections([tmp_path / "d.json"], ["one"], {"one": 0.5})
    assert len(seen.names) == 4 and np.bincount(seen.person).tolist() == [1, 1, 1, 17]
    np.testing.assert_allclose(seen.keypoints[0], (points - points.mean(0)) * [-1, 1])
    assert np.isnan(seen.px_per_m[:3]).all() and (seen.px_per_m[3:] == 2000).all()
    first, second = seen.halves(0)
    assert not set(first.person) & set(second.person) and len(first) + len(second) == len(seen)
    with pytest.raises(ValueError, match="no set nobody"):
        read_detections([tmp_path / "d.json"], ["nobody"])
    with pytest.raises(ValueError, match="the set many is in .* and in .*: give each once"):
        read_detections([tmp_path / "d.json"] * 2)


def test_shared_error_is_worth_between_one_image_and_all(assets: HandAssets) -> None:
    source = made_up(assets)
    points, pose, _ = hands(assets, source, 6, 0.4)
    image = (points + torch.tensor([0.0, 0, 0.6], dtype=torch.float64)) @ K.mT
    keypoints = (image[..., :2] / image[..., 2:])[None]
    model, widths = joints_model(assets, source), []
    options = CalibrationOptions(noise=source.noise(), laplace=False)
    choices = (replace(options, errors_repeat=True), *(replace(options, error_correlation=c) for c in (1.0, 0.3, 0.0)))
    for choice in choices:
        found = calibrate_frames(model, pose[None], torch.zeros(1, 10), K.expand(1, 6, 3, 3), keypoints, None, choice)
        widths.append(float(found.covariance[0].logdet()))
    assert widths[0] == pytest.approx(widths[1]) and widths[1] > widths[2] + 1 > widths[3] + 2
