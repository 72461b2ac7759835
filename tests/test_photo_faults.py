"""Pictures and videos that broke the demo, or made it say something wrong: each corner, once."""

from __future__ import annotations

import json
import os
import stat
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from test_image_demo import Links
from torch import nn

from options.run_options import get_args_parser
from src.engine import networks
from src.engine.checkpoint import ModelCard, save_checkpoint
from src.engine.networks import open_network, read_network
from src.models import build_model
from src.personalization.calibration.population import load_population
from src.personalization.fitting.from_keypoints import fit_keypoints
from src.personalization.terms.hand_size import lengths_mm
from src.photos import run_images
from src.photos.api import PhotoEstimator
from src.photos.boxes import Region, checked_box
from src.photos.camera import Camera, check_size, choose_camera, parse_intrinsics, read_intrinsics
from src.photos.estimator import HandEstimator, Keypoints, check_depth, rows_of
from src.photos.image import Photo, UnusableImage, list_photos, read_photo
from src.photos.keypoint_estimator import SHAPE_EVERY, KeypointEstimator
from src.photos.result import Result
from src.photos.setup import open_tools
from src.photos.shape_filter import ShapeFilter
from template import HandModel, axis_angle_to_pose, load_hand_assets, mirror_assets
from tests.mano_pickle import write_mano_pickle
from utils.artifacts import Identity, load_identity, save_identity
from utils.camera import mirror_intrinsics, project_numpy, square_box
from utils.drawing.figures import HandView, demo_figure
from utils.mesh_io import read_mesh
from utils.video_files import VideoInfo, open_video, video_writer, writable_rate

FAULTS = Path("../../shared/data/faults")
ASSETS = load_hand_assets("template/stand_in.npz")
K = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
needs_faults = pytest.mark.skipif(not FAULTS.is_dir(), reason=f"{FAULTS} is not there")


def arguments(*words: str) -> object:
    return get_args_parser().parse_args(["--phase", "demo", "--device", "cpu", *words])


def hand_at(depth: float, seed: int = 0) -> dict[str, np.ndarray]:
    """A true right hand before the camera."""
    generator = torch.Generator().manual_seed(seed)
    angles = torch.cat([torch.tensor([[0.4, -2.6, 0.3]]), 0.15 * torch.randn(1, 45, generator=generator)], dim=1)
    pose, betas = axis_angle_to_pose(angles.double()), 0.7 * torch.randn(1, 10, generator=generator).double()
    transl = torch.tensor([[-0.05, 0.02, depth]]).double()
    output = HandModel(ASSETS, dtype=torch.float64)(pose, betas, transl)
    values = {"pose": pose, "betas": betas, "transl": transl, "vertices": output.vertices, "joints": output.joints}
    return {name: value[0].numpy() for name, value in values.items()}


def result_of(hand: dict[str, np.ndarray]) -> Result:
    keypoints = project_numpy(hand["joints"], K)
    return Result(640, K, square_box(keypoints, 1.0), keypoints, np.ones(21), hand["vertices"], hand["joints"], ASSETS,
                  0.0, hand["pose"], hand["transl"], hand["betas"])


# Networks and the hands that they belong to.


def test_a_network_is_posed_with_no_hand_but_its_own(tmp_path: Path) -> None:
    card = ModelCard("mano_baseline", options={"backbone": "mobilenet_v3_small"}, hand_name="theirs", hand_hash="0123")
    save_checkpoint(tmp_path / "n.pt", card, card.build(ASSETS))
    with pytest.raises(ValueError, match=rf"theirs \(0123\).*stand-in \({ASSETS.hash}\)"):
        open_tools(arguments("--images", ".", "--checkpoint", str(tmp_path / "n.pt")))


def test_a_released_network_looks_at_pictures_in_one_way(tmp_path: Path) -> None:
    torch.save(build_model("boukhayma", "paper", hand=ASSETS).state_dict(), tmp_path / "released.pth")
    args = arguments("--images", ".", "--model", "boukhayma", "--checkpoint", str(tmp_path / "released.pth"))
    card = open_tools(args).estimator.card
    assert (card.input_size, card.crop, card.crop_scale) == (256, "joints", 2.0)
    args.phase = "predict"
    assert card == open_network(args, torch.device("cpu"), ASSETS)[1]


