"""``--glb`` and ``--bvh`` of the video demo: the files move as the frames' hands do, whatever happens to the video."""

from __future__ import annotations

import json
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_cases import Fixed, arguments, hand_at, result_of
from test_animation_files import AXES, Glb, read_bvh
from test_video_files import write_clip

from src.engine.checkpoint import ModelCard
from src.photos.api import PhotoEstimator
from src.photos.estimator import HandInPicture
from src.photos.image import UnusableImage
from src.photos.result import Result
from src.photos.video import records, run_video
from template import HandModel
from utils.export.motion import HandMotion, PosedHand, even_rows


class Moving(Fixed):
    """Sees another pose and shape in every frame, and nothing in frames that are ``lost``."""

    def __init__(self, lost: tuple[int, ...] = (), look: object = None) -> None:
        super().__init__(look)
        self.lost, self.results = lost, {}

    def estimate(self, seen: HandInPicture) -> Result:
        super().estimate(seen)
        if self.calls in self.lost:
            raise UnusableImage("no usable hand")
        self.results[self.calls] = result_of(hand_at(0.5 + 0.02 * self.calls, seed=self.calls))
        return self.results[self.calls]


def demo(
    clip: Path, output: Path, estimator: Fixed, monkeypatch: pytest.MonkeyPatch, *words: str, alone: bool = True
) -> dict[str, Path]:
    monkeypatch.setattr(run_video, "open_tools", lambda _: PhotoEstimator(estimator, bbox=(10, 10, 50, 40)))
    words = (*words, "--each_frame_alone") if alone else words
    run_video.video_demo(arguments("--video", str(clip), "--output", str(output), *words))
    return {path.name: path for path in output.iterdir()}


def vertices(hand: Result, shape: Result, wrist: np.ndarray) -> np.ndarray:
    """The hand's pose on the shape of another result, its wrist at ``wrist``: (778,3) in glTF's axes."""
    rows = (torch.as_tensor(value)[None] for value in (hand.pose, shape.betas, np.zeros(3)))
    posed = HandModel(hand.assets, dtype=torch.float64)(*rows)
    return (posed.vertices[0] - posed.joints[0, :1]).numpy() * AXES + wrist * AXES


def test_the_animation_is_the_video_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = Moving(lost=(1, 2, 5))
    words = ("--glb", "animated_correctives", "--bvh", "--joint_names", "webxr")
    files = demo(write_clip(tmp_path / "a.mp4", 7), tmp_path / "out", estimator, monkeypatch, *words)
    assert set(files) == {"a_annotated.mp4", "a_frames.jsonl", "a_hands.glb", "a_hands.bvh"}
    _, *records = [json.loads(line) for line in files["a_frames.jsonl"].read_text().splitlines()]
    assert [record["status"] == "ok" for record in records] == [False, False, True, True, False, True, True]
    glb, results = Glb(files["a_hands.glb"]), estimator.results
    times = glb.array(glb.animation["samplers"][0]["input"])[:, 0]
    np.testing.assert_allclose(times, [record["seconds"] for record in records], atol=1e-4)
    places, step = read_bvh(files["a_hands.bvh"])
    assert step == pytest.approx(1 / 30) and len(places["wrist"]) == 7
    for frame, shown in enumerate([3, 3, 3, 4, 4, 6, 7]):  # calls whose hand is held or shown
        hand = results[shown]
        expected = vertices(hand, results[7], hand.joints[0])
        assert np.abs(glb.vertices(frame) - expected).max() < 2e-6
        assert np.abs(places["wrist"][frame] / 100 - hand.joints[0] * AXES).max() < 1e-7
    assert np.abs(glb.vertices(6) - results[7].vertices * AXES).max() < 2e-6  # the last frame's own shape
    names = [node["name"] for node in glb.document["nodes"]]
    assert len(glb.document["skins"][0]["joints"]) == 21 and "index-finger-phalanx-proximal" in names


def test_without_the_options_there_are_no_such_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = demo(write_clip(tmp_path / "a.mp4", 2), tmp_path / "out", Moving(), monkeypatch)
    assert set(files) == {"a_annotated.mp4", "a_frames.jsonl"}


