"""Damaged files of every kind: each is named, and --skip_bad gets by where that is advised; caches; absurd boxes."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import multiprocessing
import os
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from dex_ycb_layout import edit_labels, write_dex_ycb
from mano_pickle import write_mano_pickle
from random_assets import mano_dictionary, random_assets

import datasets.crop_cache
import datasets.dex_ycb.labels
import options.fit
from datasets import build_dataset
from datasets.bad_files import BadFileError
from datasets.crop_dataset import CropDataset
from datasets.dex_ycb.files import read_labels
from datasets.dex_ycb.splits import SERIALS
from datasets.image_crop import crop_image, read_image, unusable_boxes
from datasets.loading import BatchLoader
from datasets.sample import check_sample
from datasets.synthetic.freihand_writer import write_freihand
from datasets.synthetic.ho3d_writer import write_ho3d
from datasets.synthetic.humbi_writer import write_humbi
from src.engine.checkpoint import load_harmless
from src.evaluation import submissions
from src.evaluation.submission_checks import SubmissionError
from src.personalization.calibration.data_set_evidence import view_groups
from src.personalization.calibration.population import load_population
from src.personalization.fitting.command import fit
from src.personalization.solver.status import CalibrationError
from template import HandModel, axis_angle_to_pose, load_hand_assets
from template.safe_pickle import safe_load
from utils.artifacts import ArtifactError, Predictions, load_predictions, save_predictions
from utils.joints import STANDARD_TO_MANO

STAND_IN = Path(__file__).parent.parent / "template" / "stand_in.npz"
REAL_FAULT = Path(__file__).parents[2] / "shared/data/faults/labels_000000.npz"


def object_array(path: Path) -> None:
    with open(path, "wb") as handle:
        np.savez(handle, **{key: np.array([{}], dtype=object) for key in ("pose_m", "joint_3d", "joint_2d", "schema")})


def plain_array(path: Path) -> None:
    with open(path, "wb") as handle:
        np.save(handle, np.zeros(3))


#: What a file may hold instead of what its name says.
DAMAGE: dict[str, Callable[[Path], object]] = {
    "web page": lambda path: path.write_text("<html>quota exceeded</html>"),
    "git-lfs pointer": lambda path: path.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4231\n"
    ),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "two bytes": lambda path: path.write_bytes(b"PK"),
    "empty": lambda path: path.write_bytes(b""),
    "objects": object_array,
    "one array": plain_array,
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
}
every_damage = pytest.mark.parametrize("damage", DAMAGE.values(), ids=[name.replace(" ", "_") for name in DAMAGE])


def open_split(root: Path, **options: object) -> CropDataset:
    known = {"mano_dir": STAND_IN, "side": "both", "allow_missing_subjects": True}
    return build_dataset("dex_ycb", root, "s1_test", **known | options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dex_ycb(tmp_path_factory.mktemp("whole"), subjects=(8,))


@pytest.fixture
def root(tmp_path: Path, whole: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "root"))


@pytest.fixture(scope="module")
def humbi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("humbi") / "root"
    write_humbi(folder, 4, 1, 2, seed=1, mano_dir=str(STAND_IN))
    return folder


@pytest.fixture(scope="module")
def ho3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ho3d") / "root"
    write_ho3d(folder, num_images=2, mano_dir=str(STAND_IN))
    return folder


@pytest.fixture(scope="module")
def freihand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("freihand") / "root"
    write_freihand(folder, num_train=1, num_eval=1, mano_dir=str(STAND_IN))
    return folder


# --- every data set's files ----------------------------------------------------------------------


@every_damage
def test_labels_are_named_and_skipped(root: Path, damage: Callable[[Path], object]) -> None:
    path = next(iter(sorted(root.rglob("labels_*.npz"))))
    count = len(open_split(root))
    damage(path)
    with pytest.raises(BadFileError, match=f"{path.name}.*--skip_bad"):
        open_split(root)
    dataset = open_split(root, skip_bad=True)
    assert len(dataset) == count - 1 and dataset.num_bad_labels == 1


def test_the_labels_file_of_the_faults(root: Path) -> None:
    if not REAL_FAULT.is_file():
        pytest.skip(f"{REAL_FAULT} is not on this machine")
    path = next(iter(sorted(root.rglob("labels_*.npz"))))
    shutil.copyfile(REAL_FAULT, path)
    with pytest.raises(BadFileError, match=path.name):
        open_split(root)
    assert open_split(root, skip_bad=True).num_bad_labels == 1


@pytest.mark.parametrize("name", ["meta.yml", "mano.yml", "intrinsics"])
@pytest.mark.parametrize(
    "text",
    ["<html>", "a: [", "\0\0", "{}", "betas: [1, 2, a]", "color: {fx: a, fy: 1, ppx: 1, ppy: 1}",
     "{num_frames: .inf, mano_calib: [a], mano_sides: [right]}", "color: {fx: .nan, fy: 1, ppx: 1, ppy: 1}",
     "{num_frames: -1, mano_calib: [a], mano_sides: [right]}"],
)  # fmt: skip
def test_calibration_is_named_and_skipped(root: Path, name: str, text: str) -> None:
    path = {
        "meta.yml": min(root.rglob("meta.yml")),
        "mano.yml": min(root.rglob("mano.yml")),
        "intrinsics": root / "calibration/intrinsics" / f"{SERIALS[0]}_640x480.yml",
    }[name]
    before = open_split(root)
    path.write_text(text)
    with pytest.raises(BadFileError, match=f"{path.name}.*--skip_bad"):
        open_split(root)
    after = open_split(root, skip_bad=True)
    kept = np.isin(before.columns["image_id"], after.columns["image_id"])
    assert kept.sum() == len(after) < len(before)  # the official ids of the others stay
    for key in ("joints", "K", "betas"):
        np.testing.assert_array_equal(after.columns[key], before.columns[key][kept])


@every_damage
def test_freihand_lists_are_named(freihand: Path, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    root = Path(shutil.copytree(freihand, tmp_path / "root"))
    for path in (root / "training_K.json", root / "training" / "rgb" / "00000000.jpg"):
        data = path.read_bytes()
        damage(path)
        with pytest.raises(BadFileError, match=path.name) as caught:
            build_dataset("freihand", root, "training", mano_dir=STAND_IN)[0]
        assert ("--skip_bad" in str(caught.value)) == (path.suffix == ".jpg")
        path.write_bytes(data)


@pytest.mark.parametrize("text", ["[[[1e999, 0, 0]]]", f"[{10**400}]", "{}", "null", "[" * 100_000])
def test_strange_json_is_named(freihand: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(freihand, tmp_path / "root")
    (tmp_path / "root/training_K.json").write_text(text)
    with pytest.raises(BadFileError, match="training_K.json"):
        build_dataset("freihand", tmp_path / "root", "training", mano_dir=STAND_IN)


@every_damage
def test_humbi_files_are_named_and_skipped(humbi: Path, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    everybody = build_dataset("humbi", humbi, "split_5_train", mano_dir=STAND_IN)
    subject = int(everybody.columns["subject_id"][0])
    for name in ("vertices_r.txt", "list.txt", "intrinsic.txt", "extrinsic.txt"):
        root = Path(shutil.copytree(humbi, tmp_path / name))
        path = next(path for path in (root / f"subject_{subject}").rglob(name) if "left" not in path.parts)
        damage(path)
        if name == "list.txt" and damage in (DAMAGE["half"], DAMAGE["empty"]):
            continue  # fewer rows are a frame with fewer crops
        with pytest.raises(BadFileError, match=f"{name}.*--skip_bad"):
            build_dataset("humbi", root, "split_5_train", mano_dir=STAND_IN)
        dataset = build_dataset("humbi", root, "split_5_train", mano_dir=STAND_IN, skip_bad=True)
        assert subject not in dataset.columns["subject_id"] and dataset.num_bad_labels == 1


@pytest.mark.parametrize("row", ["0 10 inf 5 8", "0 0 1e300 0 1e300", "99 10 20 5 8"])
def test_humbi_rows_with_impossible_numbers(humbi: Path, tmp_path: Path, row: str) -> None:
    root = Path(shutil.copytree(humbi, tmp_path / "root"))
    path = build_dataset("humbi", root, "split_5_train", mano_dir=STAND_IN).image_path(0).with_name("list.txt")
    path.write_text(row)
    with pytest.raises(BadFileError, match="list.txt.*--skip_bad"):
        build_dataset("humbi", root, "split_5_train", mano_dir=STAND_IN)
    assert build_dataset("humbi", root, "split_5_train", mano_dir=STAND_IN, skip_bad=True).num_bad_labels == 1


@every_damage
def test_ho3d_meta_files_are_named_and_skipped(ho3d: Path, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    root = Path(shutil.copytree(ho3d, tmp_path / "root"))
    before = build_dataset("ho3d", root, mano_dir=STAND_IN, split="evaluation")
    path = min((root / "evaluation").rglob("meta/*.pkl"))
    damage(path)
    with pytest.raises(BadFileError, match=f"{path.name}.*--skip_bad"):
        build_dataset("ho3d", root, "evaluation", mano_dir=STAND_IN)
    after = build_dataset("ho3d", root, "evaluation", mano_dir=STAND_IN, skip_bad=True)
    assert len(after) == 2 and after.num_bad_labels == 1  # the server wants every image
    path.unlink()
    assert len(build_dataset("ho3d", root, "evaluation", mano_dir=STAND_IN, skip_bad=True)) == 2
    np.testing.assert_array_equal(after.columns["K_image"][0], before.columns["K_image"][1])
    np.testing.assert_array_equal(after[1]["image"], before[1]["image"])


def test_ho3d_listing_and_labels_are_named(ho3d: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(ho3d, tmp_path / "root"))
    (root / "evaluation_xyz.json").write_text("<html>")
    with pytest.raises(BadFileError, match="evaluation_xyz.json"):
        build_dataset("ho3d", root, "evaluation", mano_dir=STAND_IN).official_labels()
    names = (root / "evaluation.txt").read_bytes()
    for data in (b"\xff\xfe", b"<html>", b"../../etc/0001", bytes(40), names + b"\n" + names.split()[0]):
        (root / "evaluation.txt").write_bytes(data)
        with pytest.raises(BadFileError, match="evaluation.txt"):
            build_dataset("ho3d", root, "evaluation", mano_dir=STAND_IN)


def test_ho3d_pictures_of_both_versions_are_told(ho3d: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = Path(shutil.copytree(ho3d, tmp_path / "root"))
    for path in [*(root / "evaluation").rglob("rgb/*")]:
        path.with_suffix(".jpg").touch()
    assert build_dataset("ho3d", root, "evaluation", mano_dir=STAND_IN).version == "v2"
    assert "both there: the .png are taken, as of version v2" in caplog.text


@pytest.mark.parametrize("box", [(200, 150, 100, 50), (300, 200, 80, 90), (0, 0, 0, 0), (-1, -1, -1, -1)])
def test_ho3d_boxes_without_area_are_named_and_skipped(ho3d: Path, tmp_path: Path, box: tuple[int, ...]) -> None:
    root = Path(shutil.copytree(ho3d, tmp_path / "root"))
    path = min((root / "evaluation").rglob("meta/*.pkl"))
    path.write_bytes(pickle.dumps(safe_load(path) | {"handBoundingBox": list(box)}))
    with pytest.raises(BadFileError, match=f"{path.name}: handBoundingBox .*--skip_bad"):
        build_dataset("ho3d", root, "evaluation", mano_dir=STAND_IN)
    skipping = build_dataset("ho3d", root, "evaluation", mano_dir=STAND_IN, skip_bad=True)
    assert skipping.num_bad_labels == 1 and skipping._boxes[0, 2] >= 640


def test_ho3d_meta_with_impossible_numbers(ho3d: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(ho3d, tmp_path / "root"))
    path = min((root / "evaluation").rglob("meta/*.pkl"))
    meta = safe_load(path)
    path.write_bytes(pickle.dumps({key: np.asarray(meta[key]) * np.nan for key in ("camMat", "handBoundingBox")}))
    with pytest.raises(BadFileError, match="impossible numbers"):
        build_dataset("ho3d", root, "evaluation", mano_dir=STAND_IN)


@every_damage
@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_hand_models_are_named(tmp_path: Path, suffix: str, damage: Callable[[Path], object]) -> None:
    path = tmp_path / f"MANO_RIGHT{suffix}"
    if suffix == ".pkl":
        write_mano_pickle(path, random_assets())
    else:
        np.savez(path, **mano_dictionary(random_assets()))
    damage(path)
    with pytest.raises(ValueError, match=path.name):
        load_hand_assets(tmp_path)


def one_prediction(**changed: object) -> Predictions:
    ids = np.zeros(1, np.int64)
    known = {"image_id": ids, "subject_id": ids, "sequence_id": ids, "is_left": ids > 0, "K": np.eye(3)[None]}
    return Predictions(**known | changed)


@every_damage
def test_predictions_are_named(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "p.npz"
    save_predictions(path, one_prediction())
    damage(path)
    with pytest.raises(ArtifactError, match="p.npz"):
        load_predictions(path)


@pytest.mark.parametrize("name", ["keypoint_confidence", "confidence", "betas", "K"])
def test_numbers_beyond_sense_are_refused_in_predictions(tmp_path: Path, name: str) -> None:
    good = {"keypoint_confidence": np.ones((1, 21)), "confidence": np.ones(1), "betas": np.ones((1, 10)),
            "K": np.ones((1, 3, 3))}  # fmt: skip
    one_prediction(**{name: good[name]})
    for value in (1e300,) if name == "K" else (1e30, 1e300):  # the last is infinity in single precision
        with pytest.raises(ArtifactError, match=name):
            one_prediction(**{name: good[name] * value})


# --- pictures and boxes --------------------------------------------------------------------------


def test_a_picture_of_another_size_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((9000, 9000), np.uint8))[1].tobytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadFileError, match="9000x9000 pixels instead of 640x480"):
        read_image(path, 640, 480)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; decoded it has 243 MB


def test_a_crop_of_any_box_costs_little_and_shows_the_picture_small() -> None:
    image = np.full((48, 64, 3), 255, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    crop = crop_image(image, np.array([31.5, 23.5, 1e6]), 32)
    assert crop.shape == (32, 32, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; in full it would be terabytes


def test_which_boxes_are_unusable() -> None:
    boxes = np.array([
        [320.0, 240, 300], [-100, 240, 250], [-200, 240, 300], [320, 700, 300], [700, 240, 250], [900, 240, 300],
        [320, 240, 2560], [320, 240, 2561], [320, 240, np.inf], [np.nan, 240, 300], [320, 240, 0],
    ])  # fmt: skip
    expected = [False, False, True, True, False, True, False, True, True, True, True]
    np.testing.assert_array_equal(unusable_boxes(boxes, 640, 480), expected)


@pytest.mark.parametrize("outlier", ["one joint", "all joints"])
def test_samples_with_outlier_keypoints_are_invalid_and_counted(
    root: Path, outlier: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = min(root.rglob("labels_*.npz"))
    with np.load(path) as labels:
        points = labels["joint_2d"].copy()
    if outlier == "one joint":
        points[0, 3] = 1e5
    else:
        points = points + 5000
    edit_labels(path, joint_2d=points)
    with caplog.at_level(logging.WARNING):
        dataset = open_split(root)
    assert dataset.num_outliers == 1 and not dataset.columns["valid"][0] and dataset.columns["valid"][1:].all()
    assert "first: image 0" in caplog.text
    sample = dataset[0]
    assert not sample["valid"] and np.isfinite(sample["K"]).all() and not sample["keypoints_2d"].any()
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_two_fingers_that_are_exchanged_in_the_picture_alone_are_noticed(root: Path) -> None:
    for path in root.rglob("labels_*.npz"):
        with np.load(path) as labels:
            points = labels["joint_2d"].copy()
        edit_labels(path, joint_2d=points[:, [*range(13), *range(17, 21), *range(13, 17)]])
    dataset = open_split(root)
    assert dataset.num_outliers > len(dataset) // 2


@pytest.mark.parametrize(
    ("key", "value"), [("joint_3d", 1e30), ("joint_3d", 25.0), ("joint_3d", 2.0), ("pose_m", 1e30)]
)
def test_samples_with_impossible_labels_are_invalid_and_counted(root: Path, key: str, value: float) -> None:
    path = min(root.rglob("labels_*.npz"))
    with np.load(path) as labels:
        changed = labels[key].copy()
    changed[0, -1] = value
    edit_labels(path, **{key: changed})
    dataset = open_split(root)
    assert dataset.num_outliers == 1 and not dataset.columns["valid"][0] and dataset.columns["valid"][1:].all()
    check_sample(dataset[0])


@pytest.mark.parametrize(("number", "value"), [(5, 1e30), (0, -1e6), (50, -3.0), (48, 2.0)])
def test_poses_and_places_that_contradict_the_joints_are_invalid(
    root: Path, number: int, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    """An angle or a translation (metres) of ``pose_m`` is wrong; joints and keypoints are as they were."""
    path = min(root.rglob("labels_*.npz"))
    with np.load(path) as labels:
        pose_m = labels["pose_m"].copy()
    pose_m[0, number] = value
    edit_labels(path, pose_m=pose_m)
    with caplog.at_level(logging.WARNING):
        dataset = open_split(root)
    assert not dataset.columns["valid"][0] and dataset.columns["valid"][1:].all()
    assert "1 samples of" in caplog.text or "1 of 16 samples" in caplog.text
    check_sample(dataset[0])


WRONG = {  # of every labels file: what becomes of keypoints, joints and camera
    "keypoints in rows and columns": {"joint_2d": lambda points: points[..., ::-1]},
    "keypoints of the mirror image": {"joint_2d": lambda points: points * (-1, 1) + (639, 0)},
    "keypoints in MANO's order": {"joint_2d": lambda points: points[:, STANDARD_TO_MANO]},
    "joints of the mirror image": {"joint_3d": lambda joints: joints * (-1, 1, 1)},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_labels_whose_joints_do_not_project_to_their_keypoints_train_nothing(
    root: Path, wrong: dict[str, Callable[[np.ndarray], np.ndarray]]
) -> None:
    for path in root.rglob("labels_*.npz"):
        with np.load(path) as labels:
            changed = {key: np.ascontiguousarray(change(labels[key])) for key, change in wrong.items()}
        edit_labels(path, **changed)
    dataset = open_split(root)
    assert dataset.num_outliers == len(dataset) and not dataset.columns["valid"].any()
    with pytest.raises(ValueError, match=f"{root}, s1_test: none of {len(dataset)} samples is valid"):
        BatchLoader(dataset, 4)


def test_a_camera_of_half_the_size_trains_nothing(root: Path) -> None:
    for path in (root / "calibration" / "intrinsics").glob("*.yml"):
        path.write_text("color: {fx: 305, fy: 306, ppx: 156, ppy: 122}")
    assert not open_split(root).columns["valid"].any()


@pytest.mark.parametrize("name", ["dex_ycb", "humbi"])
def test_poses_that_are_not_those_of_the_joints_are_told(
    root: Path, humbi: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Sides swapped in DexYCB's meta.yml; HUMBI's numbers in another order. FreiHAND has a test of its own."""
    root = root if name == "dex_ycb" else Path(shutil.copytree(humbi, tmp_path / "humbi"))
    split = {"dex_ycb": "s1_test", "humbi": "s0_train"}[name]
    with caplog.at_level(logging.WARNING):
        build_dataset(name, root, split, mano_dir=STAND_IN, allow_missing_subjects=True)
        assert "another one" not in caplog.text
        for path in root.rglob("meta.yml"):
            text = path.read_text()
            path.write_text(text.replace("left", "L").replace("right", "left").replace("L", "right"))
        for path in root.rglob("mano_params_r.txt"):
            numbers = np.loadtxt(path)
            np.savetxt(path, np.concatenate([numbers[:6], numbers[25:5:-1], numbers[26:]]))
        build_dataset(name, root, split, mano_dir=STAND_IN, allow_missing_subjects=True)
    assert "the labels were made with another one" in caplog.text and str(root) in caplog.text


