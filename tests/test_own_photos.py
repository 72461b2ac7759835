"""Own photos: the detector's adapter, a hand from keypoints alone, and an identity from a folder of pictures."""

from __future__ import annotations

import importlib.util
import logging
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import roma
import torch

import src.photos.calibrate as photo_calibration
from benchmarks.scenes.simulation import Simulated, SimulationOptions, simulate
from options.calibrate import get_args_parser
from src.evaluation.shape import zero_pose_mpvpe
from src.personalization.calibration.multi_frame import calibrate_frames
from src.personalization.fitting.fit import FitOptions, PosePriorOptions, fit_frames
from src.personalization.fitting.from_keypoints import KeypointFitOptions, fit_keypoints, ray_turn
from src.personalization.landmarks.model import load_landmarks
from src.personalization.solver.status import CalibrationError, Status, usable
from src.personalization.terms.hand_size import length_gradient, lengths_mm
from src.personalization.terms.noise import KeypointNoise
from src.personalization.terms.pose_prior import FLAT_STD, FlatHand, all_round, habit_prior
from src.photos.calibrate import calibrate_photos, photo_options
from src.photos.detector.detection import Detection, mirrored
from src.photos.detector.finders import open_finder
from src.photos.detector.landmarker import open_landmarker
from src.photos.detector.mediapipe_hands import MediapipeHands
from src.photos.estimator import Keypoints
from src.photos.hands import find_photo_hands
from src.photos.keypoint_estimator import KeypointEstimator
from template import HandAssets, HandModel
from template.kinematics import JointsModel, joints_model, posed_points
from utils.artifacts import load_identity
from utils.camera import project, turn_to_ray
from utils.cameras.files import read_camera

NOISE_PX = 2.0
PHOTOS = SimulationOptions(NOISE_PX, 0.0, 0.0, (0.3, 0.8), uniform_depth=True, focal=700.0)
QUICK = KeypointFitOptions(noise=KeypointNoise(std_px=NOISE_PX), rough_steps=5, kept=2)


def hand_of(keypoints: np.ndarray, is_left: bool = False, score: float = 0.9, **more: object) -> Detection:
    return Detection(np.asarray(keypoints, dtype=np.float64), np.ones(21), is_left, score, **more)


def errors_mm(assets: HandAssets, pose: torch.Tensor, betas: torch.Tensor, world: Simulated) -> torch.Tensor:
    joints = HandModel(assets, dtype=torch.float64).joints(pose, betas, torch.zeros(len(betas), 3).double())
    truth = world.joints.flatten(0, 1)
    return 1000 * ((joints - joints[:, :1]) - (truth - truth[:, :1])).norm(dim=-1).mean(dim=1)


# The detector's adapter.


class FakeDetector:
    """mediapipe's answer for hands at known places of a big image; sees nothing in images wider than ``limit``."""

    def __init__(self, hands: list[tuple[np.ndarray, str]], whole: np.ndarray, limit: float = np.inf) -> None:
        self.hands, self.whole, self.limit, self.calls = hands, whole, limit, 0

    def process(self, image: np.ndarray) -> SimpleNamespace:
        assert image.flags["C_CONTIGUOUS"]
        self.calls += 1
        height, width = image.shape[:2]
        # Every pixel of ``whole`` holds its own coordinates, so a window says where it was cut.
        left, top = (int(value) for value in image[0, 0, :2].astype(int) * 4)
        seen = []
        for keypoints, label in self.hands:
            local = keypoints - [left, top]
            if width <= self.limit and (local.min() > 0) and (local < [width, height]).all():
                seen.append((local / [width, height], label))
        points = [[SimpleNamespace(x=x, y=y, z=0.1 * x) for x, y in hand] for hand, _ in seen]
        sides = [SimpleNamespace(label=label, score=0.8) for _, label in seen]
        return SimpleNamespace(
            multi_hand_landmarks=[SimpleNamespace(landmark=hand) for hand in points] or None,
            multi_hand_world_landmarks=[SimpleNamespace(landmark=hand) for hand in points] or None,
            multi_handedness=[SimpleNamespace(classification=[side]) for side in sides] or None,
        )


