"""Hands that are not believed: which, why, and how many good ones that costs on people left out of the limits."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from photo_cases import ASSETS, K, arguments, hand_at, needs_detections, real_detections

from src.personalization.landmarks.model import find_landmarks
from src.photos import setup
from src.photos.api import PhotoEstimator
from src.photos.boxes import Region
from src.photos.detector.detection import Detection, mirrored
from src.photos.detector.landmarker import Landmarker
from src.photos.detector.mediapipe_hands import MediapipeHands, without_repeats
from src.photos.detector.refusal import MIN_SIDE, MIN_SIDE_OF_OWN, check_misfit, check_side, side_probability
from src.photos.estimator import HandInPicture, Keypoints
from src.photos.gallery import FURTHER
from src.photos.hands import SeveralPeople, believed
from src.photos.image import Photo, UnusableImage
from src.photos.keypoint_estimator import KeypointEstimator
from src.photos.run_images import image_demo
from src.photos.shape_filter import ShapeFilter
from utils.artifacts import Identity
from utils.camera import project_numpy, square_box


def keypoints_of(hand: dict[str, np.ndarray], **more: object) -> Keypoints:
    return Keypoints(project_numpy(hand["joints"], K), np.ones(21), "mediapipe", **more)


def detection(hand: dict[str, np.ndarray], is_left: bool = False, score: float = 0.995) -> Detection:
    world = hand["joints"] - hand["joints"].mean(axis=0)
    seen = Detection(project_numpy(hand["joints"], K), np.ones(21), False, score, world)
    return mirrored(seen, 640) if is_left else seen


@pytest.fixture(scope="module")
def estimator() -> KeypointEstimator:
    return KeypointEstimator(ASSETS, landmarks=None)


def estimate(estimator: KeypointEstimator, keypoints: Keypoints, identity: Identity | None = None) -> object:
    box = square_box(keypoints.points, 1.0)
    picture = np.zeros((480, 640, 3), np.uint8)
    return estimator.estimate(HandInPicture(picture, K, box, ShapeFilter(ASSETS, identity), keypoints))


def test_each_refusal_names_its_numbers(estimator: KeypointEstimator) -> None:
    hand = hand_at(0.6)
    world = hand["joints"] - hand["joints"].mean(axis=0)
    good = keypoints_of(hand, world=world, side_score=0.9)
    sure = estimate(estimator, good).certainty
    assert sure["misfit"] < 0.5 and sure["side"] > 0.95 and 0 < sure["distance_std_m"] < 0.3
    with pytest.raises(UnusableImage, match="12 pixels large, 24 are needed"):
        estimate(estimator, replace(good, points=good.points * 12 / good.size))
    shuffled = good.points[np.random.default_rng(0).permutation(21)]
    with pytest.raises(UnusableImage, match="no hand fits its keypoints"):
        estimate(estimator, replace(good, points=shuffled, world=None))
    heap = good.points.mean(axis=0) + 0.3 * np.random.default_rng(0).normal(0, good.size, (21, 2))
    with pytest.raises(UnusableImage, match=r"contradicts itself \(its 3D points are \d+ mm off"):
        estimate(estimator, replace(good, points=heap))
    # The mirror image of a right hand, called a right one: a left one explains it better.
    flipped = replace(good, points=good.points * [-1, 1] + [639, 0], world=world * [-1, 1, 1])
    with pytest.raises(UnusableImage, match="not sure to be"):
        estimate(estimator, replace(flipped, side_score=0.8))


def test_an_identity_whose_size_is_unsure_makes_no_distance_sure(estimator: KeypointEstimator) -> None:
    keypoints = keypoints_of(hand_at(0.6))
    unsure, sure = [
        estimate(
            estimator, keypoints, Identity(np.zeros(10), ASSETS.name, ASSETS.hash, 180.0, hand_length_std_mm=std)
        ).certainty
        for std in (11.0, None)
    ]
    of_size = 0.6 * 11 / 180  # as far as the hand is long
    assert unsure["distance_std_m"] == pytest.approx(np.hypot(sure["distance_std_m"], of_size), rel=0.05)


def test_our_own_points_may_be_further_off_and_their_side_less_sure() -> None:
    """At a limit of its own, and without asking whether the other hand fits as well, which 2D points do not tell."""
    good = keypoints_of(hand_at(0.6))
    off = good.size * 0.11 * np.random.default_rng(0).normal(0, 1, (21, 2)) / np.sqrt(2)
    noisy, strict = replace(good, points=good.points + off), KeypointEstimator(ASSETS)
    ratio = 9.0 * estimate(KeypointEstimator(ASSETS, max_misfit=9.0), noisy).certainty["misfit"]
    lenient = KeypointEstimator(ASSETS, max_misfit=1.01 * ratio, min_side=MIN_SIDE_OF_OWN)
    assert estimate(lenient, replace(noisy, side_score=0.67)).certainty["side"] == pytest.approx(0.67)
    with pytest.raises(UnusableImage, match="no hand fits its keypoints"):
        estimate(strict, noisy)
    for least, estimator in ((MIN_SIDE, strict), (MIN_SIDE_OF_OWN, lenient)):
        with pytest.raises(UnusableImage, match=f"probability 0.59 of the side named, {least} is needed"):
            estimate(estimator, replace(good, side_score=0.59))


def test_side_probability_adds_evidence() -> None:
    assert side_probability(0.9) == pytest.approx(0.9)
    assert side_probability(0.9, np.log(2)) == pytest.approx(18 / 19)  # odds of 9 doubled
    assert side_probability(1.0, -np.inf) < 1e-9 and side_probability(1.0, np.inf) > 1 - 1e-9
    assert check_side(MIN_SIDE) == MIN_SIDE
    with pytest.raises(UnusableImage, match=r"probability 0\.60"):
        check_side(0.6)
    assert check_misfit(3.0, 100.0) == pytest.approx(0.5)
    with pytest.raises(UnusableImage, match=r"9\.0 px off, 9\.0% of its size"):
        check_misfit(9.0, 100.0)
    with pytest.raises(UnusableImage, match="no hand fits"):
        check_misfit(float("nan"), 100.0)


def test_clasped_hands_are_two_and_one_hand_found_twice_is_one() -> None:
    right = detection(hand_at(0.6))
    again = replace(right, keypoints_2d=right.keypoints_2d + 2, score=0.97)
    assert without_repeats([again, right]) == [right]
    doubted = replace(again, is_left=True, score=0.6)
    assert without_repeats([doubted, right]) == [right]
    both = [right, replace(again, is_left=True)]
    assert len(without_repeats(both)) == 2
    turned = replace(
        right, keypoints_2d=2 * right.keypoints_2d.mean(axis=0) - right.keypoints_2d
    )  # another's, upside down
    assert len(without_repeats([right, turned])) == 2


def demo(folder: Path, output: Path, tools: PhotoEstimator, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    from src.photos import run_images

    monkeypatch.setattr(run_images, "open_tools", lambda _: tools)
    image_demo(arguments("--images", str(folder), "--output", str(output)))
    return json.loads((output / "predictions.json").read_text())["images"]


def test_all_hands_of_a_picture_are_listed_surest_first(
    estimator: KeypointEstimator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    hands = [detection(hand_at(0.6)), detection(hand_at(0.5, 1), True, 0.999), detection(hand_at(8.0, 2), False, 0.9)]
    tools = PhotoEstimator(estimator, detector=lambda image: hands if image.max() > 0 else hands[2:])
    for name, value in (("a", 9), ("b", 0)):
        Image.new("RGB", (640, 480), (value,) * 3).save(tmp_path / f"{name}.png")
        np.save(tmp_path / f"{name}_K.npy", K)
    one, other = demo(tmp_path, tmp_path / "out", tools, monkeypatch)
    assert [one["hand"]["side"], one["status"]] == ["left", "ok"] and other["status"] == "no usable hand"
    second, refused = one["other_hands"]
    assert second["hand"]["side"] == "right" and second["status"] == "ok" and "24 are needed" in refused["reason"]
    assert (
        second["files"]["plot"] == f"{FURTHER}/a_2_plot.jpg" and (tmp_path / "out" / second["files"]["plot"]).is_file()
    )
    assert "24 are needed" in other["reason"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "a.png, hand 2 of 2" in page and page.count("24 are needed") == 2 and "size unknown; as large" in page
    assert one["hand_length"]["known"] is False and one["betas"] != second["betas"]
    photo = Photo("a", None, np.full((480, 640, 3), 9, np.uint8))
    (left, right), _ = replace(tools, one_person=True).hands(photo)
    assert left.side == "left" and np.array_equal(left.betas, right.betas)


def test_both_hands_of_one_person_share_an_identity(estimator: KeypointEstimator) -> None:
    identity = Identity(np.full(10, 0.3), ASSETS.name, ASSETS.hash, 190.0, hand_length_std_mm=2.0)
    hands = [detection(hand_at(0.6)), detection(hand_at(0.5, 1), True)]
    tools = PhotoEstimator(estimator, detector=lambda image: hands, identity=identity, one_person=True)
    both, _ = tools.hands(Photo("a", None, np.zeros((480, 640, 3), np.uint8)))
    assert {hand.side for hand in both} == {"left", "right"} and all(np.allclose(one.betas, 0.3) for one in both)
    assert both[0].length.is_known and str(both[0].length).startswith("hand length 190 mm")


def test_a_network_that_contradicts_the_keypoints_is_left_out(estimator: KeypointEstimator) -> None:
    class Wrong:
        card, assets = estimator.card, ASSETS

        def estimate(self, *_: object) -> object:
            raise UnusableImage("no usable hand: behind camera")

    hand = hand_at(0.6)
    tools = PhotoEstimator(Wrong(), alone=estimator, detector=lambda image: [detection(hand)])
    result = tools.hands(Photo("a", None, np.zeros((480, 640, 3), np.uint8)))[0][0]
    assert "behind camera" in result.notes["network"] and result.reprojection_px < 5
    assert isinstance(tools.regions(Photo("a", None, np.zeros((480, 640, 3), np.uint8)))[0], Region)


def test_the_detector_is_the_default_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "is_installed", lambda: False)
    with pytest.raises(RuntimeError, match=r"-m pip install .*--keypoints own: our own detector"):
        setup.open_tools(arguments("--images", "d"))
    assert setup.keypoint_source(arguments("--images", "d", "--model", "cmr_identity")) == "network"
    assert setup.keypoint_source(arguments("--images", "d", "--keypoints", "network")) == "network"
    assert setup.keypoint_source(arguments("--images", "d", "--keypoints", "own")) == "own"
    monkeypatch.setattr(setup, "is_installed", lambda: True)
    assert setup.keypoint_source(arguments("--images", "d")) == "mediapipe"
    assert setup.keypoint_source(arguments("--video", "v", "--keypoints", "mediapipe")) == "mediapipe"
    with pytest.raises(ValueError, match="--landmarker"):
        setup.open_tools(arguments("--images", "d", "--keypoints", "network", "--landmarker", "f"))


def test_mediapipes_tasks_name_sides_of_the_picture_as_it_is() -> None:
    points = [SimpleNamespace(x=0.1 + 0.03 * i, y=0.5, z=0.0) for i in range(21)]
    side = [SimpleNamespace(category_name="Right", score=0.97)]
    result = SimpleNamespace(hand_landmarks=[points], hand_world_landmarks=[points], handedness=[side])
    task = SimpleNamespace(detect=lambda image: result)
    (hand,) = MediapipeHands(Landmarker(task))(np.zeros((100, 200, 3), np.uint8))
    assert not hand.is_left and hand.score == 0.97
    np.testing.assert_allclose(hand.keypoints_2d[0], [20, 50])


def test_pictures_of_several_people_are_left_out() -> None:
    right, left = detection(hand_at(0.6)), detection(hand_at(0.6, 1), True)
    assert len(believed([right, left], None, "a")) == 2
    with pytest.raises(SeveralPeople, match="a: hands of at least 2 people"):
        believed([right, left, detection(hand_at(0.5, 2))], None, "a")
    assert len(believed([right, left, detection(hand_at(0.5, 2))], "left", "a")) == 1
    unsure = replace(left, score=0.6)
    with pytest.raises(UnusableImage, match=r"usable \(found: .* sure to be left to 0.60\); where you know the side"):
        believed([unsure], None, "a")
    assert believed([unsure], "left", "a") == [unsure]  # the side is said
    assert believed([left, unsure], "left", "a") == [left]
    with pytest.raises(UnusableImage, match=r"no right hand found that is usable \(found: .* left"):
        believed([unsure], "right", "a")


@needs_detections
def test_few_good_hands_of_others_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Of people who are not in the half that the limits were learned from; every third hand, for time."""
    caplog.set_level(logging.ERROR)
    hands = real_detections()
    people = sorted({who for who, _ in hands})
    learned = set(np.random.default_rng(0).permutation(people)[: len(people) // 2])
    others = [hand for who, hand in hands if who not in learned and hand.size >= 24][::3]
    size = np.array([640.0, 480.0])
    estimator, refused = KeypointEstimator(ASSETS, landmarks=find_landmarks("mediapipe", ASSETS)), 0
    for hand in others:
        points = hand.keypoints_2d - hand.keypoints_2d.mean(axis=0) + size / 2
        seen = hand if not hand.is_left else mirrored(replace(hand, keypoints_2d=points), 640)
        keypoints = Keypoints(seen.keypoints_2d, np.ones(21), "mediapipe", seen.world, hand.score)
        try:
            estimate(estimator, keypoints)
        except UnusableImage:
            refused += 1
    assert len(others) > 15 and refused <= 0.12 * len(others) + 1