def test_an_interruption_leaves_the_frames_until_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(call: int) -> None:
        if call == 4:
            os.kill(os.getpid(), signal.SIGINT)

    estimator, clip = Moving(look=stop), write_clip(tmp_path / "a.mp4", 6)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            demo(clip, tmp_path / "out", estimator, monkeypatch, "--glb", "animated", "--bvh")
    finally:
        signal.signal(signal.SIGINT, before)
    glb = Glb(tmp_path / "out/a_hands.glb")
    assert len(glb.array(glb.animation["samplers"][0]["input"])) == 3
    assert len(read_bvh(tmp_path / "out/a_hands.bvh")[0]["wrist"]) == 3
    assert len((tmp_path / "out/a_frames.jsonl").read_text().splitlines()) == 4


def test_a_full_disk_keeps_the_earlier_animation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_files: object
) -> None:
    clip, output = write_clip(tmp_path / "a.mp4", 2), tmp_path / "out"
    earlier = demo(clip, output, Moving(), monkeypatch, "--glb", "animated")["a_hands.glb"].read_bytes()
    full = Moving(look=lambda call: small_files(40_000))  # video and records fit, the animation does not
    with pytest.raises(OSError, match="a_hands.glb: not written, .*as it was.*Make room"):
        demo(clip, output, full, monkeypatch, "--glb", "animated")
    assert len(earlier) > 40_000 and (output / "a_hands.glb").read_bytes() == earlier
    assert sorted(path.name for path in output.iterdir()) == ["a_annotated.mp4", "a_frames.jsonl", "a_hands.glb"]


def test_a_full_disk_of_the_records_writes_no_animation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_files: object
) -> None:
    def full(call: int) -> None:
        if call == 2:  # a line longer than a file may be from now on
            monkeypatch.setattr(records.json, "dumps", lambda *values, **options: "x" * 2_000_000)
            small_files(1_000_000)

    clip = write_clip(tmp_path / "a.mp4", 4)
    with pytest.raises(OSError, match="a_frames.jsonl: not written"):
        demo(clip, tmp_path / "out", Moving(look=full), monkeypatch, "--glb", "animated")
    assert not list((tmp_path / "out").glob("*.glb"))


def test_no_hand_no_animation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clip, output = write_clip(tmp_path / "a.mp4", 2), tmp_path / "out"
    files = demo(clip, output, Moving(lost=(1, 2)), monkeypatch, "--glb", "animated")
    assert "a_hands.glb" not in files and "no frame has a hand" in caplog.text
    assert "earlier run" not in caplog.text
    (output / "a_hands.glb").write_bytes(b"earlier")
    demo(clip, output, Moving(lost=(1, 2)), monkeypatch, "--glb", "animated")
    assert "is of an earlier run" in caplog.text and (output / "a_hands.glb").read_bytes() == b"earlier"


def test_hands_that_are_taken_back_leave_no_animation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clip, output = write_clip(tmp_path / "a.mp4", 4), tmp_path / "out"
    words = ("--glb", "animated", "--bvh")
    files = demo(clip, output, Moving(), monkeypatch, *words, alone=False)
    assert {"a_hands.glb", "a_hands.bvh"} <= files.keys() and "earlier run" not in caplog.text
    (output / "a_hands_2.bvh").write_bytes(b"earlier")
    (output / "a_hands_x.bvh").write_bytes(b"another video's")
    monkeypatch.setattr(run_video, "fit_tracks", lambda frames, *_: [replace(one, hands=[]) for one in frames])
    files = demo(clip, output, Moving(), monkeypatch, *words, alone=False)
    assert {name for name in files if "_hands" in name} == {"a_hands_2.bvh", "a_hands_x.bvh"}
    assert "a_hands_2.bvh is of an earlier run" in caplog.text and "a_hands_x" not in caplog.text


def test_an_interrupted_run_names_what_is_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(call: int) -> None:
        if call == 3:
            raise KeyboardInterrupt

    clip, output = write_clip(tmp_path / "a.mp4", 6), tmp_path / "out"
    output.mkdir()
    (output / "a_hands_2.bvh").write_bytes(b"earlier")
    with pytest.raises(KeyboardInterrupt):
        demo(clip, output, Moving(lost=(1, 2), look=stop), monkeypatch, "--glb", "animated", "--bvh")
    assert "a_hands_2.bvh is of an earlier run" in caplog.text


