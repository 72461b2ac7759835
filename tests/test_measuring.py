"""Cues that people have at hand: what a ruler reads on the surface, and a card beside a flat hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from photo_cases import ASSETS

import handid
from options.calibrate import get_args_parser
from src.personalization.calibration.from_keypoints import fit_options
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.fitting.from_keypoints import KeypointFitOptions
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import LengthCue, length_gradient, lengths_mm
from src.photos.calibrate import photo_beliefs, photo_options
from src.photos.camera import Camera, pinhole
from src.photos.detector.detection import Detection
from src.photos.hands import PhotoHand, keypoint_hands
from src.photos.image import UnusableImage
from src.photos.measuring.flat_hand import BEYOND, HEIGHT_MM, STD_M, flat_hand_cues, joint_lengths
from src.photos.measuring.plane import RECTANGLES, check_corners, find_rectangle, homography, points_mm
from template import load_hand_assets
from template.kinematics import JointsModel
from utils.joints import FINGERS, KNUCKLE_FLANKS

DATA = Path("../../shared/data/detections/mediapipe_real.json")
DATA = DATA if DATA.is_file() else Path("../shared/data/detections/mediapipe_real.json")
WIDTH, HEIGHT, FOV = 1600, 1200, 65.0
CAMERA = pinhole(WIDTH, HEIGHT, FOV)


@pytest.mark.parametrize("name", ["stand_in", "stand_in_2"])
def test_a_ruler_on_the_surface_reads_the_lengths_that_are_asked_for(name: str) -> None:
    """From the crease, the skin over the wrist joint, to the middle finger's furthest point; across the knuckles."""
    assets = load_hand_assets(f"template/{name}.npz")
    model, middle = JointsModel(assets), np.flatnonzero(assets.weights[:, [4, 5, 6]].sum(axis=1) > 0.5)
    for betas in 0.8 * np.random.default_rng(0).standard_normal((5, 10)):
        surface = assets.v_template + assets.shapedirs @ betas
        wrist = (assets.J_regressor @ surface)[0]
        along = surface[middle] - wrist
        axis = along[np.linalg.norm(along, axis=1).argmax()]
        axis = axis / np.linalg.norm(axis)
        low = np.abs((surface - wrist) @ axis)
        crease = surface[np.argsort(low)[:6]]  # the skin around the wrist at that level
        reading = 1000 * ((along @ axis).max() - np.median((crease - wrist) @ axis))
        asked = lengths_mm(assets, betas, None, ("hand", "breadth"))
        assert abs(reading - asked["hand"][0]) < 2.5
        flanks = surface[list(KNUCKLE_FLANKS)]
        assert asked["breadth"][0] == pytest.approx(1000 * np.linalg.norm(flanks[0] - flanks[1]))
        point = torch.as_tensor(betas)[None].requires_grad_()
        length_gradient(model, point, "breadth")[0].sum().backward()
        torch.testing.assert_close(length_gradient(model, point.detach(), "breadth")[1], point.grad)


def test_breadth_is_that_of_the_survey() -> None:
    mm, std = lengths_mm(ASSETS, np.zeros(10), np.eye(10), ("breadth",))["breadth"]
    assert abs(mm - 85) < 4.5 and 4 < std < 9  # ANSUR: 79.5 ± 3.8 and 90.5 ± 4.2 mm, both sexes together


