"""Moving cameras (``--world_from_camera``): read from all kinds of files, and a hand at rest stays at rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from photo_cases import Fixed, arguments, hand_at, result_of
from scipy.spatial.transform import Rotation
from test_animation_files import AXES, Glb, read_bvh
from test_video_files import write_clip

from src.photos.api import PhotoEstimator
from src.photos.camera import Camera
from src.photos.estimator import HandInPicture
from src.photos.result import Result
from src.photos.run_images import image_demo
from src.photos.video import run_video
from template import HandModel
from utils.camera import project_numpy, square_box
from utils.cameras.poses import CameraPose, check_count, read_poses

COUNT = 4
TURNS = Rotation.from_rotvec(np.random.default_rng(0).normal(scale=0.06, size=(COUNT, 3)))
PLACES = np.random.default_rng(1).normal(scale=0.03, size=(COUNT, 3))
MATRICES = np.tile(np.eye(4), (COUNT, 1, 1))
MATRICES[:, :3, :3], MATRICES[:, :3, 3] = TURNS.as_matrix(), PLACES


def write(folder: Path, name: str, matrices: np.ndarray = MATRICES) -> Path:
    """The poses in the format that the name tells."""
    path, rows = folder / name, matrices.reshape(len(matrices), 16)
    if path.suffix == ".npz":
        np.savez(path, world_from_camera=matrices)
    elif path.suffix == ".json":
        path.write_text(json.dumps(matrices.tolist() if "list" in name else {"world_from_camera": matrices.tolist()}))
    elif path.suffix == ".csv":
        path.write_text("\n".join(",".join(map(repr, row.tolist())) for row in rows))
    elif "kitti" in name:
        np.savetxt(path, rows[:, :12])
    else:
        quaternions = Rotation.from_matrix(matrices[:, :3, :3]).as_quat()
        stamps = 1305031102.1 + np.arange(len(rows))
        np.savetxt(path, np.column_stack([stamps, matrices[:, :3, 3], quaternions]), header="time tx ty tz qx qy qz qw")
    return path


def resting() -> PhotoEstimator:
    return PhotoEstimator(Resting(), bbox=(25, 15, 45, 35), K=Camera(SMALL, "K"))


def pictures(folder: Path, *names: str) -> tuple[str, ...]:
    """Write grey ones; options of the image demo on them."""
    (folder / "pictures").mkdir()
    for name in names:
        cv2.imwrite(str(folder / f"pictures/{name}.png"), np.full((48, 64, 3), 90, np.uint8))
    return "--images", str(folder / "pictures"), "--output", str(folder / "page")


@pytest.mark.parametrize("name", ["a.json", "list.json", "a.npz", "a.csv", "kitti.txt", "a.txt", "a.tum"])
def test_every_kind_of_file_gives_the_same_poses(name: str, tmp_path: Path) -> None:
    poses = read_poses(write(tmp_path, name))
    assert np.allclose([pose.matrix for pose in poses], MATRICES, atol=1e-9)


def test_what_is_no_rigid_motion_is_named(tmp_path: Path) -> None:
    def changed(row: int, column: int, value: float) -> np.ndarray:
        matrices = MATRICES.copy()
        matrices[2, row, column] = value
        return matrices

    mirrored, scaled = MATRICES.copy(), MATRICES.copy()
    mirrored[2, 0, :3] *= -1
    scaled[2, :3, :3] *= 1000
    cases = {
        "pose 2 .*it mirrors": mirrored,
        "pose 2 .*is no rotation .* moves and turns only": scaled,
        "pose 2 .*not finite": changed(0, 3, np.nan),
        "last row .* transposed": MATRICES.swapaxes(1, 2),
        "it has none": MATRICES[:0],
    }
    for words, matrices in cases.items():
        with pytest.raises(ValueError, match=rf"a\.npz.*{words}"):
            read_poses(write(tmp_path, "a.npz", matrices))
    for name, text in {"a.json": '{"poses": []}', "b.csv": "1,2,3", "c.txt": "1 2 3 4 0 0 0 7", "d.json": "[1"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name}: holds no camera poses"):
            read_poses(tmp_path / name)
    with pytest.raises(ValueError, match="end in one of"):
        read_poses("a.bag")
    with pytest.raises(FileNotFoundError, match="no such file of camera poses"):
        read_poses(tmp_path / "none.tum")
    with pytest.raises(ValueError, match="a.tum: 4 camera poses for 5 frames"):
        check_count(read_poses(write(tmp_path, "a.tum")), 5, "a.tum", "frames")


SMALL = np.array([[70.0, 0, 31.5], [0, 70, 23.5], [0, 0, 1]])  # of pictures of 64 x 48 px


class Resting(Fixed):
    """A hand that rests in the world, seen by a camera that moves with every call."""

    def estimate(self, seen: HandInPicture) -> Result:
        super().estimate(seen)
        pose = MATRICES[(self.calls - 1) % COUNT]
        turn, place = pose[:3, :3], pose[:3, 3]
        hand = result_of(hand_at(0.6)).moved(turn.T, -turn.T @ place)
        points = project_numpy(hand.joints, SMALL)
        return replace(hand, K=SMALL, width=64, keypoints=points, box=square_box(points, 1.0))


@pytest.mark.parametrize("side", ["right", "left"])
def test_pose_and_translation_are_of_the_moved_hand(side: str) -> None:
    hand = result_of(hand_at(0.6))
    hand = hand.mirrored() if side == "left" else hand
    world = replace(hand, camera_pose=CameraPose(MATRICES[1, :3, :3], PLACES[1])).in_world()
    expected = hand.vertices @ MATRICES[1, :3, :3].T + PLACES[1]
    rows = (torch.as_tensor(value)[None] for value in (world.pose, world.betas, world.transl))
    posed = HandModel(hand.assets, dtype=torch.float64)(*rows)
    assert np.abs(world.vertices - expected).max() < 1e-12
    assert np.abs(posed.vertices[0].numpy() - expected).max() < 1e-7
    np.testing.assert_allclose(world.in_world().vertices, world.vertices, atol=1e-12)  # it is there already
    np.testing.assert_allclose(world.record()["world"]["joints"], world.joints, atol=2e-6)


def test_up_is_up_in_other_programs(tmp_path: Path) -> None:
    """glTF's y is up: a world's own up becomes it, and the hand stays a right one."""
    hand, turn, place = result_of(hand_at(0.6)), MATRICES[1, :3, :3], PLACES[1]
    points = hand.vertices @ turn.T + place
    for axes, up in {"y_down": -points[:, 1], "y_up": points[:, 1], "z_up": points[:, 2]}.items():
        moved = replace(hand, camera_pose=CameraPose(turn, place, axes)).in_world(y_down=True).vertices * AXES
        assert np.abs(moved[:, 1] - up).max() < 1e-12 and np.abs(moved[:, 0] - points[:, 0]).max() < 1e-12
        volume = [np.linalg.det(corners[hand.faces]).sum() for corners in (moved, points)]
        assert volume[0] == pytest.approx(volume[1])


def test_a_hand_at_rest_rests_in_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_video, "open_tools", lambda _: resting())
    clip, output = write_clip(tmp_path / "a.mp4", COUNT), tmp_path / "out"
    poses = write(tmp_path, "a.tum")
    words = ("--video", str(clip), "--output", str(output), "--glb", "animated_correctives", "--bvh")
    words += ("--each_frame_alone",)
    run_video.video_demo(arguments(*words, "--world_from_camera", str(poses), "--world_axes", "z_up"))
    rest = hand_at(0.6)
    _, *records = [json.loads(line) for line in (output / "a_frames.jsonl").read_text().splitlines()]
    for record, matrix in zip(records, MATRICES, strict=True):
        assert record["status"] == "ok", record
        assert np.abs(np.array(record["world"]["joints"]) - rest["joints"]).max() < 2e-6
        assert np.allclose(record["world"]["world_from_camera"], matrix)
        assert np.abs(np.array(record["joints"]) - rest["joints"]).max() > 0.005
    expected = rest["vertices"][:, [0, 2, 1]] * [1, 1, -1]  # z is up
    glb = Glb(output / "a_hands.glb")
    assert max(np.abs(glb.vertices(frame) - expected).max() for frame in range(COUNT)) < 5e-6
    wrists = read_bvh(output / "a_hands.bvh")[0]["wrist"] / 100
    assert np.abs(wrists - rest["joints"][0, [0, 2, 1]] * [1, 1, -1]).max() < 1e-6
    with pytest.raises(ValueError, match=f"3 camera poses for {COUNT} frames"):
        run_video.video_demo(arguments(*words, "--world_from_camera", str(write(tmp_path, "b.npz", MATRICES[:3]))))


def test_pictures_have_poses_in_the_order_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.photos.run_images.open_tools", lambda _: resting())
    words = pictures(tmp_path, *"abcd")
    image_demo(arguments(*words, "--world_from_camera", str(write(tmp_path, "a.json"))))
    images = json.loads((tmp_path / "page/predictions.json").read_text())["images"]
    assert [image["file"] for image in images] == ["a.png", "b.png", "c.png", "d.png"]
    for image in images:
        assert np.abs(np.array(image["world"]["vertices"]) - hand_at(0.6)["vertices"]).max() < 2e-6
    with pytest.raises(ValueError, match="3 camera poses for 4 pictures"):
        image_demo(arguments(*words, "--world_from_camera", str(write(tmp_path, "b.json", MATRICES[:3]))))
    for given in (("--world_axes", "z_up"), ("--video", "camera:0", "--world_from_camera", "a.json")):
        with pytest.raises(SystemExit):
            arguments(*(words if given[0] != "--video" else ()), *given)


def test_quaternions_that_begin_with_w_are_not_read_as_if_they_ended_with_it(tmp_path: Path) -> None:
    path = tmp_path / "euroc.csv"
    path.write_text("#timestamp, p_x [m], p_y [m], p_z [m], q_w [], q_x [], q_y [], q_z []\n1,0,0,0,1,0,0,0\n")
    with pytest.raises(ValueError, match="w first"):
        read_poses(path)


def test_trajectories_of_another_order_or_unit_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.tum"
    path.write_text("3 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n")
    with pytest.raises(ValueError, match="time falls after pose 0, at 3 s"):
        read_poses(path)
    path.write_text("1 0 0 0 0 0 0 1\n1 0 0 1 0 0 0 1\n")
    read_poses(path)
    assert not caplog.messages
    path.write_text("1 0 0 0 1 0 0 0\n2 0 0 900 1 0 0 0\n")
    read_poses(path)
    assert "qw that comes first" in caplog.text and "are these millimetres" in caplog.text
    path.write_text("1 500000 4500000 300 0 0 0 1\n")  # UTM: a mesh there would be off by 0.2 m
    with pytest.raises(ValueError, match="too coarse beyond 1000 m; subtract an origin"):
        read_poses(path)


def test_pictures_whose_numbers_are_in_another_order_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.photos.run_images.open_tools", lambda _: pytest.fail("too late"))
    words = pictures(tmp_path, *(f"frame_{number}" for number in (1, 2, 10, 11)))
    with pytest.raises(ValueError, match="frame_1.png, frame_10.png, frame_11.png"):
        image_demo(arguments(*words, "--world_from_camera", str(write(tmp_path, "a.json"))))


def test_names_with_and_without_numbers_have_an_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.photos.run_images.open_tools", lambda _: resting())
    words = pictures(tmp_path, "photo", "photo2", "photo-1", "photo 3")
    image_demo(arguments(*words, "--world_from_camera", str(write(tmp_path, "a.json"))))
    assert len(json.loads((tmp_path / "page/predictions.json").read_text())["images"]) == 4