def test_networks_of_meshes_have_no_bones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = Moving()
    estimator.card = ModelCard("cmr_identity")
    clip = write_clip(tmp_path / "a.mp4", 2)
    with pytest.raises(ValueError, match="--glb and --bvh need .*cmr_identity gives a mesh alone"):
        demo(clip, tmp_path / "out", estimator, monkeypatch, "--glb", "animated")


def test_a_track_has_one_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Left hands stay left; the frame in which the other one is seen holds the pose."""
    results = [result_of(hand_at(0.5, seed=seed)) for seed in range(4)]
    results = [hand if frame == 1 else hand.mirrored() for frame, hand in enumerate(results)]
    results = [replace(hand, betas=results[0].betas) for hand in results]
    motion = HandMotion()
    for frame, hand in enumerate(results):
        motion.add(frame / 10, PosedHand(hand.assets, hand.pose, hand.betas, hand.joints[0]))
    with caplog.at_level(logging.WARNING):
        motion.write(10, tmp_path / "a.glb", correctives=True)
    assert "1 frames show hand 1 as the other hand; the animation is of the left one" in caplog.text
    glb = Glb(tmp_path / "a.glb")
    assert glb.document["extras"]["hand_model"]["side"] == "left"
    for frame, shown in enumerate([0, 0, 2, 3]):
        hand = results[shown]
        assert np.abs(glb.vertices(frame) - vertices(hand, results[0], hand.joints[0])).max() < 2e-6


def test_both_hands_move_in_one_scene(tmp_path: Path) -> None:
    """Each has bones of its own; where one is missing, it holds its pose and the other goes on."""
    right = [result_of(hand_at(0.5 + 0.05 * seed, seed=seed)) for seed in range(3)]
    left = [result_of(hand_at(0.7, seed=7 + seed)).mirrored() for seed in range(3)]
    left = [replace(hand, betas=left[0].betas) for hand in left]
    right = [replace(hand, betas=right[0].betas) for hand in right]
    motion = HandMotion()
    for frame in range(3):
        hands = [(right[frame], 4), (left[frame], 2)] if frame != 1 else [(right[frame], 4)]
        motion.add(frame / 10, *(PosedHand(h.assets, h.pose, h.betas, h.joints[0], track) for h, track in hands))
    motion.write(10, tmp_path / "a.glb", tmp_path / "a.bvh", correctives=True)
    glb = Glb(tmp_path / "a.glb")
    assert [mesh["name"] for mesh in glb.document["meshes"]] == ["left_hand", "right_hand"]
    assert len({node["name"] for node in glb.document["nodes"]}) == len(glb.document["nodes"]) == 44
    for frame, shown in enumerate([0, 0, 2]):
        for skin, hand, shape in ((0, left[shown], left[0]), (1, right[frame], right[0])):
            expected = vertices(hand, shape, hand.joints[0])
            assert np.abs(glb.vertices(frame, skin) - expected).max() < 2e-6
    places = [read_bvh(tmp_path / name)[0]["wrist"] for name in ("a.bvh", "a_2.bvh")]
    assert np.abs(places[0][2] / 100 - left[2].joints[0] * AXES).max() < 1e-7
    assert np.abs(places[1][1] / 100 - right[1].joints[0] * AXES).max() < 1e-7


def test_a_bvh_shows_each_frame_when_the_video_does() -> None:
    assert even_rows(np.array([0.0, 0.1, 0.2, 0.3]), 10).tolist() == [0, 1, 2, 3]
    assert even_rows(np.array([0.0, 0.1, 0.4, 0.45, 0.5]), 10).tolist() == [0, 1, 1, 1, 3, 4]
    assert even_rows(np.array([0.0]), 25).tolist() == [0]
    assert len(even_rows(np.array([0.0, 1e6, 1e6 + 0.1]), 10)) == 102  # a clock that jumped