def numbered_image(width: int = 640, height: int = 480) -> np.ndarray:
    """Pixel (u,v) holds (u/4, v/4, 0)."""
    u, v = np.meshgrid(np.arange(width) // 4, np.arange(height) // 4)
    return np.stack([u, v, np.zeros_like(u)], axis=2).astype(np.uint8)


def test_adapter_swaps_sides_and_keeps_pixel_centres() -> None:
    image = numbered_image()
    keypoints = np.random.default_rng(0).uniform(200, 300, (21, 2))
    hands = MediapipeHands(FakeDetector([(keypoints, "Left")], image))(image)
    assert len(hands) == 1 and not hands[0].is_left  # its "Left" is a right hand of a picture that is no mirror image
    np.testing.assert_allclose(hands[0].keypoints_2d, keypoints)  # x * width, nothing subtracted
    np.testing.assert_allclose(hands[0].bbox, [*keypoints.min(0), *keypoints.max(0)])
    assert MediapipeHands(FakeDetector([(keypoints, "Right")], image))(image)[0].is_left
    assert MediapipeHands(FakeDetector([], image))(image) == []
    for bad in (image[..., 0], image.astype(np.float32), np.dstack([image, image[..., :1]])):
        with pytest.raises(ValueError, match="uint8 RGB"):
            MediapipeHands(FakeDetector([], image))(bad)


def test_adapter_trusts_points_outside_less() -> None:
    class Outside(FakeDetector):
        def process(self, image: np.ndarray) -> SimpleNamespace:
            points = [SimpleNamespace(x=-0.1 if i == 4 else 0.5, y=0.5 + 0.01 * i, z=0.0) for i in range(21)]
            return SimpleNamespace(
                multi_hand_landmarks=[SimpleNamespace(landmark=points)],
                multi_hand_world_landmarks=None,
                multi_handedness=[SimpleNamespace(classification=[SimpleNamespace(label="Left", score=0.7)])],
            )

    hand = MediapipeHands(Outside([], numbered_image()))(numbered_image())[0]
    assert hand.world is None and hand.keypoint_confidence[4] < 0.5
    np.testing.assert_array_equal(np.delete(hand.keypoint_confidence, 4), 1.0)


def test_small_hands_are_found_in_windows_once() -> None:
    image = numbered_image()
    one = np.random.default_rng(1).uniform([280, 210], [340, 260], (21, 2))  # in all four windows
    other = np.random.default_rng(2).uniform([20, 20], [60, 60], (21, 2))
    detector = FakeDetector([(one, "Left"), (other, "Right")], image, limit=450)
    hands = MediapipeHands(detector)(image)
    assert detector.calls > 5 and len(hands) == 2
    # Coordinates are read off the window to 4 px (see `numbered_image`).
    for truth, is_left in ((one, False), (other, True)):
        found = [hand for hand in hands if hand.is_left == is_left]
        assert np.abs(found[0].keypoints_2d - truth).max() <= 4


def test_mirror() -> None:
    points = np.random.default_rng(0).uniform(0, 99, (21, 2))
    hand = hand_of(points, world=np.ones((21, 3)))
    flipped = mirrored(hand, 100)
    assert flipped.is_left and flipped.world[0, 0] == -1
    np.testing.assert_allclose(flipped.keypoints_2d[:, 0], 99 - points[:, 0])
    np.testing.assert_allclose(mirrored(flipped, 100).keypoints_2d, points)


def test_without_mediapipe_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ImportError, match=r"pip install -r requirements-detect\.txt"):
        MediapipeHands()
    monkeypatch.setitem(sys.modules, "mediapipe", SimpleNamespace(__version__="0.10.30"))
    with pytest.raises(ImportError, match=r"0\.10\.30 .*pip install -r requirements-detect\.txt"):
        MediapipeHands()


def test_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import calibrate_from_shape_params as command
    from src.photos.detector import mediapipe_hands

    monkeypatch.setitem(sys.modules, "mediapipe", None)
    mediapipe_hands._shared.cache_clear()
    cv2.imwrite(str(tmp_path / "a.png"), numbered_image())
    arguments = ["--images", str(tmp_path), "--keypoints", "mediapipe", "--output", str(tmp_path / "i.json")]
    monkeypatch.setattr(sys, "argv", ["calibrate_from_shape_params.py", *arguments])
    assert command.main() == 2
    assert "pip install -r requirements-detect.txt" in capsys.readouterr().err
    assert not (tmp_path / "i.json").exists()


# A hand from keypoints alone.


