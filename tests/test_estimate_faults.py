"""What a stranger gives with other estimators' results that is not so: each is an error that names it."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import handid
from options.calibrate import get_args_parser as calibrate_parser
from options.run_options import get_args_parser
from src.engine.estimates import command
from src.engine.estimates.measure_trust import paired
from src.engine.estimates.tracks import frames_of
from src.estimators import EstimateFormatError, read_estimates, write_estimates
from src.estimators.records import Entry
from src.personalization.estimates.evidence import prepare
from src.personalization.estimates.people import people_of
from src.personalization.estimates.trust import find_trust
from src.personalization.shape_source import load_identities
from src.personalization.solver.status import CalibrationError, usable
from src.photos import shape_filter
from template import HandAssets, HandModel, load_hand_assets
from template.assets import STAND_IN_PATH
from tests.test_estimators import JOINTS, REAL_K, hamer, joints_npz, mediapipe, mmpose, put
from utils.artifact_checks import ArtifactError
from utils.identity import Identity, load_identity, save_identity


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return put(tmp_path / "b.pt", hamer(False).content)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"K": REAL_K.T}, "is it transposed"),
        ({"K": REAL_K * [[-1, 0, 1], [0, 1, 1], [0, 0, 1]]}, "K is"),  # sees the mirror image
        ({"K": REAL_K * [[0, 0, 1], [0, 0, 1], [0, 0, 1]]}, "K is"),
        ({"K": REAL_K, "fov": 60}, "give one"),
        ({"fov": 1.05}, "as radians it would be 60 degrees"),
        ({"fov": -60}, "degrees between"),
        ({"fov": 200}, "degrees between"),
        ({"K": REAL_K, "image_size": (-640, 480)}, "width, height in pixels"),
        ({"K": REAL_K, "image_size": (640, 480, 3)}, "width, height in pixels"),
        ({"K": REAL_K, "image_size": (1280, 960)}, "640 x 480 px, image_size says 1280 x 960"),
    ],
)
def test_a_camera_that_cannot_be_is_named(file: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_estimates(file, "hamer", **options)


def test_pictures_are_a_folder(file: Path) -> None:
    for images in (file, file.parent / "nowhere"):
        with pytest.raises(FileNotFoundError, match=images.name):
            read_estimates(file, "hamer", K=REAL_K, images=images)


@pytest.mark.parametrize("fov", [np.float32(60), np.int64(60), 60])
def test_numbers_of_any_type_are_an_angle(file: Path, fov: Any) -> None:
    assert read_estimates(file, "hamer", fov=fov).K[0, 0, 0] == pytest.approx(320 / np.tan(np.pi / 6))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,subject\nb.jpg,1\nb.jpg,2\n", "line 3: b.jpg is of subject 2 and of 1"),
        ("image,subject\nb.jpg,anna\n", "line 2.*'anna'"),
        ("image,subject\nb.jpg\n", "line 2.*subject ''"),
        ("image,subject\nb.jpg,99999999999999999999\n", "line 2"),
        ("image,subject,side\nb.jpg,1,L\n", "side 'L'"),
        ("image;subject\nb.jpg;1\n", "commas"),
        ("image,subject\nb.jpg,1\n".encode("utf-16"), "UTF-8"),
    ],
)
def test_tables_of_subjects_that_say_nothing_clear(file: Path, text: str | bytes, words: str) -> None:
    table = file.with_suffix(".csv")
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(EstimateFormatError, match=words):
        read_estimates(file, "hamer", K=REAL_K, subjects=table)


def test_tables_as_spreadsheets_write_them(file: Path) -> None:
    table = file.with_suffix(".csv")
    table.write_bytes(b"\xef\xbb\xbfimage,subject,side\r\nb.jpg, 4 ,Right\r\n")
    assert read_estimates(file, "hamer", K=REAL_K, subjects=table).subject_id.tolist() == [4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"right": torch.tensor([1.0, 0.0])}, "different numbers of hands.*'right': 2"),
        ({"pred_cam": torch.tensor([[-0.9, 0.0, 0.0]])}, "behind the camera"),
        ({"box_size": torch.tensor([0.0])}, "behind the camera"),
        ({"pred_keypoints_3d": torch.tensor(1000 * JOINTS[None])}, "metres"),
        ({"pred_keypoints_3d": torch.zeros(1, 21, 3)}, "metres"),
        ({"image": []}, "image names 0 pictures"),
    ],
)
def test_batches_that_no_hand_can_have_given(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    file = put(tmp_path / "b.pt", hamer(False).content | change)
    with pytest.raises(EstimateFormatError, match=words):
        read_estimates(file, "hamer", K=REAL_K)


@pytest.mark.parametrize("kind", ["graph", "bfloat16"])
def test_tensors_as_a_network_leaves_them(tmp_path: Path, file: Path, kind: str) -> None:
    """Saved without torch.no_grad, or under autocast: read, and written again, like others."""
    content = copy.deepcopy(hamer(False).content)
    mano = content["pred_mano_params"]
    mano["betas"] = mano["betas"].requires_grad_() if kind == "graph" else mano["betas"].bfloat16()
    saved = put(tmp_path / "c.pt", content)
    found, plain = (read_estimates(one, "hamer", K=REAL_K) for one in (saved, file))
    np.testing.assert_allclose(found.betas, plain.betas, atol=0.01)
    assert found.betas is not None
    found.betas = found.betas + 1
    assert write_estimates(tmp_path / "d.pt", found, saved, "hamer", K=REAL_K)
    np.testing.assert_allclose(read_estimates(tmp_path / "d.pt", "hamer", K=REAL_K).betas, found.betas, atol=0.01)


def test_a_camera_that_contradicts_the_files(tmp_path: Path) -> None:
    """Plain joints come with the pictures' own camera."""
    file = put(tmp_path / "b.npz", joints_npz(False).content)
    read_estimates(file, "joints", unit="mm", K=REAL_K)
    for other in ({"K": REAL_K * [[1.5, 0, 1], [0, 1.5, 1], [0, 0, 1]]}, {"fov": 30}):
        with pytest.raises(EstimateFormatError, match="contradicts"):
            read_estimates(file, "joints", unit="mm", **other)
    for wrong in (REAL_K.T, REAL_K * [[-1, 0, 1], [0, 1, 1], [0, 0, 1]]):
        put(file, joints_npz(False).content | {"K": wrong, "image_size": np.array((640, 480))})
        with pytest.raises(ValueError, match=r"b\.npz"):
            read_estimates(file, "joints", unit="mm")


