"""`calibrate` from Python: predictions, keypoints, results and photos of one person to an identity."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from benchmarks.scenes.simulation import SimulationOptions, simulate
from src.evaluation.shape import zero_pose_mpvpe
from src.personalization.calibration.from_keypoints import keypoint_options, keypoints_of, predictions_from_keypoints
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.merging import merge_identities
from src.personalization.calibration.population import SHIPPED_PRIOR, Population, shapes_of
from src.personalization.landmarks.model import find_landmarks
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import lengths_mm
from src.photos.calibrate import calibrate
from src.photos.camera import choose_camera
from src.photos.detector.detection import Detection
from src.photos.image import Photo
from template import HandAssets, HandModel, pca_to_pose
from utils.artifacts import Predictions, load_identity
from utils.camera import square_box
from utils.cameras.lens import CameraModel
from utils.cameras.views import View

PERSON = SimulationOptions(1.0, 0.0, 0.1, (0.35, 0.6), uniform_depth=True, focal=700.0)


def predictions_of(assets: HandAssets, persons: int, frames: int) -> tuple[Predictions, np.ndarray]:
    world = simulate(assets, persons, frames, PERSON, seed=14)
    return world.predictions(assets, first_subject=3), world.betas.numpy()


def ruler(assets: HandAssets, betas: np.ndarray) -> float:
    return lengths_mm(assets, betas, None, ("hand",))["hand"][0]


def test_predictions(assets: HandAssets, tmp_path: Path) -> None:
    rows, betas = predictions_of(assets, 2, 4)
    length = ruler(assets, betas[1])
    found = calibrate(rows, subject=4, hand_length_mm=length, hand_length_std_mm=1.0)
    assert (found.subject_id, found.n_images, found.method, found.scale_evidence) == (4, 4, "multi_frame", "ruler")
    low, high = found.interval_mm
    assert low < length < high and high - low < 4.0
    found.save(tmp_path / "me.json")
    assert load_identity(tmp_path / "me.json").length_mm == pytest.approx(found.length_mm, abs=1e-3)
    named = calibrate(rows, subject=4, prior=SHIPPED_PRIOR, method="joint")
    assert named.hand_length_std_mm < calibrate(rows, subject=4).hand_length_std_mm  # an unknown network is not trusted
    with pytest.raises(CalibrationError, match=r"subjects \[3, 4\]"):
        calibrate(rows)
    with pytest.raises(CalibrationError, match="fov: of photos"):
        calibrate(rows, subject=4, fov=60)
    with pytest.raises(CalibrationError, match="keypoints: of photos"):
        calibrate(rows, subject=4, keypoints="own")


def test_keypoints_of_either_hand(assets: HandAssets) -> None:
    rows, betas = predictions_of(assets, 1, 6)
    length = ruler(assets, betas[0])
    given = {"hand_length_mm": length, "hand_length_std_mm": 1.0}
    found = calibrate(rows.keypoints_2d, K=rows.K[0], **given)
    assert found.side == "right" and found.n_images == 6 and found.interval_mm[0] < length < found.interval_mm[1]
    hand = HandModel(assets)
    error, mean = (zero_pose_mpvpe(hand, one[None], betas)[0] for one in (found.betas, np.zeros(10)))
    assert error < 0.6 * mean, (error, mean)
    mirrored = 639 - rows.keypoints_2d * [1, -1] * [1, -1]
    mirrored[..., 1] = rows.keypoints_2d[..., 1]
    K = rows.K[0].copy()
    K[0, 2] = 639 - K[0, 2]
    left = calibrate(mirrored, K=K, hand="left", **given)
    assert left.side == "left"
    np.testing.assert_allclose(left.betas, found.betas, atol=1e-2)


def test_keypoints_that_cannot_be_used(assets: HandAssets) -> None:
    rows, _ = predictions_of(assets, 1, 2)
    with pytest.raises(CalibrationError, match="need K"):
        calibrate(rows.keypoints_2d)
    with pytest.raises(CalibrationError, match=r"\(21, 2\); \(N,21,2\)"):
        calibrate(rows.keypoints_2d[0], K=rows.K[0])
    with pytest.raises(CalibrationError, match="at all to calibrate from"):
        calibrate(rows.keypoints_2d[:0], K=rows.K[0])
    with pytest.raises(CalibrationError, match="none of 2 hands could be fitted.*: 2 keypoints not finite$"):
        calibrate(np.full((2, 21, 2), np.nan), K=rows.K[0])
    with pytest.raises(ValueError, match="is it transposed"):
        calibrate(rows.keypoints_2d, K=rows.K[0].T)
    with pytest.raises(CalibrationError, match=r"K has shape \(\)"):
        calibrate(rows.keypoints_2d, K="620,620,315,233")
    with pytest.raises(ValueError, match="of the keypoints: K is"):
        calibrate(rows.keypoints_2d, K=rows.K[0] * [[-1, 0, 1], [0, 1, 1], [0, 0, 1]])
    with pytest.raises(CalibrationError, match="0.003 mm .* their uncertainty, 0.1 at least"):
        calibrate(rows.keypoints_2d, K=rows.K[0], hand_length_mm=183, hand_length_std_mm=0.003)  # metres
    with pytest.raises(CalibrationError, match="hand_length_std_mm=5 is of hand_length_mm: give that as well"):
        calibrate(rows.keypoints_2d, K=rows.K[0], hand_length_std_mm=5)
    with pytest.raises(CalibrationError, match="averages a network's shapes"):
        calibrate(rows.keypoints_2d, K=rows.K[0], method="mean")


def test_a_hand_that_is_not_seen_is_left_out(assets: HandAssets) -> None:
    rows, _ = predictions_of(assets, 1, 6)
    confidence = np.ones((6, 21))
    confidence[[0, 3]] = 0
    assert calibrate(rows.keypoints_2d, K=rows.K, confidence=confidence).n_images == 4
    points, K = (torch.tensor(value, requires_grad=True) for value in (rows.keypoints_2d, rows.K))
    assert calibrate(points, K=K, confidence=confidence).n_images == 4
    with pytest.raises(CalibrationError, match="6 no keypoints"):
        calibrate(rows.keypoints_2d, K=rows.K, confidence=0 * confidence)


@dataclass
class Seen:
    """A right hand that somebody found in a picture."""

    keypoints: np.ndarray
    K: np.ndarray
    sources: SimpleNamespace
    world: np.ndarray | None = None
    lens: CameraModel | None = None
    view: View | None = None
    certainty: dict[str, float] = field(default_factory=dict)
    confidence: np.ndarray = field(default_factory=lambda: np.ones(21))
    side: str = "right"


def test_results(assets: HandAssets, caplog: pytest.LogCaptureFixture) -> None:
    """What `handid.load(...)` returns: in the picture's own frame, left hands left."""
    rows, _ = predictions_of(assets, 1, 3)

    def results(maker: str) -> list[Seen]:
        made_by = SimpleNamespace(keypoints=maker, camera="K")
        return [Seen(points, K, made_by) for points, K in zip(rows.keypoints_2d, rows.K, strict=True)]

    found = calibrate(results("mediapipe"))
    options = keypoint_options(assets, shapes_of(assets), landmarks=find_landmarks("mediapipe", assets))
    hands = keypoints_of(rows.keypoints_2d, rows.K)
    alone = predictions_from_keypoints(hands, assets, options, 1)
    wanted = calibrate_predictions(alone, assets, options, num_images=None)[1]
    np.testing.assert_array_equal(found.betas, wanted.betas)  # its points are not the hand's joints
    np.testing.assert_array_equal(found.landmarks["mediapipe"], wanted.landmarks["mediapipe"])
    assert not np.allclose(found.betas, calibrate(rows.keypoints_2d, K=rows.K).betas)
    assert found.interval_mm is not None and found.scale_evidence == "prior"
    ours = calibrate(results("pose_2d"))  # whose errors were measured, and are smaller
    assert np.linalg.det(ours.covariance) < np.linalg.det(found.covariance)
    with pytest.raises(CalibrationError, match="by mediapipe, pose_2d; calibrate those of each alone"):
        calibrate([*results("mediapipe")[:2], results("pose_2d")[2]])
    with pytest.raises(CalibrationError, match="photos and results are mixed"):
        calibrate([*results("pose_2d")[:2], "photo.jpg"])
    with pytest.raises(CalibrationError, match="a generator is no folder"):
        calibrate(one for one in results("pose_2d"))
    with pytest.raises(CalibrationError, match="there are no photos, results or keypoints"):
        calibrate([])
    sure = [replace(one, certainty={"side": side}) for one, side in zip(results("own"), (0.9, 0.6, 0.8), strict=True)]
    assert calibrate(sure).n_images == 2
    assert "1 of 3 results are not sure to be of a left or a right hand (0.75 is needed)" in caplog.text
    with pytest.raises(CalibrationError, match="say side= when they are estimated"):
        calibrate(sure[1:2])


