"""Tracks fitted over time: jitter goes, short gaps are carried and long ones are not, both sides alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from photo_cases import Fixed, K, arguments, hand_at, result_of
from test_animation_files import Glb
from test_tracker import Script, seen
from test_video_files import write_clip

from benchmarks.scenes.tracking import ClipScores, Reported, score_clip, summary
from src.photos.api import PhotoEstimator
from src.photos.estimator import HandInPicture
from src.photos.result import Result
from src.photos.video import run_video
from src.photos.video.smoothing import FrameHands, LaggedTracks, TrackFitter, fit_tracks
from src.photos.video.track import TrackedHand
from utils.camera import project_numpy
from utils.video_files import open_video

FRAMES = 40
SHIFT = np.array([0.004, 0.001, 0.002])  # m a frame


def moving(noise_px: float, hidden: tuple[int, ...] = ()) -> tuple[list[Result | None], np.ndarray]:
    """A stiff hand on a straight line, as keypoints of ``noise_px`` show it; and its true joints (F,21,3) m."""
    rng, hand, results, truth = np.random.default_rng(0), hand_at(0.6), [], []
    for frame in range(FRAMES):
        there = {**hand, **{name: hand[name] + SHIFT * frame for name in ("transl", "vertices", "joints")}}
        truth.append(there["joints"])
        result = result_of(there)
        points = result.keypoints + noise_px * rng.normal(size=(21, 2))
        results.append(None if frame in hidden else replace(result, keypoints=points))
    return results, np.stack(truth)


def track(results: list[Result | None], number: int = 1) -> list[FrameHands]:
    return [
        FrameHands(
            frame, frame / 30, [TrackedHand(number, np.ones(3), one is not None and one.side == "left", True, 0, one)]
        ).light()
        for frame, one in enumerate(results)
    ]


def joints_of(frames: list[FrameHands]) -> list[np.ndarray | None]:
    return [None if frame.hands[0].result is None else frame.hands[0].result.joints for frame in frames]


def test_jitter_goes_and_gaps_are_carried() -> None:
    """Half a second hidden is carried by what is before and after; a second, and what comes after the last, are not."""
    results, truth = moving(2.0, hidden=(*range(10, 20), 38, 39))
    fitter = TrackFitter(Fixed())
    fitted = [fitter.with_meshes(frame) for frame in fit_tracks(track(results), fitter)]
    found = joints_of(fitted)
    assert [one is None for one in found] == [False] * 38 + [True] * 2
    off = np.stack(found[:38]) - truth[:38]
    assert np.linalg.norm(off, axis=2).mean() < 0.012 and np.linalg.norm(off[10:20], axis=2).mean() < 0.012
    shaking = np.diff(off, 2, axis=0)
    assert np.abs(shaking).mean() < 0.0005
    hands = [frame.hands[0].result for frame in fitted[:38]]
    assert [hand.notes.get("observed", True) for hand in hands] == [not 10 <= f < 20 for f in range(38)]
    assert all(hand.confidence.max() == 0 for hand in hands[10:20])
    carried = project_numpy(hands[15].joints.astype(float), K)
    np.testing.assert_allclose(hands[15].keypoints, carried, atol=1e-6)
    assert all(len(hand.vertices) == 778 for hand in hands)
    long = [None if 5 <= frame < 35 else one for frame, one in enumerate(results)]
    assert all(one is None for one in joints_of(fit_tracks(track(long), fitter))[5:35])


def test_a_stream_gives_the_frames_before_a_loss_too() -> None:
    """Those that still waited when a hand had been gone for too long stayed each frame's own, and were not carried."""
    results, _ = moving(2.0, hidden=tuple(range(20, FRAMES)))
    stream, settled = LaggedTracks(TrackFitter(Fixed()), 10), []
    for frame in track(results):
        settled += [one for one, _ in stream.push(replace(frame, seconds=frame.number / 10))]
    settled += [one for one, _ in stream.flush()]
    hands = [frame.hands[0].result for frame in settled]
    assert all(hand.notes["over_time"] == "lag" for hand in hands[:25]) and not any(hands[26:])