def test_search_recovers_what_one_start_misses(assets: HandAssets) -> None:
    world = simulate(assets, 10, 1, PHOTOS, seed=3)
    keypoints, K = world.keypoints[:, 0], world.K[:, 0]
    known = fit_keypoints(assets, keypoints, K, betas=world.betas, options=QUICK)
    assert (known.status == Status.CONVERGED).all() and (known.betas_covariance == 0).all()
    error = errors_mm(assets, known.pose, world.betas, world)
    assert error.mean() < 8 and error.max() < 25
    assert 0.5 * NOISE_PX < known.reprojection_px.mean() < 2 * NOISE_PX

    # No end is worse than the one that the truth itself leads to.
    model = JointsModel(assets)
    options = FitOptions(
        PosePriorOptions(torch.inf, torch.inf), QUICK.noise, extra_priors=(habit_prior(assets),), lm=QUICK.lm
    )
    start = (world.pose[:, 0], world.transl[:, 0])
    best = fit_frames(model, world.pose[:, 0], world.betas, K, keypoints, None, options, start)
    assert (known.reprojection_px < best.reprojection_px + 0.5).all()

    # One start from the mean pose goes astray: the search is needed.
    fingers = roma.rotvec_to_rotmat(torch.as_tensor(assets.hands_mean).view(15, 3))
    mean = torch.cat([torch.eye(3).double()[None], fingers]).expand(10, 16, 3, 3)
    alone = fit_frames(model, mean, world.betas, K, keypoints, None, options)
    assert (errors_mm(assets, alone.pose, world.betas, world) > 40).sum() >= 2


def test_unknown_shape_has_an_honest_interval(assets: HandAssets) -> None:
    world = simulate(assets, 16, 1, PHOTOS, seed=4)
    found = fit_keypoints(assets, world.keypoints[:, 0], world.K[:, 0], options=QUICK)
    assert errors_mm(assets, found.pose, found.betas, world).mean() < 14
    z = []
    for row in range(16):
        betas, covariance = found.betas[row].numpy(), found.betas_covariance[row].numpy()
        assert np.linalg.eigvalsh(covariance).min() > 0
        length, std = lengths_mm(assets, betas, covariance, ("hand",))["hand"]
        z.append((length - lengths_mm(assets, world.betas[row].numpy(), None, ("hand",))["hand"][0]) / std)
    assert 0.3 < np.mean(np.square(z)) < 2.0
    depth = found.wrist_covariance[:, 2, 2].sqrt()
    assert (depth > found.wrist_covariance[:, 0, 0].sqrt()).all()  # distance is what one camera sees worst


def test_bad_hands_have_a_status_and_disturb_nobody(assets: HandAssets) -> None:
    world = simulate(assets, 3, 1, PHOTOS, seed=5)
    keypoints, K = world.keypoints[:, 0].clone(), world.K[:, 0].clone()
    alone = fit_keypoints(assets, keypoints[:1], K[:1], options=QUICK)
    keypoints[1] = torch.nan
    keypoints[2] = 7.0
    guess = torch.full((3, 21, 3), torch.nan)
    found = fit_keypoints(assets, keypoints, K, world=guess, options=QUICK)
    assert found.status.tolist() == [Status.CONVERGED, Status.KEYPOINTS_NOT_FINITE, Status.KEYPOINTS_COINCIDE]
    for value in vars(found).values():
        assert torch.isfinite(value).all()
    torch.testing.assert_close(found.pose[0], alone.pose[0], rtol=0, atol=1e-4)
    assert len(fit_keypoints(assets, keypoints[:0], K[:0], options=QUICK).status) == 0


def test_a_detectors_pose_says_what_no_keypoint_does(assets: HandAssets) -> None:
    """Said in the axes of a camera turned to the hand; hidden fingers keep it, those that are seen leave it."""
    world = simulate(assets, 6, 1, PHOTOS, seed=6)
    keypoints, K, true = world.keypoints[:, 0], world.K[:, 0], world.pose[:, 0]
    said = true.clone()
    said[:, 0] = ray_turn(K, keypoints.mean(dim=1)).mT @ true[:, 0]
    bend = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64))
    said[:, 1:] = said[:, 1:] @ bend  # every finger is said to be bent otherwise than it is
    trust = torch.ones(6, 21).double()
    trust[:, 6:9] = 0  # the index finger is hidden
    options = replace(QUICK, prediction=PosePriorOptions(0.1, 0.3))
    found = fit_keypoints(assets, keypoints, K, trust, world.betas, options=options, pose=said)
    index, middle = (torch.tensor([first, first + 1]) for first in (1, 4))
    off = [roma.rotmat_geodesic_distance(found.pose[:, part], said[:, part]) for part in (index, middle)]
    assert off[0].mean() < 0.05 and off[1].mean() > 0.15
    turned = roma.rotmat_geodesic_distance(found.pose[:, 0], true[:, 0])
    assert turned.max() < 0.2
    agreed = said.clone()
    agreed[:, 1:] = true[:, 1:]
    agreeing = fit_keypoints(assets, keypoints, K, trust, world.betas, options=options, pose=agreed)
    assert (found.cost > agreeing.cost + 1).all()  # the cost holds what was said
    usual = fit_keypoints(assets, keypoints, K, trust, world.betas, options=options)  # without a pose nothing is said
    plain = fit_keypoints(assets, keypoints, K, trust, world.betas, options=QUICK)
    torch.testing.assert_close(usual.pose, plain.pose, atol=0, rtol=0)
    assert roma.rotmat_geodesic_distance(usual.pose[:, index], said[:, index]).mean() > 0.2


