"""Open hands in recorded videos: frames that show one flat come out flat, those about them stay as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_cases import ASSETS
from scipy.spatial.transform import Rotation

from benchmarks.scenes.flat_motion import FPS, FRAMES, WIDTH, FlatClip, make_flat_clip, scored
from src.personalization.calibration.from_keypoints import keypoint_options
from src.personalization.calibration.online import OnlineCalibration
from src.personalization.calibration.population import shapes_of
from src.personalization.fitting.fit import fit_frames
from src.personalization.fitting.from_keypoints import world_direction
from src.personalization.fitting.shown_flat import likeliest_run
from src.personalization.landmarks.model import load_landmarks
from src.photos.keypoint_estimator import KeypointEstimator
from src.photos.result import Result
from src.photos.video.smoothing import FrameHands, LaggedTracks, TrackFitter, fit_tracks
from src.photos.video.track import TrackedHand
from src.photos.video.watching import Watching
from utils.camera import square_box
from utils.cameras.lens import CameraModel
from utils.cameras.views import View

LANDMARKS = load_landmarks("mediapipe", ASSETS.hash)


@pytest.fixture(scope="module")
def fitter() -> TrackFitter:
    return TrackFitter(KeypointEstimator(ASSETS, landmarks=LANDMARKS, flat=False))


def as_each_frame_is(clip: FlatClip, fitter: TrackFitter) -> list[FrameHands]:
    """Each frame fitted on its own with the person's shape, as a hand that is held as usual."""
    rows = [torch.as_tensor(value).expand(FRAMES, *value.shape) for value in (clip.betas, clip.K)]
    keypoints, confidence = torch.as_tensor(clip.keypoints), torch.ones(FRAMES, 21, dtype=torch.float64)
    world = world_direction(torch.as_tensor(clip.world), rows[1], keypoints)
    fit = fit_frames(fitter.model, clip.pose, *rows, keypoints, confidence, fitter.frame, world=world)
    frames = []
    for row in range(FRAMES):
        box = square_box(clip.keypoints[row], 1.0)
        result = Result(
            WIDTH, clip.K, box, clip.keypoints[row], np.ones(21), np.zeros((0, 3)), clip.joints[row], ASSETS,
            float(fit.reprojection_px[row]), *(part[row].numpy() for part in (fit.pose, fit.transl, fit.betas)),
            world=clip.world[row],
        )  # fmt: skip
        frames.append(FrameHands(row, row / FPS, [TrackedHand(1, box, False, True, 0, result)]))
    return frames


def flat_frames(fitted: list[FrameHands]) -> list[bool]:
    return ["shown_flat" in frame.hands[0].result.notes for frame in fitted]


