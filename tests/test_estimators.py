"""Other estimators' files, built here from a known hand and camera, against what is read of them and written again."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from src.engine.estimates.tracks import frames_of
from src.estimators import FORMATS, EstimateFormatError, read_estimates, write_estimates
from src.estimators.files import list_files
from template import HandModel, load_hand_assets
from utils.artifacts import ArtifactError, HandMismatchError, Predictions, load_predictions, save_predictions

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
SIZE = (640, 480)
REAL_K = np.array([[610.0, 0, 318], [0, 605, 244], [0, 0, 1]])
RNG = np.random.default_rng(3)
VECTORS = RNG.normal(scale=0.3, size=(16, 3))
BETAS = RNG.normal(scale=0.5, size=10)
MATRICES = Rotation.from_rotvec(VECTORS).as_matrix()
FLIP = np.array([-1.0, 1, 1])


def right_joints() -> np.ndarray:
    model = HandModel(load_hand_assets(ROOT / "template/stand_in.npz")).double()
    pose = torch.as_tensor(MATRICES)[None]
    return model(pose, torch.as_tensor(BETAS)[None], torch.zeros(1, 3, dtype=torch.float64)).joints[0].numpy()


JOINTS = right_joints()


def seen(points: np.ndarray, focal: float, shift: np.ndarray) -> np.ndarray:
    """Pixels of a slow loop, principal point in the middle of the picture."""
    out = []
    for x, y, z in points + shift:
        out.append([focal * x / z + SIZE[0] / 2, focal * y / z + SIZE[1] / 2])
    return np.array(out)


@dataclasses.dataclass
class Case:
    content: Any
    suffix: str
    pixels: np.ndarray | None
    left: bool
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    joints: bool = True
    pose: bool = True


def hamer(left: bool) -> Case:
    focal, side, centre, cam = 5000 / 256 * 640, 150.0, np.array([300.0, 260.0]), np.array([0.9, 0.02, -0.03])
    joints = JOINTS * (FLIP if left else 1)
    depth = 2 * focal / (side * cam[0])
    shift = np.array([cam[1] * (-1 if left else 1) + (centre[0] - 320) * depth / focal,
                      cam[2] + (centre[1] - 240) * depth / focal, depth])  # fmt: skip
    content = {
        "pred_cam": torch.tensor(cam[None]), "pred_cam_t": torch.zeros(1, 3),
        "focal_length": torch.full((1, 2), 5000.0),
        "pred_keypoints_3d": torch.tensor(JOINTS[None]), "pred_keypoints_2d": torch.zeros(1, 21, 2).double(),
        "pred_mano_params": {"global_orient": torch.tensor(MATRICES[None, :1]),
                             "hand_pose": torch.tensor(MATRICES[None, 1:]), "betas": torch.tensor(BETAS[None])},
        "box_center": torch.tensor(centre[None]), "box_size": torch.tensor([side]),
        "img_size": torch.tensor([[640.0, 480.0]]), "right": torch.tensor([0.0 if left else 1.0]), "image": ["a/b.jpg"],
    }  # fmt: skip
    return Case(content, ".pt", seen(joints, focal, shift), left)


def wilor_mini(left: bool) -> Case:
    focal, shift = 12500.0, np.array([0.05, -0.1, 14.0])
    joints = JOINTS * (FLIP if left else 1)
    vectors = VECTORS * ([1, -1, -1] if left else 1)
    pixels = seen(joints, focal, shift)
    preds = {
        "global_orient": vectors[None, :1], "hand_pose": vectors[None, 1:], "betas": BETAS[None],
        "pred_keypoints_3d": joints[None], "pred_cam_t_full": shift[None], "scaled_focal_length": focal,
        "pred_keypoints_2d": pixels[None], "pred_cam": np.ones((1, 3)), "pred_vertices": np.zeros((1, 778, 3)),
    }  # fmt: skip
    box = [*pixels.min(axis=0).tolist(), *pixels.max(axis=0).tolist()]
    content = {"b.jpg": [{"hand_bbox": box, "is_right": float(not left), "wilor_preds": preds}], "empty.jpg": []}
    return Case(content, ".pkl", pixels, left)


def fasthamer(left: bool) -> Case:
    shift, joints = np.array([0.05, -0.1, 14.0]), JOINTS * (FLIP if left else 1)
    pixels = seen(joints, 12500.0, shift)
    hand = {
        "is_right": not left, "bbox": np.concatenate([pixels.min(axis=0), pixels.max(axis=0)]), "keypoints_3d": joints,
        "cam_t": shift, "keypoints_2d": pixels, "global_orient": MATRICES[0], "hand_pose": MATRICES[1:],
        "betas": BETAS, "hand_model": "mano",
    }  # fmt: skip
    content = {"hands": [hand], "focal": 12500.0, "cx": 320.0, "cy": 240.0, "image_size": list(SIZE), "image": "b.jpg"}
    return Case(content, ".pkl", pixels, left)


def hawor(left: bool) -> Case:
    vectors = np.zeros((2, 3, 16, 3))
    vectors[0 if left else 1, 1] = VECTORS * ([1, -1, -1] if left else 1)
    betas, valid = np.zeros((2, 3, 10)), np.zeros((2, 3), bool)
    betas[0 if left else 1, 1], valid[0 if left else 1, 1] = BETAS, True
    content = {"pred_trans": np.zeros((2, 3, 3)), "pred_rot": vectors[:, :, 0], "pred_betas": betas,
               "pred_hand_pose": vectors[:, :, 1:].reshape(2, 3, 45), "pred_valid": valid}  # fmt: skip
    return Case(content, ".npz", None, left, {"K": REAL_K, "image_size": SIZE}, joints=False)


def sam3d_body(left: bool) -> Case:
    joints, shift = JOINTS * (FLIP if left else 1), np.array([0.05, -0.1, 2.0])
    body = RNG.normal(scale=0.05, size=(70, 3))
    first, wrist = (42, 62) if left else (21, 41)
    body[wrist] = joints[0]
    for finger in range(5):
        for part in range(4):  # theirs begin at the tip
            body[first + 4 * finger + 3 - part] = joints[1 + 4 * finger + part]
    pixels = seen(body, 900.0, shift)
    content = {"pred_keypoints_3d": body, "pred_keypoints_2d": pixels, "pred_cam_t": shift,
               "lhand_bbox": [300.0, 200, 340, 240], "rhand_bbox": [300.0, 200, 340, 240],
               "mhr_model_params": np.zeros(204)}  # fmt: skip
    content = {key: np.asarray(value) for key, value in content.items()}
    return Case(content, ".npz", seen(joints, 900.0, shift), left, pose=False)


def mediapipe(left: bool, legacy: bool = False) -> Case:
    joints = JOINTS * (FLIP if left else 1)
    pixels = seen(joints, 600.0, np.array([0, 0.0, 0.5]))
    flat = [{"x": x / 640, "y": y / 480, "z": 0.0} for x, y in pixels]
    world = [{"x": x, "y": y, "z": z} for x, y, z in joints]
    if legacy:
        content: dict[str, Any] = {
            "multi_hand_landmarks": [{"landmark": flat}], "multi_hand_world_landmarks": [{"landmark": world}],
            "multi_handedness": [{"classification": [{"label": "Right" if left else "Left", "score": 0.9}]}],
        }  # fmt: skip
    else:
        content = {"hand_landmarks": [flat], "hand_world_landmarks": [world],
                   "handedness": [[{"category_name": "Left" if left else "Right", "score": 0.9}]]}  # fmt: skip
    return Case(content, ".json", pixels, left, {"K": REAL_K, "image_size": SIZE}, pose=False)


def detector(left: bool) -> Case:
    pixels = seen(JOINTS * (FLIP if left else 1), 600.0, np.array([0, 0.0, 0.5]))
    content = {"keypoints_2d": pixels.tolist(), "keypoint_confidence": [1.0] * 21, "is_left": left, "score": 0.8,
               "world": (JOINTS * (FLIP if left else 1)).tolist()}  # fmt: skip
    return Case([content], ".json", pixels, left, {"K": REAL_K, "image_size": SIZE}, pose=False)


def frankmocap(left: bool) -> Case:
    joints = JOINTS * (FLIP if left else 1)
    pixels = seen(joints, 600.0, np.array([0, 0.0, 0.5]))
    hand = {"pred_hand_pose": (VECTORS * ([1, -1, -1] if left else 1)).reshape(1, 48), "pred_hand_betas": BETAS[None],
            "pred_joints_smpl": joints, "pred_joints_img": np.column_stack([pixels, joints[:, 2]])}  # fmt: skip
    person = {"left_hand": hand if left else None, "right_hand": None if left else hand}
    content = {"image_path": "/x/b.jpg", "pred_output_list": [person]}
    return Case(content, ".pkl", pixels, left, {"K": REAL_K, "image_size": SIZE})


def mmpose(left: bool) -> Case:
    pixels = seen(JOINTS * (FLIP if left else 1), 600.0, np.array([0, 0.0, 0.5]))
    body, scores = np.full((133, 2), 5.0), np.zeros(133)
    first = 91 if left else 112
    body[first : first + 21], scores[first : first + 21] = pixels, 0.9
    content = [
        {"keypoints": body.tolist(), "keypoint_scores": scores.tolist(), "bbox": [0, 0, 9, 9], "bbox_score": 1.0}
    ]
    return Case(content, ".json", pixels, left, {"K": REAL_K, "image_size": SIZE}, joints=False, pose=False)


def joints_npz(left: bool) -> Case:
    pixels, joints = (
        seen(JOINTS * (FLIP if left else 1), 600.0, np.array([0, 0.0, 0.5])),
        JOINTS * (FLIP if left else 1),
    )
    content = {"keypoints_2d": pixels[None], "joints_3d": joints[None] * 1000, "is_left": np.array([left]), "K": REAL_K,
               "image": np.array(["b.jpg"]), "image_size": np.array(SIZE)}  # fmt: skip
    return Case(content, ".npz", pixels, left, {"unit": "mm"}, pose=False)


def joints_csv(left: bool) -> Case:
    case = joints_npz(left)
    flat = {"image": "b.jpg", "is_left": str(left).lower()}
    for key in ("keypoints_2d", "joints_3d", "K", "image_size"):
        value = case.content[key].reshape(case.content[key].shape[-2:]) if key != "image_size" else case.content[key]
        flat |= {".".join(map(str, (key, *index))): repr(float(value[index])) for index in np.ndindex(value.shape)}
    return dataclasses.replace(case, content=",".join(flat) + "\n" + ",".join(flat.values()) + "\n", suffix=".csv")


CASES: list[tuple[str, Callable[[bool], Case]]] = [
    ("hamer", hamer), ("wilor", hamer), ("wilor_mini", wilor_mini), ("fasthamer", fasthamer), ("hawor", hawor),
    ("sam3d_body", sam3d_body), ("mediapipe", mediapipe), ("mediapipe", lambda left: mediapipe(left, legacy=True)),
    ("mediapipe", detector), ("frankmocap", frankmocap), ("mmpose", mmpose), ("joints", joints_npz),
    ("joints", joints_csv),
]  # fmt: skip
every = pytest.mark.parametrize(("name", "make"), CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])
both = pytest.mark.parametrize("left", [False, True], ids=["right", "left"])


def put(path: Path, content: Any) -> Path:
    """Write as their users do."""
    if path.suffix == ".pt":
        torch.save(content, path)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def hand_of(predictions: Predictions, left: bool) -> int:
    return int(np.flatnonzero(predictions.is_left == left)[0])


@both
@every
def test_a_known_hand_is_read(tmp_path: Path, name: str, make: Callable[[bool], Case], left: bool) -> None:
    case = make(left)
    read = read_estimates(put(tmp_path / f"b{case.suffix}", case.content), name, **case.options)
    row = hand_of(read, left)
    assert Path(read.image_name[row]).stem.startswith("b") and (len(read) == 1 or name == "sam3d_body")
    if case.pixels is not None:
        expected = np.column_stack([639 - case.pixels[:, 0], case.pixels[:, 1]]) if left else case.pixels
        np.testing.assert_allclose(read.keypoints_2d[row], expected, atol=1e-3)
    if case.joints:
        np.testing.assert_allclose(read.joints_3d[row], JOINTS - JOINTS[0], atol=1e-6)
    assert (read.pose is not None) == case.pose
    if case.pose:
        np.testing.assert_allclose(read.pose[row], MATRICES, atol=1e-5)
        np.testing.assert_allclose(read.betas[row], BETAS, atol=1e-6)
        with pytest.raises(HandMismatchError, match="handid.personalise"):
            read.check_hand(load_hand_assets(ROOT / "template/stand_in.npz"))
    save_predictions(tmp_path / "p.npz", read)
    again = load_predictions(tmp_path / "p.npz")
    assert again.camera == read.camera and (again.image_name == read.image_name).all()


@both
@every
def test_written_back(tmp_path: Path, name: str, make: Callable[[bool], Case], left: bool) -> None:
    """Unchanged: the same bytes. Changed: the change, and nothing else, is read again."""
    case = make(left)
    source = put(tmp_path / f"b{case.suffix}", case.content)
    read = read_estimates(source, name, **case.options)
    target = tmp_path / "out" / source.name
    with pytest.raises(ValueError, match=f"ends in '.txt'; it is written as the source is, with '{case.suffix}'"):
        write_estimates(tmp_path / "b.txt", read, source, name, **case.options)
    assert write_estimates(target, read, source, name, **case.options) == []
    assert target.read_bytes() == source.read_bytes()
    row, changes = hand_of(read, left), {}
    if case.pose:
        betas, pose = read.betas.copy(), read.pose.copy()
        betas[row] += 0.25
        pose[row, 5] = Rotation.from_rotvec([0.1, 0.2, 0.3]).as_matrix()
        changes |= {"betas": betas, "pose": pose}
    if case.joints and case.pixels is not None:
        joints, pixels = read.joints_3d.copy(), read.keypoints_2d.copy()
        joints[row] *= 1.05
        middle = pixels[row].mean(axis=0)
        pixels[row] = (pixels[row] - middle) * 1.05 + middle
        changes |= {"joints_3d": joints, "keypoints_2d": pixels}
    elif case.pixels is not None:
        changes["keypoints_2d"] = read.keypoints_2d + np.float32(1.5)
    lines = write_estimates(target, dataclasses.replace(read, **changes), source, name, **case.options)
    assert len(lines) == 1 and ("left hand" if left else "right hand") in lines[0]
    back = read_estimates(target, name, **case.options)
    for key in ("betas", "pose", "joints_3d", "keypoints_2d"):
        wanted = changes.get(key, getattr(read, key))
        if wanted is not None:
            tolerance = 0.2 if key == "keypoints_2d" else 1e-5
            np.testing.assert_allclose(getattr(back, key), wanted, atol=tolerance, err_msg=key)
    if name == "wilor_mini":
        assert "pred_vertices as it was" in lines[0] and "betas as it was" not in lines[0]
        joints = dataclasses.replace(read, joints_3d=changes["joints_3d"], keypoints_2d=changes["keypoints_2d"])
        (line,) = write_estimates(target, joints, source, name, **case.options)
        assert "hand_pose as it was" in line and "betas as it was" in line


def test_a_foreign_pose_is_not_taken_for_ours(tmp_path: Path) -> None:
    source = put(tmp_path / "b.pt", hamer(False).content)
    read = read_estimates(source, "hamer")
    ours = dataclasses.replace(read, betas=read.betas + 1, hand_name="stand-in", hand_hash="3cbc4759337b")
    assert write_estimates(tmp_path / "c.pt", ours, source, "hamer") == []


def test_real_camera_lists_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    put(folder / "a.pt", [hamer(False).content, hamer(True).content])
    put(folder / "b.pt", hamer(True).content)
    read = read_estimates(folder, "hamer", K=REAL_K)
    assert read.is_left.tolist() == [False, True, True] and read.camera == "given"
    np.testing.assert_allclose(read.K[0], REAL_K)
    assert read.K[1, 0, 2] == 639 - 318
    assert read_estimates(folder, "hamer").camera == "made up by hamer"
    assert write_estimates(tmp_path / "out", read, folder, "hamer", K=REAL_K) == []
    assert [file.name for file in list_files(tmp_path / "out")] == ["a.pt", "b.pt"]


@pytest.mark.parametrize("file", ["img_subj00.npz", "img_subj02.npz"])
def test_real_sam3d_body(file: str) -> None:
    path = DATA / "sam3d_body" / file
    if not path.is_file():
        pytest.skip(f"{path} is not there: a real result of SAM 3D Body")
    read = read_estimates(path, "sam3d_body")
    with np.load(path) as raw:
        for row, (wrist, first, box) in enumerate([(41, 21, "rhand_bbox"), (62, 42, "lhand_bbox")]):
            index = [wrist] + [first + 4 * f + 3 - p for f in range(5) for p in range(4)]
            pixels = raw["pred_keypoints_2d"][index].astype(np.float64)
            low, high = raw[box][:2], raw[box][2:]
            assert ((pixels > low) & (pixels < high)).all()  # sides right: the points lie in that hand's box
            if row:
                pixels[:, 0] = 2 * 960 - 1 - pixels[:, 0]
            assert np.abs(read.keypoints_2d[row] - pixels).max() < 0.01
    assert read.is_left.tolist() == [False, True]
    bones = np.linalg.norm(read.joints_3d[:, [6, 10, 14]] - read.joints_3d[:, [5, 9, 13]], axis=2)
    ratio = bones[0] / bones[1]  # one hand's proportions; SAM 3D Body makes the two hands up to 9% different in size
    assert np.ptp(ratio) < 0.005 and abs(ratio.mean() - 1) < 0.1


@pytest.mark.parametrize("file", ["victory_landmarks.pbtxt", "thumb_up_landmarks.pbtxt"])
def test_real_mediapipe(file: str) -> None:
    path = DATA / "mediapipe" / file
    if not path.is_file():
        pytest.skip(f"{path} is not there: a real result of MediaPipe")
    read = read_estimates(path, "mediapipe", K=REAL_K, image_size=SIZE)

    def curl(joints: np.ndarray) -> float:
        palm = np.cross(joints[5] - joints[0], joints[17] - joints[0])
        return float(sum((joints[k + 3] - joints[k]) @ palm for k in (5, 9, 13, 17)))

    bent = Rotation.from_rotvec([0, 0, 1.0]).as_matrix()  # the stand-in's fingers bent, MANO's axes
    model, pose = HandModel(load_hand_assets(ROOT / "template/stand_in.npz")), torch.eye(3).repeat(1, 16, 1, 1)
    pose[:, 1:13] = torch.as_tensor(bent).float()
    ours = model(pose, torch.zeros(1, 10), torch.zeros(1, 3)).joints[0].numpy()
    assert np.sign(curl(read.joints_3d[0])) == np.sign(curl(ours)) and not read.is_left[0]


@both
def test_errors_name_the_fault(tmp_path: Path, left: bool) -> None:
    content = hamer(left).content
    file = put(tmp_path / "a.pt", content)
    with pytest.raises(
        EstimateFormatError, match=r"'hand_bbox'|'is_right'.*missing.*not a file of wilor_mini.*'hamer'"
    ):
        read_estimates(file, "wilor_mini")
    with pytest.raises(ValueError, match="known are hamer"):
        read_estimates(file, "hammer")
    content["pred_keypoints_3d"][0, 3, 1] = float("nan")
    with pytest.raises(EstimateFormatError, match=r"a\.pt.*pred_keypoints_3d\[0, 3, 1\] is not finite"):
        read_estimates(put(file, content), "hamer")
    small = hamer(left).content | {"img_size": torch.tensor([[320.0, 240.0]])}
    with pytest.raises(EstimateFormatError, match="outside the picture of 320 x 240"):
        read_estimates(put(file, small), "hamer")
    with pytest.raises(EstimateFormatError, match="no hand in any"):
        read_estimates(put(tmp_path / "n.pkl", {"a.jpg": [], "b.jpg": []}), "wilor_mini")
    case = mmpose(left)
    with pytest.raises(EstimateFormatError, match="K is needed"):
        read_estimates(put(tmp_path / "m.json", case.content), "mmpose", image_size=SIZE)
    with pytest.raises(EstimateFormatError, match="unit='mm'"):
        read_estimates(put(tmp_path / "j.npz", joints_npz(left).content), "joints")


def other_formats(name: str) -> list[str]:
    return [other for other in FORMATS if FORMATS[other] != FORMATS[name]]


@every
def test_a_file_of_another_format_is_named(tmp_path: Path, name: str, make: Callable[[bool], Case]) -> None:
    """Every format given as every other: which keys are missing, and which format it looks like."""
    case = make(False)
    file = put(tmp_path / f"b{case.suffix}", case.content)
    own = {"hamer", "wilor"} if name in ("hamer", "wilor") else {name}
    for other in other_formats(name):
        with pytest.raises(EstimateFormatError) as caught:
            read_estimates(file, other, K=REAL_K, image_size=SIZE)
        said = str(caught.value)
        assert re.search(r"keys? '\w+'.* missing", said) and f"not a file of {other}" in said, (other, said)
        assert any(f"looks like {one!r}" in said for one in own), (other, said)


#: A key that each format needs, in the order of CASES.
NEEDED = ("box_size", "right", "pred_cam_t_full", "focal", "pred_rot", "pred_cam_t", "handedness", "multi_handedness",
          "keypoints_2d", "pred_hand_betas", "keypoint_scores", "is_left", "image")  # fmt: skip


@pytest.mark.parametrize(("case", "key"), [(*pair,) for pair in zip(CASES, NEEDED, strict=True)], ids=NEEDED)
def test_a_key_that_is_missing_is_named(tmp_path: Path, case: tuple[str, Callable[[bool], Case]], key: str) -> None:
    """Of a file of the right format, which is not taken for another's."""
    name, made = case[0], case[1](False)
    if made.suffix == ".csv":  # its first column
        content = "\n".join(line.partition(",")[2] for line in made.content.splitlines())
    else:
        content = without(made.content, key)
    file = put(tmp_path / f"b{made.suffix}", content)
    said = {"multi_handedness": "handedness", "keypoints_2d": "hand_landmarks"}.get(key, key)
    with pytest.raises(EstimateFormatError, match=f"'{said}'.* missing") as caught:
        read_estimates(file, name, **made.options)
    assert not any(f"format={other!r}" in str(caught.value) for other in other_formats(name)), str(caught.value)