def test_a_left_hand_is_the_mirror_image_of_a_right_one() -> None:
    results, _ = moving(2.0)
    centred = K.copy()
    centred[0, 2] = (640 - 1) / 2  # so that the mirrored picture has the same camera
    rights = [replace(one, K=centred) for one in results[:12]]
    fitter = TrackFitter(Fixed())
    right = joints_of(fit_tracks(track(rights), fitter))
    left = joints_of(fit_tracks(track([one.mirrored() for one in rights]), fitter))
    assert np.abs(np.stack(left) * [-1, 1, 1] - np.stack(right)).max() < 1e-6


def test_frames_read_as_the_other_hand_are_fitted_as_what_the_track_is() -> None:
    """Their points are as good; before, they stayed the other hand's in the file, 60 mm off."""
    results, truth = moving(0.3)
    mistaken = [
        one.mirrored() if frame < 3 else one for frame, one in enumerate(results)
    ]  # of the other side, and with its pose
    mistaken[:3] = [
        replace(other, keypoints=one.keypoints, K=one.K) for one, other in zip(results[:3], mistaken[:3], strict=True)
    ]
    frames = track(mistaken)
    fitted = fit_tracks(frames, TrackFitter(Fixed()))
    assert {frame.hands[0].result.side for frame in fitted} == {"right"}
    off = np.linalg.norm(np.stack(joints_of(fitted)) - truth, axis=-1)
    assert off.mean() < 0.01, off.mean(axis=1)


def test_whose_a_track_is_is_known_in_the_end() -> None:
    frames = [replace(f, hands=[replace(h, person=int(f.number > 5)) for h in f.hands]) for f in track(moving(0.3)[0])]
    assert {frame.hands[0].person for frame in fit_tracks(frames, TrackFitter(Fixed()))} == {1}


def test_the_misfit_is_of_the_fit_that_is_written() -> None:
    results, _ = moving(2.0)
    sure = [replace(one, reprojection_px=1.5, certainty={"misfit": 0.2, "distance_std_m": 0.01}) for one in results]
    sure[7] = replace(sure[7], certainty={"misfit": 0.99}, reprojection_px=0.5)  # its neighbours pull it further off
    fitted = fit_tracks(track(sure), TrackFitter(Fixed()))
    for before, after in zip(sure, fitted, strict=True):
        now = after.hands[0].result
        if before is sure[7]:
            assert now.certainty == {"misfit": 0.99} and "over_time" not in now.notes
        else:
            assert now.certainty == {"misfit": pytest.approx(0.2 * now.reprojection_px / 1.5)}


def test_hands_that_were_never_confirmed_are_left_out() -> None:
    results, _ = moving(0.0)
    frames = track(results[:5])
    frames = [replace(f, hands=[*f.hands, replace(f.hands[0], track=2, is_confirmed=False)]) for f in frames]
    fitted = fit_tracks(frames, TrackFitter(Fixed()))
    assert [[hand.track for hand in frame.hands] for frame in fitted] == [[1]] * 5


class Placed(Fixed):
    """The hand that the detector's keypoints mean."""

    def estimate(self, seen: HandInPicture) -> Result:
        hand = hand_at(0.6)
        return replace(result_of(hand), width=seen.image.shape[1], keypoints=seen.keypoints.points, box=seen.box)


def two_hands(count: int) -> PhotoEstimator:
    frames = [[seen(20 + frame, 20), seen(50 - frame, 30, is_left=True)] for frame in range(count)]
    return PhotoEstimator(Placed(), detector=Script(frames))


