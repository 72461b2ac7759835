"""What a real video of a hand is measured by: stillness and jitter."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies.real_video import jitter, still_frames, values


def test_jitter_is_the_noise_of_a_hand_that_moves_evenly() -> None:
    rng = np.random.default_rng(0)
    even = np.linspace(0, 50, 3000)[:, None, None] * np.ones((1, 5, 3))
    noisy = even + rng.normal(0, 1.5, even.shape)
    assert jitter(noisy, np.ones(3000, dtype=bool)) == pytest.approx(1.5, rel=0.02)


def test_frames_without_a_hand_do_not_count() -> None:
    points = np.zeros((40, 21, 3))
    points[20] = np.nan
    assert jitter(points, np.ones(40, dtype=bool)) == 0


def test_a_hand_that_waves_is_not_still() -> None:
    layout = np.random.default_rng(1).uniform(0, 100, (21, 2))
    keypoints = np.repeat(layout[None], 60, axis=0)
    keypoints[30:] += np.arange(30)[:, None, None]  # 1 px a frame, of a hand of 100 px
    still = still_frames(keypoints)
    assert still[5:24].all() and not still[31:].any()
    keypoints[10] = np.nan
    assert not still_frames(keypoints)[5:16].any()


def test_values_of_lost_frames_are_nan() -> None:
    lines = [{"status": "no usable hand"}, {"status": "ok", "joints": [[1.0, 2.0, 3.0]]}]
    found = values(lines, "joints")
    assert found.shape == (2, 1, 3) and np.isnan(found[0]).all() and found[1, 0, 2] == 3
