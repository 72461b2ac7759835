"""The synthetic set, file by file, against DexYCB's format and against itself (docs/facts.md 1.1 to 1.5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from scipy.spatial.transform import Rotation

from datasets.dex_ycb.splits import SERIALS, SUBJECTS
from datasets.synthetic.data_set import SynthesisOptions, write_data_set
from datasets.synthetic.scene import motion as motion_module
from template import HandModel, load_hand_assets, pca_to_pose

FRAMES = 2
OPTIONS = SynthesisOptions(num_sequences=2, num_frames=FRAMES, seed=5, render_scale=0.5, depth=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One subject, a right and a left sequence, two frames; the hand is missing from the right one's first."""
    folder = tmp_path_factory.mktemp("synthetic") / "root"
    patch = pytest.MonkeyPatch()
    absent = iter([np.array([False, True]), np.array([True, True])])
    patch.setattr(motion_module, "_presence", lambda generator, count: next(absent))
    write_data_set(folder, OPTIONS, subjects=[8], workers=1)
    patch.undo()
    yield folder


@pytest.fixture(scope="module")
def sequences(root: Path) -> list[dict[str, Any]]:
    """Everything that the files of each sequence say."""
    return [_read_sequence(root, folder) for folder in sorted((root / SUBJECTS[7]).iterdir())]


def _read_sequence(root: Path, folder: Path) -> dict[str, Any]:
    meta = yaml.safe_load((folder / "meta.yml").read_text())
    calibration = root / "calibration"
    text = (calibration / f"extrinsics_{meta['extrinsics']}" / "extrinsics.yml").read_text()
    extrinsics = yaml.load(text, yaml.FullLoader)
    mano = yaml.safe_load((calibration / f"mano_{meta['mano_calib'][0]}" / "mano.yml").read_text())
    labels = {
        (serial, frame): dict(np.load(folder / serial / f"labels_{frame:06d}.npz"))
        for serial in SERIALS
        for frame in range(meta["num_frames"])
    }
    K = {}
    for serial in SERIALS:
        color = yaml.safe_load((calibration / "intrinsics" / f"{serial}_640x480.yml").read_text())["color"]
        K[serial] = np.array([[color["fx"], 0, color["ppx"]], [0, color["fy"], color["ppy"]], [0, 0, 1]])
    pose = dict(np.load(folder / "pose.npz"))
    return {
        "folder": folder, "meta": meta, "extrinsics": extrinsics, "betas": np.array(mano["betas"]),
        "labels": labels, "K": K, "pose": pose,
        "hand": HandModel(load_hand_assets(side=meta["mano_sides"][0]), dtype=torch.float64),
    }  # fmt: skip