@pytest.mark.parametrize(("masks", "crop"), [(1, "image"), (0, "joints")])
def test_a_released_cascade_says_by_its_tensors_what_it_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masks: int, crop: str
) -> None:
    def build(model: str, recipe: str, with_mask: bool = True, **_: object) -> nn.Module:
        return nn.Linear(2, 21 + with_mask)

    monkeypatch.setattr(networks, "build_model", build)
    monkeypatch.setattr(networks, "mesh_parts", lambda *_: {})
    torch.save(nn.Linear(2, 21 + masks).state_dict(), tmp_path / "released.pth")
    assert read_network(tmp_path / "released.pth", "cpu", ASSETS, "cmr_pg")[1].crop == crop
    torch.save(nn.Linear(2, 5).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="Is it a cmr_pg"):
        read_network(tmp_path / "other.pth", "cpu", ASSETS, "cmr_pg")


# Evidence of a person's shape.


class Told(nn.Module):
    """A network that predicts a pose, and repeats the betas that it was told."""

    def __init__(self, pose: np.ndarray) -> None:
        super().__init__()
        self.pose = torch.as_tensor(pose, dtype=torch.float32)[None]

    def forward(self, image: torch.Tensor, betas: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"pose": self.pose, "betas": betas}


def test_a_networks_echo_is_no_evidence() -> None:
    hand = hand_at(0.6)
    keypoints = Keypoints(project_numpy(hand["joints"], K), np.ones(21), "truth")
    shape = ShapeFilter(ASSETS, population=load_population("weights/prior.npz", ASSETS.hash))
    estimator = HandEstimator(Told(hand["pose"]), ModelCard("mano_identity", input_size=64), ASSETS)
    for _ in range(3):
        image, box = np.zeros((480, 640, 3), np.uint8), square_box(keypoints.points, 1.0)
        result = estimator.estimate(image, K, box, shape, keypoints)
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
        box = square_box(points, 1.0)
        before = estimator.estimate(np.zeros((480, 640, 3), np.uint8), K, box, shape, keypoints, before)
    precisions = [torch.linalg.inv(fit.betas_covariance[0]).numpy() for fit in fits]
    mean = np.linalg.inv(sum(precisions)) @ sum(p @ f.betas[0].numpy() for p, f in zip(precisions, fits, strict=True))
    np.testing.assert_allclose(before.betas, mean, atol=1e-6)
    assert before.length.source == "the mean of 2 frames"
    stds = [lengths_mm(ASSETS, mean, f.betas_covariance[0].numpy(), ("hand",))["hand"][1] for f in fits]
    assert 0.8 * min(stds) < before.length.std_mm < 1.2 * max(stds)  # frames of one view do not count as many pictures


# Orientation, lens and camera.


def exif_with_orientation(kind: int, count: int, value: bytes) -> bytes:
    """EXIF of one entry: the orientation, of any TIFF type."""
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHI4sI", 1, 0x0112, kind, count, value.ljust(4, b"\0"), 0) + (
        b"\0" * 8
    )


@pytest.mark.parametrize(
    ("kind", "count", "value", "turned"),
    [
        (3, 1, b"\x06\0", True),  # SHORT, as it should be
        (1, 1, b"\x06", True),  # BYTE
        (2, 2, b"6\0", True),  # text
        (2, 3, b"up\0", False),
        (5, 1, b"\x1a\0\0\0", False),  # 0/0
        (3, 1, b"\x63\0", False),  # 99
    ],
)
def test_orientations_of_every_type(tmp_path: Path, kind: int, count: int, value: bytes, turned: bool) -> None:
    picture = np.zeros((40, 64, 3), np.uint8)
    picture[:20, :32] = 255
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95, exif=exif_with_orientation(kind, count, value))
    expected = np.rot90(picture, -1) if turned else picture
    image = read_photo(tmp_path / "a.jpg").image
    assert image.shape == expected.shape and np.abs(image.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_orientation_is_applied_once(tmp_path: Path, orientation: int) -> None:
    stored = np.arange(40 * 64 * 3).reshape(40, 64, 3).astype(np.uint8)
    Image.fromarray(stored).save(tmp_path / "a.tif", tiffinfo={0x0112: orientation})
    turns = {1: (False, 0), 2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, -1), 7: (True, -1),
             8: (False, 1)}  # mirrored left to right, then quarter turns counter-clockwise
    mirror, quarters = turns[orientation]
    expected = np.rot90(stored[:, ::-1] if mirror else stored, quarters)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").image, expected)


