"""An identity that grows with a video: the shape that frames are fitted with, the file, and whose hand counts."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from src.personalization.calibration.from_keypoints import keypoint_options
from src.personalization.calibration.online import OnlineCalibration, OnlineOptions
from src.personalization.calibration.population import shapes_of
from src.personalization.terms.hand_size import LengthCue, lengths_mm
from src.photos.api import PhotoEstimator
from src.photos.estimator import HandInPicture, Keypoints
from src.photos.keypoint_estimator import KeypointEstimator
from src.photos.result import Result
from src.photos.video.drawing import all_words
from src.photos.video.people import People
from src.photos.video.track import Track
from src.photos.video.watching import WatchedShape, Watching, open_watching
from template import axis_angle_to_pose
from tests.photo_cases import ASSETS, Fixed, arguments, posed, result_of
from utils.camera import square_box
from utils.identity import load_identity

TOOLS = PhotoEstimator(Fixed())


def hand(seed: int) -> Result:
    """One person's right hand, held another way for every seed."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.tensor([[0.4, -2.6, 0.3]]) + 0.4 * torch.randn(1, 3, generator=generator)
    angles = torch.cat([root, 0.3 * torch.randn(1, 45, generator=generator)], dim=1)
    return result_of(posed(axis_angle_to_pose(angles.double()), torch.full((1, 10), 0.3).double(), 0.6))


def watching(path: Path, first_only: bool = False, **online: object) -> Watching:
    options = keypoint_options(ASSETS, shapes_of(ASSETS))
    options = replace(options, cues=(LengthCue("hand", 0.185, 0.003),))
    return Watching(OnlineCalibration(options=options, online=OnlineOptions(**online), assets=ASSETS), path, first_only)


def test_the_file_is_written_once_the_hand_is_known_and_stays_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a_identity.json"
    growing = watching(path, narrow_mm=20.0)
    shape = WatchedShape(TOOLS, growing)
    notes = []
    with caplog.at_level(logging.INFO):
        for seed in range(4):
            seen = hand(seed)
            shape.saw(seen, 1, seed / 30)
            notes.append(seen.notes["identity"])
        assert [note["views"] for note in notes] == [1, 2, 3, 4]
        assert [note["file"] for note in notes] == [None, None, "a_identity.json", "a_identity.json"]
        written = load_identity(path)  # what a kill would leave
        growing.close()
    assert written.n_images == 3 and written.created_by and load_identity(path).n_images == 4
    widths = [high - low for low, high in (note["interval_95_mm"] for note in notes)]
    assert widths == sorted(widths, reverse=True)
    assert caplog.text.count("the hand is known well enough") == 2 and "after 0.1 s" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["a_identity.json"]


def test_too_little_leaves_no_file_and_says_what_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    growing = watching(tmp_path / "a.json", narrow_mm=1.0)
    with caplog.at_level(logging.INFO):
        growing.see(hand(0), 1, 0.0)
        growing.close()
    assert "no identity is written: 1 views" in caplog.text and "--hand_length_mm" in caplog.text
    assert not list(tmp_path.iterdir()) and "earlier run" not in caplog.text
    (tmp_path / "a.json").write_text("{}")
    with caplog.at_level(logging.INFO):
        growing.close()
    assert "a.json is of an earlier run" in caplog.text


def test_an_interrupted_video_leaves_what_is_known_and_a_failed_one_what_was(tmp_path: Path) -> None:
    for error, count in ((KeyboardInterrupt, 2), (OSError, 0)):
        growing = watching(tmp_path / f"{count}.json", least_views=3)
        with pytest.raises(error), growing:
            for seed in range(2):
                growing.see(hand(seed), 1, seed / 30)
            growing.online.online = replace(growing.online.online, least_views=2)  # enough now, but not yet written
            raise error
        assert growing.path.is_file() == growing.is_written == (count > 0)


def test_both_hands_of_a_person_say_the_same(tmp_path: Path) -> None:
    right, left = watching(tmp_path / "r.json"), watching(tmp_path / "l.json")
    right.see(hand(0), 1, 0.0)
    left.see(hand(0).mirrored(), 1, 0.0)
    assert left.online.identity().side == "left"
    np.testing.assert_allclose(left.online.betas, right.online.betas, atol=1e-5)


def test_a_frame_is_fitted_with_what_is_known_by_then(tmp_path: Path) -> None:
    shape = WatchedShape(TOOLS, watching(tmp_path / "a.json"))
    before = copy.copy(shape)
    kept = before.betas.copy()
    shape.saw(hand(0), 1, 0.0)
    assert not np.allclose(shape.betas, kept) and shape.description == "1 frames in 1 views"
    np.testing.assert_array_equal(before.betas, kept)  # until it is copied again
    np.testing.assert_array_equal(copy.copy(before).betas, shape.betas)
    np.testing.assert_array_equal(shape.update(np.ones(10)), shape.betas)  # a network's word comes in by `saw` alone
    assert shape.length.is_known and f"{shape.length.mm:.0f} mm" in str(shape.length)


