"""Pictures of lenses with distortion (``--camera``), looked at through perspective crops: the hand is where it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from photo_cases import ASSETS, Fixed, K, arguments, hand_at, result_of
from test_camera_models import CAMERAS, FISHEYE, SIZE
from test_video_files import write_clip

from datasets.synthetic.freihand_writer import write_freihand
from datasets.synthetic.samples import copy_freihand
from src.photos.api import PhotoEstimator
from src.photos.boxes import Region
from src.photos.camera import Camera
from src.photos.detector.detection import Detection
from src.photos.estimator import HandInPicture, Keypoints
from src.photos.image import Photo, UnusableImage, read_photo
from src.photos.keypoint_estimator import KeypointEstimator
from src.photos.perspective import draw_mesh
from src.photos.result import Result
from src.photos.run_images import image_demo
from src.photos.setup import open_tools
from src.photos.video import run_video
from src.photos.video.smoothing import FrameHands, LaggedTracks, TrackFitter, fit_tracks
from src.photos.video.track import TrackedHand
from template import HandModel, mirror_assets
from utils.camera import project_numpy, square_box
from utils.cameras.lens import CameraModel
from utils.cameras.views import View
from utils.video_files import open_video

NAMES = ["pinhole", "rational", "fisheye"]
BOX = np.array([560.0, 60, 90])


@pytest.mark.parametrize("camera", CAMERAS, ids=NAMES)
def test_a_view_is_opencvs_rectification(camera: CameraModel) -> None:
    view = View.of_box(camera, BOX, 3.0)
    # It looks at the box, and there a pixel of it is a pixel of the picture.
    middle = np.full(2, (view.size - 1) / 2)
    assert np.abs(view.to_camera(middle) - BOX[:2]).max() < 1e-6 and view.size == 270 and view.zoom == 1
    beside = view.to_camera(middle + [[1, 0], [0, 1]]) - BOX[:2]
    assert abs(np.linalg.det(beside)) == pytest.approx(1, abs=0.02)
    undistort = cv2.fisheye.initUndistortRectifyMap if camera.lens == "fisheye" else cv2.initUndistortRectifyMap
    size = (view.size, view.size)
    maps = undistort(camera.K, camera.distortion, view.rotation.T, view.K, size, cv2.CV_32FC1)
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    image = cv2.resize(noise, SIZE, interpolation=cv2.INTER_CUBIC)
    expected, found = cv2.remap(image, *maps, cv2.INTER_LINEAR), view.image(image)
    inside = (maps[0] > 1) & (maps[0] < SIZE[0] - 2) & (maps[1] > 1) & (maps[1] < SIZE[1] - 2)
    grid = np.stack(np.meshgrid(np.arange(view.size), np.arange(view.size)), axis=-1)
    inside &= np.isfinite(view.to_camera(grid)).all(axis=-1)  # OpenCV also draws beyond the fold
    inside = cv2.erode(inside.astype(np.uint8), np.ones((17, 17))) > 0
    assert inside.mean() > 0.4 and np.abs(found.astype(int) - expected)[inside].max() <= 3
    assert np.abs(view.to_view(view.to_camera(grid)) - grid)[inside].max() < 1e-6


def test_a_large_box_is_averaged_and_not_sampled() -> None:
    K = np.array([[2000.0, 0, 1999.5], [0, 2000, 1499.5], [0, 0, 1]])
    camera = CameraModel(K, np.array([-0.05, 0, 0, 0]), size=(4000, 3000))
    stripes = np.zeros((3000, 4000, 3), np.uint8)
    stripes[:, ::2] = 200
    view = View.of_box(camera, np.array([2000.0, 1500, 860]), 3.0)
    assert view.size == 1280 and view.zoom == pytest.approx(1280 / 2580)
    assert np.abs(view.image(stripes)[400:880, 400:880].astype(int) - 100).max() < 12


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("degrees", [20.0, 75.0, 100.0])
def test_a_hand_anywhere_before_a_fisheye(side: str, degrees: float) -> None:
    """A hand, also one beside the camera, is what a pinhole camera before it makes of it; it is drawn where it is."""
    K = np.array([[230.0, 0, 480], [0, 231, 480], [0, 0, 1]])
    camera = CameraModel(K, FISHEYE / 10, "fisheye", (960, 960), "wide.yaml")
    truth = hand_at(0.6)
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    flip = np.array([-1.0 if side == "left" else 1.0, 1, 1])
    joints, vertices = (truth[name] * flip @ turn.T for name in ("joints", "vertices"))
    found = Detection(camera.project(joints), np.ones(21), side == "left", 1.0)
    assert np.isfinite(found.keypoints_2d).all()

    def finder(_: np.ndarray) -> list[Detection]:
        return [found]

    finder.name = "own"
    tools = PhotoEstimator(KeypointEstimator(ASSETS, landmarks=None), detector=finder, lens=camera)
    image = np.zeros((960, 960, 3), np.uint8)
    photo = Photo("a", None, image)
    shape = tools.shape()
    shape.betas, shape.is_settled = truth["betas"], True
    K = np.array([[230.5, 0, 479.5], [0, 230.5, 479.5], [0, 0, 1]])
    straight = Keypoints(project_numpy(truth["joints"] * flip, K), np.ones(21), "own")
    region = Region(square_box(straight.points, 1.0), "", side == "left", "", straight)
    expected = tools.estimate(photo, Camera(K, ""), region, shape).joints @ turn.T
    assert np.abs(expected - joints).max() < 0.05  # as near as priors let it come
    hand = tools.estimate(photo, tools.camera(photo), tools.regions(photo)[0], shape)
    assert hand.side == side and np.abs(hand.joints - expected).max() < 1e-3
    assert np.abs(hand.keypoints - found.keypoints_2d).max() < 1e-6
    assert hand.record()["camera"]["distortion"] == pytest.approx(camera.distortion.tolist())
    # pose, betas and transl are those of the joints, in the camera's own frame.
    model = HandModel(mirror_assets(ASSETS) if side == "left" else ASSETS, dtype=torch.float64)
    posed = model(*(torch.as_tensor(value)[None].double() for value in (hand.pose, hand.betas, hand.transl)))
    assert np.abs(posed.vertices[0].numpy() - hand.vertices).max() < 1e-6
    drawn = draw_mesh(image, hand, (255, 255, 255), 1.0).max(axis=2) > 20
    filled = np.zeros((960, 960), np.uint8)
    for face in camera.project(hand.vertices)[hand.faces]:
        cv2.fillConvexPoly(filled, np.round(face).astype(np.int32), 1)
    assert (drawn & (filled > 0)).sum() / (drawn | (filled > 0)).sum() > 0.9
    # Followed from there, the fit starts from this hand.
    again = tools.estimate(photo, tools.camera(photo), tools.regions(photo)[0], shape, hand)
    assert np.abs(again.joints - expected).max() < 0.02 and again.notes["followed_frames"] == 1


@pytest.mark.parametrize("lag", [None, 0])
@pytest.mark.parametrize("side", ["right", "left"])
def test_hands_are_smoothed_in_their_views(side: str, lag: int | None) -> None:
    """A shaking hand 70 degrees off a fisheye's axis comes to rest as it does before a pinhole camera."""
    rng, fisheye = np.random.default_rng(0), CameraModel(
        np.array([[600.0, 0, 799.5], [0, 600, 799.5], [0, 0, 1]]), FISHEYE / 10, "fisheye", (1600, 1600)
    )  # fmt: skip
    angle = np.radians(70)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    still = result_of(hand_at(0.6))
    still = replace(still if side == "right" else still.mirrored(), K=K)
    still = replace(still, keypoints=project_numpy(still.joints, K))
    frames, bent = [], []
    for number in range(8):
        hand = replace(still, keypoints=still.keypoints + 1.5 * rng.normal(size=(21, 2)))
        rays = np.concatenate([(hand.keypoints - K[:2, 2]) / 600, np.ones((21, 1))], axis=1) @ turn.T
        points = fisheye.project(rays)
        view = View.of_box(fisheye, square_box(points, 1.0), 3.0)
        wide = replace(
            hand.moved(turn), K=fisheye.K, width=1600, keypoints=points, box=square_box(points, 1.0), lens=fisheye,
            view=view,
        )  # fmt: skip
        for kept, one in ((frames, hand), (bent, wide)):
            tracked = TrackedHand(1, one.box, side == "left", True, result=one)
            kept.append(FrameHands(number, number / 30, [tracked]))
    fitter = TrackFitter(KeypointEstimator(ASSETS, landmarks=None))

    def smoothed(given: list[FrameHands]) -> list[Result]:
        if lag is None:
            return [frame.hands[0].result for frame in fit_tracks(given, fitter)]
        stream = LaggedTracks(fitter, lag)
        return [frame.hands[0].result for one in given for frame, _ in stream.push(one)]

    expected, found = smoothed(frames), smoothed(bent)
    assert len(found) == 8 and all("over_time" in hand.notes for hand in found)
    for one, other, given in zip(expected, found, bent):
        assert np.abs(one.joints @ turn.T - other.joints).max() < 1.5e-3
        assert other.side == side and other.lens is fisheye and np.array_equal(other.K, fisheye.K)
        assert np.abs(other.keypoints - given.hands[0].result.keypoints).max() < 1e-6
        assert np.abs(other.box - given.hands[0].result.box).max() < 1e-6
    assert np.abs(np.diff([hand.joints for hand in found[4:]], axis=0)).max() < 3.5e-3