@needs_faults
def test_pictures_that_were_wrong() -> None:
    assert read_photo(FAULTS / "orientation6.tif").size == (64, 96)
    assert read_photo(FAULTS / "orientation_as_byte.jpg").size == (480, 640)
    assert read_photo(FAULTS / "stale_focal_plane.jpg").focal_px == pytest.approx(768)


def save_with_lens(path: Path, size: tuple[int, int], exif_size: tuple[int, int] | None, **lens: float) -> Photo:
    exif, tags = Image.Exif(), {"film": 0xA405, "length": 0x920A, "resolution": 0xA20E, "unit": 0xA210}
    ifd = exif.get_ifd(0x8769)
    if exif_size is not None:
        ifd[0xA002], ifd[0xA003] = exif_size
    for name, value in lens.items():
        ifd[tags[name]] = value
    Image.new("RGB", size).save(path, exif=exif)
    return read_photo(path)


@pytest.mark.parametrize(
    ("size", "exif_size", "focal"),
    [
        ((640, 480), (6000, 4500), 768.0),  # resized: 50 mm * 144 px/mm * 640 / 6000
        ((480, 640), (6000, 4500), 768.0),  # and turned
        ((640, 480), None, None),  # nothing says of which size the resolution is
        ((640, 640), (6000, 4500), None),  # cropped
    ],
)
def test_sensor_resolution_is_that_of_the_picture_in_exif(
    tmp_path: Path, size: tuple[int, int], exif_size: tuple[int, int] | None, focal: float | None
) -> None:
    photo = save_with_lens(tmp_path / "a.jpg", size, exif_size, length=50.0, resolution=1440.0, unit=3)
    assert photo.focal_px == (None if focal is None else pytest.approx(focal))


def test_the_film_equivalent_does_not_outlive_a_crop_nor_nonsense(tmp_path: Path) -> None:
    kept = save_with_lens(tmp_path / "a.jpg", (640, 480), (4000, 3000), film=26)
    assert kept.focal_px == pytest.approx(26 * 800 / np.hypot(36, 24), rel=1e-4)
    assert save_with_lens(tmp_path / "b.jpg", (480, 480), (4000, 3000), film=26).focal_px is None
    assert save_with_lens(tmp_path / "c.jpg", (640, 480), None, film=60000).focal_px is None


@pytest.mark.parametrize(
    "other",
    [
        [[1920.0, 0, 960], [0, 1920, 540], [0, 0, 1]],  # three times the size
        [[300.0, 0, 160], [0, 300, 120], [0, 0, 1]],  # half the size
        [[600.0, 0, 240], [0, 600, 320], [0, 0, 1]],  # upright
        [[0.9, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]],  # over the size
        [[90000.0, 0, 320], [0, 90000, 240], [0, 0, 1]],
    ],
)
def test_intrinsics_of_another_picture_are_refused(tmp_path: Path, other: list[list[float]]) -> None:
    photo = Photo("a", tmp_path / "a.png", np.zeros((480, 640, 3), np.uint8))
    with pytest.raises(UnusableImage, match=r"--K.* cannot belong to a picture of 640 x 480"):
        choose_camera(photo, Camera(np.array(other), "--K x"))
    np.save(tmp_path / "a_K.npy", np.array(other))
    with pytest.raises(UnusableImage, match="a_K.npy"):
        choose_camera(photo)
    assert choose_camera(replace(photo, path=tmp_path / "b.png"), Camera(K, "--K")).K is K
    assert check_size(Camera(K, ""), 640, 480).K is K