@pytest.mark.parametrize(("name", "place"), [("mano", (0, 4)), ("xyz", (0, 0))])
def test_freihand_entries_that_contradict_each_other_are_invalid(
    freihand: Path, tmp_path: Path, name: str, place: tuple[int, int]
) -> None:
    root = Path(shutil.copytree(freihand, tmp_path / "root"))
    path = root / f"evaluation_{name}.json"
    entries = json.loads(path.read_text())
    entries[0][place[0]][place[1]] = 1e30
    path.write_text(json.dumps(entries))
    assert not build_dataset("freihand", root, "s0_test", mano_dir=STAND_IN).columns["valid"].any()


@pytest.mark.parametrize("focal", [1e30, -500.0, 0.0])
def test_cameras_that_cannot_be_are_named_in_every_data_set(
    root: Path, freihand: Path, humbi: Path, ho3d: Path, tmp_path: Path, focal: float
) -> None:
    path = root / "calibration/intrinsics" / f"{SERIALS[0]}_640x480.yml"
    path.write_text(f"color: {{fx: {focal}, fy: {focal}, ppx: 320.0, ppy: 240.0}}")
    with pytest.raises(BadFileError, match=f"{path.name}.*--skip_bad"):
        open_split(root)
    K = [[focal, 0.0, 112.0], [0.0, focal, 112.0], [0.0, 0.0, 1.0]]
    copy = Path(shutil.copytree(freihand, tmp_path / "freihand"))
    (copy / "evaluation_K.json").write_text(json.dumps([K]))
    with pytest.raises(BadFileError, match="evaluation_K.json: entry 0"):
        build_dataset("freihand", copy, "s0_test", mano_dir=STAND_IN)
    copy = Path(shutil.copytree(ho3d, tmp_path / "ho3d"))
    path = min((copy / "evaluation").rglob("meta/*.pkl"))
    path.write_bytes(pickle.dumps(safe_load(path) | {"camMat": np.array(K)}))
    with pytest.raises(BadFileError, match=f"{path.name}.*impossible"):
        build_dataset("ho3d", copy, "evaluation", mano_dir=STAND_IN)
    copy = Path(shutil.copytree(humbi, tmp_path / "humbi"))
    for path in copy.rglob("intrinsic.txt"):
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:4], f"{focal} 0 960", f"0 {focal} 540", *lines[6:]]))
    with pytest.raises(BadFileError, match="intrinsic.txt.*impossible"):
        build_dataset("humbi", copy, "split_5_train", mano_dir=STAND_IN)