def _decode(sequence: dict[str, Any], pose_m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, joints and rest wrist of one row of 51 numbers."""
    hand, row = sequence["hand"], torch.as_tensor(pose_m.astype(np.float64))[None]
    pose = pca_to_pose(hand.assets, row[:, :3], row[:, 3:48])
    output = hand(pose, torch.as_tensor(sequence["betas"])[None], row[:, 48:])
    return output.vertices[0].numpy(), output.joints[0].numpy(), output.rest_joints[0, 0].numpy()


def _valid_labels(sequences: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, int, dict[str, np.ndarray]]]:
    for sequence in sequences:
        for (serial, frame), labels in sequence["labels"].items():
            if not (labels["joint_3d"] == -1).all():
                yield sequence, serial, frame, labels


def test_layout(root: Path) -> None:
    assert {path.name for path in root.iterdir()} == {"calibration", "models", "synthetic.json", SUBJECTS[7]}
    for sequence in (root / SUBJECTS[7]).iterdir():
        assert sequence.name[:8] == SUBJECTS[7][:8] and len(sequence.name) == 15
        assert {path.name for path in sequence.iterdir()} == {"meta.yml", "pose.npz", *SERIALS}
        expected = {
            name for frame in range(FRAMES)
            for name in (f"color_{frame:06d}.jpg", f"aligned_depth_to_color_{frame:06d}.png", f"labels_{frame:06d}.npz")
        }  # fmt: skip
        for serial in SERIALS:
            assert {path.name for path in (sequence / serial).iterdir()} == expected
    assert len(list((root / "calibration").glob("mano_*"))) == 20
    assert len(list((root / "calibration").glob("extrinsics_*"))) == 10
    assert len(list((root / "calibration" / "intrinsics").iterdir())) == 8


def test_meta_and_sides(sequences: list[dict[str, Any]]) -> None:
    assert [sequence["meta"]["mano_sides"] for sequence in sequences] == [["right"], ["left"]]
    for sequence in sequences:
        meta = sequence["meta"]
        assert set(meta) == {
            "serials", "num_frames", "extrinsics", "mano_calib", "mano_sides", "ycb_ids", "ycb_grasp_ind"
        }  # fmt: skip
        assert meta["serials"] == list(SERIALS) and meta["num_frames"] == FRAMES
        assert 0 <= meta["ycb_grasp_ind"] < len(meta["ycb_ids"]) == len(set(meta["ycb_ids"]))
        assert all(1 <= ycb_id <= 21 for ycb_id in meta["ycb_ids"])


def test_calibration_files(root: Path, sequences: list[dict[str, Any]]) -> None:
    text = next((root / "calibration").glob("extrinsics_*")).joinpath("extrinsics.yml").read_text()
    assert "!!python/tuple" in text
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(text)
    content = sequences[0]["extrinsics"]
    assert set(content["extrinsics"]) == {*SERIALS, "apriltag"} and content["master"] in SERIALS
    master = np.array(content["extrinsics"][content["master"]]).reshape(3, 4)
    np.testing.assert_allclose(master, np.eye(4)[:3], atol=1e-12)
    for values in content["extrinsics"].values():
        rotation = np.array(values).reshape(3, 4)[:, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) > 0
    np.testing.assert_array_equal(sequences[0]["betas"], sequences[1]["betas"])
    betas = {path.read_text() for path in (root / "calibration").glob("mano_*/mano.yml")}
    assert len(betas) == 10


def test_images_and_label_types(sequences: list[dict[str, Any]]) -> None:
    for sequence in sequences:
        n_objects = len(sequence["meta"]["ycb_ids"])
        expected = {
            "seg": ((480, 640), np.uint8), "pose_y": ((n_objects, 3, 4), np.float32), "pose_m": ((1, 51), np.float32),
            "joint_3d": ((1, 21, 3), np.float32), "joint_2d": ((1, 21, 2), np.float32),
        }  # fmt: skip
        for (serial, frame), labels in sequence["labels"].items():
            assert {key: (value.shape, value.dtype) for key, value in labels.items()} == expected
            assert set(np.unique(labels["seg"])) <= {0, 255, *sequence["meta"]["ycb_ids"]}
            folder = sequence["folder"] / serial
            image = cv2.imread(str(folder / f"color_{frame:06d}.jpg"), cv2.IMREAD_UNCHANGED)
            depth = cv2.imread(str(folder / f"aligned_depth_to_color_{frame:06d}.png"), cv2.IMREAD_UNCHANGED)
            assert image.shape == (480, 640, 3) and image.std() > 5
            assert depth.shape == (480, 640) and depth.dtype == np.uint16 and 300 < np.median(depth[depth > 0]) < 2500
        pose = sequence["pose"]
        assert pose["pose_m"].shape == (FRAMES, 1, 51) and pose["pose_m"].dtype == np.float32
        assert pose["pose_y"].shape == (FRAMES, n_objects, 7) and pose["pose_y"].dtype == np.float32


def test_projection_of_joint_3d_is_joint_2d(sequences: list[dict[str, Any]]) -> None:
    for sequence, serial, _, labels in _valid_labels(sequences):
        for point, pixel in zip(labels["joint_3d"][0].astype(float), labels["joint_2d"][0], strict=True):
            u, v, w = sequence["K"][serial] @ point
            assert np.abs([u / w - pixel[0], v / w - pixel[1]]).max() < 1e-3


def test_pose_m_gives_joint_3d_and_depth(sequences: list[dict[str, Any]]) -> None:
    for sequence, serial, frame, labels in _valid_labels(sequences):
        vertices, joints, _ = _decode(sequence, labels["pose_m"][0])
        assert np.abs(joints - labels["joint_3d"][0]).max() < 1e-5
        path = sequence["folder"] / serial / f"aligned_depth_to_color_{frame:06d}.png"
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[labels["seg"] == 255] / 1000
        if len(depth):
            assert vertices[:, 2].min() - 0.003 < depth.min() and depth.max() < vertices[:, 2].max() + 0.003


def test_camera_and_world_poses_agree(sequences: list[dict[str, Any]]) -> None:
    for sequence, serial, frame, labels in _valid_labels(sequences):
        pose = np.array(sequence["extrinsics"]["extrinsics"][serial]).reshape(3, 4)
        A, b = pose[:, :3].T, -pose[:, :3].T @ pose[:, 3]
        world, camera = sequence["pose"]["pose_m"][frame, 0].astype(float), labels["pose_m"][0].astype(float)
        rest_wrist = _decode(sequence, world)[2]
        np.testing.assert_allclose(A @ (world[48:] + rest_wrist) + b - rest_wrist, camera[48:], atol=2e-6)
        turned = A @ Rotation.from_rotvec(world[:3]).as_matrix()
        np.testing.assert_allclose(turned, Rotation.from_rotvec(camera[:3]).as_matrix(), atol=2e-6)
        np.testing.assert_allclose(world[3:48], camera[3:48], atol=1e-6)
        for index, row in enumerate(sequence["pose"]["pose_y"][frame].astype(float)):
            rotation = A @ Rotation.from_quat(row[:4]).as_matrix()
            np.testing.assert_allclose(rotation, labels["pose_y"][index, :, :3], atol=2e-6)
            np.testing.assert_allclose(A @ row[4:] + b, labels["pose_y"][index, :, 3], atol=2e-6)


def test_seg_covers_the_projected_hand(sequences: list[dict[str, Any]]) -> None:
    covered, count = [], 0
    for sequence, serial, _, labels in _valid_labels(sequences):
        vertices, _, _ = _decode(sequence, labels["pose_m"][0])
        projected = vertices @ sequence["K"][serial].T
        pixels = np.round(projected[:, :2] / projected[:, 2:] * 16).astype(np.int32)
        silhouette = np.zeros((480, 640), np.uint8)
        for face in sequence["hand"].faces.numpy():
            cv2.fillConvexPoly(silhouette, pixels[face], 1, cv2.LINE_8, shift=4)
        is_hand = labels["seg"] == 255
        assert not (is_hand & (cv2.dilate(silhouette, np.ones((7, 7))) == 0)).any()
        # Objects hide parts of the hand, and the forearm what lies near the wrist: neither is looked at.
        inner = cv2.erode(silhouette, np.ones((5, 5)))
        wrist = labels["joint_2d"][0, 0]
        radius = 0.07 * sequence["K"][serial][0, 0] / labels["joint_3d"][0, 0, 2]
        cv2.circle(inner, tuple(int(value) for value in wrist), int(radius), 0, -1)
        free = (inner > 0) & ~np.isin(labels["seg"], sequence["meta"]["ycb_ids"])
        if free.sum() > 100:
            covered.append(is_hand[free].mean())
            count += 1
    assert count >= 16 and np.median(covered) > 0.995 and min(covered) > 0.9


def test_frames_without_a_hand_are_marked(sequences: list[dict[str, Any]]) -> None:
    right, left = sequences
    assert not right["pose"]["pose_m"][0].any() and right["pose"]["pose_m"][1].any()
    for serial in SERIALS:
        labels = right["labels"][serial, 0]
        assert (labels["joint_3d"] == -1).all() and (labels["joint_2d"] == -1).all()
        assert not labels["pose_m"].any() and not (labels["seg"] == 255).any()
    assert sum(1 for _ in _valid_labels([left])) >= 12


def _digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes_and_resume(tmp_path: Path) -> None:
    options = SynthesisOptions(num_sequences=2, num_frames=1, seed=11, render_scale=0.5)
    write_data_set(tmp_path / "one", options, subjects=[9], workers=1)
    first = _digests(tmp_path / "one")
    write_data_set(tmp_path / "two", options, subjects=[9], workers=2)
    assert _digests(tmp_path / "two") == first

    done, broken = sorted((tmp_path / "one" / SUBJECTS[8]).iterdir())
    (broken / "pose.npz").unlink()
    (broken / SERIALS[3] / "color_000000.jpg").write_bytes(b"half a pic")
    stamp = (done / SERIALS[0] / "color_000000.jpg").stat().st_mtime_ns
    write_data_set(tmp_path / "one", options, subjects=[9], workers=1)
    assert _digests(tmp_path / "one") == first
    assert (done / SERIALS[0] / "color_000000.jpg").stat().st_mtime_ns == stamp

    other = SynthesisOptions(num_sequences=2, num_frames=1, seed=12, render_scale=0.5)
    with pytest.raises(FileExistsError, match="another"):
        write_data_set(tmp_path / "one", other, workers=1)


def test_a_strangers_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(FileExistsError, match="not empty"):
        write_data_set(tmp_path, OPTIONS, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    "bad",
    [{"num_frames": 0}, {"num_subjects": 3}, {"left_fraction": 2.0}, {"render_scale": 0.3}, {"num_sequences": 301}],
)
def test_bad_options_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SynthesisOptions(**bad)
