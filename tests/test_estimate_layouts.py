"""Layouts of other estimators' files that look like what is read, and are not, and the same of points from Python."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import handid
from benchmarks.scenes.simulation import SimulationOptions, simulate
from src.engine.estimates.tracks import frames_of
from src.estimators import EstimateFormatError, read_estimates
from src.personalization.estimates.evidence import prepare
from src.personalization.estimates.people import people_of
from src.personalization.shape_source import load_identities
from src.personalization.solver.status import CalibrationError
from template import load_hand_assets
from template.assets import STAND_IN_PATH
from tests.test_estimators import (
    BETAS,
    CASES,
    REAL_K,
    SIZE,
    hamer,
    joints_csv,
    joints_npz,
    mediapipe,
    mmpose,
    put,
)
from utils.artifact_checks import ArtifactError
from utils.joints import STANDARD_TO_MANO

ASSETS = load_hand_assets(STAND_IN_PATH)
KNOWN = {"K": REAL_K, "image_size": SIZE}


@pytest.mark.parametrize("names", [("0", "1"), ("frame_1", "frame_2"), ("left", "right")])
@pytest.mark.parametrize("format", ["hamer", "fasthamer", "sam3d_body", "mediapipe"])
def test_frames_by_keys_that_name_no_pictures_are_not_read_as_the_first(
    tmp_path: Path, format: str, names: tuple[str, str]
) -> None:
    case = mediapipe(False) if format == "mediapipe" else dict(CASES)[format](False)
    file = put(
        tmp_path / ("b.pt" if format == "hamer" else "b.pkl"), {name: copy.deepcopy(case.content) for name in names}
    )
    with pytest.raises(EstimateFormatError, match="is in it several times .*a list is meant"):
        read_estimates(file, format, **{**case.options, **(KNOWN if format == "mediapipe" else {"K": REAL_K})})


@pytest.mark.parametrize("first", [True, False])
def test_the_truth_beside_a_prediction_is_not_the_prediction(tmp_path: Path, first: bool) -> None:
    content = hamer(False).content
    truth = {"mano_params": {key: torch.zeros_like(value) for key, value in content["pred_mano_params"].items()}}
    file = put(tmp_path / "b.pt", {**truth, **content} if first else {**content, **truth})
    np.testing.assert_allclose(read_estimates(file, "hamer", K=REAL_K).betas[0], BETAS, atol=1e-6)


@pytest.mark.parametrize("left", [True, False])
def test_what_the_demos_next_lines_flip_is_told_by_what_they_leave(tmp_path: Path, left: bool) -> None:
    content = hamer(left).content
    cam = content["pred_cam"]
    content["pred_cam_t"] = torch.stack([cam[:, 1], cam[:, 2], 2 * 5000 / (256 * cam[:, 0])], dim=1)
    assert len(read_estimates(put(tmp_path / "b.pt", content), "hamer", K=REAL_K)) == 1
    content["pred_cam"][:, 1] *= -1 if left else 1  # as `pred_cam[:, 1] = multiplier * pred_cam[:, 1]` does
    file = put(tmp_path / "c.pt", content)
    if not left:
        assert len(read_estimates(file, "hamer", K=REAL_K)) == 1
        return
    with pytest.raises(EstimateFormatError, match="Keep a copy from before them"):
        read_estimates(file, "hamer", K=REAL_K)


def many(count: int, **changes: Any) -> dict[str, Any]:
    """Plain joints of so many rows of one hand."""
    content = joints_npz(False).content
    rows = {name: np.repeat(content[name], count, axis=0) for name in ("keypoints_2d", "joints_3d", "is_left")}
    return content | rows | changes


def test_a_number_behind_a_dot_is_no_ending(tmp_path: Path) -> None:
    names = np.array([f"shot.{number:04d}" for number in range(6)])
    file = put(tmp_path / "b.npz", many(6, image=names))
    table = tmp_path / "who.csv"
    table.write_text("image,subject\nshot.0000,7\n")
    with pytest.raises(EstimateFormatError, match="does not say who is in shot.0001"):
        read_estimates(file, "joints", unit="mm", subjects=table)
    table.write_text("image,subject\n" + "".join(f"{name},{number // 3}\n" for number, name in enumerate(names)))
    read = read_estimates(file, "joints", unit="mm", subjects=table)
    assert read.subject_id.tolist() == [0, 0, 0, 1, 1, 1]
    table.write_text("image,subject\nshot.0001,7\n")
    pictures = put(tmp_path / "c.npz", many(1, image=np.array(["shot.0001.png"])))
    assert read_estimates(pictures, "joints", unit="mm", subjects=table).subject_id.tolist() == [7]
    assert frames_of(read_estimates(file, "joints", unit="mm")).track.tolist() == [1] * 6


def test_one_name_for_all_frames_counts_no_frames(tmp_path: Path) -> None:
    file = put(tmp_path / "b.npz", many(4, image=np.array(["take2.mp4"] * 4)))
    with pytest.raises(ValueError, match="all 4 hands are of one frame"):
        frames_of(read_estimates(file, "joints", unit="mm"))


def test_arrays_of_another_layout_are_not_reshaped(tmp_path: Path) -> None:
    points = many(4)["keypoints_2d"]
    for turned in (points.transpose(0, 2, 1), points.transpose(2, 0, 1)):
        file = put(tmp_path / "b.npz", many(4, image=np.array(list("abcd")), keypoints_2d=turned))
        with pytest.raises(EstimateFormatError, match=r"keypoints_2d has the shape .*\('N', 21, 2\) is meant"):
            read_estimates(file, "joints", unit="mm")
    file = put(tmp_path / "b.npz", many(4, image=np.array(list("abcd")), keypoints_2d=points.reshape(4, 42)))
    np.testing.assert_allclose(read_estimates(file, "joints", unit="mm").keypoints_2d, points)


@pytest.mark.parametrize("format", ["wilor_mini", "sam3d_body", "fasthamer"])
def test_a_size_that_contradicts_the_files_camera_is_refused(tmp_path: Path, format: str) -> None:
    """It made the mirror image of left hands, and with fov the camera."""
    case = dict(CASES)[format](True)
    content = case.content | {"image_size": [480, 640]} if format == "fasthamer" else case.content
    given = {} if format == "fasthamer" else {"image_size": (1280, 960)}
    file = put(tmp_path / f"b{case.suffix}", content)
    with pytest.raises(EstimateFormatError, match="cannot belong to a picture of|640 x 480 px, image_size says 1280"):
        read_estimates(file, format, fov=60, **given)


def test_tables_have_as_many_columns_in_every_line(tmp_path: Path) -> None:
    """Decimal commas move all numbers behind them; an empty line is none."""
    text = joints_csv(False).content
    file = tmp_path / "b.csv"
    file.write_text(text + "\n\n")
    assert len(read_estimates(file, "joints", unit="mm")) == 1
    head, row = text.split()
    for wrong in (row.replace(".", ",", 2), row.rpartition(",")[0]):
        file.write_text(f"{head}\n{row}\n{wrong}\n")
        with pytest.raises(ArtifactError, match=r"b.csv cannot be read .*line 3 has \d+ columns, the first one"):
            read_estimates(file, "joints", unit="mm")


def test_landmarks_in_pixels_are_named(tmp_path: Path) -> None:
    content = mediapipe(False).content
    for point in content["hand_landmarks"][0]:
        point.update(x=640 * point["x"], y=480 * point["y"])
    with pytest.raises(EstimateFormatError, match="parts of the picture's width and height are meant, not pixels"):
        read_estimates(put(tmp_path / "b.json", content), "mediapipe", **KNOWN)


def test_a_legacy_frame_without_a_hand_has_none(tmp_path: Path) -> None:
    hand = mediapipe(False, legacy=True).content
    file = put(tmp_path / "b.json", [hand, dict.fromkeys(hand)])
    assert len(read_estimates(file, "mediapipe", **KNOWN)) == 1


def test_a_list_of_many_people_may_be_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    body = mmpose(False).content[0]
    two = read_estimates(put(tmp_path / "b.json", [body, body]), "mmpose", **KNOWN)
    assert two.subject_id.tolist() == [0, 1] and not caplog.records
    read_estimates(put(tmp_path / "c.json", [body] * 5), "mmpose", **KNOWN)
    assert "5 people in one picture, c: if these are frames of fewer" in caplog.text


@pytest.fixture(scope="module")
def person() -> dict[str, np.ndarray]:
    """Twelve hands of a person: keypoints (12,21,2) px, joints (12,21,3) m, K."""
    world = simulate(ASSETS, 1, 12, SimulationOptions(1.0, 0.0, 0.1, (0.35, 0.6), uniform_depth=True), seed=14)
    return {"keypoints": world.keypoints[0].numpy(), "joints": world.joints[0].numpy(), "K": world.K[0, 0].numpy()}


def plain(person: dict[str, np.ndarray], tmp_path: Path, **changes: Any) -> Any:
    rows = {"keypoints_2d": person["keypoints"], "joints_3d": person["joints"], "is_left": np.zeros(12, bool)}
    rows |= {"image": np.array([f"{row}.jpg" for row in range(12)]), "K": person["K"], "image_size": np.array(SIZE)}
    rows = {name: value for name, value in (rows | changes).items() if value is not None}
    return read_estimates(put(tmp_path / "b.npz", rows), "joints")


def test_joints_that_contradict_their_points_are_told(person: dict[str, np.ndarray], tmp_path: Path) -> None:
    prepare(plain(person, tmp_path), ASSETS, people_of(ASSETS))
    for joints in (person["joints"] * [1, -1, -1], np.roll(person["joints"], 1, axis=0)):
        with pytest.raises(CalibrationError, match="the 3D joints contradict the 2D points"):
            prepare(plain(person, tmp_path, joints_3d=joints), ASSETS, people_of(ASSETS))


def test_points_in_another_order_are_told(
    person: dict[str, np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = person["keypoints"], person["K"]
    handid.fit(*given, hand=ASSETS)
    handid.fit(joints=person["joints"], hand=ASSETS)
    assert not caplog.records
    order = list(STANDARD_TO_MANO)
    handid.fit(given[0][:, order], given[1], hand=ASSETS)
    assert "keypoints' box off these, or behind the camera (0): are they the 21 in standard order" in caplog.text
    caplog.clear()
    tips_first = [0, *(finger + part for finger in range(1, 21, 4) for part in (3, 2, 1, 0))]
    handid.fit(joints=person["joints"][:, tips_first], hand=ASSETS)
    assert "off their joints (median): are they the 21 in standard order" in caplog.text
    wrong = plain(person, tmp_path, keypoints_2d=given[0][:, order], joints_3d=None)
    with pytest.raises(CalibrationError, match="21 points in standard order|all together"):
        prepare(wrong, ASSETS, people_of(ASSETS))


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_left_handed_frame_is_told(
    person: dict[str, np.ndarray], side: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = person["joints"] * [1 if side == "right" else -1, 1, 1]
    handid.fit(joints=own, side=side, hand=ASSETS)
    assert not caplog.records
    handid.fit(joints=own * [1, 1, -1], side=side, hand=ASSETS)
    assert f"mirror images are better {side} hands" in caplog.text and "Unity" in caplog.text


def test_keypoints_of_the_other_side_are_not_calibrated_from(person: dict[str, np.ndarray]) -> None:
    handid.calibrate(person["keypoints"], K=person["K"], assets=ASSETS)
    for points, hand in ((person["keypoints"], "left"), (person["keypoints"][..., ::-1], None)):
        with pytest.raises(CalibrationError, match='is hand="left" right, and x before y'):
            handid.calibrate(points, K=person["K"], hand=hand, assets=ASSETS)
    handid.calibrate(person["keypoints"], K=person["K"], hand="left", assets=ASSETS, accept_conflict=True)


def test_nor_while_watching(person: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture) -> None:
    for hand in ("right", "left"):
        caplog.clear()
        online = handid.OnlineCalibration(person["K"], hand_length_mm=184, assets=ASSETS)
        for points in person["keypoints"]:
            online.add(points, hand=hand)
        online.settle()
        assert online.is_ready == (hand == "right"), online.conflict()
        assert ("are a right hand's, all together" in caplog.text) == (hand == "left")
    both = handid.OnlineCalibration(person["K"], hand_length_mm=184, assets=ASSETS)
    for row, points in enumerate(person["keypoints"]):
        both.add(
            points if row < 11 else points * [-1, 1] + [2 * person["K"][0, 2], 0], hand="left" if row == 11 else "right"
        )
    assert both.settle().side == "both" and both.is_ready, both.conflict()


def test_an_accepted_conflict_is_kept(
    person: dict[str, np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = {"hand_length_mm": 120, "accept_conflict": True, "assets": ASSETS}
    handid.calibrate(person["keypoints"], K=person["K"], **more).save(tmp_path / "me.json")
    caplog.clear()
    handid.fit(person["keypoints"], person["K"], identity=tmp_path / "me.json", hand=ASSETS)
    load_identities(tmp_path / "me.json", np.zeros(1, dtype=np.int64), ASSETS)
    assert caplog.text.count("me.json: its measured length (hand) contradicted the images by") == 2


def test_a_confidence_that_is_no_number_is_refused(person: dict[str, np.ndarray]) -> None:
    trust = np.ones((12, 21))
    trust[:, 4] = np.nan
    with pytest.raises(ValueError, match=r"must be in \[0,1\]"):
        handid.fit(person["keypoints"], person["K"], confidence=trust, hand=ASSETS)
    with pytest.raises(ValueError, match=r"is \(0, 0\), the picture's corner"):
        handid.fit(person["keypoints"], np.diag([615.0, 615.0, 1.0]), hand=ASSETS)
    online = handid.OnlineCalibration(assets=ASSETS, K=person["K"])
    with pytest.raises(CalibrationError, match=r"\[0,1\] is meant"):
        online.add(person["keypoints"][0], trust[0])
    mirrored = person["K"] * [[-1, 1, 1], [1, -1, 1], [1, 1, 1]]
    for K in (mirrored, person["K"].T):
        with pytest.raises(ValueError, match="K"):
            online.add(person["keypoints"][0], K=K)


def test_what_is_given_back_is_the_callers_own(person: dict[str, np.ndarray]) -> None:
    found = handid.fit(joints=person["joints"][:1], hand=ASSETS)
    before = ASSETS.faces.copy()
    found.faces[:] += 1
    np.testing.assert_array_equal(ASSETS.faces, before)
    pose = found.pose  # NumPy, of NumPy
    np.testing.assert_allclose(handid.axis_angle_to_pose(handid.pose_to_axis_angle(pose)), pose, atol=1e-5)
    np.testing.assert_allclose(handid.mirror_pose(handid.mirror_pose(pose)), pose)
