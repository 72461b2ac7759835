"""The HUMBI loader and its synthetic writer, through HUMBI's own projection matrices and crop formula."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datasets import build_dataset
from datasets.bad_files import BadFileError
from datasets.humbi.dataset import HUMBI
from datasets.humbi.files import Crop, crop_affine_of, split_subjects
from datasets.sample import check_sample
from datasets.synthetic import humbi_writer
from datasets.synthetic.hand_studio import make_studio_hand
from datasets.synthetic.humbi_writer import write_humbi
from datasets.synthetic.scene.cameras import look_at
from template import HandModel, load_hand_assets
from utils.camera import project_numpy, transform_intrinsics

STAND_IN = Path(__file__).parent.parent / "template" / "stand_in.npz"
SUBJECTS, FRAMES, CAMERAS = 3, 2, 2


def open_split(root: Path, split: str = "split_5_train", **options: object) -> HUMBI:
    return build_dataset("humbi", root, split, **{"mano_dir": STAND_IN, **options})


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("humbi") / "root"
    write_humbi(folder, SUBJECTS, FRAMES, CAMERAS, seed=1, mano_dir=str(STAND_IN))
    return folder


def first_frame(root: Path, dataset: HUMBI) -> Path:
    """The frame folder of the first sample."""
    return dataset.image_path(0).parents[2]


def numbers(path: Path) -> np.ndarray:
    return np.loadtxt(path)


def blocks(path: Path, rows: int) -> dict[int, np.ndarray]:
    """Camera id -> rows, read line by line as docs/facts.md 5 describes the files."""
    lines = path.read_text().splitlines()[3:]
    return {
        int(lines[start].split()[-1]): np.array(
            [[float(value) for value in line.split()] for line in lines[start + 1 : start + 1 + rows]]
        )
        for start in range(0, len(lines), rows + 1)
    }


def official_view(dataset: HUMBI, index: int) -> tuple[Path, np.ndarray, np.ndarray, list[int]]:
    """Frame folder, projection (3, 4), extrinsics (4, 3) and crop row of a sample, found from its image's path."""
    path = dataset.image_path(index)
    camera = int(path.stem.removeprefix("image"))
    hand = path.parents[3]
    (row,) = [
        line.split() for line in (path.parent / "list.txt").read_text().splitlines() if int(line.split()[0]) == camera
    ]
    projection, extrinsics = blocks(hand / "project.txt", 3)[camera], blocks(hand / "extrinsic.txt", 4)[camera]
    return path.parents[2], projection, extrinsics, [int(value) for value in row[1:]]


# --- what a sample holds --------------------------------------------------------------------------


def test_every_sample_keeps_the_contract(root: Path) -> None:
    for split in ("s0_train", "s0_val", "s0_test"):
        dataset = open_split(root, split, with_vertices=True, crop_size=32)
        assert len(dataset) == FRAMES * CAMERAS
        for index in range(len(dataset)):
            check_sample(dataset[index])
            assert dataset[index]["valid"]
            assert cv2.imread(str(dataset.image_path(index))).shape == (250, 250, 3)


def test_world_labels_land_where_the_projection_matrices_say(root: Path) -> None:
    dataset = open_split(root, with_vertices=True)
    for index in range(len(dataset)):
        sample = dataset[index]
        folder, projection, extrinsics, (xmin, xmax, ymin, ymax) = official_view(dataset, index)
        for key, name in (("label_joints", "keypoints_r"), ("vertices", "vertices_r")):
            for point, world in zip(sample[key], numbers(folder / "reconstruction" / f"{name}.txt"), strict=True):
                expected = extrinsics[1:] @ (world - extrinsics[0])
                np.testing.assert_allclose(point, expected, atol=2e-6)
                u, v, w = projection @ [*world, 1]
                crop = np.array([(u / w - xmin) * 250 / (xmax - xmin), (v / w - ymin) * 250 / (ymax - ymin)])
                seen = sample["K_image"] @ point
                np.testing.assert_allclose(seen[:2] / seen[2], crop, atol=0.02)
        assert sample["K_image"][0, 0] / sample["K_image"][1, 1] == pytest.approx(
            (ymax - ymin) / (xmax - xmin), rel=0.01
        )