def test_files_with_capitals_count_and_hidden_ones_do_not(tmp_path: Path) -> None:
    """macOS leaves ._b.pt beside b.pt on foreign disks, cameras and Windows write capitals."""
    source = put(tmp_path / "b.pt", hamer(False).content)
    source.rename(tmp_path / "B.PT")
    put(tmp_path / "c.pt", hamer(True).content)
    (tmp_path / "._c.pt").write_bytes(b"AppleDouble")
    found = read_estimates(tmp_path, "hamer", K=REAL_K)
    assert found.is_left.tolist() == [False, True]
    found.betas = found.betas + 1
    assert len(write_estimates(tmp_path / "out", found, tmp_path, "hamer", K=REAL_K)) == 2


def test_whose_identity_it_is_is_checked_in_python_too(tmp_path: Path) -> None:
    """A file's path will do; one of another subject or side, or edited, is not taken for this hand's."""
    assets = load_hand_assets(STAND_IN_PATH)
    hands = handid.read_estimates(put(tmp_path / "b.npz", joints_npz(False).content), "joints", unit="mm")
    length = handid.fit(hands.keypoints_2d, hands.K, hand=assets, betas=np.zeros(10)).joints
    assert length.shape == (1, 21, 3)
    known = Identity(np.zeros(10), assets.name, assets.hash, 1000 * flat_length(assets))
    path = tmp_path / "me.json"
    known.save(path)
    found = handid.personalise(hands, identity=path, hand=assets)
    np.testing.assert_array_equal(found.betas, np.zeros((1, 10)))
    same = handid.fit(hands.keypoints_2d, hands.K, hand=assets, identity=path).joints
    np.testing.assert_array_equal(same, length)
    with pytest.raises(ValueError, match=r"no identity of the subjects \[0\]; there are those of \[5\]"):
        handid.personalise(hands, identity={5: known}, hand=assets)
    for another in ({0: dataclasses.replace(known, subject_id=8)}, dataclasses.replace(known, subject_id=8)):
        with pytest.raises(ValueError, match="is of subject 8, the hands are of subject 0"):
            handid.personalise(hands, identity=another, hand=assets)
    left = dataclasses.replace(known, side="left")
    with pytest.raises(ArtifactError, match="left hand"):
        handid.personalise(hands, identity=left, hand=assets)
    with pytest.raises(ArtifactError, match=r"betas=identity\.betas"):
        handid.fit(hands.keypoints_2d, hands.K, hand=assets, identity=left)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hand_length_mm": 150.0}))
    for use in (handid.personalise, handid.fit):
        given = (hands,) if use is handid.personalise else (hands.keypoints_2d, hands.K)
        with pytest.raises(ArtifactError, match="edited"):
            use(*given, identity=path, hand=assets)
    with pytest.raises(ArtifactError, match="edited"):
        load_identities(path, hands.subject_id, assets)
    with pytest.raises(ArtifactError, match="edited"):
        handid.load_identity(path, "right", assets)
    with pytest.raises(ArtifactError, match="edited"):
        handid.load_identity(path)
    another = json.loads(path.read_text()) | {"hand_model": {"name": "MANO", "hash": "cafe"}}
    path.write_text(json.dumps(another))
    assert handid.load_identity(path).hand_hash == "cafe"  # whose length nobody can tell here