def test_only_wide_pinhole_pictures_are_looked_at_through_a_view() -> None:
    seen: list[tuple[int, ...]] = []

    class Looking(Fixed):
        def estimate(self, hand: HandInPicture) -> Result:
            seen.append(hand.image.shape)
            return super().estimate(hand)

    photo = Photo("a", None, np.zeros((480, 640, 3), np.uint8))
    middle, edge = (
        PhotoEstimator(Looking(), fov=110.0, bbox=box) for box in ((280, 200, 380, 300), (560, 10, 639, 90))
    )
    ((hand,), _), ((far,), _) = middle.hands(photo), edge.hands(photo)
    assert seen == [(480, 640, 3), (240, 240, 3)] and hand.view is None and far.view is not None


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
    seen = project_numpy(camera.unproject(pixels), K).astype(np.float32)
    assert np.abs(seen - pixels).max() > 10
    cv2.imwrite(str(folder / "bent.png"), cv2.remap(image, seen[..., 0], seen[..., 1], cv2.INTER_CUBIC))
    cv2.imwrite(str(folder / "straight.png"), image)
    corners = np.array([[box[0], box[1]], [box[2], box[1]], [box[0], box[3]], [box[2], box[3]]])
    corners = camera.project((np.column_stack([corners, np.ones(4)])) @ np.linalg.inv(K).T)
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
    ((expected,), _) = pinhole.hands(read_photo(folder / "straight.png"))
    ((hand,), _) = tools.hands(read_photo(folder / "bent.png"))
    ((blind,), _) = pinhole.hands(read_photo(folder / "bent.png"))
    assert "camera.json" in hand.sources.camera

    def rays(joints: np.ndarray) -> np.ndarray:
        return joints[:, :2] / joints[:, 2:]

    off, without = (np.abs(rays(one.joints) - rays(expected.joints)).max() for one in (hand, blind))
    assert off < 0.003 and off < 0.7 * without
    assert abs(hand.distance_m / expected.distance_m - 1) < 0.02