def test_results_of_guessed_cameras_and_of_several_people(assets: HandAssets, caplog: pytest.LogCaptureFixture) -> None:
    """What photos are told of is told of results: a camera that nobody knows, hands of several people."""
    rows, _ = predictions_of(assets, 1, 12)
    generator = np.random.default_rng(0)

    def results(camera: str, spread: float) -> list[Seen]:
        made_by, several = SimpleNamespace(keypoints="mediapipe", camera=camera), []
        for points, K in zip(rows.keypoints_2d, rows.K, strict=True):
            across = (points - points.mean(axis=0)) * 0.18 / np.ptp(points, axis=0).max()
            world = np.concatenate([across, np.zeros((21, 1))], axis=1)
            world[5:9] *= 1 + spread * generator.normal()  # an index finger
            several.append(Seen(points, K, made_by, world))
        return several

    calibrate(results("K", 0.0)[:3])
    assert "camera is a guess" not in caplog.text
    calibrate(results(choose_camera(Photo("", None, np.zeros((48, 64, 3), np.uint8))).source, 0.0)[:3])
    assert "3 of 3 hands are in pictures whose camera is a guess" in caplog.text
    with pytest.raises(CalibrationError, match="not one person's hands"):
        calibrate(results("K", 0.2))


def test_results_of_a_lens_with_distortion(assets: HandAssets) -> None:
    """Their keypoints are px of the picture as it was taken, which K alone does not explain."""
    rows, betas = predictions_of(assets, 1, 8)
    results = []
    for points, K in zip(rows.keypoints_2d.astype(np.float64), rows.K.astype(np.float64), strict=True):
        lens = CameraModel(K, np.array([-0.3, 0.08, 0.0, 0.0]), source="test")
        bent = lens.project(np.concatenate([(points - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones((21, 1))], axis=1))
        assert np.abs(bent - points).max() > 0.3
        view = View.of_box(lens, square_box(bent, 1.0), 3.0)
        made_by = SimpleNamespace(keypoints="pose_2d", camera="K")
        results.append(Seen(bent, K, made_by, lens=lens, view=view))
    hands = keypoints_of(results)
    length = ruler(assets, betas[0])
    straight = keypoints_of(rows.keypoints_2d, rows.K)
    expected = calibrate(rows.keypoints_2d, K=rows.K, hand_length_mm=length)
    for row in range(len(results)):  # turned to the hand, rays have the same angles between them
        cosines = []
        for seen in (hands, straight):
            plane = (seen.keypoints[row] - seen.K[row][:2, 2]) / seen.K[row][[0, 1], [0, 1]]
            rays = np.concatenate([plane, np.ones((21, 1))], axis=1)
            rays /= np.linalg.norm(rays, axis=1, keepdims=True)
            cosines.append(rays @ rays.T)
        np.testing.assert_allclose(*cosines, atol=1e-6)
    found = calibrate(results, hand_length_mm=length)
    assert abs(found.length_mm - expected.length_mm) < 1.0


def test_photos(assets: HandAssets, tmp_path: Path) -> None:
    rows, betas = predictions_of(assets, 1, 5)
    for number in range(6):
        image = np.full((480, 640, 3), 128, np.uint8)
        image[0, 0] = number + 1
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)

    def find(image: np.ndarray) -> list[Detection]:
        number = int(image[0, 0, 0]) - 1
        return [Detection(rows.keypoints_2d[number].astype(np.float64), np.ones(21), False, 0.9)] if number < 5 else []

    length = ruler(assets, betas[0])
    found = calibrate(tmp_path, K=rows.K[0], hand_length_mm=length, finder=find)
    assert found.n_images == 5 and abs(found.length_mm - length) < 2.5 * found.hand_length_std_mm
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    np.testing.assert_array_equal(calibrate(paths, K=rows.K[0], hand_length_mm=length, finder=find).betas, found.betas)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        calibrate(tmp_path / "nowhere", finder=find)
    two = {name: {"K": (rows.K[0] * [[scale], [scale], [1]]).tolist()} for name, scale in (("cam0", 1), ("cam1", 1.02))}
    (tmp_path / "two.json").write_text(json.dumps(two))
    with pytest.raises(ValueError, match="say which one"):
        calibrate(paths, camera=tmp_path / "two.json", finder=find)
    named = calibrate(paths, camera=tmp_path / "two.json", camera_name="cam0", hand_length_mm=length, finder=find)
    np.testing.assert_allclose(named.betas, found.betas, atol=0.02)
    with pytest.raises(CalibrationError, match="camera_name: which camera of a file"):
        calibrate(paths, K=rows.K[0], camera_name="cam0", finder=find)