def test_detectors_depth_chooses_between_ends(assets: HandAssets) -> None:
    world = simulate(assets, 24, 1, replace(PHOTOS, depth=(0.7, 0.8)), seed=5)
    keypoints, K = world.keypoints[:, 0], world.K[:, 0]
    # The palm alone, nearly flat and far away, looks the same tilted forth or back.
    palm = torch.zeros(24, 21).double()
    palm[:, [0, 5, 9, 13, 17]] = 1
    turn = ray_turn(K, keypoints.mean(dim=1))
    guess = (world.joints[:, 0] - world.joints[:, 0].mean(dim=1, keepdim=True)) @ turn
    blind = fit_keypoints(assets, keypoints, K, palm, world.betas, options=QUICK)
    helped = fit_keypoints(assets, keypoints, K, palm, world.betas, guess, QUICK)
    angles = [roma.rotmat_geodesic_distance(fit.pose[:, 0], world.pose[:, 0, 0]) for fit in (blind, helped)]
    assert (angles[0] > 0.7).sum() >= 2  # there is something to choose
    assert (angles[1] > 0.7).sum() <= 0.5 * (angles[0] > 0.7).sum()


def shown(
    assets: HandAssets, n: int, lean: float, bend: float, fingers: slice = slice(1, 13)
) -> tuple[SimpleNamespace, torch.Tensor, torch.Tensor]:
    """Hands turned anyhow in the picture, from either side, leaning (rad), fingers bent alike; keypoints, and K."""
    generator = torch.Generator().manual_seed(11)
    flat = FlatHand.of(assets)
    turns = 2 * torch.pi * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    face = turn_to_ray(flat.normal[None])[0].mT
    back = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)) @ face
    root = torch.stack([face, back]).repeat(n // 2, 1, 1) @ roma.rotvec_to_rotmat(turns * flat.normal)
    tilt = torch.nn.functional.normalize(torch.randn(n, 2, generator=generator, dtype=torch.float64), dim=1)
    tilt = torch.cat([lean * tilt, torch.zeros(n, 1)], dim=1)
    pose = torch.eye(3, dtype=torch.float64).repeat(n, 16, 1, 1)
    pose[:, 0] = roma.rotvec_to_rotmat(tilt) @ root
    pose[:, fingers] = roma.rotvec_to_rotmat(torch.tensor([0, 0, bend], dtype=torch.float64))
    pose[:, 13:] = roma.rotvec_to_rotmat(flat.about.offset[0, 13:])
    betas = torch.randn(n, 10, generator=generator, dtype=torch.float64)
    transl = torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64).expand(n, 3)
    joints = HandModel(assets, dtype=torch.float64)(pose, betas, transl).joints
    K = torch.tensor([[900.0, 0, 320], [0, 900, 240], [0, 0, 1]], dtype=torch.float64).expand(n, 3, 3)
    pixels = project(joints, K) + NOISE_PX * torch.randn(n, 21, 2, generator=generator, dtype=torch.float64)
    return SimpleNamespace(pose=pose, betas=betas, joints=joints - joints[:, :1]), pixels, K


def test_a_hand_shown_flat_is_flat(assets: HandAssets) -> None:
    """Usual hands are bent: without hands shown flat a straight one seen from above is fitted as one that leans."""
    world, keypoints, K = shown(assets, 8, 0.0, 0.0)
    heights = []
    for flat in (False, True):
        found = fit_keypoints(assets, keypoints, K, options=replace(QUICK, flat=flat))
        joints = HandModel(assets, dtype=torch.float64)(found.pose, found.betas).joints
        assert (joints - joints[:, :1] - world.joints)[..., :2].norm(dim=-1).mean() < 0.02
        heights.append((joints[:, 8::4, 2] - joints[:, [0, 5, 9, 13, 17], 2].mean(dim=1, keepdim=True)).abs().mean())
    assert heights[1] < 0.006 < 0.012 < heights[0], heights


