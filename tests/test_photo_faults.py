"""Folders of which one picture is odd, hands that are none, and whose shape a hand has."""

from __future__ import annotations

import json
import os
import stat
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from mesh_files import read_mesh
from photo_cases import ASSETS, Fixed, K, arguments, hand_at, result_of
from PIL import Image
from test_image_demo import Links
from torch import nn

from src.engine.checkpoint import ModelCard
from src.personalization.calibration.population import load_population
from src.personalization.fitting.from_keypoints import fit_keypoints
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import lengths_mm
from src.photos import run_images
from src.photos.api import PhotoEstimator
from src.photos.boxes import Region
from src.photos.camera import Camera
from src.photos.detector.search import KeypointReader, window_boxes
from src.photos.estimator import HandEstimator, HandInPicture, Keypoints, check_depth, rows_of
from src.photos.hands import find_photo_hands
from src.photos.image import Photo, UnusableImage, list_photos, read_photo
from src.photos.keypoint_estimator import SHAPE_EVERY, KeypointEstimator
from src.photos.result import Sources
from src.photos.shape_filter import ShapeFilter
from template import HandModel, load_hand_assets, mirror_assets
from tests.mano_pickle import write_mano_pickle
from utils.artifacts import Identity, load_identity, save_identity
from utils.camera import mirror_intrinsics, project_numpy, square_box
from utils.drawing.figures import HandView, demo_figure


class Told(nn.Module):
    """A network that predicts a pose, and repeats the betas that it was told."""

    def __init__(self, pose: np.ndarray) -> None:
        super().__init__()
        self.pose = torch.as_tensor(pose, dtype=torch.float32)[None]

    def forward(self, image: torch.Tensor, betas: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"pose": self.pose, "betas": betas}


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Fixed:
    estimator = Fixed()
    monkeypatch.setattr(run_images, "open_tools", lambda _: PhotoEstimator(estimator))
    return estimator


def picture(path: str | Path, value: int = 120) -> None:
    Image.new("RGB", (64, 48), (value,) * 3).save(path, format="PNG")


def entries_of(output: Path) -> dict[str, dict]:
    return {entry["file"]: entry for entry in json.loads((output / "predictions.json").read_text())["images"]}


def test_odd_names(tmp_path: Path, fixed: Fixed) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    names = ["a$b$c^_.png", "50% #1?.png", "IMG_1.JPG", "IMG_1.jpg", "n" * 242 + ".png", "ä\n.png", '<"&>.png']
    for name in names:
        picture(folder / name)
    picture(os.fsencode(folder) + b"/\xff\xfe.png")
    gallery = run_images.image_demo(arguments("--images", str(folder), "--output", str(output)))
    assert gallery.counts == (8, 0)
    entries = json.loads((output / "predictions.json").read_text())["images"]
    files = [file for entry in entries for file in entry["files"].values()]
    assert len({file.casefold() for file in files}) == 24 and all((output / file).is_file() for file in files)
    links = Links()
    links.feed((output / "index.html").read_text())
    shown = {unquote(address) for address in links.addresses if not address.startswith("data:")}
    assert shown == set(files)
    assert not list(output.glob(".*"))  # no temporary file is left


def test_names_that_only_capitals_tell_apart(tmp_path: Path) -> None:
    for name in ("IMG_1.JPG", "IMG_1.jpg", "img_1.jpg", "img_1_jpg.png", "\u00e9.png", "e\u0301.png"):
        picture(tmp_path / name)
    names = [unicodedata.normalize("NFC", name).casefold() for name, _ in list_photos(tmp_path)]
    assert len(set(names)) == 6


def test_pictures_are_not_overwritten(tmp_path: Path, fixed: Fixed) -> None:
    for name in ("a.png", "a_plot.jpg"):
        picture(tmp_path / name)
    with pytest.raises(ValueError, match="is where the pictures are"):
        run_images.image_demo(arguments("--images", str(tmp_path), "--output", str(tmp_path)))