@every_damage
def test_no_error_advises_to_read_a_file_unsafely(root: Path, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """As NumPy and PyTorch do; nor does one show addresses in memory."""
    labels, picture = min(root.rglob("labels_*.npz")), min(root.rglob("color_*.jpg"))
    others = [tmp_path / name for name in ("predictions.npz", "prior.npz", "last.pt")]
    for path in (labels, picture, *others):
        path.touch()
        if not (path.stat().st_size == 0 and damage is DAMAGE["half"]):
            damage(path)
    reads = [
        lambda: read_labels(labels), lambda: read_image(picture, 640, 480), lambda: load_predictions(others[0]),
        lambda: load_population(others[1], "hash"), lambda: load_harmless(others[2]),
    ]  # fmt: skip
    for read, path in zip(reads, (labels, picture, *others), strict=True):
        with pytest.raises((ValueError, OSError), match=path.name) as refused:
            read()
        assert not any(words in str(refused.value) for words in ("unsafely", "weights_only", "allow_pickle=`", "0x"))


# --- caches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["labels_*.npz", "crops_*.npy", "crops_*.json"])
@every_damage
def test_damaged_caches_are_named_and_built_again(
    root: Path, tmp_path: Path, which: str, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    open_split(root, cache=cache, crop_size=16)
    expected = open_split(root, crop_size=16)
    (path,) = cache.glob(which)
    damage(path)
    with caplog.at_level(logging.WARNING):
        again = open_split(root, cache=cache, crop_size=16)
    assert "damaged" in caplog.text and path.stem in caplog.text
    for index in range(len(expected)):
        for key, value in expected[index].items():
            np.testing.assert_array_equal(again[index][key], value)


def test_a_moved_data_set_keeps_its_caches(
    whole: Path, freihand: Path, humbi: Path, ho3d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folder in {"dex_ycb": whole, "freihand": freihand, "humbi": humbi, "ho3d": ho3d}.items():
        shutil.copytree(folder, tmp_path / name)
    splits = {"dex_ycb": "s1_test", "freihand": "training", "humbi": "split_5_train", "ho3d": "evaluation"}

    def open_all(folder: Path) -> dict[str, CropDataset]:
        return {
            name: build_dataset(
                name,
                folder / name,
                split,
                mano_dir=STAND_IN,
                cache=tmp_path / "cache",
                crop_size=16,
                side="both",
                allow_missing_subjects=True,
            )  # fmt: skip
            for name, split in splits.items()
        }

    before = open_all(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    for name in splits:
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    files = sorted((tmp_path / "cache").iterdir())
    monkeypatch.setattr(datasets.dex_ycb.labels, "read_labels", None)
    monkeypatch.setattr(CropDataset, "_make_crop", None)
    after = open_all(tmp_path / "elsewhere")
    assert sorted((tmp_path / "cache").iterdir()) == files
    for name in splits:
        np.testing.assert_array_equal(after[name][0]["image"], before[name][0]["image"])


def test_a_finished_cache_serves_where_nothing_can_be_written(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a read-only share; a cache that would have to be built there names the option."""
    expected = open_split(whole, cache=tmp_path)
    before = sorted(tmp_path.iterdir())

    def refused(*given: object) -> object:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(datasets.crop_cache, "open", refused, raising=False)
    monkeypatch.setattr(Path, "touch", refused)
    found = open_split(whole, cache=tmp_path)
    np.testing.assert_array_equal(found[3]["image"], expected[3]["image"])
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(OSError, match="--cache .*cannot be written to .Read-only"):
        open_split(whole, cache=tmp_path / "other")


def _open_with_cache(root: Path, cache: Path, log: Path) -> None:
    original = CropDataset._make_crop

    def noting(self: CropDataset, index: int) -> object:
        with open(log, "a") as handle:
            handle.write(f"{os.getpid()} {index}\n")
        return original(self, index)

    CropDataset._make_crop = noting
    open_split(root, cache=cache, crop_size=16, workers=1)


def test_of_several_processes_one_builds_the_caches(whole: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    paths = (whole, tmp_path / "cache", tmp_path / "log")
    jobs = [context.Process(target=_open_with_cache, args=paths) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    lines = (tmp_path / "log").read_text().splitlines()
    assert len({line.split()[0] for line in lines}) == 1
    assert len(lines) == len(open_split(whole))


# --- official result files -----------------------------------------------------------------------


def hands(count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    output = HandModel(load_hand_assets(STAND_IN))(axis_angle_to_pose(torch.zeros(count, 48)), torch.zeros(count, 10))
    return output.joints.numpy() + [0, 0, 0.7], output.vertices.numpy() + [0, 0, 0.7]


@pytest.mark.parametrize("strict", [True, False])
def test_a_hand_beyond_ten_metres_is_refused_with_its_image(tmp_path: Path, strict: bool) -> None:
    joints, vertices = hands()
    far = joints.copy()
    far[1] += [0, 0, 2.2e8]
    names = ["A/0000", "A/0001", "A/0002"]
    with pytest.raises(SubmissionError, match="image A/0001 is 2.2e.08 m away"):
        submissions.write_lists(tmp_path / "h.json", "ho3d_v2", far, vertices, names, names, strict)
    with pytest.raises(SubmissionError, match="image 1 is"):
        away = vertices + (np.arange(3) == 1)[:, None, None] * 11
        submissions.write_lists(tmp_path / "f.json", "freihand", joints, away, np.arange(3), np.arange(3), strict)
    ids = np.array([4, 7, 9])
    with pytest.raises(SubmissionError, match="image 7 is"):
        submissions.write_dexycb(tmp_path / "d.txt", far, ids, ids < 0, ids, strict=strict)
    assert not list(tmp_path.iterdir())
    path = submissions.write_dexycb(tmp_path / "d.txt", joints, ids, ids < 0, ids, strict=strict)
    lines = path.read_text().splitlines()
    line = lines[1].split(",")
    line[5] = "2e14"
    path.write_text("\n".join([lines[0], ",".join(line), lines[2]]))
    with pytest.raises(SubmissionError, match="image 7 is"):
        submissions.read_dexycb(path, ids, strict=strict)


@every_damage
@pytest.mark.parametrize("name", ["f.zip", "f.json"])
def test_damaged_result_files_are_named(tmp_path: Path, name: str, damage: Callable[[Path], object]) -> None:
    submissions.write_lists(tmp_path / "f.json", "freihand", *hands(), np.arange(3), np.arange(3))
    damage(tmp_path / name)
    with pytest.raises(SubmissionError, match=name):
        submissions.read_lists(tmp_path / name, "freihand", 3)


def test_result_files_with_impossible_ids(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text(f"{10**30}," + ",".join(["1"] * 63))
    with pytest.raises(SubmissionError, match="d.txt line 1"):
        submissions.read_dexycb(tmp_path / "d.txt")


def test_predictions_keep_what_they_are(tmp_path: Path) -> None:
    save_predictions(tmp_path / "p.npz", one_prediction(confidence=np.array([-3.5])))
    assert dataclasses.asdict(load_predictions(tmp_path / "p.npz"))["confidence"] == [-3.5]
    assert json.dumps(load_predictions(tmp_path / "p.npz").split) == '""'


# --- what the commands make of it ----------------------------------------------------------------


def rows_of_split(dataset: CropDataset, **changed: object) -> Predictions:
    names = ("image_id", "subject_id", "sequence_id", "is_left", "pose", "betas")
    columns = {name: dataset.columns[name] for name in names} | {"K": dataset.columns["K_image"]}
    assets = load_hand_assets(STAND_IN)
    made = {"hand_name": assets.name, "hand_hash": assets.hash, "dataset": "dex_ycb", "split": "s1_test"}
    return Predictions(**columns | changed, **made)


def test_a_fit_of_no_image_is_an_error_and_writes_nothing(whole: Path, tmp_path: Path) -> None:
    dataset = open_split(whole)
    keypoints = np.random.default_rng(0).uniform(100, 300, (len(dataset), 21, 2))
    save_predictions(
        tmp_path / "p.npz", rows_of_split(dataset, keypoints_2d=keypoints, K=np.zeros((len(dataset), 3, 3)))
    )
    words = f"--predictions {tmp_path}/p.npz --output {tmp_path}/o.npz --device cpu --mano_dir {STAND_IN}"
    with pytest.raises(CalibrationError, match=r"p\.npz: none of 16 images could be fitted.*bad_intrinsics"):
        fit(options.fit.get_args_parser().parse_args(words.split()))
    assert not (tmp_path / "o.npz").exists()


def test_extrinsics_that_are_missing_or_damaged_are_named(root: Path) -> None:
    dataset = open_split(root)
    predictions = rows_of_split(dataset)
    with pytest.raises(BadFileError, match="meta.yml: not a mapping with extrinsics"):
        view_groups(dataset, np.arange(len(predictions)), predictions.is_left)
    for meta in root.rglob("meta.yml"):
        meta.write_text(meta.read_text() + "extrinsics: '1'\n")
    path = root / "calibration/extrinsics_1/extrinsics.yml"
    path.parent.mkdir()
    for text, said in (
        ("<html>", "extrinsics.yml: not a mapping"), (f"extrinsics: {{'{SERIALS[0]}': [1, 2]}}", "extrinsics.yml"),
        ("extrinsics: {a: [.nan,0,0,0,0,0,0,0,0,0,0,0]}", "a is not finite"),
        ("extrinsics: {a: [0,0,0,0,0,0,0,0,0,0,0,0]}", f"lack camera {SERIALS[0]}"),
        (f"extrinsics: {{'{SERIALS[0]}': [1.1,0,0,0,0,1.1,0,0,0,0,1.1,0]}}", f"{SERIALS[0]} has no rotation"),
        (f"extrinsics: {{'{SERIALS[0]}': [-1,0,0,0,0,1,0,0,0,0,1,0]}}", f"{SERIALS[0]} has no rotation"),
        (f"extrinsics: {{'{SERIALS[0]}': [1,0,0,640,0,1,0,0,0,0,1,0]}}", "are these mm"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(BadFileError, match=said):
            view_groups(dataset, np.arange(len(predictions)), predictions.is_left)