def test_a_hand_that_leans_or_bends_is_not_shown_flat(assets: HandAssets) -> None:
    every, one = slice(1, 13), slice(1, 4)
    for lean, bend, fingers in ((1.0, 0.0, every), (0.0, 0.5, every), (0.0, 1.2, one)):
        _, keypoints, K = shown(assets, 8, lean, bend, fingers)
        with_flat, without = (
            fit_keypoints(assets, keypoints, K, options=replace(QUICK, flat=f)) for f in (True, False)
        )
        same = (with_flat.pose - without.pose).flatten(1).abs().amax(dim=1) < 1e-9
        assert same.sum() >= 7, (lean, bend, same)


def test_a_straight_hand_that_is_turned_a_little_is_mostly_told_from_one_shown_flat(assets: HandAssets) -> None:
    """Told from bent hands alone 19 of these 24 seemed flat: a straight hand turned by 17 degrees is a little short."""
    _, keypoints, K = shown(assets, 24, 0.3, 0.0)
    found = fit_keypoints(assets, keypoints, K, options=QUICK)
    assert FlatHand.of(assets).are_shown(found.pose).sum() < 12


def test_a_hand_shown_flat_does_not_hide_its_side(assets: HandAssets) -> None:
    """From the other side it is the other hand: what its keypoints say of the side, the usual poses say."""
    world, pixels, K = shown(assets, 2, 0.0, 0.0)
    about = (world.joints[0] - world.joints[0].mean(dim=0)).numpy()
    seen = Keypoints(pixels[0].numpy(), np.ones(21), "a detector", about, 0.8)
    (flat, gain), (_, usual) = (
        KeypointEstimator(assets, flat=flat)._fit(seen, K[0].numpy(), None) for flat in (True, False)
    )
    assert bool(FlatHand.of(assets).are_shown(flat.pose)[0]) and gain == usual != 0


def test_prior_of_a_hand_shown_flat(assets: HandAssets) -> None:
    flat = FlatHand.of(assets)
    for bend, lean, is_shown in ((0.0, 0.0, True), (0.0, 0.6, False), (0.4, 0.0, False)):
        world, *_ = shown(assets, 16, lean, bend)
        assert (flat.are_shown(world.pose) == is_shown).all()
    world, *_ = shown(assets, 16, 0.0, 0.0)
    prior = flat.prior(world.pose)
    cost, _ = prior.pull(prior.logarithms(world.pose.permute(2, 3, 1, 0)))
    assert cost.max() < 1e-6  # a turn in the picture's plane, seen from either side, costs nothing
    turned = world.pose.clone()
    turned[:, 0] = roma.rotvec_to_rotmat(torch.tensor([[FLAT_STD, 0, 0]], dtype=torch.float64)) @ turned[:, 0]
    moved, _ = prior.pull(prior.logarithms(turned.permute(2, 3, 1, 0)))
    torch.testing.assert_close(moved - cost, torch.full_like(cost, 0.5), rtol=0, atol=0.01)


def test_starts_cover_all_orientations() -> None:
    turns = all_round()
    assert len({tuple(turn.flatten().tolist()) for turn in turns}) == 24
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).double().expand(24, 3, 3))
    anywhere = roma.random_rotmat(2000, dtype=torch.float64)
    angle = roma.rotmat_geodesic_distance(anywhere[:, None], turns[None]).amin(dim=1)
    assert angle.max() < np.radians(63)


def test_the_best_starts_reach_the_minimum_of_all(assets: HandAssets) -> None:
    """However exact the keypoints are said to be: a start, whose fingers are not bent yet, never explains them."""
    world = simulate(assets, 24, 1, PHOTOS, seed=4)
    given = assets, world.keypoints[:, 0], world.K[:, 0]
    costs = [fit_keypoints(*given, options=replace(QUICK, starts=n)).cost for n in (24, QUICK.starts, 1)]
    worse = [(cost - costs[0] > 0.02).sum() for cost in costs]
    assert worse[1] == 0 < worse[2]  # one start alone is not enough