@pytest.mark.parametrize("words", [(), ("--lag", "0"), ("--lag", "3"), ("--each_frame_alone",)])
def test_two_hands_in_every_file(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_video, "open_tools", lambda _: two_hands(6))
    clip, output = write_clip(tmp_path / "a.mp4", 6), tmp_path / "out"
    run_video.video_demo(arguments("--video", str(clip), "--output", str(output), "--glb", "animated", *words))
    _, *lines = [json.loads(line) for line in (output / "a_frames.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(6))
    for line in lines:
        (other,) = line["other_hands"]
        assert (line["track"], line["hand"]["side"]) == (1, "right") and (other["track"], other["hand"]["side"]) == (
            2,
            "left",
        )
        assert line["person"] == other["person"] == 0 and line["betas"] == other["betas"]
        assert line.get("over_time") == (
            {"--lag": "lag", "--each_frame_alone": None}[words[0]] if words else "sequence"
        )
    assert len(list(open_video(output / "a_annotated.mp4")[1])) == 6
    assert len(Glb(output / "a_hands.glb").document["skins"]) == 2
    assert not list(output.glob(".video_*"))


def test_a_video_of_one_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_video, "open_tools", lambda _: two_hands(1))
    clip, output = write_clip(tmp_path / "a.mp4", 1), tmp_path / "out"
    run_video.video_demo(arguments("--video", str(clip), "--output", str(output)))
    _, line = [json.loads(line) for line in (output / "a_frames.jsonl").read_text().splitlines()]
    assert line["status"] == line["other_hands"][0]["status"] == "ok"


def test_stopped_while_it_fits_the_frames_alone_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_video, "open_tools", lambda _: two_hands(4))

    def stop(self: TrackFitter, frame: FrameHands) -> FrameHands:
        if frame.number == 2:
            raise KeyboardInterrupt
        return frame

    monkeypatch.setattr(TrackFitter, "with_meshes", stop)
    monkeypatch.setattr(run_video, "annotate", lambda image, *_: image)
    clip, output = write_clip(tmp_path / "a.mp4", 4), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_video.video_demo(arguments("--video", str(clip), "--output", str(output), "--glb", "animated"))
    _, *lines = [json.loads(line) for line in (output / "a_frames.jsonl").read_text().splitlines()]
    assert len(lines) == 4 == len(list(open_video(output / "a_annotated.mp4")[1]))
    assert not any("over_time" in line for line in lines)
    assert sorted(path.name for path in output.iterdir()) == ["a_annotated.mp4", "a_frames.jsonl", "a_hands.glb"]


def test_meshes_without_rotations_cannot_be_smoothed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = two_hands(2)
    tools.estimator.card = replace(Fixed.card, model="cmr_identity")
    monkeypatch.setattr(run_video, "open_tools", lambda _: tools)
    clip = write_clip(tmp_path / "a.mp4", 2)
    with pytest.raises(ValueError, match="--lag needs the joints' rotations"):
        run_video.video_demo(arguments("--video", str(clip), "--output", str(tmp_path / "out"), "--lag", "0"))
    with pytest.raises(SystemExit):
        arguments("--video", str(clip), "--lag", "0", "--each_frame_alone")


def test_scores_of_a_tracker_that_is_known_to_err() -> None:
    """Ten frames, two hands: one is lost twice, changes its number once, and once is reported as the other side."""
    one, two = hand_at(0.6)["joints"], hand_at(0.6)["joints"] * [-1, 1, 1] + [0.2, 0.0, 0.0]
    joints = np.stack([np.stack([one] * 10), np.stack([two] * 10)])
    visible = np.ones((2, 10), dtype=bool)
    visible[1, 9] = False
    frames = [[Reported(1, False, one + [0, 0, 0.3]), Reported(2 if f < 5 else 7, f != 4, two)] for f in range(10)]
    frames[2], frames[3] = frames[2][:1], frames[3][:1]
    frames[6].append(Reported(9, False, one + [0.5, 0, 0]))
    scores = score_clip(frames, [False, True], joints, visible, K)
    assert (scores.swaps, scores.wrong_sides, scores.false) == (1, 1, 1)
    assert len(scores.errors) == 19 and np.isnan(scores.errors).sum() == 2
    np.testing.assert_allclose(np.array(scores.errors)[np.isfinite(scores.errors)], 0, atol=1e-9)
    ours = ClipScores([10.0, np.nan, 30.0]), ClipScores([3.0, 3.0], swaps=1)
    labels = ClipScores([10.0, 5.0, 10.0]), ClipScores([4.0, np.nan])
    found = summary(list(ours), list(labels))
    assert found["tracked_mm"] == pytest.approx((20 + 3) / 2) and found["label_boxes_mm"] == pytest.approx((10 + 4) / 2)
    assert found["lost"] == pytest.approx(1 / 5) and found["worst_ratio"] == pytest.approx(2.0) and found["swaps"] == 1