def without(content: Any, key: str) -> Any:
    """The content without keys that begin so, in all levels."""
    if isinstance(content, dict):
        return {name: without(value, key) for name, value in content.items() if not str(name).startswith(key)}
    return [without(value, key) for value in content] if isinstance(content, list) else content


def poisoned(content: Any) -> Any:
    """The content with every fractional number not a number."""
    if isinstance(content, dict):
        return {key: poisoned(value) for key, value in content.items()}
    if isinstance(content, list):
        return [poisoned(value) for value in content]
    if isinstance(content, float):
        return float("nan")
    if isinstance(content, torch.Tensor):
        return torch.full_like(content, torch.nan) if content.is_floating_point() else content
    if isinstance(content, np.ndarray) and content.dtype.kind == "f":
        return np.full_like(content, np.nan)
    if isinstance(content, str) and "\n" in content:
        head, _, numbers = content.partition("\n")
        return f"{head}\n{re.sub(r'-?[0-9]+[.][0-9]+(e-?[0-9]+)?', 'nan', numbers)}"
    return content


@every
def test_damaged_files_are_named(tmp_path: Path, name: str, make: Callable[[bool], Case]) -> None:
    """Numbers that are none, a file that ends early, a folder that is still written to, files without a hand."""
    case = make(False)
    folder = tmp_path / "results"
    folder.mkdir()
    file = put(folder / f"b{case.suffix}", poisoned(case.content))
    with pytest.raises(EstimateFormatError, match=r"b\.\w+.*(not finite|with finite x, y, z)"):
        read_estimates(file, name, **case.options)
    put(file, case.content)
    assert len(read_estimates(folder, name, **case.options))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(ArtifactError, match=r"b\.\w+"):
        read_estimates(folder, name, **case.options)
    put(file, case.content)
    for half in (f"c{case.suffix}.part", f".c.0a1b.tmp{case.suffix}"):
        (folder / half).touch()
        with pytest.raises(ArtifactError, match=f"half written.*{re.escape(half)}"):
            read_estimates(folder, name, **case.options)
        (folder / half).unlink()