def test_ray_turn_looks_at_the_pixel() -> None:
    K = torch.tensor([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]]).double()[None]
    pixel = torch.tensor([[600.0, 30.0]]).double()
    ray = ray_turn(K, pixel)[0, :, 2]
    seen = K[0] @ ray
    torch.testing.assert_close(seen[:2] / seen[2], pixel[0])
    torch.testing.assert_close(ray_turn(K, K[:, :2, 2])[0], torch.eye(3).double())


# An identity from a folder of pictures.


class Album:
    """Pictures of a simulated person, far from the mean; the finder knows them by a number in the first pixel."""

    def __init__(self, folder: Path, assets: HandAssets, count: int, left: tuple[int, ...] = ()) -> None:
        self.folder, self.world = folder, simulate(assets, 1, count, replace(PHOTOS, depth=(0.35, 0.6)), seed=14)
        self.left = left
        # What the detector calls wrist, knuckles and tips, as far from the joints' pixels as its landmark model says.
        model, joints = joints_model(assets, load_landmarks("mediapipe", assets.hash)), JointsModel(assets)
        pose, transl = self.world.pose[0], self.world.transl[0]
        rest = joints.rest_points(self.world.betas).expand(count, 21, 3)
        pixels = []
        for hand in (model, joints):
            points = posed_points(hand, pose, rest).points[:, hand.to_standard] + (transl + rest[:, 0])[:, None]
            image = points @ self.world.K[0].mT
            pixels.append(image[..., :2] / image[..., 2:])
        self.keypoints = self.world.keypoints[0] + pixels[0] - pixels[1]
        for number in range(count):
            image = np.full((480, 640, 3), 128, np.uint8)
            image[0, 0] = number + 1
            cv2.imwrite(str(folder / f"{number:02d}.png"), image)
            np.save(folder / f"{number:02d}_K.npy", self.world.K[0, number].numpy())

    def find(self, image: np.ndarray) -> list[Detection]:
        number = int(image[0, 0, 0]) - 1
        if not 0 <= number < len(self.keypoints):
            return []
        hand = hand_of(self.keypoints[number].numpy())
        # K's principal point is the image's centre, so that the mirrored hand is seen by the same camera.
        return [mirrored(hand, 640) if number in self.left else hand]


def arguments(folder: Path, *more: str) -> object:
    fixed = ["--images", str(folder), "--keypoints", "mediapipe", "--output", str(folder / "identity.json")]
    return get_args_parser().parse_args([*fixed, "--keypoint_std", str(NOISE_PX), "--device", "cpu", *more])


def test_photos_to_identity(tmp_path: Path, assets: HandAssets, caplog: pytest.LogCaptureFixture) -> None:
    album = Album(tmp_path, assets, 8, left=(1, 4))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "copy.png").write_bytes((tmp_path / "03.png").read_bytes())
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((480, 640, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "odd.png"), np.full((480, 640, 3), 255, np.uint8))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")

    def find(image: np.ndarray) -> list[Detection]:
        if image.min() == 255:
            raise RuntimeError("the detector's own error")
        return album.find(image)

    with caplog.at_level(logging.WARNING):
        calibrate_photos(arguments(tmp_path), find)
    for words in ("broken.png", "copy.png: the same picture", "empty.png: no hand found", "odd.png: RuntimeError: the"):
        assert words in caplog.text
    found = load_identity(tmp_path / "identity.json")
    assert (found.n_images, found.side, found.scale_evidence, found.method) == (8, "both", "prior", "multi_frame")
    layer, truth = HandModel(assets, dtype=torch.float64), album.world.betas.numpy()
    length = lengths_mm(assets, truth[0], None, ("hand",))["hand"][0]
    assert abs(found.hand_length_mm - length) < 2.5 * found.hand_length_std_mm

    ruler = ["--hand_length_mm", f"{length:.1f}", "--hand_length_std_mm", "1.5"]
    measured = calibrate_photos(arguments(tmp_path, *ruler), album.find)[1]
    assert measured.scale_evidence == "ruler" and measured.hand_length_std_mm < 1.5 < found.hand_length_std_mm
    error, mean = (zero_pose_mpvpe(layer, betas, truth) for betas in (measured.betas[None], np.zeros((1, 10))))
    assert error < 0.5 * mean, (error, mean)

    assert measured.subject_id is None  # whoever is in the photos
    left = calibrate_photos(arguments(tmp_path, "--hand", "left", "--subject", "5"), album.find)[5]
    assert left.subject_id == 5
    assert (left.n_images, left.side) == (2, "left")
    assert set(left.image_ids) < set(found.image_ids)  # the same pictures, whatever else is in the folder


