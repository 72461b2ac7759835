"""The DexYCB loader against a data set whose labels were made by other code."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dex_ycb_layout import Hands, assert_same_samples, betas_of, centroid, edit_labels, intrinsics, write_dex_ycb

import datasets.dex_ycb.labels
from datasets import build_dataset, open_labels
from datasets.bad_files import BadFileError
from datasets.dex_ycb.splits import SERIALS, SPLITS, get_split
from datasets.sample import check_sample
from template import HandModel, load_hand_assets, pca_to_pose

STAND_IN = Path(__file__).parent.parent / "template" / "stand_in.npz"
LEFT_MIDDLE_TIP = 12  # manopth takes another vertex for this tip on the left hand (docs/facts.md 6)


def open_split(root: Path, split: str = "s1_test", **options: object) -> object:
    return build_dataset("dex_ycb", root, split, **{"mano_dir": STAND_IN, "side": "both", **options})


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten subjects, two sequences (right, left) of one frame each."""
    return write_dex_ycb(tmp_path_factory.mktemp("dex_ycb"))


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two test subjects of s1 alone; two frames a sequence, dots at two joints."""
    folder = tmp_path_factory.mktemp("pristine")
    return write_dex_ycb(folder, subjects=(8, 9), sequences=2, frames=2, draw_dots=True)


@pytest.fixture
def small(tmp_path: Path, pristine: Path) -> Path:
    """A copy of it, free to be damaged."""
    return Path(shutil.copytree(pristine, tmp_path / "small"))


def first_files(root: Path) -> tuple[Path, Path]:
    """Picture and labels of image 0 of s1_test."""
    folder = next(iter(sorted((root / "20201002-subject-08").iterdir()))) / SERIALS[0]
    return folder / "color_000000.jpg", folder / "labels_000000.npz"


# --- splits and numbering ---------------------------------------------------------------------


def slow_numbering(root: Path, split: str) -> list[tuple[str, str, int]]:
    """(sequence folder, serial, frame) in official order: docs/facts.md 1.7 written out for the official setups."""
    setup, part = split.split("_")
    subjects = {
        "s0": {"train": range(10), "val": [0, 1], "test": range(2, 10)},
        "s1": {"train": [0, 1, 2, 3, 4, 5, 9], "val": [6], "test": [7, 8]},
    }.get(setup, {}).get(part, range(10))
    cameras = {"train": range(6), "val": [6], "test": [7]}[part] if setup == "s2" else range(8)
    samples = []
    for subject in subjects:
        folder = next(root.glob(f"*-subject-{subject + 1:02d}"))
        for i, sequence in enumerate(sorted(folder.iterdir())):
            if setup == "s0" and (i % 5 != 4) != (part == "train"):
                continue
            if setup == "s3":
                held = {"val": (3, 19), "test": (7, 11, 15), "train": (3, 7, 11, 15, 19)}[part]
                if (i // 5 in held) == (part == "train"):
                    continue
            for camera in cameras:
                frames = sorted((sequence / SERIALS[camera]).glob("color_*.jpg"))
                samples += [(f"{folder.name}/{sequence.name}", SERIALS[camera], frame) for frame in range(len(frames))]
    return samples


@pytest.mark.parametrize("split", ["s0_train", "s1_train", "s1_val", "s1_test", "s2_train", "s2_test", "s3_train"])
def test_image_ids_are_the_official_enumeration(root: Path, split: str) -> None:
    dataset = open_split(root, split)
    expected = slow_numbering(root, split)
    assert len(dataset) == len(expected)
    for index, (sequence, serial, frame) in enumerate(expected):
        assert dataset.columns["image_id"][index] == index
        assert dataset.image_path(index) == root / sequence / serial / f"color_{frame:06d}.jpg"


def test_filters_keep_the_official_ids(root: Path) -> None:
    everything, right = open_split(root), open_split(root, side="right")
    rows = np.flatnonzero(~everything.columns["is_left"])
    assert 0 < len(right) < len(everything)
    np.testing.assert_array_equal(right.columns["image_id"], everything.columns["image_id"][rows])
    np.testing.assert_array_equal(right.columns["joints"], everything.columns["joints"][rows])


def test_every_setup_is_a_partition() -> None:
    for setup in ("s1", "s5", "s6", "s7", "s9", "s10", "s11"):
        parts = [SPLITS[f"{setup}_{part}"].subjects for part in ("train", "val", "test")]
        assert sorted(sum(parts, ())) == list(range(10)) and [len(part) for part in parts] == [7, 1, 2]
    for i in range(100):
        assert sum(SPLITS[f"s3_{part}"].keeps_sequence(i) for part in ("train", "val", "test")) == 1
        assert SPLITS["s0_train"].keeps_sequence(i) != SPLITS["s0_test"].keeps_sequence(i)
    assert sum(map(SPLITS["s3_train"].keeps_sequence, range(100))) == 75


def test_s4_shares_all_images_by_lot(root: Path) -> None:
    ids = [open_split(root, f"s4_{part}").columns["image_id"] for part in ("train", "val", "test")]
    assert sorted(np.concatenate(ids)) == list(range(160))
    assert [len(part) for part in ids] == [128, 8, 24]


def test_extra_subjects_join_the_train_splits_behind_the_official_ones(tmp_path: Path, root: Path) -> None:
    more = write_dex_ycb(tmp_path / "more", subjects=(*range(1, 11), 11, 12))
    small, large = open_split(root, "s1_train"), open_split(more, "s1_train")
    np.testing.assert_array_equal(large.columns["joints"][: len(small)], small.columns["joints"])
    assert set(large.columns["subject_id"][len(small) :]) == {11, 12}
    assert set(open_split(more, "s1_test").columns["subject_id"]) == {8, 9}


def test_unknown_names_list_the_choices(root: Path) -> None:
    with pytest.raises(ValueError, match="dex_ycb"):
        build_dataset("dexycb", root, "s1_test")
    with pytest.raises(ValueError, match="s1_test"):
        get_split("s8_test")
    with pytest.raises(ValueError, match="both"):
        open_split(root, side="middle")


# --- what a sample holds -----------------------------------------------------------------------


def test_every_sample_keeps_the_contract(root: Path) -> None:
    dataset = open_split(root, "s1_val", with_vertices=True, crop_size=32)
    for index in range(len(dataset)):
        check_sample(dataset[index])
    sample = dataset[0]
    with pytest.raises(ValueError, match="joints"):
        check_sample({**sample, "joints": sample["joints"] * np.nan})
    with pytest.raises(ValueError, match="pose"):
        check_sample({**sample, "pose": sample["pose"] * 2})
    with pytest.raises(ValueError, match="betas"):
        check_sample({key: value for key, value in sample.items() if key != "betas"})


def test_joints_project_to_keypoints_in_crop_and_image(root: Path) -> None:
    dataset = open_split(root, "s1_val")
    batch = dataset.gather(np.arange(len(dataset)))
    for i in range(len(dataset)):
        for K, points in ((batch["K"][i], batch["keypoints_2d"][i]), (batch["K_image"][i], None)):
            projected = batch["joints"][i] @ K.T
            projected = projected[:, :2] / projected[:, 2:]
            if points is None:
                points = batch["keypoints_2d"][i] @ batch["crop_to_image"][i, :, :2].T + batch["crop_to_image"][i, :, 2]
            np.testing.assert_allclose(projected, points, atol=5e-3)
    size = np.ptp(batch["keypoints_2d"], axis=1).max(axis=1)
    np.testing.assert_allclose(size, 64, atol=1e-3)  # half of the 128 px of the crop


def test_right_samples_are_the_labels_as_they_are(root: Path) -> None:
    dataset = open_split(root, side="right")
    with np.load(first_files(root)[1]) as labels:
        np.testing.assert_array_equal(dataset[0]["joints"], labels["joint_3d"][0])
        np.testing.assert_array_equal(dataset[0]["transl"], labels["pose_m"][0, 48:])
    assert dataset[0]["K_image"][0, 0] == intrinsics(0)["fx"]
    np.testing.assert_allclose(dataset.subject_betas[8], betas_of(8), rtol=1e-6)


def test_the_right_hand_model_reproduces_both_sides(root: Path) -> None:
    dataset = open_split(root, with_vertices=True)
    batch = dataset.gather(np.arange(len(dataset)))
    hand = HandModel(load_hand_assets(STAND_IN, "right"))
    output = hand(*(torch.from_numpy(batch[key]) for key in ("pose", "betas", "transl")))
    np.testing.assert_allclose(output.vertices, batch["vertices"], atol=1e-6)
    error = np.abs(output.joints.numpy() - batch["joints"]).max(axis=2)
    error[batch["is_left"], LEFT_MIDDLE_TIP] = 0
    assert batch["is_left"].any() and error.max() < 1e-6


def test_left_vertices_are_the_mirrored_left_hand(root: Path) -> None:
    hands, dataset = Hands(), open_split(root, side="left", with_vertices=True)
    path = dataset.image_path(3)
    with np.load(path.with_name("labels_000000.npz")) as labels:
        pose_m = torch.from_numpy(labels["pose_m"].astype(np.float64))
    pose = pca_to_pose(hands.assets["left"], pose_m[:, :3], pose_m[:, 3:48])
    betas = torch.from_numpy(betas_of(8))[None]
    expected = hands.models["left"](pose, betas, pose_m[:, 48:]).vertices[0].numpy() * [-1, 1, 1]
    np.testing.assert_allclose(dataset[3]["vertices"], expected, atol=1e-6)


def test_dots_are_found_at_the_keypoints(small: Path) -> None:
    dataset = open_split(small, crop_size=160)
    found = 0
    for index in range(0, len(dataset), 3):
        sample = dataset[index]
        for joint, channel in ((0, 1), (12, 0)):
            point = sample["keypoints_2d"][joint]
            pixel = point @ sample["crop_to_image"][:, :2].T + sample["crop_to_image"][:, 2]
            if pixel.min() < 10 or pixel[0] > 629 or pixel[1] > 469:
                continue
            weights = sample["image"][..., channel].astype(float)
            weights[weights < 40] = 0  # JPEG noise
            assert np.abs(centroid(weights) - point).max() < 0.25
            found += 1
    assert found > 10


# --- bad input ---------------------------------------------------------------------------------


def test_missing_and_empty_roots_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m datasets\.synthetic --root DIR"):
        open_split(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="subject-01"):
        open_split(tmp_path)


def test_half_copied_roots_name_the_missing_file(small: Path) -> None:
    picture, labels = first_files(small)
    for path in (picture, labels, labels.parent.parent / "meta.yml"):
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(FileNotFoundError, match=path.name):
            open_split(small, skip_bad=True)
        path.write_bytes(data)
    for name in (f"intrinsics/{SERIALS[3]}_640x480.yml", "mano_20200101_000000_subject-08_left/mano.yml"):
        path = small / "calibration" / name
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(FileNotFoundError, match=path.name):
            open_split(small)
        path.write_bytes(data)


def test_missing_subjects_are_an_error_unless_allowed(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FileNotFoundError, match="20200709-subject-01, 20200813-subject-02"):
        open_split(small, "s0_train")
    with caplog.at_level(logging.WARNING):
        dataset = open_split(small, "s0_train", allow_missing_subjects=True)
    assert set(dataset.columns["subject_id"]) == {8, 9}
    assert "subject-01" in caplog.text
    with pytest.raises(FileNotFoundError, match="no sequence"):
        open_split(small, "s1_train", allow_missing_subjects=True)


@pytest.mark.parametrize("damage", ["nan", "shape"])
def test_unusable_labels_are_named_or_skipped_and_counted(small: Path, damage: str, tmp_path: Path) -> None:
    path = first_files(small)[1]
    if damage == "nan":
        edit_labels(path, joint_3d=np.full((1, 21, 3), np.nan, np.float32))
    else:
        edit_labels(path, pose_m=np.zeros((1, 48), np.float32))
    with pytest.raises(BadFileError, match="labels_000000.npz.*skip_bad"):
        open_split(small)
    dataset = open_split(small, skip_bad=True, cache=tmp_path / "cache")
    assert dataset.num_bad_labels == 1
    assert dataset.columns["image_id"][0] == 1
    with pytest.raises(BadFileError):  # the cache made with skip_bad hides nothing
        open_split(small, cache=tmp_path / "cache")


@pytest.mark.parametrize("size", [0, 400, -30, -2])
@pytest.mark.parametrize("cached", [False, True])
def test_truncated_pictures_are_named_or_skipped_and_counted(
    small: Path, size: int, cached: bool, tmp_path: Path
) -> None:
    path = first_files(small)[0]
    path.write_bytes(path.read_bytes()[:size])
    cache = tmp_path / "cache" if cached else None
    with pytest.raises(BadFileError, match="color_000000.jpg"):
        open_split(small, cache=cache)[0]
    dataset = open_split(small, skip_bad=True, cache=cache)
    sample = dataset[0]
    assert not sample["valid"] and not sample["image"].any()
    assert dataset[1]["valid"] and dataset.bad_images == {0}
    check_sample(sample)


@pytest.mark.parametrize("key", ["joint_3d", "joint_2d"])
def test_frames_with_a_joint_without_annotation_are_left_out(small: Path, key: str) -> None:
    path = first_files(small)[1]
    with np.load(path) as labels:
        points = labels[key].copy()
    points[0, 7] = -1
    edit_labels(path, **{key: points})
    assert open_split(small).columns["image_id"][0] == 1


def test_pictures_beyond_the_promised_ones_are_told(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = first_files(small)[0].parent
    (folder / "color_000002.jpg").touch()
    open_split(small)
    assert f"{folder} holds 3 pictures, but meta.yml promises 2 frames" in caplog.text


def test_frames_without_annotation_are_left_out_unless_wanted(small: Path) -> None:
    minus = {"joint_3d": np.full((1, 21, 3), -1, np.float32), "joint_2d": np.full((1, 21, 2), -1, np.float32)}
    edit_labels(first_files(small)[1], pose_m=np.zeros((1, 51), np.float32), **minus)
    assert open_split(small).columns["image_id"][0] == 1
    dataset = open_split(small, include_invalid=True)
    assert not dataset[0]["valid"] and dataset[1]["valid"]
    check_sample(dataset[0])


def test_the_papers_filter_drops_hands_that_leave_the_image(small: Path) -> None:
    path = first_files(small)[1]
    with np.load(path) as labels:
        outside = labels["joint_2d"].copy()
    outside[0, 5, 0] = 641
    edit_labels(path, joint_2d=outside)
    plain, filtered = open_split(small, side="right"), open_split(small, side="right", paper_filter=True)
    assert plain.columns["image_id"][0] == 0 and 0 not in filtered.columns["image_id"]
    inside = []
    for index in range(len(plain)):
        name = plain.image_path(index).stem.replace("color", "labels") + ".npz"
        with np.load(plain.image_path(index).with_name(name)) as labels:
            x, y = labels["joint_2d"][0].T
        inside.append(min(x.min(), y.min()) >= 0 and x.max() <= 640 and y.max() <= 480)
    np.testing.assert_array_equal(filtered.columns["image_id"], plain.columns["image_id"][inside])
    with pytest.raises(ValueError, match="right hands only"):
        open_split(small, paper_filter=True)


# --- cache -------------------------------------------------------------------------------------


def test_cache_gives_the_same_samples_bit_by_bit(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = open_split(small)
    open_split(small, cache=tmp_path / "cache")
    monkeypatch.setattr(datasets.dex_ycb.labels, "read_labels", None)  # a second start must not read labels
    cached = open_split(small, cache=tmp_path / "cache")
    monkeypatch.setattr(cached, "_make_crop", None)  # nor decode pictures
    assert_same_samples(plain, cached)


def test_cache_notices_changed_data_and_options(small: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = open_split(small, cache=cache)
    path = first_files(small)[1]
    with np.load(path) as archive:
        labels = dict(archive)
    labels["joint_3d"] = labels["joint_3d"] + 0.001
    np.savez(path.with_name("new.npz"), **labels)
    os.replace(path.with_name("new.npz"), path)
    after = open_split(small, cache=cache)
    np.testing.assert_allclose(after[0]["joints"], before[0]["joints"] + 0.001, rtol=1e-6)
    assert open_split(small, cache=cache, crop_size=64)[0]["image"].shape == (64, 64, 3)
    right, left = (open_split(small, cache=cache, side=side) for side in ("right", "left"))
    for dataset in (right, left):  # as many of each
        row = int(np.flatnonzero(after.columns["image_id"] == dataset[0]["image_id"])[0])
        np.testing.assert_array_equal(dataset[0]["image"], after[row]["image"])


def test_labels_alone_read_no_picture(small: Path, tmp_path: Path) -> None:
    for path in small.rglob("color_*.jpg"):
        path.write_bytes(b"")
    open_labels("dex_ycb", small, "s1_test", cache=tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").glob("[!.]*")] == [".npz"]


def test_interrupted_cache_is_not_taken_for_whole(small: Path, tmp_path: Path) -> None:
    picture = first_files(small)[0]
    data = picture.read_bytes()
    picture.write_bytes(data[:500])
    with pytest.raises(BadFileError):
        open_split(small, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*crops*"))
    picture.write_bytes(data)
    assert open_split(small, cache=tmp_path / "cache")[0]["valid"]


def test_workers_read_the_same_table(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = open_split(root, "s1_test", workers=1)
    monkeypatch.setattr(datasets.dex_ycb.labels, "_PARALLEL_FROM", 1)
    several = open_split(root, "s1_test", workers=2)
    for key, column in single.columns.items():
        np.testing.assert_array_equal(several.columns[key], column)


def test_nothing_is_written_into_the_root(small: Path) -> None:
    before = sorted(small.rglob("*"))
    open_split(small)[0]
    assert sorted(small.rglob("*")) == before