def emptied(content: Any) -> Any:
    """The content with as many rows of arrays as there are hands: none."""
    if isinstance(content, dict):
        return {key: emptied(value) for key, value in content.items()}
    return content[:0] if hasattr(content, "shape") and len(content) == 1 else content


NOBODY = {
    "hamer": emptied(hamer(False).content),
    "wilor_mini": {"a.jpg": [], "b.jpg": []},
    "fasthamer": fasthamer(False).content | {"hands": []},
    "hawor": hawor(False).content | {"pred_valid": np.zeros((2, 3), bool)},
    "mediapipe": {"hand_landmarks": [], "hand_world_landmarks": [], "handedness": []},
    "frankmocap": {"image_path": "b.jpg", "pred_output_list": [{"left_hand": None, "right_hand": None}]},
    "mmpose": [],
    "joints": emptied(joints_npz(False).content),
}


@pytest.mark.parametrize("name", list(NOBODY))
def test_no_hand_in_any_picture(tmp_path: Path, name: str) -> None:
    suffix = next(make(False).suffix for other, make in CASES if other == name)
    file = put(tmp_path / f"b{suffix}", NOBODY[name])
    with pytest.raises(EstimateFormatError, match="no hand in any of its pictures"):
        read_estimates(file, name, K=REAL_K, image_size=SIZE)