def test_what_contradicts_the_camera_is_said(bent: tuple[Path, CameraModel], tmp_path: Path) -> None:
    folder, camera = bent
    file = str(folder / "camera.json")
    for words in (("--fov", "60"), ("--K", "500,500,112,112")):
        with pytest.raises(ValueError, match="--camera and --K or --fov both say"):
            open_tools(arguments("--images", str(folder), "--camera", file, *words))
    photo = read_photo(folder / "bent.png")
    np.save(tmp_path / "a_K.npy", camera.K)
    tools = PhotoEstimator(Fixed(), lens=camera)
    with pytest.raises(UnusableImage, match="a_K.npy and --camera both say"):
        tools.camera(replace(photo, path=tmp_path / "a.png"))
    with pytest.raises(UnusableImage, match="--camera .*belongs to pictures of 224 x 224 pixels, not 448 x 448"):
        tools.camera(Photo("b", None, np.zeros((448, 448, 3), np.uint8)))


def test_both_demos_show_the_picture_as_it_was_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    K = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])
    lens = CameraModel(K, np.array([-0.3, 0, 0, 0]), size=(64, 48), source="a.json")

    class Central(Fixed):
        def estimate(self, seen: HandInPicture) -> Result:
            return replace(super().estimate(seen), keypoints=np.full((21, 2), seen.image.shape[0] / 2))

    tools = PhotoEstimator(Central(), lens=lens, bbox=(20, 10, 50, 40))
    monkeypatch.setattr(run_video, "open_tools", lambda _: tools)
    monkeypatch.setattr("src.photos.run_images.open_tools", lambda _: tools)
    clip = write_clip(tmp_path / "a.mp4", 3)
    path = run_video.video_demo(arguments("--video", str(clip), "--output", str(tmp_path / "out")))
    first, shown = next(iter(open_video(clip)[1])).image, next(iter(open_video(path)[1])).image
    assert np.abs(shown[:20].astype(int) - first[:20])[:, :8].max() < 30  # a corner, bent as it was
    _, *records = [json.loads(line) for line in (tmp_path / "out/a_frames.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records] == ["ok"] * 3, records
    assert all(record["camera"]["lens"] == "pinhole" for record in records)
    assert all("--camera a.json" in record["camera"]["source"] for record in records)
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures/a.png"), first)
    image_demo(arguments("--images", str(tmp_path / "pictures"), "--output", str(tmp_path / "page")))
    assert (tmp_path / "page/a_plot.jpg").is_file()
