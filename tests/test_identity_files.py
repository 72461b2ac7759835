"""Identity files that are damaged, edited or of somebody else, and what calibration is told of keypoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_calibration import KNOWN

from benchmarks.scenes.simulation import SimulationOptions, simulate
from options.calibrate import get_args_parser
from options.fit import get_args_parser as fit_parser
from options.run_options import get_args_parser as run_parser
from src.personalization.calibration import command
from src.personalization.calibration.command import calibrate_and_write
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.images import Images
from src.personalization.calibration.merging import merge_identities
from src.personalization.calibration.population import Population
from src.personalization.pairing import apart_from_calibration, pair_keypoints
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import lengths_mm, opened_identity
from src.photos.calibrate import calibrate
from template import HandAssets
from utils.artifacts import (
    ArtifactError,
    HandMismatchError,
    Identity,
    Predictions,
    load_identity,
    save_identity,
)


@pytest.fixture(scope="module")
def rows(assets: HandAssets) -> Predictions:
    """Six images of one person, subject 8."""
    world = simulate(assets, 1, 6, SimulationOptions(1.0, 0, 0.1, (0.85, 0.05)))
    return world.predictions(assets)


def person(assets: HandAssets, **changes: object) -> Identity:
    """An identity that is what it says."""
    betas, covariance = np.full(10, 0.3), 0.04 * np.eye(10)
    length, std = lengths_mm(assets, betas, covariance, ("hand",))["hand"]
    known = Identity(
        betas, assets.name, assets.hash, length, "right", "multi_frame", 3, [101, 102, 103], covariance, std, 8
    )
    return replace(known, **changes)


def test_what_is_no_json_is_named_and_a_mark_of_an_editor_is_none(assets: HandAssets, tmp_path: Path) -> None:
    path = tmp_path / "me.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match="me.json is not JSON"):
        load_identity(path)
    save_identity(path, person(assets))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    np.testing.assert_array_equal(load_identity(path).betas, person(assets).betas)


def test_merging_refuses_what_means_nothing(assets: HandAssets, tmp_path: Path) -> None:
    first, people = person(assets), Population()
    second = replace(first, image_ids=[201, 202, 203])
    known = merge_identities([first, second], assets, people)
    nobody = replace(second, subject_id=None)  # not said is not different
    for files in ([first, nobody], [nobody, first]):
        merged = merge_identities(files, assets, people)
        assert merged.subject_id == 8
        np.testing.assert_allclose(merged.betas, known.betas)
    lengths = [replace(one, evidence={"cues": [["hand", 190.0, std]]}) for one, std in ((first, 3.0), (second, 4.0))]
    assert merge_identities(lengths, assets, people).evidence["cues"] == [["hand", 190.0, 4.0]]  # one measurement
    network = {"network": {"images": 3, "betas": [0.1] * 10}, "prior": people.hash}
    conflicts = [replace(one, evidence={"conflict": {"hand": by}}) for one, by in ((first, 7.5), (second, 6))]
    for files in (conflicts, [first, conflicts[0]][::-1]):
        files = [files[0], replace(files[1], image_ids=[201])]
        assert merge_identities(files, assets, people).evidence["conflict"] == {"hand": 7.5}
    fine = {"views": 3, "videos": 1, "in_common": [0.1, 0.5], "worth": 2.5}
    repeats = [{"views": 16}, fine | {"in_common": [2, 3]}, fine | {"worth": -1}, fine | {"views": "3"}, 3]
    endless = {"cues": [["hand", 180.0, float("inf")]]}
    for bad in (
        replace(second, covariance=np.zeros((10, 10)), source="ZERO"),
        replace(second, evidence=network, source="NETWORK"),
        replace(second, evidence=endless, source="CUE"),
        *(replace(second, evidence={"repeats": one}, source=f"REPEATS {number}") for number, one in enumerate(repeats)),
    ):
        with pytest.raises(CalibrationError, match=bad.source):
            merge_identities([first, bad], assets, people)
    save_identity(tmp_path / "me.json", replace(first, evidence={"conflict": 3}))
    with pytest.raises(ArtifactError, match=r"me\.json: evidence\.conflict is 3"):
        opened_identity(tmp_path / "me.json", assets)


def test_merged_images_count_within_their_own_splits(
    assets: HandAssets, rows: Predictions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = rows.image_id.tolist()
    files = [person(assets, image_ids=numbers[:2], images_of="dex_ycb s1_train", n_images=2)]
    files += [person(assets, image_ids=numbers[1:4], images_of="dex_ycb s1_test"), person(assets, image_ids=[])]
    merged = merge_identities(files, assets, Population())  # number 1 is of two pictures
    assert merged.image_ids == numbers[:2] + numbers[1:4]
    save_identity(tmp_path / "me.json", merged)
    own = {8: load_identity(tmp_path / "me.json")}
    here = replace(rows, dataset="dex_ycb", split="s1_test")
    assert apart_from_calibration(here, own).tolist() == [True, False, False, False, True, True]
    assert "on images of dex_ycb s1_train, these are of dex_ycb s1_test" in caplog.text
    for other in (files[1], replace(files[1], images_of="")):
        with pytest.raises(CalibrationError, match="the files share images"):
            merge_identities([merged, other], assets, Population())
    for bad in (["dex_ycb s1_train"], 3):
        with pytest.raises(ArtifactError, match="images_of is"):
            replace(merged, images_of=bad)


def test_an_edited_identity_is_not_merged(assets: HandAssets, rows: Predictions, tmp_path: Path) -> None:
    earlier, output = tmp_path / "me.json", tmp_path / "new.json"
    words = ["--predictions", "p", "--output", str(output), "--merge_with", str(earlier)]
    args = get_args_parser().parse_args(words)
    save_identity(earlier, person(assets, hand_length_mm=205.0))
    with pytest.raises(ArtifactError, match="me.json: states a hand of 205.0 mm"):
        calibrate_and_write(args, Images(rows), KNOWN, assets, "cpu")
    save_identity(earlier, person(assets, betas=np.full(10, -4.0), hand_hash="another"))
    with pytest.raises(ArtifactError, match="me.json was made with the hand model"):  # that first
        calibrate_and_write(args, Images(rows), KNOWN, assets, "cpu")
    far = np.full(10, -1.5)
    length, std = lengths_mm(assets, far, person(assets).covariance, ("hand",))["hand"]
    save_identity(earlier, person(assets, betas=far, hand_length_mm=length, hand_length_std_mm=std))
    with pytest.raises(CalibrationError, match="me.json .*and the new calibration of subject 8 .*do not look like"):
        calibrate_and_write(args, Images(rows), KNOWN, assets, "cpu")
    assert not output.exists()


def test_a_hand_of_a_length_that_no_hand_has(assets: HandAssets, rows: Predictions) -> None:
    absurd = replace(KNOWN, depth_mean=0.2, depth_std=1e-4)
    with pytest.raises(CalibrationError, match="subject 8: the hand came out .* mm long"):
        calibrate_predictions(rows, assets, absurd, num_images=None)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0"])
@pytest.mark.parametrize("name", ["root_std", "finger_std", "keypoint_std", "depth_mean", "depth_std"])
def test_numbers_that_are_none(name: str, value: str, capsys: pytest.CaptureFixture) -> None:
    needed = [] if name != "depth_std" else ["--depth_mean", "0.8"]
    for parser in (get_args_parser(), fit_parser()):
        with pytest.raises(SystemExit) as stopped:
            parser.parse_args(["--predictions", "p", "--output", "o", *needed, f"--{name}", value])
        assert stopped.value.code == 2 and f"--{name} is {float(value)}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "dataset humbi",
        "accept_conflict",
        "min_confidence nan",
        "threads 0",
        "wrist_depth --data_root d --wrist_depth_std_mm nan",
        "method confidence --temperature nan",
    ],
)
def test_options_of_calibration_without_effect(words: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        get_args_parser().parse_args(["--predictions", "p", *f"--{words}".split()])
    assert f"--{words.split()[-2].removeprefix('--') if ' ' in words else words}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["--images=", "--images a --output=", "--images a --bbox nan 1 2 3", "--pictures -1", "--demo_frames 0"]
)
def test_options_of_the_demo_that_are_nothing(words: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run_parser().parse_args(["--phase", "demo", *words.split()])
    said = capsys.readouterr().err
    assert "is empty" in said or "is nan" in said or "is -1" in said or "is 0" in said


def test_keypoints_and_what_is_said_of_them(assets: HandAssets, rows: Predictions) -> None:
    points, K = rows.keypoints_2d, rows.K[0]
    for words, given in (
        ("hand is 'Left'", {"hand": "Left"}),
        ("K has shape .2, 3, 3.", {"K": rows.K[:2]}),
        ("K has shape .4, 4.", {"K": np.eye(4)}),
        ("confidence has shape .6, 20.", {"confidence": np.ones((6, 20))}),
        ("confidence .*spans .nan", {"confidence": np.full((6, 21), np.nan)}),
        ("confidence .*spans .-1", {"confidence": -np.ones((6, 21))}),
    ):
        with pytest.raises(CalibrationError, match=words):
            calibrate(points, **({"K": K} | given), assets=assets)
    for given in ({"K": K}, {"hand": "left"}, {"confidence": np.ones((6, 21))}):
        with pytest.raises(CalibrationError, match=f"{next(iter(given))}: predictions and results bring their own"):
            calibrate(rows, **given, assets=assets)
    with pytest.raises(CalibrationError, match="K, fov and camera say"):
        calibrate("photos", K=K, fov=60, assets=assets)


def test_keypoints_of_the_mirror_image_or_another_size_are_not_paired(rows: Predictions) -> None:
    shapes = replace(rows, keypoints_2d=None)
    half = rows.K * np.array([[0.5], [0.5], [1.0]])
    for name, other in (("is_left", replace(rows, is_left=~rows.is_left)), ("K", replace(rows, K=half))):
        with pytest.raises(CalibrationError, match=f"{name} of image 0 is .*6 of 6 images"):
            pair_keypoints(shapes, other)
    np.testing.assert_array_equal(pair_keypoints(shapes, rows).keypoints_2d, rows.keypoints_2d)


def test_a_number_that_stands_there_twice_is_refused(assets: HandAssets, tmp_path: Path) -> None:
    save_identity(tmp_path / "me.json", Identity(np.zeros(10), assets.name, assets.hash, 180.0))
    text = (tmp_path / "me.json").read_text().replace('"betas"', '"betas": [1], "betas"', 1)
    (tmp_path / "me.json").write_text(text)
    with pytest.raises(ArtifactError, match="'betas' stands there twice"):
        load_identity(tmp_path / "me.json")


def test_an_output_that_cannot_be_written_is_named_before_the_work(
    assets: HandAssets, rows: Predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "calibrate_person", lambda *_, **__: pytest.fail("worked for nothing"))
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "folder.json").mkdir()
    for output in ("taken", "taken/me.json", "folder.json"):
        args = get_args_parser().parse_args(["--predictions", "p", "--output", str(tmp_path / output)])
        with pytest.raises(OSError, match="--output .*(taken|folder.json): (cannot be written|is a folder)"):
            calibrate_and_write(args, Images(rows), KNOWN, assets, "cpu")


def test_a_prior_of_another_hand_is_refused(assets: HandAssets, rows: Predictions) -> None:
    for source in (rows, rows.keypoints_2d, "photos"):
        with pytest.raises(HandMismatchError, match="0123"):
            K = rows.K[0] if isinstance(source, np.ndarray) else None
            calibrate(source, K=K, prior=Population(hand_hash="0123"), assets=assets)


def test_a_detectors_points_on_a_hand_are_kept(assets: HandAssets, tmp_path: Path) -> None:
    own = np.random.default_rng(0).normal(0, 0.004, (21, 3))
    save_identity(tmp_path / "me.json", person(assets, landmarks={"mediapipe": own}))
    np.testing.assert_allclose(load_identity(tmp_path / "me.json").landmarks["mediapipe"], own, atol=6e-6)
    content = json.loads((tmp_path / "me.json").read_text())
    points = ([[1, 2, 3]], [[60.0] * 3] * 21, [["a"] * 3] * 21)
    for wrong in ([1, 2], *({"mediapipe": each} for each in points)):
        (tmp_path / "me.json").write_text(json.dumps({**content, "landmarks_mm": wrong}))
        with pytest.raises(ArtifactError, match=r"me\.json"):
            load_identity(tmp_path / "me.json")
    save_identity(tmp_path / "other.json", person(assets))
    assert "landmarks_mm" not in json.loads((tmp_path / "other.json").read_text())
