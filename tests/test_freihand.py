"""The FreiHAND loader and its synthetic writer, against the files and against each other's inverse formulas."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from dex_ycb_layout import assert_same_samples, centroid

from datasets import build_dataset
from datasets.augment import AugmentConfig, prepare_batch
from datasets.bad_files import BadFileError
from datasets.freihand.dataset import FreiHAND
from datasets.loading import BatchLoader
from datasets.sample import check_sample
from datasets.synthetic.freihand_writer import write_freihand
from template import HandModel, load_hand_assets
from utils.camera import project_numpy

STAND_IN = Path(__file__).parent.parent / "template" / "stand_in.npz"
TRAIN, EVAL = 5, 2


def open_split(root: Path, split: str = "training", **options: object) -> FreiHAND:
    return build_dataset("freihand", root, split, **{"mano_dir": STAND_IN, **options})


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("freihand") / "root"
    write_freihand(folder, TRAIN, EVAL, seed=3, mano_dir=str(STAND_IN))
    return folder


def read(root: Path, name: str) -> list:
    return json.loads((root / f"{name}.json").read_text())


# --- the files ----------------------------------------------------------------------------------


def test_layout_is_the_official_one(root: Path) -> None:
    shapes = {"K": (3, 3), "xyz": (21, 3), "mano": (1, 61), "verts": (778, 3), "scale": ()}
    for part, count in (("training", TRAIN), ("evaluation", EVAL)):
        for name, shape in shapes.items():
            assert np.array(read(root, f"{part}_{name}")).shape == (count, *shape)
    names = [sorted(path.name for path in (root / folder).iterdir()) for folder in ("training/rgb", "training/mask")]
    assert names[0] == [f"{number:08d}.jpg" for number in range(4 * TRAIN)]
    assert names[1] == [f"{number:08d}.jpg" for number in range(TRAIN)]
    assert len(list((root / "evaluation" / "rgb").iterdir())) == EVAL
    for path in root.glob("*/rgb/*.jpg"):
        assert cv2.imread(str(path)).shape == (224, 224, 3)


def test_written_labels_agree_with_each_other(root: Path) -> None:
    lists = {name: np.array(read(root, f"training_{name}")) for name in ("K", "xyz", "mano", "verts", "scale")}
    assets = load_hand_assets(STAND_IN, "right")
    for K, xyz, (vector,), vertices, scale in zip(*lists.values(), strict=True):
        bone = np.linalg.norm(xyz[9] - xyz[10])
        assert scale == pytest.approx(bone) and 0.01 < bone < 0.06
        u, v, s = vector[58:]
        focal = (K[0, 0] + K[1, 1]) / 2
        assert K[0, 0] != K[1, 1]
        np.testing.assert_allclose([(u - K[0, 2]) / s, (v - K[1, 2]) / s, focal / s], xyz[9], atol=1e-12)
        np.testing.assert_allclose(assets.J_regressor[[0, 4]] @ vertices, xyz[[0, 9]], atol=1e-12)
        np.testing.assert_array_equal(vertices[[744, 320, 443, 555, 672]], xyz[[4, 8, 12, 16, 20]])
        pixels = project_numpy(xyz, K)
        assert pixels.min() > 0 and pixels.max() < 223


def test_versions_differ_in_the_background_only(root: Path) -> None:
    dataset = open_split(root, with_mask=True)
    for sample in range(TRAIN):
        core = cv2.erode(dataset.full_mask(sample), np.ones((5, 5))) > 0
        images = [dataset.full_image(sample + TRAIN * version).astype(float) for version in range(4)]
        far = cv2.dilate(dataset.full_mask(sample), np.ones((9, 9))) == 0
        for image in images[1:]:
            ratio = image[core].mean(0) / images[0][core].mean(0)  # exposure and white balance may differ
            assert np.std(image[core] - images[0][core] * ratio) < 12
            assert np.abs(image[far] - images[0][far]).mean() > 15
        green = images[0][far].mean(axis=0)
        assert green[1] > 1.2 * max(green[0], green[2])


def test_masks_show_the_mesh(root: Path) -> None:
    """Independent rasteriser: the faces, projected and filled, are the mask (the forearm may hide a little)."""
    dataset = open_split(root, with_mask=True, with_vertices=True)
    faces = load_hand_assets(STAND_IN, "right").faces
    for sample in range(TRAIN):
        pixels = project_numpy(dataset[sample]["vertices"].astype(float), dataset.columns["K_image"][sample])
        drawn = np.zeros((224, 224), np.uint8)
        for face in faces:
            cv2.fillConvexPoly(drawn, np.round(pixels[face] * 16).astype(np.int32), 255, shift=4)
        mask = dataset.full_mask(sample)
        assert set(np.unique(mask)) == {0, 255}
        overlap = ((drawn > 0) & (mask > 0)).sum() / ((drawn > 0) | (mask > 0)).sum()
        assert overlap > 0.85
        assert ((mask > 0) & (cv2.dilate(drawn, np.ones((3, 3))) == 0)).sum() == 0


def test_the_writer_refuses_to_overwrite_and_is_reproducible(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="already"):
        write_freihand(root, 1, 1)
    with pytest.raises(ValueError, match="positive"):
        write_freihand(tmp_path, 0, 1)
    write_freihand(tmp_path / "again", 1, 1, seed=3, mano_dir=str(STAND_IN), evaluation_labels=False)
    assert read(tmp_path / "again", "training_mano")[0] == read(root, "training_mano")[0]
    name = "training/rgb/00000000.jpg"
    assert (tmp_path / "again" / name).read_bytes() == (root / name).read_bytes()
    assert {path.name for path in (tmp_path / "again").glob("evaluation_*")} == {
        "evaluation_K.json", "evaluation_scale.json"
    }  # fmt: skip


# --- what a sample holds --------------------------------------------------------------------------


def test_every_sample_keeps_the_contract(root: Path) -> None:
    for split in ("s0_train", "s0_val", "s0_test"):
        dataset = open_split(root, split, with_vertices=True, with_mask=split != "s0_test", crop_size=32)
        for index in range(len(dataset)):
            check_sample(dataset[index])
            assert dataset[index]["valid"]


def test_decoding_gives_the_published_labels(root: Path) -> None:
    for split in ("training", "evaluation"):
        dataset = open_split(root, split, with_vertices=True)
        batch = dataset.gather(np.arange(len(dataset)))
        xyz, vertices = dataset.official_labels()
        np.testing.assert_allclose(batch["vertices"], vertices, atol=1e-6)
        np.testing.assert_allclose(batch["label_joints"], xyz, atol=1e-6)
        np.testing.assert_allclose(dataset.scale, np.linalg.norm(xyz[:, 9] - xyz[:, 10], axis=1), rtol=1e-6)
        assets = load_hand_assets(STAND_IN, "right")
        values = [torch.from_numpy(batch[key]) for key in ("pose", "betas", "transl")]
        np.testing.assert_allclose(HandModel(assets)(*values).joints, batch["joints"], atol=1e-6)
        np.testing.assert_allclose(HandModel(assets, **FreiHAND.label_hand)(*values).joints, xyz, atol=1e-6)
        assert np.linalg.norm(batch["joints"] - xyz, axis=-1).max() > 5e-4  # two definitions, not one


def test_joints_project_to_keypoints_in_crop_and_image(root: Path) -> None:
    dataset = open_split(root)
    batch = dataset.gather(np.arange(len(dataset)))
    np.testing.assert_allclose(project_numpy(batch["joints"], batch["K"]), batch["keypoints_2d"], atol=5e-3)
    np.testing.assert_allclose(np.ptp(batch["keypoints_2d"], axis=1).max(axis=1), 64, atol=1e-3)
    np.testing.assert_allclose(batch["K_image"][:TRAIN], np.array(read(root, "training_K")), rtol=1e-6)
    for i in range(len(dataset)):
        points = batch["keypoints_2d"][i] @ batch["crop_to_image"][i, :, :2].T + batch["crop_to_image"][i, :, 2]
        np.testing.assert_allclose(project_numpy(batch["joints"][i], batch["K_image"][i]), points, atol=5e-3)


def test_numbering_and_versions(root: Path) -> None:
    everything = open_split(root)
    np.testing.assert_array_equal(everything.columns["image_id"], np.arange(4 * TRAIN))
    np.testing.assert_array_equal(everything.columns["sequence_id"], np.arange(4 * TRAIN) % TRAIN)
    some = open_split(root, versions="auto, hom")
    np.testing.assert_array_equal(some.columns["image_id"], [*range(TRAIN, 2 * TRAIN), *range(3 * TRAIN, 4 * TRAIN)])
    assert some.image_path(0) == root / "training" / "rgb" / f"{TRAIN:08d}.jpg"
    for key, column in some.columns.items():
        if key != "image_id":
            np.testing.assert_array_equal(column, everything.columns[key][some.columns["image_id"]])
    with pytest.raises(ValueError, match="gs, hom, sample, auto"):
        open_split(root, versions=("green",))


def test_the_last_tenth_of_the_unique_samples_is_for_validation(root: Path) -> None:
    train, val = (set(open_split(root, f"s0_{part}").columns["sequence_id"].tolist()) for part in ("train", "val"))
    assert train == set(range(4)) and val == {4}  # round(0.9 * 5) = 4
    assert round(0.9 * 32560) == 29304
    test = open_split(root, "s0_test").columns
    np.testing.assert_array_equal(test["image_id"], [0, 1])
    assert not (train | val) & set(test["sequence_id"].tolist())


def test_crops_of_image_and_mask_show_the_same_box(root: Path) -> None:
    whole = open_split(root, crop="image", crop_size=224, with_mask=True)
    np.testing.assert_array_equal(whole[0]["image"], whole.full_image(0))
    np.testing.assert_array_equal(whole[TRAIN]["mask"], whole.full_mask(0))
    np.testing.assert_array_equal(whole[0]["K"], whole[0]["K_image"])
    dataset = open_split(root, with_mask=True)
    for index in range(TRAIN):  # the centre of the mask, found in the full image, lands where crop_to_image says
        sample, full = dataset[index], dataset.full_mask(index).astype(float)
        centre = centroid(sample["mask"].astype(float)) @ sample["crop_to_image"][:, :2].T
        np.testing.assert_allclose(centre + sample["crop_to_image"][:, 2], centroid(full), atol=0.3)


def test_augmentation_moves_masks_and_label_joints_with_the_rest(root: Path) -> None:
    dataset = open_split(root, with_mask=True)
    batch = {key: torch.from_numpy(value) for key, value in dataset.gather(np.arange(TRAIN)).items()}
    batch["image"] = batch["mask"][..., None].expand(-1, -1, -1, 3).contiguous()
    for config, size, scale in ((None, 96, 1.5), (AugmentConfig(rotation_deg=90.0, scale=(0.8, 1.2)), 64, 1.8)):
        moved = prepare_batch(batch, size, augment=config, generator=torch.Generator().manual_seed(0), crop_scale=scale)
        torch.testing.assert_close(moved["mask"][:, 0], moved["image"][:, 0] * 0.5 + 0.5, atol=1e-4, rtol=0)
        turned = batch["label_joints"] @ moved["view_rotation"].transpose(1, 2)
        torch.testing.assert_close(moved["label_joints"], turned)


# --- labels that were not published --------------------------------------------------------------


def test_evaluation_without_labels_can_be_predicted(copy: Path) -> None:
    for name in ("xyz", "mano", "verts"):
        (copy / f"evaluation_{name}.json").unlink()
    dataset = open_split(copy, "evaluation", crop_size=224)
    assert not dataset.columns["valid"].any() and "label_joints" not in dataset.columns
    for index in range(EVAL):
        check_sample(dataset[index])
        np.testing.assert_array_equal(dataset[index]["image"], dataset.full_image(index))
    batch = next(iter(BatchLoader(dataset, 2, drop_invalid=False)))
    assert batch["image"].shape == (2, 224, 224, 3) and not batch["valid"].any()
    with pytest.raises(FileNotFoundError, match="evaluation_xyz.json"):
        dataset.official_labels()


def test_evaluation_with_points_only_places_crops_by_them(copy: Path) -> None:
    (copy / "evaluation_mano.json").unlink()
    dataset, full = open_split(copy, "evaluation"), open_split(copy.parent / "copy", "training")
    assert not dataset.columns["valid"].any() and full.columns["valid"].all()
    xyz, _ = dataset.official_labels()
    np.testing.assert_allclose(dataset[0]["label_joints"], xyz[0], atol=1e-6)
    pixels = project_numpy(xyz, dataset.columns["K"].astype(float))
    np.testing.assert_allclose(np.ptp(pixels, axis=1).max(axis=1), 64, atol=1e-2)
    check_sample(dataset[0])


# --- bad input -----------------------------------------------------------------------------------


def test_lists_and_images_of_different_lengths_are_refused_with_both_numbers(copy: Path) -> None:
    (copy / "training" / "rgb" / f"{4 * TRAIN - 1:08d}.jpg").unlink()
    with pytest.raises(ValueError, match=rf"{TRAIN} entries, {4 * TRAIN} with all 4.*holds {4 * TRAIN - 1} images"):
        open_split(copy)
    (copy / "evaluation" / "rgb" / "00000002.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=f"{EVAL} entries, but evaluation/rgb holds {EVAL + 1} images"):
        open_split(copy, "evaluation")
    for number in range(TRAIN, 4 * TRAIN - 1):
        (copy / "training" / "rgb" / f"{number:08d}.jpg").unlink()
    assert len(open_split(copy, versions="gs")) == TRAIN  # only the first version was copied
    with pytest.raises(ValueError, match=f"holds {TRAIN} images"):
        open_split(copy)
    (copy / "training" / "mask" / "00000000.jpg").unlink()
    with pytest.raises(ValueError, match=f"{TRAIN} entries, but training/mask holds {TRAIN - 1} masks"):
        open_split(copy, versions="gs", with_mask=True)


def test_lists_of_different_lengths_are_refused_with_both_numbers(copy: Path) -> None:
    path = copy / "training_xyz.json"
    path.write_text(json.dumps(read(copy, "training_xyz")[:-2]))
    with pytest.raises(ValueError, match=f"training_xyz.json has {TRAIN - 2} entries.*training_K.json has {TRAIN}"):
        open_split(copy)


def test_missing_files_are_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="freihand_writer"):
        open_split(tmp_path / "nowhere")
    picture = copy / "training" / "rgb" / "00000007.jpg"
    picture.rename(picture.with_name("00000999.jpg"))
    with pytest.raises(FileNotFoundError, match="00000007.jpg"):
        open_split(copy)
    (copy / "training_mano.json").unlink()
    with pytest.raises(FileNotFoundError, match="training_mano.json"):
        open_split(copy)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-40], "not whole JSON"),
        (lambda text: "[]", "one entry a sample"),
        (lambda text: json.dumps([*json.loads(text)[:-1], [[1.0, 2.0]]]), rf"entry {TRAIN - 1}"),
        (lambda text: json.dumps([entry[:2] for entry in json.loads(text)]), r"entry 0 has shape \(2, 3\)"),
        (lambda text: text.replace("[[[", "[[[NaN, ", 1).replace(", 0.0", "", 1), "entry 0 is not finite"),
    ],
)
def test_unusable_lists_are_named(copy: Path, damage: object, message: str) -> None:
    path = copy / "training_K.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(BadFileError, match=f"training_K.json.*{message}"):
        open_split(copy)


@pytest.mark.parametrize("cached", [False, True])
def test_unusable_pictures_are_named_or_skipped(copy: Path, cached: bool, tmp_path: Path) -> None:
    path = copy / "training" / "rgb" / "00000001.jpg"
    path.write_bytes(path.read_bytes()[:500])
    (copy / "training" / "rgb" / "00000002.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((1, 1, 3), np.uint8))[1])
    cache = tmp_path / "cache" if cached else None
    with pytest.raises(BadFileError, match="00000001.jpg"):
        open_split(copy, cache=cache)[1]
    dataset = open_split(copy, cache=cache, skip_bad=True, with_mask=True)
    assert [bool(dataset[index]["valid"]) for index in range(4)] == [True, False, False, True]
    assert not dataset[1]["image"].any() and dataset.bad_images == {1, 2}


def test_labels_of_another_hand_model_are_noticed(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = copy / "training_xyz.json"
    with caplog.at_level(logging.WARNING):
        open_split(copy)
        assert "another one" not in caplog.text
        path.write_text(json.dumps((np.array(read(copy, "training_xyz")) + 0.004).tolist()))
        open_split(copy)
    assert "6.9 mm" in caplog.text and "--mano_dir" in caplog.text


def test_labels_that_contradict_each_other_in_some_hands_or_joints_are_noticed(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A median over all hands and joints saw neither."""
    path, xyz = copy / "training_xyz.json", np.array(read(copy, "training_xyz"))
    path.write_text(json.dumps(xyz[:, [*range(13), *range(17, 21), *range(13, 17)]].tolist()))  # ring and little finger
    with caplog.at_level(logging.WARNING):
        open_split(copy)
    assert "(median of joint 1" in caplog.text and "another one" in caplog.text
    caplog.clear()
    moved = xyz.copy()
    moved[0] += 0.004
    path.write_text(json.dumps(moved.tolist()))
    with caplog.at_level(logging.WARNING):
        open_split(copy)
    assert "are all labels and cameras of the same pictures?" in caplog.text