def test_a_file_named_default_is_no_guess(tmp_path: Path) -> None:
    np.save(tmp_path / "default_K.npy", K)
    photo = Photo("default", tmp_path / "default.png", np.zeros((480, 640, 3), np.uint8))
    assert not choose_camera(photo).is_guess and choose_camera(replace(photo, path=tmp_path / "other.png")).is_guess


def test_numbers_in_files_are_no_sizes(tmp_path: Path) -> None:
    with open(tmp_path / "big.npy", "wb") as handle:  # a header that promises 80 TB
        np.lib.format.write_array_header_1_0(handle, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
    for name in ("big.npy", "archive.npy"):
        if name == "archive.npy":
            with open(tmp_path / name, "wb") as handle:
                np.savez(handle, K=K)
        with pytest.raises(ValueError, match=name):
            read_intrinsics(tmp_path / name)
    with pytest.raises(UnusableImage, match="far larger than the picture"):
        checked_box(np.array([-1e8, -1e8, 1e8, 1e8]), "--bbox", (640, 480))
    with pytest.raises(ValueError, match="--K"):
        parse_intrinsics("nan,1,2,3")
    bomb = b"II*\0\x08\0\0\0" + struct.pack("<H", 4) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 90000), (257, 90000), (258, 8), (262, 1))
    ) + b"\0" * 4
    (tmp_path / "bomb.tif").write_bytes(bomb)
    with pytest.raises(UnusableImage, match="bomb.tif"):
        read_photo(tmp_path / "bomb.tif")


# Names, formats, and folders of which one picture is odd.


class Fixed:
    """An estimator that sees the same hand everywhere, fails where a picture is ``broken`` and looks on."""

    card, assets = ModelCard("fixed"), ASSETS

    def __init__(self, look: object = None) -> None:
        self.look, self.calls = look, 0

    def estimate(self, image: np.ndarray, *_: object) -> Result:
        self.calls += 1
        if self.look is not None:
            self.look(self.calls)
        if image[0, 0, 0] == 13:
            raise RuntimeError("a solver's own error")
        return result_of(hand_at(0.6))


def tools_with(estimator: object) -> PhotoEstimator:
    return PhotoEstimator(estimator)


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Fixed:
    estimator = Fixed()
    monkeypatch.setattr(run_images, "open_tools", lambda _: tools_with(estimator))
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
    for name in ("IMG_1.JPG", "IMG_1.jpg", "img_1.jpg", "img_1_jpg.png"):
        picture(tmp_path / name)
    names = [name for name, _ in list_photos(tmp_path)]
    assert len({name.casefold() for name in names}) == 4


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
    picture(tmp_path / "a.heic")  # whatever it holds: Pillow goes by the content
    module = SimpleNamespace(register_heif_opener=lambda: None) if installed else None
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    if installed:
        assert read_photo(tmp_path / "a.heic").size == (64, 48)
    else:
        with pytest.raises(UnusableImage, match="a.heic: HEIC .*pip install pillow-heif"):
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


# Hands that are none.


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
        estimator.estimate(image, K, np.array([320, 240, 100.0]), ShapeFilter(ASSETS), keypoints)
    view = HandView("", far["vertices"] + [0, 0, 1e6], far["joints"], None)
    with pytest.raises(ValueError, match="cannot be drawn"):
        demo_figure(tmp_path / "a.png", image, K, ASSETS.faces, [view], keypoints_2d=near.keypoints)


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
    tools = tools_with(KeypointEstimator(right))
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


# Identity files.


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


# Videos.


def write_clip(path: Path, count: int = 12, fps: float = 30.0) -> Path:
    with video_writer(path, VideoInfo(64, 48, fps, 0)) as writer:
        for number in range(count):
            writer.write(np.full((48, 64, 3), 20 * (number + 1), np.uint8))
    return path