def test_an_open_hand_is_flat_until_it_curls(fitter: TrackFitter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fingertips of an open hand lie at the palm's depth; until flat hands were told they were 3 cm nearer."""
    clip = make_flat_clip(ASSETS, LANDMARKS, seed=500, number=15)
    assert clip.kind == "curls"
    frames = as_each_frame_is(clip, fitter)
    told = fit_tracks(frames, fitter)
    monkeypatch.setattr(fitter, "flat", None)
    blind = fit_tracks(frames, fitter)
    assert not any(flat_frames(blind))
    begin, end = (round(FPS * seconds) for seconds in clip.change)
    flat = flat_frames(told)
    assert all(flat[: begin + 1]) and not any(flat[end:])
    now, before = scored(clip, told), scored(clip, blind)
    assert now["shown_tips_mm"] < 8 < 16 < before["shown_tips_mm"], (now, before)
    assert now["shown_mm"] < 0.6 * before["shown_mm"] and now["other_mm"] < before["other_mm"] + 0.5
    assert now["largest_step_mm"] < 10  # the change takes several frames


def test_hands_that_curl_or_turn_are_not_flat(fitter: TrackFitter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A straight hand turned by 45 degrees is no more usual than one shown flat, and foreshortened about its fingers
    as thin as a closed one: what else it may be counts."""
    turned = make_flat_clip(ASSETS, LANDMARKS, seed=500, number=6)
    assert turned.kind == "turns"
    assert not any(flat_frames(fit_tracks(as_each_frame_is(turned, fitter), fitter))[-35:])
    curled = make_flat_clip(ASSETS, LANDMARKS, seed=500, number=4)
    assert curled.kind == "never"
    frames = as_each_frame_is(curled, fitter)
    told = fit_tracks(frames, fitter)
    assert not any(flat_frames(told))
    monkeypatch.setattr(fitter, "flat", None)
    for one, other in zip(told, fit_tracks(frames, fitter), strict=True):
        np.testing.assert_array_equal(one.hands[0].result.pose, other.hands[0].result.pose)


@pytest.mark.parametrize("degrees", [60, 95])
def test_a_lens_sees_a_hand_aside_as_one_straight_ahead(fitter: TrackFitter, degrees: int) -> None:
    """Hand and view turned about the camera, nothing else changes: depths and flat hands were of the camera's axis, and
    an open hand 60 degrees aside was never told, and 28 mm off for 7. Hands beside the camera said nothing."""
    clip = make_flat_clip(ASSETS, LANDMARKS, seed=500, number=15)
    ahead = as_each_frame_is(clip, fitter)[15:45]
    lens = CameraModel(np.array([[400.0, 0, 639.5], [0, 400, 479.5], [0, 0, 1]]), np.zeros(4), "fisheye", (1280, 960))
    turn = Rotation.from_euler("y", degrees, degrees=True).as_matrix()

    def aside(result: Result) -> Result:
        rays = np.column_stack([result.keypoints - clip.K[:2, 2], np.full(21, clip.K[0, 0])]) @ turn.T
        points = lens.project(rays)
        view = View.of_box(lens, square_box(points, 1.0), 3.0)
        return replace(
            result.moved(turn), K=lens.K, keypoints=points, box=square_box(points, 1.0), lens=lens, view=view
        )

    there = [replace(one, hands=[replace(one.hands[0], result=aside(one.hands[0].result))]) for one in ahead]
    told, expected = (fit_tracks(frames, fitter) for frames in (there, ahead))
    stream = LaggedTracks(fitter, 0)
    lagged = [settled.hands[0].result for frame in there for settled, _ in stream.push(frame)]
    watching = Watching(OnlineCalibration(options=keypoint_options(ASSETS, shapes_of(ASSETS)), assets=ASSETS), Path())
    watching.see(there[0].hands[0].result, 1, 0.0)
    assert watching.online.views == 1
    assert all("over_time" in one.notes for one in (*lagged, *(frame.hands[0].result for frame in told)))
    assert flat_frames(told) == flat_frames(expected) and any(flat_frames(told))
    found, wanted = (np.stack([frame.hands[0].result.joints for frame in frames]) for frames in (told, expected))
    assert np.linalg.norm(found @ turn - wanted, axis=2).mean() < 0.003


def test_one_odd_frame_does_not_end_a_run() -> None:
    odds = torch.full((60,), -30.0, dtype=torch.float64)
    odds[20:40] = 4.0
    for rate in (30, 120):  # as often asked, the same answer
        seconds = torch.arange(60 * rate // 30, dtype=torch.float64) / rate
        every = odds.repeat_interleave(rate // 30)
        expected = every > 0
        assert likeliest_run(every, seconds).equal(expected)
        for place, odd in ((10, 8.0), (30, -400.0), (30, -torch.inf), (50, torch.inf), (30, 0.0)):
            changed = every.clone()
            changed[place * rate // 30] = odd
            assert likeliest_run(changed, seconds).equal(expected), (rate, place, odd)
    odds[5:55] = 4.0
    odds[25:35] = -30.0
    assert likeliest_run(odds, torch.arange(60).double() / 30).equal(odds > 0)  # a third of a second is no mistake
    for odd, is_flat in ((1.0, False), (4.0, True)):  # one frame, as one picture
        assert likeliest_run(torch.tensor([odd]), torch.zeros(1)).tolist() == [is_flat]


def test_streams_do_not_tell_flat_hands(fitter: TrackFitter) -> None:
    assert fitter.flat is not None and fitter.frame.flat is None
    estimator = KeypointEstimator(ASSETS, landmarks=LANDMARKS, flat=False)
    assert not estimator.options.flat