def flat_length(assets: HandAssets) -> float:
    """m, wrist joint to middle fingertip of the mean hand, from the hand layer."""
    joints = HandModel(assets, dtype=torch.float64).joints(
        torch.eye(3, dtype=torch.float64).expand(1, 16, 3, 3), torch.zeros(1, 10, dtype=torch.float64)
    )[0]
    return float((joints[12] - joints[0]).norm())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([f"{1700000000000000000 + 33333333 * i}.jpg" for i in range(4)], "counts no frames"),
        ([f"f_{10**30 + i}.jpg" for i in range(4)], "counts no frames"),
        ([f"{1700000000000 + 33 * i}.jpg" for i in range(4)], "33 apart"),
    ],
)
def test_times_in_names_are_no_numbers_of_frames(tmp_path: Path, names: list[str], words: str) -> None:
    content = joints_npz(False).content
    many = {name: np.repeat(content[name], 4, axis=0) for name in ("keypoints_2d", "joints_3d", "is_left")}
    file = put(tmp_path / "b.npz", content | many | {"image": np.array(names)})
    with pytest.raises(ValueError, match=words):
        frames_of(read_estimates(file, "joints", unit="mm"))


@pytest.mark.parametrize("order", ["tips first", "reversed", "little finger first"])
def test_joints_in_another_order_are_no_hands(tmp_path: Path, order: str) -> None:
    """They were fitted, 39 px off, as converged."""
    fingers = np.arange(1, 21).reshape(5, 4)
    new = {"tips first": fingers[:, ::-1], "reversed": fingers[::-1, ::-1], "little finger first": fingers[::-1]}[order]
    joints = JOINTS[[0, *new.ravel()]]
    file = put(tmp_path / "b.npz", joints_npz(False).content | {"joints_3d": 1000 * joints[None]})
    hands = read_estimates(file, "joints", unit="mm")
    assets = load_hand_assets(STAND_IN_PATH)
    with pytest.raises(CalibrationError, match="standard order"):
        prepare(hands, assets, people_of(assets))


def test_what_was_calibrated_outlives_what_stops_the_hands(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*_: Any) -> Any:
        raise OSError("the disk is full")

    monkeypatch.setattr(command, "personalised_batches", stops)
    words = ["--phase", "personalise", "--estimates", str(file), "--format", "hamer", "--device", "cpu"]
    camera = ["--K", "610,605,318,244", "--output", str(tmp_path / "out")]
    with pytest.raises(OSError, match="disk"):
        command.personalise(get_args_parser().parse_args(words + camera))
    assert load_identity(tmp_path / "out" / "identity_subject-00.json").n_images == 1