def boxes(data: bytes, start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Type -> (offset, size) of the MP4 boxes between two offsets."""
    found = {}
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        found[kind] = (start, size)
        start += size
    return found


def with_steps(path: Path, steps: list[tuple[int, float]]) -> None:
    """Give an MP4 of constant rate (frames, part of its step) instead: its table of times is at the file's end."""
    data, chain, start, end = bytearray(path.read_bytes()), [], 0, path.stat().st_size
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        offset, size = boxes(data, start, end)[kind]
        chain.append(offset)
        start, end = offset + 8, offset + size
    step = struct.unpack_from(">I", data, start + 12)[0]
    table = struct.pack(">II", 0, len(steps)) + b"".join(struct.pack(">II", n, round(part * step)) for n, part in steps)
    grown = len(table) - (end - start)
    data[start:end] = table
    for offset in chain:
        struct.pack_into(">I", data, offset, struct.unpack_from(">I", data, offset)[0] + grown)
    path.write_bytes(data)


def test_times_are_those_of_the_container(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 12, 10.0)
    with_steps(clip, [(6, 1.0), (6, 0.25)])  # the second half four times as fast
    info, frames = open_video(clip)
    times = [frame.seconds for frame in frames]
    np.testing.assert_allclose(times, [*np.arange(7) * 0.1, *(0.6 + np.arange(1, 6) * 0.025)], atol=2e-3)
    with video_writer(tmp_path / "out.mp4", info._replace(fps=40.0)) as writer:
        for time in times:
            writer.write(np.full((48, 64, 3), 200 if time > 0.55 else 20, np.uint8), time)
    bright = [frame.seconds for frame in open_video(tmp_path / "out.mp4")[1] if frame.image.mean() > 100]
    assert bright[0] == pytest.approx(0.6, abs=0.03) and bright[-1] == pytest.approx(times[-1], abs=0.03)


def test_a_clock_that_jumps_fills_no_disk(tmp_path: Path) -> None:
    with video_writer(tmp_path / "a.mp4", VideoInfo(64, 48, 30.0, 0)) as writer:
        for time in (0.0, 0.033, 1e9, 1e9 + 0.033):
            writer.write(np.zeros((48, 64, 3), np.uint8), time)
        assert writer.count == 4


@pytest.mark.parametrize("fps", [119.743, 120000 / 1001, 29.97, 65.5361, 239.7612])
def test_odd_frame_rates(tmp_path: Path, fps: float) -> None:
    info, frames = open_video(write_clip(tmp_path / "a.mp4", 12, fps))
    assert len(list(frames)) == 12 and info.fps == pytest.approx(fps, rel=1e-3)
    assert writable_rate(fps) == pytest.approx(fps, rel=1e-3)


@needs_faults
def test_the_video_with_the_odd_frame_rate(tmp_path: Path) -> None:
    info, frames = open_video(FAULTS / "fps_119_743.mp4")
    with video_writer(tmp_path / "a.mp4", info) as writer:
        for frame in frames:
            writer.write(frame.image, frame.seconds)
    assert writer.count == 12


@pytest.mark.parametrize("name", ["12:30.mp4", "http:x.mp4", "a%03d.mp4", "ä#?.mp4"])
def test_video_names_are_no_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_clip(tmp_path / "clip.mp4", 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(open_video(name)[1])) == 3


def test_a_full_disk_keeps_the_earlier_video(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the encoder sees its writes fail, and says nothing."""
    earlier = write_clip(tmp_path / "a.mp4").read_bytes()
    script = f"""
import resource, numpy as np
from pathlib import Path
from utils.video_files import VideoInfo, video_writer
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
with video_writer(Path({str(tmp_path / "a.mp4")!r}), VideoInfo(96, 96, 25.0, 0)) as writer:
    for number in range(60):
        writer.write(np.roll(noise, number, axis=0))
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert finished.returncode != 0 and "can be read back; is the disk full?" in finished.stderr, finished.stderr
    assert (tmp_path / "a.mp4").read_bytes() == earlier and [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