@pytest.mark.parametrize(("name", "make"), [CASES[0], CASES[3], CASES[6]], ids=["hamer", "fasthamer", "mediapipe"])
def test_pictures_of_another_size_are_refused(tmp_path: Path, name: str, make: Callable[[bool], Case]) -> None:
    """A picture that was resized after it was estimated on."""
    case = make(False)
    file = put(tmp_path / f"b{case.suffix}", case.content)
    Image.new("RGB", (320, 240)).save(tmp_path / "b.jpg")
    with pytest.raises(EstimateFormatError, match="640 x 480 px, the picture has 320 x 240|to a picture of 320"):
        read_estimates(file, name, **(case.options | {"images": tmp_path}))


@pytest.mark.parametrize(("name", "make"), [("mmpose", mmpose), ("frankmocap", frankmocap), ("joints", joints_npz)])
def test_points_outside_a_picture_of_another_size_are_refused(
    tmp_path: Path, name: str, make: Callable[[bool], Case]
) -> None:
    case = make(True)
    content = case.content
    if name == "joints":
        content = {key: value for key, value in content.items() if key not in ("K", "image_size")}
    file = put(tmp_path / f"b{case.suffix}", content)
    given = {"fov": 60, "image_size": (300, 200)} | ({"unit": "mm"} if name == "joints" else {})
    with pytest.raises(EstimateFormatError, match=r"outside the picture of 300 x 200 px.*another size"):
        read_estimates(file, name, **given)