def two_people(tmp_path: Path) -> Path:
    content = joints_npz(False).content
    several = {key: np.concatenate([np.asarray(value)] * 3) for key, value in content.items() if np.ndim(value) > 0}
    one = len(several["image"]) // 3
    names = np.array([f"{row}.jpg" for row in range(3 * one)])
    fixed = {key: content[key] for key in content.keys() - several.keys()} | {"K": content["K"]}
    return put(tmp_path / "two.npz", several | fixed | {"image": names, "subject": np.arange(3 * one) % 2})


def test_a_ruler_measures_one_person(tmp_path: Path) -> None:
    file = two_people(tmp_path)
    with pytest.raises(CalibrationError, match="hand_length_mm is one person's"):
        handid.personalise(file, format="joints", unit="mm", hand_length_mm=187, accept_conflict=True)
    words = f"--estimates {file} --format joints --unit mm --hand_length_mm 187 --output {tmp_path / 'out'}"
    with pytest.raises(CalibrationError, match="a length is one person's.*--subject"):
        calibrate_command(words, accept_conflict=True)


def calibrate_command(words: str, **changes: Any) -> None:
    args = calibrate_parser().parse_args([*words.split(), "--device", "cpu"])
    vars(args).update(changes)
    command.calibrate(args)


def test_what_another_run_left_is_named(
    tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shape_filter, "MEASURED", 0.5)
    out = tmp_path / "out"
    (out / "estimates").mkdir(parents=True)
    for earlier in ("estimates/old.pt", "identity_subject-01.json"):
        (out / earlier).touch()
    words = f"--phase personalise --estimates {file} --format hamer --fov 60 --device cpu --output {out}"
    command.personalise(get_args_parser().parse_args(words.split()))
    said = [line for line in caplog.messages if "of another run" in line]
    assert len(said) == 2 and "identity_subject-01.json, which" in said[0] and "old.pt, which" in said[1]
    (image,) = json.loads((out / "predictions.json").read_text())["images"]
    assert image["hand_length"]["known"] is False  # 8.5 mm, people spread by 11.5


def test_what_calibrates_is_not_given_with_an_identity(file: Path) -> None:
    identity = Identity(np.zeros(10), "stand-in", load_hand_assets(STAND_IN_PATH).hash, 187.0, "both")
    with pytest.raises(ValueError, match="are for calibrating"):
        handid.personalise(file, REAL_K, identity, format="hamer", accept_conflict=True)
    words = f"--phase personalise --estimates {file} --format hamer --fov 60 --identity me.json --accept_conflict"
    with pytest.raises(ValueError, match="--accept_conflict are for calibrating"):
        command.personalise(get_args_parser().parse_args(words.split()))


def test_a_hand_that_was_not_found_is_left_as_it_was(tmp_path: Path) -> None:
    """The pose it was fitted with is a guess; the estimator's own numbers are better."""
    path = put(tmp_path / "b.npz", joints_npz(False).content)
    rows = read_estimates(path, "joints", unit="mm")
    changed = dataclasses.replace(rows, keypoints_2d=rows.keypoints_2d + 50, status=np.ones(len(rows), dtype=np.int64))
    changed.status[0] = 0
    assert usable(torch.as_tensor(changed.status)).tolist() == [True] + [False] * (len(rows) - 1)
    write_estimates(tmp_path / "out.npz", changed, path, "joints", unit="mm")
    before, after = (np.load(tmp_path / name)["keypoints_2d"] for name in ("b.npz", "out.npz"))
    moved = np.abs(after - before).max(axis=(1, 2))
    assert moved[0] == pytest.approx(50) and (moved[1:] == 0).all()


def test_a_portrait_is_as_large_as_it_is_shown(tmp_path: Path) -> None:
    upright = Image.Exif()
    upright[0x0112] = 6
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (640, 480)).save(tmp_path / "pictures" / "b.jpg", exif=upright)
    put(tmp_path / "b.json", mediapipe(False).content)
    rows = read_estimates(tmp_path / "b.json", "mediapipe", fov=60, images=tmp_path / "pictures")
    assert rows.image_size.tolist() == [[480, 640]] and rows.K[0, :2, 2].tolist() == [239.5, 319.5]


