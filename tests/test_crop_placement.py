"""Where crops lie, sample by sample in slow loops; which cameras and poses of a data set can be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from datasets.bad_files import BadFileError, possible_intrinsics, possible_poses, read_json, read_npz
from datasets.image_crop import joint_boxes, place_crops, whole_image_box

WIDTH, HEIGHT, SIZE = 640, 480, 128


def samples(count: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joints (N,21,3) m, K (N,3,3) px, and where they are seen (N,21,2) px."""
    random = np.random.default_rng(0)
    joints = random.normal(size=(count, 21, 3)) * 0.05 + [0.02, -0.03, 0.8]
    K = np.tile([[600.0, 0, 320], [0, 610, 240], [0, 0, 1]], (count, 1, 1))
    K[:, :2, 2] += random.normal(size=(count, 2))
    keypoints = np.stack([[(k @ x)[:2] / (k @ x)[2] for x in points] for k, points in zip(K, joints, strict=True)])
    return joints, K, keypoints


def test_boxes_are_twice_the_joints_box() -> None:
    _, _, keypoints = samples()
    usable = np.array([True, True, False, True, True])
    boxes = joint_boxes(keypoints, usable, WIDTH, HEIGHT)
    for points, good, (x, y, side) in zip(keypoints, usable, boxes, strict=True):
        if not good:
            assert (x, y, side) == (319.5, 239.5, 640)
            continue
        low, high = [min(p[a] for p in points) for a in (0, 1)], [max(p[a] for p in points) for a in (0, 1)]
        assert (x, y) == pytest.approx(((low[0] + high[0]) / 2, (low[1] + high[1]) / 2))
        assert side == pytest.approx(2 * max(high[0] - low[0], high[1] - low[1]))


def test_the_whole_image_is_in_its_box() -> None:
    for width, height in ((640, 480), (3, 7), (1, 1)):
        x, y, side = whole_image_box(width, height)
        assert x - side / 2 <= -0.5 and x + side / 2 >= width - 0.5 - 1e-9
        assert y - side / 2 <= -0.5 and y + side / 2 >= height - 0.5 - 1e-9
        assert side == max(width, height)


def test_a_crop_shows_the_joints_through_its_own_camera() -> None:
    """The crop's K projects the joints where the crop's keypoints are, and ``crop_to_image`` leads back."""
    joints, K, keypoints = samples()
    boxes = joint_boxes(keypoints, np.ones(5, dtype=bool), WIDTH, HEIGHT)
    valid = np.array([True, True, True, False, True])
    columns = {"K_image": K, "valid": valid, "image_id": np.arange(5)}
    placed = place_crops(columns, keypoints, boxes, SIZE)
    assert placed["image_id"] is columns["image_id"] and "K" not in columns
    for row in range(5):
        if not valid[row]:
            assert not placed["keypoints_2d"][row].any()
            continue
        for joint, seen, pixel in zip(joints[row], keypoints[row], placed["keypoints_2d"][row], strict=True):
            image = placed["K"][row].astype(np.float64) @ joint
            assert image[:2] / image[2] == pytest.approx(pixel, abs=1e-3)
            assert placed["crop_to_image"][row] @ [*pixel, 1] == pytest.approx(seen, abs=1e-3)
        box = placed["keypoints_2d"][row]  # twice the joints' box: they fill half of the crop, about its middle
        assert np.ptp(box, axis=0).max() == pytest.approx(SIZE / 2, abs=1e-3)
        assert (box.min(axis=0) + box.max(axis=0)) / 2 == pytest.approx([(SIZE - 1) / 2] * 2, abs=1e-3)
    assert all(placed[name].dtype == np.float32 for name in ("K", "K_image", "crop_to_image", "keypoints_2d"))


def test_cameras_that_cannot_be() -> None:
    good = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
    for row, column, value in (
        (0, 0, 0.0), (1, 1, -600.0), (0, 2, np.nan), (1, 2, np.inf), (0, 0, 2e6), (1, 2, -3e6), (2, 0, 320.0),
        (2, 1, 0.01), (2, 2, 0.0), (1, 0, 0.5),
    ):  # fmt: skip
        bad = good.copy()
        bad[row, column] = value
        assert possible_intrinsics(np.stack([good, bad])).tolist() == [True, False], (row, column, value)


def test_poses_that_no_hand_has(caplog: pytest.LogCaptureFixture) -> None:
    values = np.zeros((4, 3, 3))
    values[1, 2, 2], values[2, 0, 0] = 1e4, np.nan
    assert possible_poses(values, "labels.npz").tolist() == [True, False, False, True]
    assert "labels.npz: 2 of 4 samples" in caplog.text
    caplog.clear()
    assert possible_poses(values[[0, 3]], "labels.npz").all() and not caplog.text


def test_files_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, K=np.eye(3), names=np.array(["a"]), other=np.full(3, np.nan))
    np.testing.assert_array_equal(read_npz(path, {"K": (3, 3)})["K"], np.eye(3))
    for shapes, words in (({"K": (3, 4)}, r"K is float64 \(3, 3\)"), ({"names": (1,)}, "names is <U1"),
                          ({"other": (3,)}, "other holds NaN"), ({"none": (3,)}, "none")):  # fmt: skip
        with pytest.raises(BadFileError, match=words):
            read_npz(path, shapes)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BadFileError, match=r"a\.npz: not a whole .npz"):
        read_npz(path, {"K": (3, 3)})
    whole = tmp_path / "a.json"
    whole.write_text(json.dumps({"a": 1}))
    assert read_json(whole) == {"a": 1}
    whole.write_text('{"a": ')
    with pytest.raises(BadFileError, match="not whole JSON .*Copy or extract this file again, or skip"):
        read_json(whole)
    with pytest.raises(BadFileError) as caught:
        read_json(whole, can_skip=False)
    assert "skip_bad" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