def test_a_synthetic_set_says_with_which_hand_it_was_made(
    root: Path, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    open_split(root, mano_dir="template/stand_in_2.npz")
    assert "it is synthetic, made with the hand model" in caplog.text and "stand_in.npz" in caplog.text
    assert "another one" in caplog.text


def test_options_that_mean_nothing_here_are_refused(root: Path) -> None:
    for options, message in (
        ({"side": "left"}, "right hands only"),
        ({"paper_filter": True}, "paper_filter"),
        ({"crop": "hand"}, "joints or image"),
        ({"split": "s1_train"}, "s0_train"),
        ({"split": "evaluation", "with_mask": True}, "training part only"),
    ):
        with pytest.raises(ValueError, match=message):
            open_split(root, **options)
    with pytest.raises(ValueError, match="who is in which image"):
        _ = open_split(root).subject_betas


# --- cache ---------------------------------------------------------------------------------------


def test_cache_gives_the_same_samples_bit_by_bit(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = open_split(root, with_mask=True)
    for options in ({"with_mask": True}, {}, {"crop": "image", "with_mask": True}, {"versions": "hom"}):
        open_split(root, cache=tmp_path, **options)
    cached = open_split(root, with_mask=True, cache=tmp_path)
    monkeypatch.setattr(cached, "_make_crop", None)
    assert_same_samples(plain, cached)
    assert len(list(tmp_path.glob("*.npy"))) == 4