def test_pictures_of_a_file_that_names_them_are_found_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name, size in (("one.PNG", (640, 480)), ("two.webp", (320, 240))):
        Image.new("RGB", size).save(tmp_path / "pictures" / name)
    content = mediapipe(False).content
    put(tmp_path / "landmarks.json", {"one.PNG": content, "two.webp": content})
    rows = read_estimates(tmp_path / "landmarks.json", "mediapipe", fov=60, images=tmp_path / "pictures")
    assert rows.image_size.tolist() == [[640, 480], [320, 240]]
    Image.new("RGB", (64, 48)).save(tmp_path / "pictures" / "b.png")
    Image.new("RGB", (640, 480)).save(tmp_path / "pictures" / "b.jpg")
    put(tmp_path / "b.json", content)
    with pytest.raises(ArtifactError, match=r"b is b.jpg and b.png"):
        read_estimates(tmp_path / "b.json", "mediapipe", fov=60, images=tmp_path / "pictures")


def test_lists_of_a_picture_that_do_not_belong_together(tmp_path: Path) -> None:
    content = mediapipe(False).content | {"handedness": []}
    with pytest.raises(EstimateFormatError, match="1 hands in hand_landmarks, 0 in handedness"):
        read_estimates(put(tmp_path / "b.json", content), "mediapipe", K=REAL_K, image_size=(640, 480))


def test_a_place_in_a_list_is_a_person_of_one_picture_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    body = mmpose(False).content[0]
    alone = [{**body, "img_path": f"{row}.jpg"} for row in range(3)]
    rows = read_estimates(put(tmp_path / "alone.json", alone), "mmpose", K=REAL_K, image_size=(640, 480))
    assert rows.subject_id.tolist() == [0, 0, 0] and not caplog.records
    video = {"instance_info": [{"frame_id": row, "instances": [body, body]} for row in range(2)]}
    rows = read_estimates(put(tmp_path / "video.json", video), "mmpose", K=REAL_K, image_size=(640, 480))
    assert rows.subject_id.tolist() == [0, 1, 0, 1]
    assert rows.image_name.tolist() == ["video_000000", "video_000000", "video_000001", "video_000001"]
    assert "people are told apart by their order" in caplog.text


def test_rows_of_an_expanded_tensor_are_written_one_by_one(tmp_path: Path) -> None:
    entry = Entry({"betas": torch.zeros(1, 10).expand(4, 10)}, "b", "b.pt")
    entry.put("betas", 3, np.ones(10), 4, 10)
    assert entry.content["betas"].sum(1).tolist() == [0, 0, 0, 10]