def test_long_and_narrow_pictures(tmp_path: Path, fixed: Fixed) -> None:
    Image.new("RGB", (60_000, 24)).save(tmp_path / "a.png")
    assert run_images.image_demo(arguments("--images", str(tmp_path), "--output", str(tmp_path / "o"))).counts == (1, 0)
    windows = window_boxes(8000, 30)
    assert len(windows) < 3000 and windows[:, 2].min() >= 24
    with pytest.raises(UnusableImage, match="too long and narrow to search"):
        reader = KeypointReader(nn.Identity(), ModelCard("pose_2d"), torch.device("cpu"))
        reader.search(np.zeros((24, 400_000, 3), np.uint8))


def test_files_too_large_for_a_picture(tmp_path: Path) -> None:
    with open(tmp_path / "a.tif", "wb") as handle:
        handle.truncate(2 * 10**9)  # a hole
    with pytest.raises(UnusableImage, match="a.tif: 2.0 GB"):
        read_photo(tmp_path / "a.tif")


def test_one_odd_picture_stops_no_other(tmp_path: Path, fixed: Fixed, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", 13)
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "d.dng").write_bytes(b"II*\0")
    (tmp_path / "e.jpg").write_bytes(b"\xff\xd8\xff\xe1\xff\xff")
    picture(tmp_path / "f.png")
    gallery = run_images.image_demo(arguments("--images", str(tmp_path), "--output", str(tmp_path / "out")))
    entries = entries_of(tmp_path / "out")
    assert gallery.counts == (2, 4) and list(entries) == ["a.png", "b.png", "c.heic", "d.dng", "e.jpg", "f.png"]
    assert entries["b.png"]["status"] == "failed"
    assert entries["b.png"]["reason"] == "RuntimeError: a solver's own error"
    assert "export it as JPEG" in entries["d.dng"]["reason"] and "e.jpg" in entries["e.jpg"]["reason"]
    assert all(entries[name]["status"] == "ok" for name in ("a.png", "f.png"))


def test_what_stops_every_picture_is_an_error(tmp_path: Path, fixed: Fixed) -> None:
    picture(tmp_path / "b.png", 13)
    with pytest.raises(RuntimeError, match="none of 1 images.*a solver's own error"):
        run_images.image_demo(arguments("--images", str(tmp_path), "--output", str(tmp_path / "out")))
    assert list(entries_of(tmp_path / "out")) == ["b.png"]


@pytest.mark.parametrize("installed", [False, True])
def test_heic_is_read_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    """By its content, as Pillow: a PNG that is called so is read without more."""
    picture(tmp_path / "a.heic")
    module = SimpleNamespace(register_heif_opener=lambda: None) if installed else None
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    assert read_photo(tmp_path / "a.heic").size == (64, 48)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(40))
    words = "is no readable image" if installed else "HEIC .*pip install pillow-heif"
    with pytest.raises(UnusableImage, match=f"a.heic: {words}"):
        read_photo(tmp_path / "a.heic")


def test_page_and_predictions_are_there_as_it_goes(tmp_path: Path, fixed: Fixed) -> None:
    listed: list[int] = []

    def look(call: int) -> None:
        there = tmp_path / "out" / "predictions.json"
        listed.append(len(json.loads(there.read_text())["images"]) if there.is_file() else 0)
        if call == 4:
            os.kill(os.getpid(), 15)

    for name in "abcdef":
        picture(tmp_path / f"{name}.png")
    fixed.look = look
    with pytest.raises(KeyboardInterrupt):
        run_images.image_demo(arguments("--images", str(tmp_path), "--output", str(tmp_path / "out")))
    assert listed[:2] == [0, 1] and listed[3] >= 2  # nearly up to date while it runs ...
    assert list(entries_of(tmp_path / "out")) == ["a.png", "b.png", "c.png"]  # ... and wholly when it was stopped
    assert (tmp_path / "out" / "index.html").read_text().count("<article") == 3


