"""The demo on a folder of pictures, good and bad: everything is written, and what is written agrees."""

from __future__ import annotations

import base64
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from mesh_files import read_mesh

from datasets.synthetic.freihand_writer import write_freihand
from datasets.synthetic.samples import copy_freihand
from options.run_options import get_args_parser
from src.personalization.terms.hand_size import lengths_mm
from src.photos.detector.detection import Detection
from src.photos.run_images import image_demo
from template import load_hand_assets
from utils.artifacts import Identity, save_identity
from utils.camera import mirror_intrinsics, project_numpy
from utils.drawing.web_page import PageHand, page_section, write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def demo(images: Path, output: Path, *extra: str) -> list[dict]:
    words = ["--phase", "demo", "--images", str(images), "--output", str(output), "--device", "cpu"]
    words += [] if {"--keypoints", "--model"} & set(extra) else ["--keypoints", "network"]
    words += extra
    image_demo(get_args_parser().parse_args(words))
    return json.loads((output / "predictions.json").read_text())["images"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One hand in several disguises, and files without one."""
    root, folder = tmp_path_factory.mktemp("freihand"), tmp_path_factory.mktemp("pictures")
    write_freihand(root, 1, 1, seed=5)
    (original,) = copy_freihand(root, folder, 1)
    image, K = cv2.imread(str(original)), np.load(folder / "00000000_K.npy")
    box = json.loads((folder / "00000000_bbox.json").read_text())

    def add(name: str, picture: np.ndarray, K: np.ndarray | None = K, box: list | None = box) -> None:
        cv2.imwrite(str(folder / name), picture)
        stem = Path(name).stem
        if K is not None:
            np.save(folder / f"{stem}_K.npy", K)
        if box is not None:
            (folder / f"{stem}_bbox.json").write_text(json.dumps(box))

    original.unlink()
    (folder / "00000000_K.npy").unlink()
    (folder / "00000000_bbox.json").unlink()
    add("a.png", image)
    add("alpha.png", np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]))
    add("sixteen.png", image.astype(np.uint16) * 257)
    add("found.png", image, box=None)
    add("b&<b>.png", cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), K=None)
    add("flat.png", np.full_like(image, 90), box=None)
    add("dot.png", image[:1, :1])
    add("wrong_K.png", image, K=np.eye(4))
    add("wrong_box.png", image, box=[1, 2, 3])
    (folder / "torn.jpg").write_bytes(b"no picture")
    mirror = tmp_path_factory.mktemp("mirror")
    cv2.imwrite(str(mirror / "m.png"), image[:, ::-1])
    np.save(mirror / "m_K.npy", mirror_intrinsics(K, 224))
    corners = [223 - box[2], box[1], 223 - box[0], box[3]]
    (mirror / "m_bbox.json").write_text(json.dumps(corners))
    shutil.move(mirror, folder / "mirror")
    return folder


@pytest.fixture(scope="module")
def output(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo")
    demo(pictures, output)
    return output


@pytest.fixture(scope="module")
def entries(output: Path) -> dict[str, dict]:
    return {entry["file"]: entry for entry in json.loads((output / "predictions.json").read_text())["images"]}


def test_every_picture_is_listed_with_what_became_of_it(entries: dict[str, dict], output: Path) -> None:
    assert list(entries) == sorted(entries) and len(entries) == 10
    reasons = {file: entry["reason"] for file, entry in entries.items() if entry["status"] != "ok"}
    assert set(reasons) == {"flat.png", "dot.png", "wrong_K.png", "wrong_box.png", "torn.jpg"}
    assert "no usable hand" in reasons["flat.png"] and "1 x 1" in reasons["dot.png"]
    assert "(4, 4)" in reasons["wrong_K.png"] and "LEFT TOP RIGHT BOTTOM" in reasons["wrong_box.png"]
    assert "torn.jpg" in reasons["torn.jpg"]
    page = (output / "index.html").read_text()
    assert all(reason.split("<")[0][:40] in page for reason in reasons.values())


def test_numbers_agree_with_each_other_and_with_the_files(entries: dict[str, dict], output: Path) -> None:
    entry = entries["a.png"]
    arrays = {key: np.array(entry[key]) for key in ("vertices", "joints", "keypoints_2d", "pose", "betas", "transl")}
    assert [arrays[key].shape for key in arrays] == [(778, 3), (21, 3), (21, 2), (16, 3, 3), (10,), (3,)]
    K = np.array(entry["camera"]["K"])
    off = np.linalg.norm(project_numpy(arrays["joints"], K) - arrays["keypoints_2d"], axis=1)
    assert np.sqrt((off**2).mean()) < 3 * entry["reprojection_px"] + 1 < 40
    for name in ("a_mesh.ply", "a_mesh.glb"):
        vertices, faces = read_mesh(output / name)
        assert np.abs(vertices - arrays["vertices"]).max() < 2e-6 and faces.shape == (1538, 3)
    assert cv2.imread(str(output / "a_plot.jpg")).shape[1] > 1000
    length = entry["hand_length"]
    low, high = length["interval_95_mm"]
    assert low < length["mm"] < high and (high - low) / 3.92 == pytest.approx(length["std_mm"], rel=0.01)
    assert entry["camera"]["source"] == "a_K.npy" and entry["box"]["source"] == "a_bbox.json"
    assert entries["b&<b>.png"]["camera"]["source"].startswith("default")


def test_the_same_picture_in_other_formats(entries: dict[str, dict]) -> None:
    for name in ("alpha.png", "sixteen.png"):
        assert entries[name]["vertices"] == entries["a.png"]["vertices"]


def test_a_hand_is_found_without_a_box(entries: dict[str, dict]) -> None:
    found, given = (np.array(entries[name]["box"]["left_top_right_bottom"]) for name in ("found.png", "a.png"))
    assert "searched with pose_2d" in entries["found.png"]["box"]["source"]
    assert np.abs(found - given).max() < 0.35 * (given[2] - given[0])


def test_left_hands_are_left(pictures: Path, entries: dict[str, dict], tmp_path: Path) -> None:
    (left,) = demo(pictures / "mirror", tmp_path, "--hand", "left")
    assert left["hand"] == {"side": "left", "source": "--hand left"}
    mirrored = np.array(left["vertices"]) * [-1, 1, 1]
    assert np.abs(mirrored - np.array(entries["a.png"]["vertices"])).max() < 1e-3


def test_an_identity_gives_its_shape_and_its_length(pictures: Path, tmp_path: Path) -> None:
    assets = load_hand_assets("template/stand_in.npz")
    length = lengths_mm(assets, np.full(10, 0.5), None, ("hand",))["hand"][0]
    identity = Identity(np.full(10, 0.5), assets.name, assets.hash, length, hand_length_std_mm=3.0)
    save_identity(tmp_path / "me.json", identity)
    words = ("--identity", str(tmp_path / "me.json"))
    (entry,) = demo(pictures / "a.png", tmp_path / "out", *words, "--fov", "40", "--bbox", "60", "60", "170", "170")
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content["model"]["name"] == "mano_identity" and content["identity"]["hand_length_mm"] == round(length, 2)
    interval = entry["hand_length"]["interval_95_mm"]
    np.testing.assert_allclose(interval, [length - 5.88, length + 5.88], atol=0.011)
    assert np.allclose(entry["betas"], 0.5) and entry["hand"]["source"] == "identity"
    assert entry["camera"]["source"] == "a_K.npy" and entry["box"]["source"] == "a_bbox.json"  # beside it goes first
    identity.hand_hash = "another"
    save_identity(tmp_path / "other.json", identity)
    with pytest.raises(ValueError, match="another"):
        demo(pictures, tmp_path / "out2", "--identity", str(tmp_path / "other.json"))
    with pytest.raises(ValueError, match="--identity FILE"):
        demo(pictures, tmp_path / "out3", "--model", "mano_identity")


def test_options_that_make_no_sense(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match="--output .*taken.*cannot be written"):
        demo(pictures, tmp_path / "taken")
    with pytest.raises(ValueError, match="gives no mesh"):
        demo(pictures, tmp_path / "o", "--model", "pose_2d")
    with pytest.raises(FileNotFoundError, match="cmr_sg.safetensors"):
        demo(pictures, tmp_path / "o", "--model", "cmr_sg")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        demo(tmp_path / "nowhere", tmp_path / "o")


class Links(html.parser.HTMLParser):
    """Every address that a page mentions, and its canvases."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.canvases: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "canvas":
            self.canvases.append(dict(attrs))


def test_the_page_needs_nothing_and_holds_the_meshes(output: Path, entries: dict[str, dict]) -> None:
    text, links = (output / "index.html").read_text(), Links()
    links.feed(text)
    assert "://" not in text and "@import" not in text
    files = [address for address in links.addresses if not address.startswith("data:")]
    assert files and all((output / unquote(address)).is_file() for address in files)
    assert "b&amp;&lt;b&gt;.png" in text and "<b>.png" not in text
    good = [entry for entry in entries.values() if entry["status"] == "ok"]
    assert len(links.canvases) == len(good) == 5
    faces = np.frombuffer(base64.b64decode(json.loads(re.search(r'id="faces">(.*?)</script>', text)[1])[0]), "<u2")
    assert np.array_equal(faces.reshape(-1, 3), load_hand_assets("template/stand_in.npz").faces)
    for canvas, entry in zip(links.canvases, good, strict=True):
        shown = np.frombuffer(base64.b64decode(canvas["data-vertices"]), "<i2").reshape(-1, 3) / 32767
        true = np.array(entry["vertices"])
        true = true - (true.min(0) + true.max(0)) / 2
        assert np.abs(shown - true / np.linalg.norm(true, axis=1).max()).max() < 1e-4


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("flags", [("--enable-unsafe-swiftshader",), ("--disable-3d-apis",)])
def test_a_browser_draws_the_meshes(tmp_path: Path, flags: tuple[str, ...]) -> None:
    assets, lists = load_hand_assets("template/stand_in.npz"), []
    picture = np.zeros((60, 80, 3), np.uint8)
    hand = PageHand("a", "right", picture, (("mesh", picture),), assets.v_template, assets.faces, (70, 170, 190))
    write_page(tmp_path / "index.html", "t", "l", [page_section(hand, 0, lists)], lists)
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync", *flags]
    words += ["--disable-background-networking", "--disable-component-update"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]
    for budget in (3000, 10_000, 30_000, 60_000):  # on a busy machine virtual time may run out before a frame is drawn
        last = [f"--virtual-time-budget={budget}", "--dump-dom", f"file://{tmp_path / 'index.html'}"]
        finished = subprocess.run([*words, *last], capture_output=True, text=True, timeout=240, check=False)
        if 'data-drawn="yes"' in finished.stdout:
            break
    assert 'data-drawn="yes"' in finished.stdout, finished.stderr[-2000:]
    assert ("canvas" if "--disable-3d-apis" in flags else "webgl") == re.search(
        r'data-renderer="(\w+)"', finished.stdout
    )[1]
    # Without a GPU the browser itself remarks that copying is slow; whatever the page's script says is an error.
    said = [line for line in finished.stderr.splitlines() if "CONSOLE" in line and "GL Driver Message" not in line]
    assert not said


def test_a_detectors_keypoints_alone(
    pictures: Path, entries: dict[str, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With mediapipe's keypoints (here: ours, in its name) no network is opened, and the shape is found as well."""
    keypoints = np.array(entries["a.png"]["keypoints_2d"])

    def find_hands(image: np.ndarray) -> list[Detection]:
        if image.shape[0] < 100 or np.ptp(image) == 0:
            return []
        return [Detection(keypoints, np.ones(21), False, 0.9)]

    monkeypatch.setattr("src.photos.detector.finders.find_hands", find_hands)
    shutil.copyfile(pictures / "a.png", tmp_path / "a.png")
    shutil.copyfile(pictures / "flat.png", tmp_path / "flat.png")
    good, flat = demo(tmp_path, tmp_path / "out", "--keypoints", "mediapipe")
    assert "mediapipe finds no hand" in flat["reason"]
    assert good["hand"] == {"side": "right", "source": "mediapipe, 0.90"} and good["keypoints_from"] == "mediapipe"
    assert good["hand_length"]["interval_95_mm"] is not None and good["reprojection_px"] < 10
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["model"]["weights"] is None
    left, _ = demo(tmp_path, tmp_path / "o2", "--keypoints", "mediapipe", "--hand", "left")
    assert left["reason"] == "no usable hand: mediapipe finds no left hand"


def test_our_own_detectors_keypoints_are_joints_and_its_score_is_no_side(
    pictures: Path, entries: dict[str, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keypoints that are the hand's own joints: the fit meets them closely, and nothing doubts the side."""
    keypoints = np.array(entries["a.png"]["keypoints_2d"])

    class Finder:
        name = "own detector"

        def __call__(self, image: np.ndarray) -> list[Detection]:
            return [] if np.ptp(image) == 0 else [Detection(keypoints, np.ones(21), False, 0.55)]

    opened = []
    monkeypatch.setattr("src.photos.detector.finders.open_own_hands", lambda *given: opened.append(given) or Finder())
    shutil.copyfile(pictures / "a.png", tmp_path / "a.png")
    shutil.copyfile(pictures / "flat.png", tmp_path / "flat.png")
    good, flat = demo(tmp_path, tmp_path / "out", "--keypoints", "own")
    assert len(opened) == 1 and flat["reason"] == "no usable hand: own detector finds no hand"
    assert good["hand"] == {"side": "right", "source": "own detector, 0.55"}
    assert good["keypoints_from"] == "own detector" and good["reprojection_px"] < 5
    assert good["certainty"]["score"] == 0.55 and "side" not in good["certainty"]
    said = json.loads((tmp_path / "out" / "predictions.json").read_text())["model"]
    assert said["weights"] is None and "no real picture" in said["trained_on"]


def test_a_missing_detector_is_named(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_hands(image: np.ndarray) -> list[Detection]:
        raise ImportError("pip install -r requirements-detect.txt")

    monkeypatch.setattr("src.photos.detector.finders.find_hands", find_hands)
    with pytest.raises(RuntimeError, match="--keypoints mediapipe: pip install -r requirements-detect.txt"):
        demo(pictures, tmp_path, "--keypoints", "mediapipe")
