"""Pictures of lenses with distortion (``--camera``): made straight as OpenCV does, and the hand is where it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from photo_cases import Fixed, arguments
from test_camera_models import CAMERAS, SIZE
from test_video_files import write_clip

from datasets.synthetic.freihand_writer import write_freihand
from datasets.synthetic.samples import copy_freihand
from src.photos.api import PhotoEstimator
from src.photos.camera import straightened
from src.photos.image import Photo, UnusableImage, read_photo
from src.photos.run_images import image_demo
from src.photos.setup import open_tools
from src.photos.video import run_video
from utils.camera_models import CameraModel, StraightPicture
from utils.video_files import open_video


@pytest.mark.parametrize("camera", CAMERAS, ids=["pinhole", "rational", "fisheye"])
def test_pictures_become_opencvs(camera: CameraModel) -> None:
    straight = StraightPicture(camera)
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    image = cv2.resize(noise, SIZE, interpolation=cv2.INTER_CUBIC)
    undistort = cv2.fisheye.initUndistortRectifyMap if camera.lens == "fisheye" else cv2.initUndistortRectifyMap
    maps = undistort(camera.K, camera.distortion, np.eye(3), straight.K, SIZE, cv2.CV_32FC1)
    expected = cv2.remap(image, *maps, cv2.INTER_LINEAR)
    inside = (maps[0] > 1) & (maps[0] < SIZE[0] - 2) & (maps[1] > 1) & (maps[1] < SIZE[1] - 2)
    # OpenCV draws rays beyond the fold and behind the camera as well.
    pixels = np.stack(np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])), axis=-1)
    inside &= np.isfinite(camera.distort(pixels, straight.K)).all(axis=-1)
    assert inside.mean() > 0.4
    assert np.abs(straight.image(image).astype(int) - expected)[inside].max() <= 2


@pytest.mark.parametrize("camera", CAMERAS, ids=["pinhole", "rational", "fisheye"])
def test_nothing_within_reach_is_cut_off(camera: CameraModel) -> None:
    straight = StraightPicture(camera)
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 639.5, 41), np.linspace(-0.5, 479.5, 31)), axis=-1)
    near = camera.unproject(grid)[..., 2] > np.cos(np.radians(straight.WIDEST))
    seen = camera.undistort(grid[near], straight.K)
    assert (seen > -1).all() and (seen < np.array(SIZE)).all()
    assert abs(straight.lost - (1 - near.mean())) < 0.03 and (straight.lost > 0) == (camera.lens == "fisheye")


def test_a_lens_without_distortion_changes_nothing() -> None:
    camera = CameraModel(CAMERAS[0].K, np.zeros(5), size=SIZE)
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    straight = StraightPicture(camera)
    assert np.abs(straight.K - camera.K).max() < 1e-9 and np.array_equal(straight.image(image), image)
    assert np.allclose(straight.box(np.array([10.0, 20, 110, 220])), [10, 20, 110, 220])


@pytest.fixture(scope="module")
def bent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CameraModel]:
    """One hand, as a pinhole camera (straight.png) and as a strongly bent lens (bent.png) took it; boxes beside."""
    root, folder = tmp_path_factory.mktemp("freihand"), tmp_path_factory.mktemp("bent")
    write_freihand(root, 1, 1, seed=5)
    (original,) = copy_freihand(root, root / "copy", 1)
    image, K = cv2.imread(str(original)), np.load(root / "copy/00000000_K.npy")
    box = json.loads((root / "copy/00000000_bbox.json").read_text())
    height, width = image.shape[:2]
    camera = CameraModel(K, np.array([-0.9, 0.2, 0.01, -0.02]), size=(width, height))
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    seen = camera.undistort(pixels).astype(np.float32)
    assert np.abs(seen - pixels).max() > 10
    cv2.imwrite(str(folder / "bent.png"), cv2.remap(image, seen[..., 0], seen[..., 1], cv2.INTER_CUBIC))
    cv2.imwrite(str(folder / "straight.png"), image)
    corners = camera.distort(np.array([[box[0], box[1]], [box[2], box[1]], [box[0], box[3]], [box[2], box[3]]]))
    (folder / "bent_bbox.json").write_text(json.dumps([*corners.min(0), *corners.max(0)]))
    (folder / "straight_bbox.json").write_text(json.dumps(box))
    values = {"K": K.tolist(), "D": camera.distortion[:4].tolist(), "width": width, "height": height}
    (folder / "camera.json").write_text(json.dumps(values))
    return folder, camera


def test_the_hand_is_where_it_was(bent: tuple[Path, CameraModel]) -> None:
    folder, camera = bent
    words = ("--keypoints", "network", "--images", str(folder), "--camera", str(folder / "camera.json"))
    tools = open_tools(arguments(*words))
    pinhole = replace(tools, lens=CameraModel(camera.K, np.zeros(0), size=camera.size))
    ((expected,), _) = pinhole.hands(pinhole.straightened(read_photo(folder / "straight.png")))
    ((hand,), _) = tools.hands(tools.straightened(read_photo(folder / "bent.png")))
    ((blind,), _) = pinhole.hands(pinhole.straightened(read_photo(folder / "bent.png")))
    assert "camera.json" in hand.sources.camera

    def rays(joints: np.ndarray) -> np.ndarray:
        return joints[:, :2] / joints[:, 2:]

    off, without = (np.abs(rays(one.joints) - rays(expected.joints)).max() for one in (hand, blind))
    assert off < 0.002 and off < without / 2
    assert abs(hand.distance_m / expected.distance_m - 1) < 0.02


def test_what_contradicts_the_camera_is_said(bent: tuple[Path, CameraModel], tmp_path: Path) -> None:
    folder, camera = bent
    file = str(folder / "camera.json")
    for words in (("--fov", "60"), ("--K", "500,500,112,112")):
        with pytest.raises(ValueError, match="--camera and --K or --fov both say"):
            open_tools(arguments("--images", str(folder), "--camera", file, *words))
    photo = straightened(read_photo(folder / "bent.png"), camera)
    np.save(tmp_path / "a_K.npy", camera.K)
    tools = PhotoEstimator(Fixed(), lens=camera)
    with pytest.raises(UnusableImage, match="a_K.npy and --camera both say"):
        tools.camera(replace(photo, path=tmp_path / "a.png"))
    with pytest.raises(UnusableImage, match="--camera .*belongs to pictures of 224 x 224 pixels, not 448 x 448"):
        tools.straightened(Photo("b", None, np.zeros((448, 448, 3), np.uint8)))


def test_both_demos_show_the_straight_picture(
    bent: tuple[Path, CameraModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    class Looking(Fixed):
        def estimate(self, image: np.ndarray, *rest: object) -> object:
            seen.append(image)
            return super().estimate(image, *rest)

    K = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])
    lens = CameraModel(K, np.array([-0.3, 0, 0, 0]), size=(64, 48))
    tools = PhotoEstimator(Looking(), lens=lens)
    monkeypatch.setattr(run_video, "open_tools", lambda _: tools)
    monkeypatch.setattr("src.photos.run_images.open_tools", lambda _: tools)
    clip = write_clip(tmp_path / "a.mp4", 3)
    path = run_video.video_demo(arguments("--video", str(clip), "--output", str(tmp_path / "out")))
    first, shown = next(iter(open_video(clip)[1])).image, next(iter(open_video(path)[1])).image
    assert (first[24, 0] > 10).all()
    assert (seen[0][24, 0] == 0).all() and shown[24, 0].max() < 10  # what the lens does not show is black
    records = [json.loads(line) for line in (tmp_path / "out/a_frames.jsonl").read_text().splitlines()]
    assert all("without distortion" in record["camera"]["source"] or record["status"] != "ok" for record in records[1:])
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures/a.png"), first)
    image_demo(arguments("--images", str(tmp_path / "pictures"), "--output", str(tmp_path / "page")))
    assert (seen[-1][24, 0] == 0).all()