def test_trust_in_another_estimator_is_said(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assets = load_hand_assets(STAND_IN_PATH)
    rows = read_estimates(file, "hamer", K=REAL_K)
    prepare(rows, assets, people_of(assets), find_trust("mediapipe", False))
    assert "the trust given is of mediapipe, the estimates are of hamer" in caplog.text


def test_points_that_are_projections_count_once_whoever_projects_them() -> None:
    assets = load_hand_assets(STAND_IN_PATH)
    own = dataclasses.replace(find_trust("wilor", False), name="wilor_mini")
    assert own.options(assets, people_of(assets)).error_correlation == 1


def test_two_right_hands_of_a_picture_are_not_paired_by_chance(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = read_estimates(two_people(tmp_path), "joints", unit="mm")
    labels = dataclasses.replace(rows, image_name=rows.image_name.copy())
    labels.image_name[1] = labels.image_name[0]
    kept, own = paired(dataclasses.replace(rows, image_name=rows.image_name.copy()), labels)
    assert 0 not in kept.image_id and 1 not in kept.image_id and len(own) == len(rows) - 2
    assert "1 hands left out" in caplog.text
    theirs, truth = (dataclasses.replace(rows, image_name=np.array(names)) for names in (
        ["/x/P1/b.jpg", "/x/P2/b.jpg", "c"], ["P2/b.jpg", "P1/b.jpg", "c.png"]))  # fmt: skip
    assert paired(theirs, truth)[1].image_id.tolist() == [1, 0, 2]


def test_an_identity_that_names_nobody_says_whom_it_is_given_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assets = load_hand_assets(STAND_IN_PATH)
    length = 1000 * flat_length(assets)
    save_identity(tmp_path / "i.json", Identity(np.zeros(10), assets.name, assets.hash, length, "both"))
    load_identities(tmp_path / "i.json", np.array([0, 1]), assets)
    assert "names no subject: all of [0, 1]" in caplog.text


def test_an_identity_of_the_file_that_had_this_place_before_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a file leaves the folder, the next one has its number and gets its person's hand."""
    both, content = tmp_path / "both", joints_npz(False).content
    both.mkdir()
    moved = {"keypoints_2d": np.asarray(content["keypoints_2d"]) + 20}
    for name, part in (("anna.npz", content), ("bob.npz", content | moved)):
        put(both / name, part)
    options = "--format joints --unit mm --subjects file --device cpu"
    calibrate_command(f"--estimates {both} {options} --output {tmp_path / 'ids'}", accept_conflict=True)
    for told in (False, True):
        words = (
            f"--phase personalise --estimates {both} {options} --identity {tmp_path / 'ids'} --output {tmp_path / 'o'}"
        )
        command.personalise(get_args_parser().parse_args(words.split()))
        said = [line for line in caplog.messages if "was calibrated from other hands than" in line]
        assert len(said) == told and all("subject-00" in line and "bob.npz" in line for line in said)
        (both / "anna.npz").unlink(missing_ok=True)


def test_nobody_asked_for_images_that_are_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = f"--estimates {two_people(tmp_path)} --format joints --unit mm --output {tmp_path / 'out'}"
    calibrate_command(words, accept_conflict=True)
    assert len(list((tmp_path / "out").iterdir())) == 2 and "asked for" not in caplog.text
    assert "up to 20, of --images all, of --estimates up to 200)" in " ".join(calibrate_parser().format_help().split())
    calibrate_command(f"{words} --num_images 9 --images {tmp_path}", accept_conflict=True)
    assert load_identity(tmp_path / "out" / "identity_subject-01.json").subject_id == 1
    assert caplog.text.count("fewer than the 9 asked for") == 2


def test_keys_that_plain_joints_do_not_have_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = joints_npz(False).content | {"keypoint_confidence": np.zeros((1, 21)), "vertices": np.zeros(3)}
    for _ in range(2):
        read_estimates(put(tmp_path / "b.npz", content), "joints", unit="mm")
    assert caplog.text.count("keypoint_confidence, vertices: not read; the keys are keypoints_2d, joints_3d, conf") == 1


@pytest.mark.parametrize("image", [np.array("b.jpg"), np.array([["b.jpg"]]), np.array([b"b.jpg"])])
def test_picture_names_of_any_shape_and_type(tmp_path: Path, image: np.ndarray) -> None:
    file = put(tmp_path / "b.npz", joints_npz(False).content | {"image": image})
    assert read_estimates(file, "joints", unit="mm").image_name.tolist() == ["b.jpg"]


def test_results_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    hand = "".join(f"landmark {{ x: {0.4 + 0.01 * i} y: {0.5 - 0.01 * i} z: 0.0 }}\n" for i in range(21))
    file = tmp_path / "hand.pbtxt"
    file.write_text(hand)
    words = f"--phase personalise --estimates {file} --format mediapipe --fov 60 --image_size 640 480 --device cpu"
    with pytest.raises(ArtifactError, match="not written as '.pbtxt'"):
        command.personalise(get_args_parser().parse_args([*words.split(), "--output", str(tmp_path / "out")]))
    assert not list((tmp_path / "out").iterdir())


def test_a_side_that_the_keypoints_tell_is_not_said(tmp_path: Path) -> None:
    case = mmpose(False)
    with pytest.raises(EstimateFormatError, match="leave out side="):
        read_estimates(put(tmp_path / f"b{case.suffix}", case.content), "mmpose", side="left", **case.options)