def test_photos_of_a_lens_with_distortion(tmp_path: Path, assets: HandAssets, caplog: pytest.LogCaptureFixture) -> None:
    """The hands of an album, as a fisheye sees them; right and left."""
    album, words = Album(tmp_path, assets, 8, left=(1, 4)), "fisheye:500,500,319.5,239.5,0.3,-0.1,0,0"
    lens = read_camera(words)
    rays = np.concatenate([album.keypoints.numpy(), np.ones((8, 21, 1))], axis=-1)
    album.keypoints = torch.as_tensor(lens.project(rays @ np.linalg.inv(album.world.K[0].numpy()).swapaxes(1, 2)))
    length = lengths_mm(assets, album.world.betas[0].numpy(), None, ("hand",))["hand"][0]
    ruler = ["--hand_length_mm", f"{length:.1f}", "--hand_length_std_mm", "1.5"]
    with pytest.raises(CalibrationError, match="no hand found"):
        calibrate_photos(arguments(tmp_path, "--camera", words), album.find)
    assert "00_K.npy and --camera both say what the lens is" in caplog.text
    for path in tmp_path.glob("*_K.npy"):
        path.unlink()
    found = calibrate_photos(arguments(tmp_path, *ruler, "--camera", words), album.find)[1]
    layer, truth = HandModel(assets, dtype=torch.float64), album.world.betas.numpy()
    error, mean = (zero_pose_mpvpe(layer, betas, truth) for betas in (found.betas[None], np.zeros((1, 10))))
    assert error < 0.5 * mean and (found.n_images, found.side) == (8, "both"), (error, mean)
    with pytest.raises(CalibrationError, match="--K, --fov and --camera"):
        calibrate_photos(arguments(tmp_path, "--camera", words, "--fov", "60"), album.find)


def test_noisy_photos_do_not_make_hands_larger(tmp_path: Path, assets: HandAssets) -> None:
    persons, model = 20, JointsModel(assets)
    world = simulate(assets, persons, 8, replace(PHOTOS, noise_px=10.0, depth=(0.45, 0.55)), seed=6)
    options = photo_options(arguments(tmp_path, "--keypoint_std", "10"), assets, torch.device("cpu"))
    found = calibrate_frames(model, world.pose, torch.zeros(persons, 10), world.K, world.keypoints, options=options)
    assert usable(found.status).all()
    lengths = [length_gradient(model, betas, "hand")[0] for betas in (found.betas, world.betas)]
    assert abs(1000 * float((lengths[0] - lengths[1]).mean())) < 4


def test_photos_without_hands_or_cameras(tmp_path: Path, assets: HandAssets, caplog: pytest.LogCaptureFixture) -> None:
    album = Album(tmp_path, assets, 2)
    with pytest.raises(CalibrationError, match="no left hand found in any of 2 images"):
        calibrate_photos(arguments(tmp_path, "--hand", "left"), album.find)
    for path in tmp_path.glob("*_K.npy"):
        path.unlink()
    with caplog.at_level(logging.WARNING):
        hands = find_photo_hands(tmp_path, finder=album.find)
    assert "2 of 2 hands are in pictures whose camera is a guess" in caplog.text
    assert all(hand.camera.is_guess for hand in hands)