def test_a_bodys_hand_outside_the_picture_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = sam3d_body(False).content
    left = [62, *range(42, 62)]
    content["pred_keypoints_3d"][left] += [2.0, 0, 0]
    content["pred_keypoints_2d"] = seen(content["pred_keypoints_3d"], 900.0, content["pred_cam_t"])
    rows = read_estimates(put(tmp_path / "b.npz", content), "sam3d_body", K=REAL_K, image_size=SIZE)
    assert rows.is_left.tolist() == [False] and "1 of 2 hands, such as b (left hand), lie outside" in caplog.text
    # A picture that shows neither hand is one of many; most hands of many outside are another size.
    away = content | {"pred_keypoints_2d": content["pred_keypoints_2d"] + 5000}
    put(tmp_path / "a.npz", away)
    assert len(read_estimates(tmp_path, "sam3d_body", K=REAL_K, image_size=SIZE)) == 1
    for number in range(5):
        put(tmp_path / f"c{number}.npz", away)
    with pytest.raises(EstimateFormatError, match="of the files so far; the picture has another size"):
        read_estimates(tmp_path, "sam3d_body", K=REAL_K, image_size=SIZE)


def test_folders_tell_pictures_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As tables, folders of pictures and videos have them; also of another machine."""
    names = ["/data/P1/b_1.jpg", "C:\\data\\P2\\b_1.jpg"]
    two = put(tmp_path / "b.pt", [hamer(False).content | {"image": [name]} for name in names])
    table = tmp_path / "who.csv"
    for given, subjects in (("P1/b_1.jpg,3\ndata/P2/b_1,4\n", [3, 4]), ("b_1.jpg,3\n", [3, 3])):
        table.write_text("image,subject\n" + given)
        read = read_estimates(two, "hamer", K=REAL_K, subjects=table)
        assert read.subject_id.tolist() == subjects and read.image_name[1] == "C:/data/P2/b_1.jpg"
    frames = [
        hamer(False).content | {"image": [f"P{video}/b_{number}.jpg"]} for video in (1, 2) for number in (1, 2, 3)
    ]
    read = read_estimates(put(tmp_path / "frames.pt", frames), "hamer", K=REAL_K)
    assert frames_of(read).video.tolist() == [0, 0, 0, 1, 1, 1]
    one = put(tmp_path / "c.pt", hamer(False).content | {"image": ["b_1.jpg"]})
    table.write_text("image,subject\nP1/b_1.jpg,3\nP2/b_1.jpg,4\n")
    with pytest.raises(EstimateFormatError, match=r"several pictures that may be b_1.jpg .*subjects \[3, 4\]"):
        read_estimates(one, "hamer", K=REAL_K, subjects=table)
    table.write_text("image,subject\nphotos/b_1.jpg,3\n")
    with pytest.raises(EstimateFormatError, match="it has photos/b_1: leave out folders"):
        read_estimates(two, "hamer", K=REAL_K, subjects=table)
    pictures = tmp_path / "pictures"
    for folder in ("", "P1", "P2"):
        (pictures / folder).mkdir()
        Image.new("RGB", SIZE).save(pictures / folder / "b_1.jpg")
        read_estimates(two, "hamer", K=REAL_K, images=pictures)
        assert ("pictures/b_1.jpg is taken for /data/P1/b_1.jpg and for C:/data/P2" in caplog.text) == (not folder)
        (pictures / "b_1.jpg").unlink(missing_ok=True)
        caplog.clear()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran_it"),))


@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".npz"])
def test_nothing_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"pred_cam": np.array([Evil()], dtype=object) if suffix == ".npz" else Evil()}
    file = put(tmp_path / f"a{suffix}", content)
    with pytest.raises(ValueError, match="cannot be read"):
        read_estimates(file, "hamer")
    assert not (tmp_path / "ran_it").exists()


@pytest.mark.parametrize(("change", "words"), [
    ({"is_left": np.array(["L"])}, r"is_left\[0\] is 'L'; it must be true or false"),
    ({"subject": np.array([np.nan])}, r"subject\[0\] is not finite"),
    ({"subject": np.array([1.5])}, "subjects are whole numbers"),
    ({"subject": np.array([1, 2])}, "subject has 2 rows, is_left has 1"),
    ({"image": np.array([], dtype=str)}, "image has 0 rows"),
    ({"image_size": np.array([64, 48])}, "outside the picture of 64 x 48 px"),
    ({"image_size": np.array([1280, 960])}, r"centre \(318, 244\) cannot belong to a picture of 1280 x 960 px"),
])  # fmt: skip
def test_odd_rows_of_plain_joints_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    content = {**joints_npz(False).content, **change}
    np.savez(tmp_path / "odd.npz", **content)
    with pytest.raises(EstimateFormatError, match=f"odd.npz: .*{words}"):
        read_estimates(tmp_path / "odd.npz", "joints", unit="mm")


def test_a_file_without_confidence_leaves_the_others_theirs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = joints_npz(False).content
    np.savez(tmp_path / "a.npz", **content | {"confidence": np.full((1, 21), 0.3)})
    np.savez(tmp_path / "b.npz", **{key: value for key, value in content.items() if "confidence" not in key})
    rows = read_estimates(tmp_path, "joints", unit="mm")
    assert rows.keypoint_confidence[:, 0].tolist() == [np.float32(0.3), 1.0] and not caplog.messages
    np.savez(tmp_path / "b.npz", **{key: value for key, value in content.items() if key != "joints_3d"})
    rows = read_estimates(tmp_path, "joints", unit="mm")
    assert rows.joints_3d is None and "only some of its hands have joints_3d" in caplog.text


def test_a_camera_of_other_pictures_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = hamer(False)
    torch.save(case.content, tmp_path / "a.pt")
    assert len(read_estimates(tmp_path / "a.pt", "hamer", K=REAL_K))
    for wrong in (REAL_K / [[10], [10], [1]], np.array([[320.0, 0, 610], [0, 240, 605], [0, 0, 1]])):
        with pytest.raises(EstimateFormatError, match="cannot belong to a picture of 640 x 480 px"):
            read_estimates(tmp_path / "a.pt", "hamer", K=wrong)
    assert not caplog.records
    read_estimates(tmp_path / "a.pt", "hamer", K=np.array([[700.0, 0, 383.5], [0, 700, 287.5], [0, 0, 1]]))
    assert "a.pt: K: its centre is that of a picture of 768 x 576 px, this one is 640 x 480" in caplog.text


@pytest.mark.parametrize("option", [{"unit": "mm"}, {"side": "left"}, {"sides": "mirror"}])
def test_options_that_a_format_does_not_read_are_refused(tmp_path: Path, option: dict[str, str]) -> None:
    torch.save(hamer(False).content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"{next(iter(option))}=.* is of the format .*; 'hamer' does not use it"):
        read_estimates(tmp_path / "a.pt", "hamer", K=REAL_K, **option)


@pytest.mark.parametrize("option", [{"unit": "cm"}, {"side": "Left"}, {"sides": "mirrored"}])
def test_options_that_say_nothing_are_refused(tmp_path: Path, option: dict[str, str]) -> None:
    """A misspelt "mirror" was taken for "subject"."""
    case = mediapipe(False)
    with pytest.raises(ValueError, match=f"{next(iter(option))} is .* must be one of"):
        read_estimates(put(tmp_path / "a.json", case.content), "mediapipe", **case.options, **option)


@pytest.mark.parametrize(("name", "make", "words"), [
    ("mediapipe", mediapipe, "hand_landmarks, hand_landmarks.z as it was, hand_world_landmarks"),
    ("frankmocap", frankmocap, "pred_joints_img.z as it was"), ("sam3d_body", sam3d_body, "shape_params as it was"),
])  # fmt: skip
def test_what_stays_of_a_changed_hand_is_told(
    tmp_path: Path, name: str, make: Callable[[bool], Case], words: str
) -> None:
    case = make(False)
    if name == "sam3d_body":
        case.content["shape_params"] = np.zeros(45)
    source = put(tmp_path / f"b{case.suffix}", case.content)
    read = read_estimates(source, name, **case.options)
    changed = dataclasses.replace(read, keypoints_2d=read.keypoints_2d + 3, joints_3d=1.05 * read.joints_3d)
    lines = write_estimates(tmp_path / f"c{case.suffix}", changed, source, name, **case.options)
    assert words in lines[0]


def test_a_side_that_contradicts_the_files_own_is_refused(tmp_path: Path) -> None:
    case = detector(False)
    file = put(tmp_path / "b.json", case.content)
    with pytest.raises(EstimateFormatError, match="leave out sides="):
        read_estimates(file, "mediapipe", sides="mirror", **case.options)
    body = mmpose(False).content[0]
    hand = {key: body[key][112:] for key in ("keypoints", "keypoint_scores")}
    known = {"K": REAL_K, "image_size": SIZE}
    for side, given in (("left", None), ("Left", "left"), (None, "left")):
        file = put(tmp_path / "c.json", [hand | {"side": side}])
        assert read_estimates(file, "mmpose", side=given, **known).is_left.tolist() == [True]
    with pytest.raises(EstimateFormatError, match="its side is 'left'; side='right'"):
        read_estimates(put(tmp_path / "c.json", [hand | {"side": "left"}]), "mmpose", side="right", **known)


@pytest.mark.parametrize("image", [torch.zeros(1, 3, 8, 8), torch.zeros(8, 8, 3).byte(), [[0, 1], [2, 3]], None, ""])
def test_pixels_are_no_name(tmp_path: Path, image: Any) -> None:
    file = put(tmp_path / "b.pt", hamer(False).content | {"image": image})
    assert read_estimates(file, "hamer", K=REAL_K).image_name.tolist() == ["b"]


def test_numbers_of_pictures_are_names(tmp_path: Path) -> None:
    """The hands of such frames were a person each."""
    frames = [mmpose(False).content[0] | {"image": number} for number in range(3)]
    read = read_estimates(put(tmp_path / "b.json", frames), "mmpose", K=REAL_K, image_size=SIZE)
    assert read.subject_id.tolist() == [0, 0, 0] and read.image_name.tolist() == ["0", "1", "2"]