def test_hands_beyond_bounds_are_refused_and_not_drawn(tmp_path: Path) -> None:
    near, far = result_of(hand_at(0.6)), hand_at(0.6)
    assert check_depth(near) is near
    for shift, reason in ((3.9e7, "3.9e+07 m away"), (-0.55, "behind camera"), (np.nan, "not finite")):
        moved = {**far, **{key: far[key] + [0, 0, shift] for key in ("vertices", "joints")}}
        with pytest.raises(UnusableImage, match=f"no usable hand: .*{reason}".replace("+", r"\+")):
            check_depth(result_of(moved))
    image, keypoints = np.zeros((480, 640, 3), np.uint8), Keypoints(320 + 1e-3 * np.random.rand(21, 2), np.ones(21), "")
    estimator = HandEstimator(Told(far["pose"]), ModelCard("told", input_size=64), ASSETS)
    with pytest.raises(UnusableImage, match="no usable hand"):
        estimator.estimate(HandInPicture(image, K, np.array([320, 240, 100.0]), ShapeFilter(ASSETS), keypoints))
    view = HandView("", far["vertices"] + [0, 0, 1e6], far["joints"], None)
    with pytest.raises(ValueError, match="cannot be drawn"):
        demo_figure(tmp_path / "a.png", image, K, ASSETS.faces, [view], near.box, near.keypoints, near.confidence)


def test_parameters_of_left_hands_give_their_vertices(tmp_path: Path) -> None:
    """With a MANO_LEFT whose shape directions are not the mirror of the right's, as the released one's are not."""
    left = mirror_assets(ASSETS)
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", replace(ASSETS, v_template=1.02 * ASSETS.v_template))
    released = replace(left, v_template=1.02 * left.v_template, shapedirs=left.shapedirs * [[-1.0], [1.0], [1.0]])
    write_mano_pickle(tmp_path / "MANO_LEFT.pkl", released)
    right = load_hand_assets(tmp_path, "right")
    hand = hand_at(0.5)
    points = project_numpy(hand["joints"], K) * [-1, 1] + [639, 0]
    region = Region(square_box(points, 1.0), "", True, "", Keypoints(points, np.ones(21), "truth"))
    photo = Photo("a", tmp_path / "a.png", np.zeros((480, 640, 3), np.uint8))
    tools = PhotoEstimator(KeypointEstimator(right))
    tools.identity = Identity(np.linspace(-1.5, 1.5, 10), right.name, right.hash, 190.0)
    result = tools.estimate(photo, Camera(mirror_intrinsics(K, 640), ""), region, tools.shape())
    entry = json.loads(json.dumps(result.record()))
    assert entry["hand"]["side"] == entry["hand_model"]["side"] == "left" and np.abs(entry["betas"]).max() > 0.1

    def posed(assets: object) -> np.ndarray:
        parameters = (torch.tensor([entry[name]], dtype=torch.float64) for name in ("pose", "betas", "transl"))
        return HandModel(assets, dtype=torch.float64)(*parameters).vertices[0].numpy()

    assert entry["hand_model"]["hash"] == mirror_assets(right).hash
    assert np.abs(posed(mirror_assets(right)) - entry["vertices"]).max() < 5e-6
    other = load_hand_assets(tmp_path, "left")
    assert entry["hand_model"]["hash"] != other.hash and np.abs(posed(other) - entry["vertices"]).max() > 1e-3


def test_results_save_themselves(tmp_path: Path) -> None:
    result = result_of(hand_at(0.6))
    for name in ("a.glb", "a.ply", "a.json"):
        result.save(tmp_path / name)
    assert np.abs(read_mesh(tmp_path / "a.glb")[0] - result.vertices).max() < 1e-6
    content = json.loads((tmp_path / "a.json").read_text())
    assert np.abs(np.array(content["vertices"]) - result.vertices).max() < 1e-6 and "frame" in content
    with pytest.raises(ValueError, match=r"\.obj"):
        result.save(tmp_path / "a.obj")