def test_points_of_our_own_detector_are_joints(
    tmp_path: Path, assets: HandAssets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--keypoints own``: no landmark model is put between its points and the hand's joints."""
    album = Album(tmp_path, assets, 6)

    class Own:
        name = "own detector"

        def __call__(self, image: np.ndarray) -> list[Detection]:
            return [replace(hand, side_score=0.9) for hand in album.find(image)]

    opened = []
    monkeypatch.setattr(photo_calibration, "open_finder", lambda *given, **more: opened.append(given) or Own())
    length = lengths_mm(assets, album.world.betas[0].numpy(), None, ("hand",))["hand"][0]
    ruler = ["--hand_length_mm", f"{length:.1f}", "--hand_length_std_mm", "1.5"]
    found = calibrate_photos(arguments(tmp_path, *ruler, "--keypoints", "own"))[1]
    assert opened == [("own", None)]
    layer, truth = HandModel(assets, dtype=torch.float64), album.world.betas.numpy()
    error, mean = (zero_pose_mpvpe(layer, betas, truth) for betas in (found.betas[None], np.zeros((1, 10))))
    assert error < 0.6 * mean, (error, mean)
    given = arguments(tmp_path), assets, torch.device("cpu")
    assert photo_options(*given, Own()).landmarks is None and photo_options(*given).landmarks.name == "mediapipe"
    for source, landmarker in (("network", None), ("own", "file.task")):
        with pytest.raises(ValueError, match="photos take 'mediapipe' or 'own'|--landmarker is of"):
            open_finder(source, landmarker)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--keypoints", "k.npz"], "--keypoints mediapipe or own"),
        (["--select", "confidence"], "informative"),
    ],
)
def test_options_that_need_a_network(tmp_path: Path, more: list[str], words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        calibrate_photos(arguments(tmp_path, *more), lambda image: [])


# The detector itself, where it is installed.


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures of right hands with their true keypoints."""
    from datasets import build_dataset
    from datasets.synthetic.data_set import SynthesisOptions, write_data_set
    from utils.camera import project_numpy

    root = tmp_path_factory.mktemp("dex_ycb")
    write_data_set(root, SynthesisOptions(4, 1, seed=1, left_fraction=0.0), (7,))
    data = build_dataset("dex_ycb", root, "s1_val", allow_missing_subjects=True)
    columns = data.columns
    keypoints = project_numpy(columns["joints"].astype(np.float64), columns["K_image"].astype(np.float64))
    return [(data.full_image(row), keypoints[row]) for row in np.flatnonzero(columns["valid"])]


@pytest.mark.detector
@pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="pip install -r requirements-detect.txt")
def test_real_detector_on_rendered_hands(rendered: list[tuple[np.ndarray, np.ndarray]]) -> None:
    find = MediapipeHands()
    offsets, sides, sums = [], [], []
    for image, truth in rendered:
        hands, flipped = find(image), find(np.ascontiguousarray(image[:, ::-1]))
        size = (truth.max(axis=0) - truth.min(axis=0)).max()
        near = [h for h in hands if np.linalg.norm(h.keypoints_2d - truth, axis=1).mean() < 0.3 * size]
        for hand in near[:1]:
            offsets.append(np.median(np.linalg.norm(hand.keypoints_2d - truth, axis=1)) / size)
            sides.append(not hand.is_left)
            back = [mirrored(one, image.shape[1]) for one in flipped]
            difference = [(hand.keypoints_2d - one.keypoints_2d)[:, 0] for one in back]
            sums += [d for d in difference if np.abs(d).max() < 10]
    assert len(offsets) > 0.5 * len(rendered), f"{len(offsets)} of {len(rendered)} hands found"
    assert np.mean(sides) > 0.8, "sides are swapped"
    assert np.median(offsets) < 0.12
    # Pixel centres at integers: the flipped picture gives the flipped points; with a corner origin they are 1 px off.
    assert abs(np.mean(sums)) < 0.5, np.mean(sums)


@pytest.mark.detector
@pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="pip install -r requirements-detect.txt")
def test_both_doors_of_mediapipe_see_the_same_hands(
    rendered: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path
) -> None:
    """A ``.task`` is an archive of the two networks that 0.10.14 carries: its own door and the newer one must agree."""
    import mediapipe

    modules = Path(mediapipe.__file__).parent / "modules"
    parts = {
        "hand_detector.tflite": modules / "palm_detection/palm_detection_full.tflite",
        "hand_landmarks_detector.tflite": modules / "hand_landmark/hand_landmark_full.tflite",
    }
    if not all(file.is_file() for file in parts.values()):
        pytest.skip(f"mediapipe {mediapipe.__version__} carries no models")
    with zipfile.ZipFile(tmp_path / "hand.task", "w", zipfile.ZIP_STORED) as archive:
        for name, file in parts.items():
            archive.write(file, name)
    old, new, agree = MediapipeHands(), MediapipeHands(open_landmarker(tmp_path / "hand.task")), []
    for image, _ in rendered[::3]:
        pairs = [(one, other) for one in old(image) for other in new(image)]
        for one, other in pairs:
            off = np.linalg.norm(one.keypoints_2d - other.keypoints_2d, axis=1).mean()
            if off < 0.1 * one.size:
                agree.append(one.is_left == other.is_left)
                assert np.abs(one.world - other.world).mean() < 0.02
    assert len(agree) >= 3 and np.mean(agree) > 0.8, agree
    (tmp_path / "no.task").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no.task: is no hand landmarker"):
        open_landmarker(tmp_path / "no.task")
    with pytest.raises(FileNotFoundError, match="--landmarker .*absent.task: no such file"):
        open_landmarker(tmp_path / "absent.task")