def view(tilt: float, turn: float, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and origin (mm) of a table's plane before the camera, its middle at ``distance`` mm."""
    lean = cv2.Rodrigues(np.array([np.radians(tilt), np.radians(turn), 0.3]))[0]
    return lean @ np.diag([1.0, -1.0, -1.0]), np.array([0.0, 0.0, distance])


def seen(points: np.ndarray, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Pixels of points (N,3) mm on the table, z up."""
    image = (points @ where[0].T + where[1]) @ CAMERA.T
    return image[:, :2] / image[:, 2:]


def picture(where: tuple[np.ndarray, np.ndarray], kind: str, at: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A rounded card or sheet on a table, and its true corners px."""
    width, height = RECTANGLES[kind]
    radius = 3.2 if kind == "card" else 0.0
    angle = np.radians(np.arange(0, 90, 6))
    arcs = []
    for start, (x, y) in zip((180, 270, 0, 90), ((0, 0), (1, 0), (1, 1), (0, 1)), strict=True):
        middle = np.array([radius + x * (width - 2 * radius), radius + y * (height - 2 * radius)])
        turned = angle + np.radians(start)
        arcs.append(middle + radius * np.stack([np.cos(turned), np.sin(turned)], axis=1))
    outline = np.concatenate(arcs) + at
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) + at
    large = np.full((4 * HEIGHT, 4 * WIDTH, 3), (96, 74, 60), np.uint8)  # OpenCV draws polygons half a pixel too large
    flat = np.c_[outline, np.zeros(len(outline))]
    cv2.fillPoly(large, [np.round(4 * seen(flat, where) + 1.5).astype(np.int32)], (222, 226, 230))
    stripe = np.c_[np.array([[0, 8], [width, 8], [width, 18], [0, 18]]) + at, np.zeros(4)]
    if kind == "card":
        cv2.fillPoly(large, [np.round(4 * seen(stripe, where) + 1.5).astype(np.int32)], (40, 44, 52))
    image = cv2.resize(large, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    image = np.clip(image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    return image, seen(np.c_[corners, np.zeros(4)], where)


def hand_on_table(betas: np.ndarray, size: float = 1.0) -> np.ndarray:
    """Points (21,3) mm of a right hand that lies flat beside the middle, z up, where mediapipe sees them.

    Fingers along x; between wrist and tips as much is missing as `joint_lengths` says, which real scans told.
    A child's hand is a smaller one, and looks from nearer as an adult's does.
    """
    model = JointsModel(ASSETS)
    rest = 1000 * model.rest_points(torch.as_tensor(betas)[None])[0, model.to_standard].numpy()
    gone = {name: share / (1 + share) for name, share in {"thumb": 0.1, **BEYOND}.items()}
    points = rest.copy()
    for finger in range(5):
        base = 1 + 4 * finger
        steps = np.linalg.norm(np.diff(rest[base : base + 4], axis=0), axis=1)
        steps[-1] -= gone[FINGERS[finger]] * steps.sum()
        points[base + 1 : base + 4] = rest[base] + np.cumsum(steps)[:, None] * [-1, 0, 0]
    middle = np.linalg.norm(np.diff(rest[9:13], axis=0), axis=1).sum()
    points[0, 0] -= gone["hand"] * np.linalg.norm(rest[12] - rest[0]) - gone["middle"] * middle
    points = size * (points - points[9])
    return np.stack([points[:, 2] - 90, -points[:, 0], size * HEIGHT_MM], axis=1)


@pytest.mark.parametrize(
    ("kind", "at", "distance"),
    [("card", (20.0, -60.0), 420.0), ("paper", (10.0, -110.0), 800.0), ("letter", (10.0, -110.0), 800.0)],
)
@pytest.mark.parametrize(("tilt", "turn"), [(0, 0), (18, -10)])
def test_a_card_beside_a_flat_hand(
    tmp_path: Path, kind: str, at: tuple[float, float], distance: float, tilt: float, turn: float
) -> None:
    """Hand length within 3 mm and fingers within 2.5, of people whose size is known, the lens guessed 8% wrong."""
    where = view(tilt, turn, distance)
    image, corners = picture(where, kind, at)
    found = find_rectangle(image, kind, pinhole(WIDTH, HEIGHT, 60.0))
    error = min(np.abs(np.roll(found, shift, axis=0) - corners).max() for shift in range(4))
    reverse = min(np.abs(np.roll(found[::-1], shift, axis=0) - corners).max() for shift in range(4))
    assert min(error, reverse) < 0.5
    cv2.imwrite(str(tmp_path / "flat.png"), image)
    for seed in range(3):
        betas = np.random.default_rng(seed).standard_normal(10)
        points = seen(hand_on_table(betas), where)
        hand = Detection(points, np.ones(21), False, 0.99)
        cues = flat_hand_cues(tmp_path / "flat.png", kind, lambda _, hand=hand: [hand], fov=60.0)
        truth = lengths_mm(ASSETS, betas, None, tuple(STD_M))
        off = {cue.name: 1000 * cue.length - truth[cue.name][0] for cue in cues}
        assert abs(off["hand"]) < 3 and max(abs(value) for value in off.values()) < 3.0, off
        given = flat_hand_cues(tmp_path / "flat.png", kind, lambda _, hand=hand: [hand], corners=corners, fov=60.0)
        assert abs(1000 * given[0].length - truth["hand"][0]) < 3


@pytest.mark.parametrize("size", [0.6, 0.8])
def test_a_childs_hand_beside_a_card(tmp_path: Path, size: float) -> None:
    """What lies between the detector's points and the ends of an adult's hand made a hand of 115 mm 5 mm too long."""
    where = view(10, 5, 320)
    image, corners = picture(where, "card", (20.0, -60.0))
    cv2.imwrite(str(tmp_path / "flat.png"), image)
    hand = Detection(seen(hand_on_table(np.zeros(10), size), where), np.ones(21), False, 0.99)
    cues = flat_hand_cues(tmp_path / "flat.png", "card", lambda _: [hand], corners=corners, fov=FOV)
    truth = lengths_mm(ASSETS, np.zeros(10), None, tuple(STD_M))
    assert max(abs(1000 * cue.length - size * truth[cue.name][0]) for cue in cues) < 1.5


def test_heights_are_taken_into_account() -> None:
    where = view(10, 5, 400)
    corners = seen(np.array([[0, 0, 0], [85.6, 0, 0], [85.6, 53.98, 0], [0, 53.98, 0]]), where)
    points = np.random.default_rng(0).uniform(-80, 80, (21, 3)) * [1, 1, 0] + [0, 0, 1] * HEIGHT_MM[:, None]
    back = points_mm(seen(points, where), homography(corners, "card"), HEIGHT_MM, CAMERA)
    np.testing.assert_allclose(back, points[:, :2], atol=1e-6)
    mirrored = points_mm(seen(points, where), homography(corners[[1, 0, 3, 2]], "card"), HEIGHT_MM, CAMERA)
    np.testing.assert_allclose(mirrored, [85.6, 0] + points[:, :2] * [-1, 1], atol=1e-6)


def test_what_is_no_flat_hand_beside_a_card(tmp_path: Path) -> None:
    where = view(0, 0, 420)
    image, corners = picture(where, "card", (20, -60))
    cv2.imwrite(str(tmp_path / "flat.png"), image)
    points = seen(hand_on_table(np.zeros(10)), where)
    fist = points.copy()
    fist[[10, 11, 12]] = points[[10, 10, 9]]
    for keypoints, words in ((fist, "not flat and stretched"), (points * 0.3, "not flat|px large")):
        with pytest.raises(CalibrationError, match=words):
            finder = lambda _, seen=keypoints: [Detection(seen, np.ones(21), False, 0.99)]  # noqa: E731
            flat_hand_cues(tmp_path / "flat.png", "card", finder, corners=corners)
    with pytest.raises(CalibrationError, match="no hand found"):
        flat_hand_cues(tmp_path / "flat.png", "card", lambda _: [])
    with pytest.raises(UnusableImage, match="no card of 85.6 x 53.98 mm .*--corners"):
        find_rectangle(np.full((480, 640, 3), 120, np.uint8), "card", CAMERA)
    square = cv2.rectangle(np.zeros((480, 640, 3), np.uint8), (200, 100), (400, 300), (255, 255, 255), -1)
    with pytest.raises(UnusableImage, match="no paper"):
        find_rectangle(square, "paper", pinhole(640, 480, 60))


@pytest.mark.skipif(not DATA.is_file(), reason=f"{DATA} is not there")
def test_scans_of_known_resolution_as_pictures_beside_a_card() -> None:
    """Real detections of five flat hands: what a calibration makes of each lies near what the plane says."""
    options, mm, off, measured = photo_beliefs(ASSETS, None, "cpu"), 0.127, [], []
    for number, scan in enumerate(json.loads(DATA.read_text())["flat_on_a_scanner"]["pictures"]):
        entry = scan["hands"][0]
        sign = -1.0 if entry["side"] == "left" else 1.0
        points, world = np.array(entry["keypoints_2d"]) * [sign, 1], np.array(entry["world_m"]) * [sign, 1, 1]
        lengths = joint_lengths(mm / 1000 * points)
        focal = 1.5 / (mm / 1000)
        K = np.array([[focal, 0, points[:, 0].mean()], [0, focal, points[:, 1].mean()], [0, 0, 1.0]])
        hand = PhotoHand("scan", number, Detection(points, np.ones(21), False, 0.97, world), K, False, Camera(K, ""))
        seen, alone = keypoint_hands([hand]), fit_options(options)
        rows = seen.explained(seen.fit(ASSETS, KeypointFitOptions()), ASSETS, alone, 1)
        cues = tuple(LengthCue(name, length, STD_M[name]) for name, length in lengths.items())
        person = calibrate_predictions(rows, ASSETS, replace(options, cues=cues), num_images=None)[1]
        found = lengths_mm(ASSETS, person.betas, None, tuple(STD_M))
        off.append([found[name][0] - 1000 * length for name, length in lengths.items()])
        measured.append([1000 * length for length in lengths.values()])
    off, measured = np.abs(off), np.array(measured)
    print(np.round(off, 1), np.round(measured, 1))
    assert off[:, 0].max() < 3
    assert np.median(off[:, 1:5]) < 2.5
    # The third and fourth are of one hand.
    assert np.abs(measured[2] - measured[3]).max() < 2.5


def test_options_of_the_cues(tmp_path: Path) -> None:
    words = ["--images", "d", "--hand_breadth_mm", "84", "--finger_length_mm", "middle=94", "--device", "cpu"]
    cues = photo_options(get_args_parser().parse_args(words), ASSETS, torch.device("cpu")).cues
    assert [(cue.name, cue.length, cue.std) for cue in cues] == [("breadth", 0.084, 0.002), ("middle", 0.094, 0.002)]
    for text in ("94", "middel=94", "middle=94±2", "hand=94"):
        args = get_args_parser().parse_args(["--images", "d", "--finger_length_mm", text])
        with pytest.raises(CalibrationError, match=f"--finger_length_mm {text}: is not NAME=MM"):
            photo_options(args, ASSETS, torch.device("cpu"))
    for more in (["--card", "a", "--predictions", "p"], ["--card", "a"]):
        with pytest.raises(SystemExit):
            get_args_parser().parse_args(more)


def test_corners_that_are_no_cards_are_refused(tmp_path: Path) -> None:
    """A short side first would make a finger 60% longer without a word."""
    where = view(18, -10, 420)
    image, corners = picture(where, "card", (20, -60))
    cv2.imwrite(str(tmp_path / "flat.png"), image)
    hand = Detection(seen(hand_on_table(np.zeros(10)), where), np.ones(21), False, 0.99)
    given = (tmp_path / "flat.png", "card", lambda _: [hand])
    for good in (corners, corners[::-1][[2, 3, 0, 1]]):
        assert flat_hand_cues(*given, corners=good)
    for odd in (9 * corners, corners - 900, np.full((4, 2), np.nan)):
        with pytest.raises(CalibrationError, match="--corners .* are not all inside its .* pixels"):
            flat_hand_cues(*given, corners=odd)
    wrong = [np.roll(corners, 1, axis=0), corners[[0, 2, 1, 3]], corners[[0, 1, 1, 2]]]
    for odd in (*wrong, 0 * corners, corners[[0, 0, 0, 0]]):
        with pytest.raises(CalibrationError, match="--corners .* are no card's of 85.6 x 53.98 mm.*a long side"):
            flat_hand_cues(*given, corners=odd)


@pytest.mark.parametrize(("kind", "other"), [("paper", "letter"), ("letter", "paper")])
def test_another_sheet_of_paper_is_named(tmp_path: Path, kind: str, other: str) -> None:
    """Hands beside US Letter that was taken for A4 would be 6% too long."""
    where = view(12, -8, 800)
    image, corners = picture(where, other, (10.0, -110.0))
    cv2.imwrite(str(tmp_path / "flat.png"), image)
    hand = Detection(seen(hand_on_table(np.zeros(10)), where), np.ones(21), False, 0.99)
    for given in (None, corners):
        with pytest.raises(CalibrationError, match=f"give the picture as --{other}"):
            flat_hand_cues(tmp_path / "flat.png", kind, lambda _: [hand], corners=given, fov=60.0)


def test_a_business_card_is_no_bank_card(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Hands beside one of 3.5 x 2 inches came out 10 mm too long."""
    with monkeypatch.context() as other:
        other.setitem(RECTANGLES, "card", (88.9, 50.8))
        image, corners = picture(view(15, -8, 420), "card", (20.0, -60.0))
    with pytest.raises(UnusableImage, match="no card of"):
        find_rectangle(image, "card", CAMERA)
    check_corners(corners, "card", CAMERA)
    assert "9% off a card's proportions" in caplog.text


@pytest.mark.parametrize(("raised", "tilt", "most"), [(10, 0, 5), (0, 5, 9)], ids=["too high", "tilted"])
def test_a_card_that_does_not_lie_on_the_table(raised: float, tilt: float, most: float) -> None:
    """Nothing tells it: docs/own_pictures.md says by how much a hand's length is off."""
    card = np.array([[0, 0, 0], [85.6, 0, 0], [85.6, 53.98, 0], [0, 53.98, 0]]) - [42.8, 26.99, 0]
    off = []
    for axis in ([1, 0, 0], [0, 1, 0], [0, -1, 0]):
        turned = card @ cv2.Rodrigues(np.radians(tilt) * np.array(axis, float))[0].T
        turned += [62.8, -33.0, raised - turned[:, 2].min()]
        for where in (view(0, 0, 420), view(18, -10, 420)):
            plane = homography(seen(turned, where), "card")
            points = points_mm(seen(hand_on_table(np.zeros(10)), where), plane, HEIGHT_MM, CAMERA)
            off.append(1000 * joint_lengths(points / 1000)["hand"] - lengths_mm(ASSETS, np.zeros(10), None)["hand"][0])
    print(raised, tilt, np.round(off, 1))
    assert most - 1 < np.abs(off).max() < most


@pytest.mark.parametrize("name", ["card", "paper", "letter", "corners"])
def test_a_card_beside_keypoints_is_refused(name: str) -> None:
    with pytest.raises(CalibrationError, match=f"{name}: of photos"):
        handid.calibrate(np.ones((3, 21, 2)), K=CAMERA, **{name: "flat.png"})