def test_the_population_of_other_people_is_used(assets: HandAssets) -> None:
    """A prior that knows the person beforehand decides."""
    rows, betas = predictions_of(assets, 1, 2)
    sure = Population(betas_mean=betas[0], betas_covariance=1e-4 * np.eye(10), hand_hash=assets.hash)
    np.testing.assert_allclose(calibrate(rows, prior=sure).betas, betas[0], atol=0.05)
    options = keypoint_options(assets, sure)
    again = calibrate_predictions(rows, assets, replace(options, extra_priors=()), num_images=2)[3]
    np.testing.assert_allclose(again.betas, betas[0], atol=0.05)


def test_copies_of_a_hand_are_left_out(assets: HandAssets, caplog: pytest.LogCaptureFixture) -> None:
    rows = predictions_of(assets, 1, 4)[0]
    twice = np.concatenate([rows.keypoints_2d, rows.keypoints_2d[:2]])
    hands = keypoints_of(twice, rows.K[0])
    np.testing.assert_array_equal(hands.keypoints, keypoints_of(rows.keypoints_2d, rows.K[0]).keypoints)
    assert f"2 of {len(twice)} hands are the same as one before" in caplog.text


def hands_in_space(
    assets: HandAssets, count: int, noise: float, seed: int, stays: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Joints (N,21,3) m of a person's hands in any pose and place, off by ``noise`` m and, the same of all hands in the
    wrist's axes, by ``stays`` m; the person's betas (10,)."""
    people, random = shapes_of(assets), np.random.default_rng(seed)
    betas = random.multivariate_normal(people.betas_mean, people.betas_covariance)
    turn, bend, place = (torch.as_tensor(random.normal(size=(count, size))) for size in (3, 45, 3))
    pose = pca_to_pose(assets, turn, 0.7 * bend * (torch.arange(45) < 12))
    hand = HandModel(assets, dtype=torch.float64)
    joints = hand(pose, torch.as_tensor(betas).expand(count, 10), place).joints.numpy()
    joints += np.einsum("nij,kj->nki", pose[:, 0].numpy(), stays * random.normal(size=(21, 3)))
    return joints + random.normal(size=joints.shape) * noise, betas


def test_intervals_of_joints_in_space_hold(assets: HandAssets) -> None:
    """Betas are as far off as the covariance says, and hands no longer or shorter than they are: of independent errors
    where that was told, else of errors that stay."""
    for noise, stays, told in ((0.004, 0.0, 0.0), (0.003, 0.004, None)):
        squares, lengths = [], []
        for seed in range(8):
            joints, betas = hands_in_space(assets, 20, noise, seed, stays)
            found = calibrate(joints=joints, error_correlation=told)
            off = found.betas - betas
            squares.append(off @ np.linalg.solve(found.covariance, off) / 10)
            lengths.append((found.length_mm - ruler(assets, betas)) / found.hand_length_std_mm)
        assert 0.6 < np.mean(squares) < 1.5, squares
        assert abs(np.mean(lengths)) < 1.0 and np.std(lengths) < 1.6, lengths


def test_joints_in_space_of_either_hand(assets: HandAssets, tmp_path: Path) -> None:
    joints, betas = hands_in_space(assets, 12, 0.003, 3)
    found = calibrate(joints=joints)
    assert (found.side, found.method, found.scale_evidence) == ("right", "joints_3d", "joints_3d")
    repeats = found.evidence["repeats"]
    assert repeats["views"] == 12 and repeats["worth"] == 1.0
    apart = calibrate(joints=joints, error_correlation=0.3)
    assert apart.evidence["repeats"]["worth"] == pytest.approx(12 / (1 + 0.3 * 11), abs=0.01)
    assert apart.hand_length_std_mm < 0.7 * found.hand_length_std_mm
    repeated = np.concatenate([joints, joints, joints + 1e-6])
    again = calibrate(joints=repeated, error_correlation=0.3)
    assert again.evidence["repeats"]["views"] == 12
    assert again.hand_length_std_mm == pytest.approx(apart.hand_length_std_mm, rel=0.05)
    left = calibrate(joints=torch.as_tensor(joints * [-1, 1, 1]), hand="left")
    np.testing.assert_allclose(left.betas, found.betas, atol=1e-3)
    hidden = joints.copy()
    hidden[:, 8] = np.nan
    assert calibrate(joints=hidden, confidence=np.isfinite(hidden[..., 0]) * 1.0).hand_length_std_mm > 0
    length = ruler(assets, betas)
    ruled = calibrate(joints=joints, hand_length_mm=length, hand_length_std_mm=1.0)
    assert ruled.scale_evidence == "ruler + joints_3d" and ruled.hand_length_std_mm < 1.0
    photos = replace(apart, method="multi_frame", image_ids=list(range(12)))  # which do not err as a tracker does
    both = merge_identities([found, photos], assets, shapes_of(assets))
    assert both.hand_length_std_mm < 0.95 * photos.hand_length_std_mm
    more = merge_identities([both, replace(photos, image_ids=list(range(12, 24)))], assets, shapes_of(assets))
    assert more.hand_length_std_mm > 0.95 * both.hand_length_std_mm  # some photos are in both
    ruled.save(tmp_path / "me.json")
    assert load_identity(tmp_path / "me.json").length_mm == pytest.approx(ruled.length_mm, abs=1e-3)


def test_joints_in_space_that_are_none(assets: HandAssets, caplog: pytest.LogCaptureFixture) -> None:
    joints, betas = hands_in_space(assets, 12, 0.003, 3)
    for wrong, said in (
        ({"joints": joints * [-1, 1, 1]}, "mirror images are better right hands"),
        ({"joints": 1000 * joints}, "are they metres"),
        ({"joints": np.where(np.arange(21)[:, None] == 8, np.nan, joints)}, "missing ones of confidence 0"),
        ({"joints": 0.35 * joints}, "are the joints metres"),
        ({"joints": joints[:, :20]}, "must be|are meant"),
        ({"joints": joints, "hand_length_mm": ruler(assets, betas) + 40}, "standard deviations apart"),
        ({"joints": joints, "K": np.eye(3)}, "K and same_video are of pictures"),
        ({"joints": joints, "source": "photos"}, "or else joints="),
        ({"source": joints[..., :2], "landmarks": "mediapipe"}, "landmarks: of joints"),
    ):
        with pytest.raises(CalibrationError, match=said):
            calibrate(**wrong)
    assert "conflict" in calibrate(joints=joints, hand_length_mm=250, accept_conflict=True).evidence
    spoilt = joints.copy()
    spoilt[3, 12] += 0.05  # of one of twelve: a wrong end among good ones would say more than all of them
    assert calibrate(joints=spoilt, error_correlation=0).n_images == 11
    calibrate(joints=0.7 * joints)
    assert "board" in caplog.text