def test_pose_shape_translation_and_joints_agree(root: Path) -> None:
    dataset = open_split(root)
    batch = dataset.gather(np.arange(len(dataset)))
    assets = load_hand_assets(STAND_IN, "right")
    values = [torch.from_numpy(batch[key]) for key in ("pose", "betas", "transl")]
    np.testing.assert_allclose(HandModel(assets)(*values).joints, batch["joints"], atol=2e-6)
    np.testing.assert_allclose(HandModel(assets, **HUMBI.label_hand)(*values).joints, batch["label_joints"], atol=2e-6)
    for i in range(len(dataset)):
        projected = batch["joints"][i] @ batch["K"][i].T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], batch["keypoints_2d"][i], atol=5e-3)
    np.testing.assert_allclose(np.ptp(batch["keypoints_2d"], axis=1).max(axis=1), 64, atol=1e-3)


def test_the_camera_of_the_crops_renders_each_axis_at_its_own_scale() -> None:
    """Independent rasteriser: the projected faces, filled, are the mask, whatever the aspect of the pixels."""
    hand = make_studio_hand(0, 1, np.random.default_rng(0), str(STAND_IN))
    camera = look_at(np.radians([20.0, 30.0]), 1.5, hand.joints.mean(axis=0))
    K = np.array([[1700.0, 0, 950], [0, 1705, 530], [0, 0, 1]])
    u, v = project_numpy(hand.points_in_camera(hand.vertices, camera), K).T
    crop = Crop(0, int(u.min()) - 30, int(u.max()) + 31, int(v.min()) - 5, int(v.max()) + 90)
    mask = hand.photograph(transform_intrinsics(K, crop_affine_of(crop)), camera, 250).mask
    pixels = np.column_stack([
        (u - crop.xmin) * 250 / (crop.xmax - crop.xmin), (v - crop.ymin) * 250 / (crop.ymax - crop.ymin)
    ])  # fmt: skip
    drawn = np.zeros((250, 250), np.uint8)
    for face in load_hand_assets(STAND_IN, "right").faces:
        cv2.fillConvexPoly(drawn, np.round(pixels[face] * 16).astype(np.int32), 255, shift=4)
    assert ((drawn > 0) & (mask > 0)).sum() / ((drawn > 0) | (mask > 0)).sum() > 0.85
    assert ((mask > 0) & (cv2.dilate(drawn, np.ones((3, 3))) == 0)).sum() == 0


def test_translation_is_the_mean_offset_of_the_published_vertices(copy: Path) -> None:
    before = open_split(copy)
    path = first_frame(copy, before) / "reconstruction" / "vertices_r.txt"
    shift = np.array([0.003, -0.001, 0.002])
    np.savetxt(path, numbers(path) + shift)
    after = open_split(copy)
    for index in range(CAMERAS):
        moved = official_view(before, index)[2][1:] @ shift
        for key in ("transl", "joints", "label_joints"):
            difference = np.broadcast_to(after[index][key] - before[index][key], np.shape(before[index][key]))
            np.testing.assert_allclose(difference, np.broadcast_to(moved, difference.shape), atol=1e-6)
    np.testing.assert_array_equal(after[CAMERAS]["transl"], before[CAMERAS]["transl"])


# --- who is where ---------------------------------------------------------------------------------


def test_splits_keep_people_apart() -> None:
    for count in (3, 4, 17, 300):
        splits = split_subjects(list(range(1, count + 1)))
        for names in (("split_5_train", "split_5_test"), ("s0_train", "s0_val", "s0_test")):
            parts = [splits[name] for name in names]
            assert sorted(sum(parts, [])) == list(range(1, count + 1)) and all(parts)
        assert splits["s0_test"] == splits["split_5_test"]
    assert len(splits["split_5_test"]) == 30 and len(splits["s0_val"]) == 27
    assert splits["split_5_test"] != list(range(271, 301))


def test_samples_say_who_and_when(root: Path) -> None:
    dataset = open_split(root)
    np.testing.assert_array_equal(dataset.columns["image_id"], np.arange(len(dataset)))
    for index in range(len(dataset)):
        path = dataset.image_path(index)
        assert path.parts[-6] == f"subject_{dataset.columns['subject_id'][index]}"
        same = [other for other in range(len(dataset)) if dataset.image_path(other).parent == path.parent]
        rows = np.flatnonzero(dataset.columns["sequence_id"] == dataset.columns["sequence_id"][index])
        assert same == rows.tolist() and len(same) == CAMERAS
    for subject, betas in dataset.subject_betas.items():
        params = sorted((root / f"subject_{subject}").rglob("mano_params_r.txt"))
        for path in params:
            np.testing.assert_allclose(numbers(path)[26:], betas, rtol=1e-5)


