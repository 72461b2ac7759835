"""The door for Python: one call from a picture to a hand, for either side, with and without an identity."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datasets.synthetic.freihand_writer import write_freihand
from datasets.synthetic.samples import copy_freihand
from src.personalization.terms.hand_size import lengths_mm
from src.photos.api import PhotoEstimator, load
from src.photos.camera import Camera
from src.photos.detector import search
from src.photos.detector.detection import Detection
from src.photos.image import UnusableImage
from template import load_hand_assets
from utils.artifacts import ArtifactError, Identity, save_identity
from utils.camera import mirror_intrinsics, project_numpy


@pytest.fixture(scope="module")
def estimate() -> PhotoEstimator:
    return load("mano_identity", device="cpu")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, list[float], Path]:
    """A picture of a right hand (224,224,3), its K and box, and its file."""
    root, folder = tmp_path_factory.mktemp("freihand"), tmp_path_factory.mktemp("picture")
    write_freihand(root, 1, 1, seed=5)
    (path,) = copy_freihand(root, folder, 1)
    K = np.load(folder / f"{path.stem}_K.npy")
    box = json.loads((folder / f"{path.stem}_bbox.json").read_text())
    for name in ("_K.npy", "_bbox.json"):
        (folder / f"{path.stem}{name}").unlink()
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]), K, box, path


def test_a_picture_is_a_call(
    estimate: PhotoEstimator,
    sample: tuple[np.ndarray, np.ndarray, list[float], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image, K, box, path = sample
    right = estimate(image, K=K, box=box)
    assert right.vertices.shape == (778, 3) and right.side == "right" and 0.1 < right.distance_m < 3
    assert np.linalg.norm(project_numpy(right.joints.astype(float), K) - right.keypoints, axis=1).mean() < 10
    assert right.length.std_mm > 0 and (right.sources.camera, right.sources.side) == ("K", "default")
    left_handed = right.mirrored()
    for name in ("vertices", "joints", "transl", "pose"):  # whose points the same hand model takes
        assert getattr(left_handed, name).dtype == getattr(right, name).dtype
    assert right == right and right != left_handed
    np.testing.assert_array_equal(estimate(str(path), K=K, box=box).vertices, right.vertices)

    corners = (223 - box[2], box[1], 223 - box[0], box[3])
    left = estimate(np.ascontiguousarray(image[:, ::-1]), K=mirror_intrinsics(K, 224), side="left", box=corners)
    assert left.side == "left" and np.abs(left.vertices * [-1, 1, 1] - right.vertices).max() < 1e-4

    assets = load_hand_assets("template/stand_in.npz")
    length = lengths_mm(assets, np.full(10, 0.5), None, ("hand",))["hand"][0]
    identity = Identity(np.full(10, 0.5), assets.name, assets.hash, length)
    save_identity(tmp_path / "me.json", identity)
    told = estimate(image, K=K, identity=tmp_path / "me.json", box=box)
    np.testing.assert_allclose(told.betas, 0.5)
    assert told.length.mm == pytest.approx(length, abs=1e-3)
    estimate(image, K=K, identity=replace(identity, hand_length_mm=150.0), box=box)
    assert "states a hand of 150.0 mm" in caplog.text
    with pytest.raises(TypeError, match="identity is a ndarray; an Identity or the path"):
        estimate(image, K=K, identity=identity.betas, box=box)
    assert estimate.identity is None  # a call leaves nothing behind
    found = estimate(image, fov=40)
    assert "searched" in found.sources.box and found.sources.camera == "--fov 40"
    either = estimate(image, K=K, side="auto", box=box)
    assert "against" in either.sources.side and either.side in ("left", "right")


def test_what_is_said_twice_is_said_once(
    estimate: PhotoEstimator, sample: tuple[np.ndarray, np.ndarray, list[float], Path], tmp_path: Path
) -> None:
    """A file beside the picture and an argument, of which one was not heard; an estimator's camera and a call's."""
    image, K, box, _ = sample
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    np.save(tmp_path / "a_K.npy", K)
    (tmp_path / "a_bbox.json").write_text(json.dumps(list(map(float, box))))
    for given in ({"K": K}, {"fov": 40}, {"box": box}):
        with pytest.raises(ValueError, match=r"a_(K\.npy|bbox\.json) beside the picture says it as well"):
            estimate(tmp_path / "a.png", **given)
    length = lengths_mm(estimate.assets, np.zeros(10), None, ("hand",))["hand"][0]
    own = replace(
        estimate, K=Camera(K, "K"), identity=Identity(np.zeros(10), "x", estimate.assets.hash, length, side="left")
    )
    with pytest.raises(ArtifactError, match="side is 'left'"):
        own(image, box=box)
    found = replace(own, identity=None)(image, fov=40, box=box)
    assert found.sources.camera == "--fov 40"


def test_small_windows_are_looked_into_only_where_no_large_one_holds_a_hand(
    estimate: PhotoEstimator,
    sample: tuple[np.ndarray, np.ndarray, list[float], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, read, looked = estimate.reader, estimate.reader.read, []
    monkeypatch.setattr(reader, "read", lambda image, boxes: looked.append(len(boxes)) or read(image, boxes))
    found = []
    for sure in (search.SURE_SCORE, 2.0):
        monkeypatch.setattr(search, "SURE_SCORE", sure)
        looked.clear()
        hand = reader.search(sample[0])
        found.append((hand, sum(looked)))
    (quick, few), (whole, many) = found
    assert quick.score > 0.7 and few < 0.5 * many
    assert np.abs(quick.box - whole.box).max() < 0.1 * whole.box[2]


def test_what_is_no_picture(estimate: PhotoEstimator, sample: tuple[np.ndarray, np.ndarray, list[float], Path]) -> None:
    image, K, _, _ = sample
    for bad in (image[..., 0], image.astype(np.float32), np.dstack([image, image[..., :1]])):
        with pytest.raises(ValueError, match="uint8 RGB"):
            estimate(bad)
    for other in (None, [image], torch.as_tensor(image)):
        with pytest.raises(ValueError, match="image is a .*; give"):
            estimate(other)
    with pytest.raises(ValueError, match=r"K is float64 \(1, 3, 3\); it must be a \(3,3\) matrix"):
        estimate(image, K=K[None])
    with pytest.raises(ValueError, match="side is 'both'"):
        estimate(image, side="both")
    with pytest.raises(UnusableImage, match="cannot belong"):
        estimate(image, K=K * [[3.0], [3.0], [1.0]])
    with pytest.raises(UnusableImage, match="no usable hand"):
        estimate(np.full_like(image, 90))
    assets = load_hand_assets("template/stand_in.npz")
    with pytest.raises(ValueError, match="another"):
        estimate(image, identity=Identity(np.zeros(10), "another", "0123", 190.0))
    assert assets.hash == estimate.assets.hash


def test_who_loads_a_network_keeps_his_random_numbers() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    load("mano_identity", device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_networks_that_are_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="nobody.safetensors.*mano_identity"):
        load("nobody", device="cpu")
    with pytest.raises(ValueError, match="gives no mesh"):
        load("pose_2d", device="cpu")


def test_keypoints_of_the_detector(
    sample: tuple[np.ndarray, np.ndarray, list[float], Path], estimate: PhotoEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, K, box, _ = sample
    keypoints = estimate(image, K=K, box=box).keypoints
    hands = [Detection(keypoints, np.ones(21), True, 0.9)]
    monkeypatch.setattr("src.photos.detector.finders.find_hands", lambda image: hands if image.shape[0] > 64 else [])
    result = load("mediapipe", device="cpu")(image, K=K, side="auto")
    assert result.side == "left" and result.sources.side == "mediapipe, 0.90" and result.reprojection_px < 12
    assets = load_hand_assets()
    mine = Identity(result.betas, assets.name, assets.hash, result.length.mm, side="left")
    known = load("mediapipe", device="cpu")(image, K=K, identity=mine)
    assert known.side == "left" and known.sources.side == "identity"  # the caller did not say it


def test_it_is_opened_without_the_synthetic_generator() -> None:
    script = "import sys, src.photos.api; print([name for name in sys.modules if name.startswith('datasets.synth')])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_torchs_default_precision_changes_no_hand(
    estimate: PhotoEstimator, sample: tuple[np.ndarray, np.ndarray, list[float], Path]
) -> None:
    image, K, box, _ = sample
    try:
        torch.set_default_dtype(torch.float64)
        found = load("mano_identity", device="cpu")(image, K=K, box=box)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(found.vertices, estimate(image, K=K, box=box).vertices, atol=1e-5)