def test_a_networks_echo_is_no_evidence() -> None:
    hand = hand_at(0.6)
    keypoints = Keypoints(project_numpy(hand["joints"], K), np.ones(21), "truth")
    shape = ShapeFilter(ASSETS, population=load_population("weights/prior.npz", ASSETS.hash))
    estimator = HandEstimator(Told(hand["pose"]), ModelCard("mano_identity", input_size=64), ASSETS)
    for _ in range(3):
        image, box = np.zeros((480, 640, 3), np.uint8), square_box(keypoints.points, 1.0)
        result = estimator.estimate(HandInPicture(image, K, box, shape, keypoints))
    assert shape.count == 0 and not shape.betas.any() and not result.betas.any()
    assert result.length.mm == pytest.approx(lengths_mm(ASSETS, np.zeros(10), None, ("hand",))["hand"][0])
    assert "mean shape" in result.length.source


def test_the_shape_of_a_followed_hand_is_that_of_many_frames() -> None:
    generator, estimator, shape = np.random.default_rng(0), KeypointEstimator(ASSETS), ShapeFilter(ASSETS)
    hand, before, fits = hand_at(0.5), None, []
    for frame in range(SHAPE_EVERY + 2):
        points = project_numpy(hand["joints"], K) + generator.normal(0, 3, (21, 2))
        keypoints = Keypoints(points, np.ones(21), "truth")
        if frame % SHAPE_EVERY == 0:
            rows = rows_of(points, K, np.ones(21), dtype=torch.float64)
            fits.append(fit_keypoints(ASSETS, *rows, options=estimator.options))
        image, box = np.zeros((480, 640, 3), np.uint8), square_box(points, 1.0)
        before = estimator.estimate(HandInPicture(image, K, box, shape, keypoints, before))
    precisions = [torch.linalg.inv(fit.betas_covariance[0]).numpy() for fit in fits]
    mean = np.linalg.inv(sum(precisions)) @ sum(p @ f.betas[0].numpy() for p, f in zip(precisions, fits, strict=True))
    np.testing.assert_allclose(before.betas, mean, atol=1e-6)
    assert before.length.source == "the mean of 2 frames"
    stds = [lengths_mm(ASSETS, mean, f.betas_covariance[0].numpy(), ("hand",))["hand"][1] for f in fits]
    assert 0.8 * min(stds) < before.length.std_mm < 1.2 * max(stds)  # frames of one view do not count as many pictures


def test_identity_files_are_their_owners(tmp_path: Path) -> None:
    identity = Identity(np.zeros(10), ASSETS.name, ASSETS.hash, 190.0)
    (tmp_path / "me.json").write_text("older")
    (tmp_path / "me.json").chmod(0o644)
    before = os.umask(0)
    try:
        save_identity(tmp_path / "me.json", identity)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "me.json").stat().st_mode) == 0o600
    assert load_identity(tmp_path).hand_length_mm == 190.0  # a folder with one
    save_identity(tmp_path / "you.json", identity)
    with pytest.raises(ValueError, match="2 identity files .me.json, you.json"):
        load_identity(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="0 identity files"):
        load_identity(tmp_path / "none")


def test_how_sure_a_distance_is_rests_on_the_lens() -> None:
    hand = replace(result_of(hand_at(0.5)), certainty={"distance_std_m": 0.05})
    said, guessed = (replace(hand, sources=Sources(camera=camera)) for camera in ("--fov 60", "default: 62°"))
    assert guessed.describe_certainty() == said.describe_certainty() + " if the lens is as guessed"


def test_pictures_that_are_left_out_of_a_calibration_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (90, 30)).save(tmp_path / "wide.png")
    with pytest.raises(CalibrationError, match="no hand found"):
        find_photo_hands(tmp_path, K=Camera(np.array([[50.0, 0, 20], [0, 50, 20], [0, 0, 1]]), "--K"), finder=list)
    assert "wide.png: --K: fx 50" in caplog.text