def test_subject_52_and_frames_without_a_right_hand_are_left_out(copy: Path) -> None:
    shutil.copytree(copy / "subject_1", copy / "subject_52")
    (copy / "subject_99").mkdir()
    everybody = {split: open_split(copy, split) for split in ("split_5_train", "split_5_test")}
    people = [set(dataset.columns["subject_id"].tolist()) for dataset in everybody.values()]
    assert people[0] | people[1] == {1, 2, 3}
    dataset = everybody["split_5_train"]
    (first_frame(copy, dataset) / "reconstruction" / "mano_params_r.txt").unlink()
    fewer = open_split(copy)
    assert len(fewer) == len(dataset) - CAMERAS
    assert fewer.image_path(0) == dataset.image_path(CAMERAS)


# --- bad input ------------------------------------------------------------------------------------


def test_missing_things_are_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="humbi_writer"):
        open_split(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="subject_1/hand"):
        open_split(tmp_path)
    path = open_split(copy).image_path(1)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        open_split(copy)
    extrinsic = path.parents[3] / "extrinsic.txt"
    extrinsic.unlink()
    with pytest.raises(FileNotFoundError, match="extrinsic.txt"):
        open_split(copy)
    shutil.rmtree(copy / "subject_2")
    with pytest.raises(ValueError, match="need three"):
        open_split(copy)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("reconstruction/vertices_r.txt", lambda text: text[:900], "778 x 3 numbers"),
        ("reconstruction/mano_params_r.txt", lambda text: text.replace(text.split()[5], "nan", 1), "NaN"),
        ("image_cropped/right/list.txt", lambda text: "0 10 20\n", "cam xmin xmax ymin ymax"),
        ("image_cropped/right/list.txt", lambda text: "0 20 10 5 8\n", "empty box"),
        ("image_cropped/right/list.txt", lambda text: "0 10.6 20 5 8\n", "not whole"),
        ("image_cropped/right/list.txt", lambda text: 2 * text, "lists camera 0 twice"),
    ],
)
def test_unusable_labels_are_named_or_skipped_and_counted(copy: Path, name: str, damage: object, message: str) -> None:
    whole = open_split(copy)
    path = first_frame(copy, whole) / name
    path.write_text(damage(path.read_text()))
    with pytest.raises(BadFileError, match=f"{path.name}.*{message}"):
        open_split(copy)
    dataset = open_split(copy, skip_bad=True)
    assert dataset.num_bad_labels == 1 and len(dataset) == len(whole) - CAMERAS


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("extrinsic.txt", lambda lines: lines[:-1], "camera block 1"),
        ("extrinsic.txt", lambda lines: [*lines[:5], "2 0 0", *lines[6:]], "no rotation"),
        ("intrinsic.txt", lambda lines: lines[:3], "no camera"),
        ("intrinsic.txt", lambda lines: [*lines, *lines[3:7]], "lists camera 0 twice"),
    ],
)
def test_unusable_cameras_are_named(copy: Path, name: str, damage: object, message: str) -> None:
    path = open_split(copy).image_path(0).parents[3] / name
    path.write_text("\n".join(damage(path.read_text().splitlines())))
    with pytest.raises(BadFileError, match=f"{name}.*{message}"):
        open_split(copy)


def test_other_sides_and_splits_are_refused(root: Path) -> None:
    for options, message in (({"side": "left"}, "right hands only"), ({"split": "s1_train"}, "split_5_train")):
        with pytest.raises(ValueError, match=message):
            open_split(root, **options)
    with pytest.raises(FileExistsError, match="already"):
        write_humbi(root)


def test_cache_gives_the_same_samples_bit_by_bit(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = open_split(root)
    open_split(root, cache=tmp_path)
    cached = open_split(root, cache=tmp_path)
    monkeypatch.setattr(cached, "_make_crop", None)
    for index in range(len(plain)):
        for key, value in plain[index].items():
            np.testing.assert_array_equal(cached[index][key], value, strict=True)


def test_a_writer_that_was_stopped_writes_the_same_set_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_crops, calls = humbi_writer._write_crops, []

    def stopped(*given: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write_crops(*given)

    numbers = {"num_subjects": 3, "num_frames": 1, "num_cameras": 1}
    monkeypatch.setattr(humbi_writer, "_write_crops", stopped)
    with pytest.raises(KeyboardInterrupt):
        humbi_writer.write_humbi(tmp_path / "stopped", **numbers)
    with pytest.raises(FileExistsError, match="begun with other options"):
        humbi_writer.write_humbi(tmp_path / "stopped", **numbers | {"seed": 1})
    for name in ("stopped", "whole"):
        humbi_writer.write_humbi(tmp_path / name, **numbers)
    trees = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("stopped", "whole")
    ]
    assert trees[0] == trees[1] and len(trees[0]) > 10