def test_another_persons_hand_gets_a_shape_of_its_own(tmp_path: Path) -> None:
    growing = watching(tmp_path / "a.json", beside=2)
    people = People(WatchedShape(TOOLS, growing))
    mine, theirs = (Track(number, None, -1.0, None) for number in (1, 2))
    for seed in range(2):
        for track, held in ((mine, hand(seed)), (theirs, hand(seed + 10))):
            shape = copy.copy(people.shape(track))
            shape.saw(held, track.number, seed / 30)
            people.learned(track, shape)
    assert growing.online.strangers == {2: "two right hands are seen at once"}
    assert people.shape(theirs).is_anothers and not people.shape(mine).is_anothers
    assert (people.number(mine), people.number(theirs)) == (0, 2)
    assert growing.online.identity().n_images == 2
    people.shape(theirs).update(np.full(10, 2.0))
    np.testing.assert_array_equal(people.shape(theirs).betas, np.full(10, 2.0))
    np.testing.assert_array_equal(people.shape(mine).betas, growing.online.identity().betas)


def test_one_person_is_one_person_whatever_is_seen(tmp_path: Path) -> None:
    growing = watching(tmp_path / "a.json", beside=2, one_person=True)
    for seed in range(3):
        growing.see(hand(seed), 1, seed / 30)
        growing.see(hand(seed + 10), 2, seed / 30)
    assert not growing.online.strangers and growing.online.identity().n_images == 6
    assert open_watching(
        arguments("--video", "a.mp4", "--one_person"), TOOLS, tmp_path / "b.json"
    ).online.online.one_person


def test_what_turns_out_to_be_the_other_hand_leaves_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    growing = open_watching(
        arguments("--video", "a.mp4", "--hand", "left", "--hand_length_mm", "185"), TOOLS, tmp_path / "a.json"
    )
    for seed in range(12):
        seen = hand(seed)
        growing.online.add(seen.keypoints, K=seen.K, hand="left", track=1, instant=seed / 30)
        if seed == 4:
            growing._write("early")
    with caplog.at_level(logging.INFO):
        growing.close()
    assert not list(tmp_path.iterdir()) and "are a right hand's" in caplog.text


def test_a_ruler_counts_from_the_first_frame(tmp_path: Path) -> None:
    seen = hand(0)
    shape = WatchedShape(TOOLS, watching(tmp_path / "a.json"))
    image, box = np.zeros((480, 640, 3), np.uint8), square_box(seen.keypoints, 1.0)
    points = Keypoints(seen.keypoints, np.ones(21), "")
    found = KeypointEstimator(ASSETS, landmarks=None).estimate(HandInPicture(image, seen.K, box, shape, points))
    np.testing.assert_allclose(found.betas, shape.betas, atol=1e-5)
    np.testing.assert_allclose(found.length.mm, lengths_mm(ASSETS, found.betas, None, ("hand",))["hand"][0], atol=0.1)


def test_with_two_shapes_only_the_first_hand_counts(tmp_path: Path) -> None:
    growing = watching(tmp_path / "a.json", first_only=True)
    growing.see(hand(0), 3, 0.0)
    growing.see(hand(1).mirrored(), 4, 0.1)
    assert growing.is_another(4) and growing.online.identity().n_images == 1


def test_what_is_drawn_names_the_interval_and_the_file(tmp_path: Path) -> None:
    seen = hand(0)
    WatchedShape(TOOLS, watching(tmp_path / "a.json", least_views=1)).saw(seen, 1, 0.0)
    low, high = seen.notes["identity"]["interval_95_mm"]
    camera = type("Camera", (), {"is_guess": False})()
    assert f"identity: 1 views, {low:.0f} to {high:.0f} mm (95%), in a.json" in all_words([seen], camera)


def test_options_that_contradict_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert open_watching(arguments("--video", "a.mp4", "--no-calibrate_online"), TOOLS, path) is None
    known = replace(TOOLS, identity=watching(path).online.identity())
    assert open_watching(arguments("--video", "a.mp4"), known, path) is None
    with pytest.raises(ValueError, match="--identity is the person's already"):
        open_watching(arguments("--video", "a.mp4", "--calibrate_online"), known, path)
    with pytest.raises(ValueError, match="--hand_length_mm: of --calibrate_online, but it is off"):
        open_watching(arguments("--video", "a.mp4", "--no-calibrate_online", "--hand_length_mm", "180"), TOOLS, path)
    words = ("--video", "a.mp4", "--hand_length_mm", "180", "--known_bone", "index=80±2", "--calibrate_until_mm", "15")
    found = open_watching(arguments(*words), TOOLS, path)
    assert [cue.name for cue in found.online.options.cues] == ["index", "hand"]
    assert found.online.online.narrow_mm == 15
