"""Lenses against OpenCV's, and cameras read from files that OpenCV and others write."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.cameras.files import read_camera
from utils.cameras.lens import CameraModel

K = np.array([[520.0, 0, 322.5], [0, 515.0, 238.0], [0, 0, 1]])
SIZE = (640, 480)
PINHOLE = np.array([-0.28, 0.09, 0.0012, -0.0008, -0.012])
RATIONAL = np.array([0.4, -0.1, 0.0005, -0.001, 0.01, 0.7, -0.05, 0.002])
FISHEYE = np.array([-0.02, 0.006, -0.004, 0.0007])
WIDE = np.array([[230.0, 0, 320], [0, 231.0, 240], [0, 0, 1]])
CAMERAS = [
    CameraModel(K, PINHOLE, size=SIZE),
    CameraModel(K, RATIONAL, size=SIZE),
    CameraModel(WIDE, FISHEYE, "fisheye", SIZE),
]


@pytest.mark.parametrize("camera", CAMERAS, ids=["pinhole", "rational", "fisheye"])
def test_projection_and_undistortion_are_opencvs(camera: CameraModel) -> None:
    points = np.random.default_rng(0).uniform([-0.3, -0.22, 0.5], [0.3, 0.22, 1.0], (200, 3))
    pixels = camera.project(points)
    zero = np.zeros(3)
    if camera.lens == "fisheye":
        reference = cv2.fisheye.projectPoints(points[:, None], zero, zero, camera.K, camera.distortion)[0]
    else:
        reference = cv2.projectPoints(points, zero, zero, camera.K, camera.distortion)[0]
    assert np.abs(pixels - reference[:, 0]).max() < 1e-8
    rays = camera.unproject(pixels)
    straight = rays[:, :2] / rays[:, 2:] @ camera.K[:2, :2].T + camera.K[:2, 2]
    assert np.abs(straight - points[:, :2] / points[:, 2:] @ camera.K[:2, :2].T - camera.K[:2, 2]).max() < 1e-6
    if camera.lens == "fisheye":
        inverse = cv2.fisheye.undistortPoints(pixels[:, None], camera.K, camera.distortion, P=camera.K)
    else:
        inverse = cv2.undistortPoints(pixels[:, None], camera.K, camera.distortion, P=camera.K)
    assert np.abs(straight - inverse[:, 0]).max() < 0.05  # OpenCV's inverse stops early


@pytest.mark.parametrize("camera", CAMERAS, ids=["pinhole", "rational", "fisheye"])
def test_every_pixel_has_a_ray_that_leads_back(camera: CameraModel) -> None:
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 639.5, 41), np.linspace(-0.5, 479.5, 31)), axis=-1)
    rays = camera.unproject(grid)
    assert np.allclose(np.linalg.norm(rays, axis=-1), 1)
    assert np.abs(camera.project(0.7 * rays) - grid).max() < 1e-6
    assert np.isnan(camera.project(np.array([0.0, 0.0, -1.0]))).all()


def test_a_distortion_that_folds_the_picture_over_is_refused() -> None:
    # r (1 - 0.4 r^2) grows until r = sqrt(1 / 1.2) = 0.913, where it is 0.609: 183 px from the middle.
    with pytest.raises(ValueError, match="folds a picture of 640 x 480 pixels over at a radius of 183 px"):
        CameraModel(
            np.diag([300.0, 300, 1]) + [[0, 0, 320], [0, 0, 240], [0, 0, 0]], np.array([-0.4, 0, 0, 0]), size=SIZE
        )
    narrow = CameraModel(np.array([[900.0, 0, 320], [0, 900, 240], [0, 0, 1]]), np.array([-0.4, 0, 0, 0]), size=SIZE)
    folded = np.array([1.55, 0.0, 1.0])  # r (1 - 0.4 r^2) = 0.06: OpenCV draws it near the middle
    assert (
        abs(cv2.projectPoints(folded[None], np.zeros(3), np.zeros(3), narrow.K, narrow.distortion)[0][0, 0, 0] - 320)
        < 100
    )
    assert np.isnan(narrow.project(folded)).all()


def test_another_picture_size_is_refused() -> None:
    camera = CAMERAS[0]
    with pytest.raises(ValueError, match="belongs to pictures of 640 x 480 pixels, not 320 x 240"):
        camera.for_picture(320, 240)
    with pytest.raises(ValueError, match="aspect ratio"):
        camera.for_picture(480, 640)
    assert camera.for_picture(*SIZE) is camera


def opencv_text(path: Path, fisheye: bool) -> str:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("camera_matrix", WIDE if fisheye else K)
    storage.write("distortion_coefficients", (FISHEYE if fisheye else PINHOLE)[:, None])
    storage.write("fisheye_model", int(fisheye))
    storage.release()
    return path.read_text()


def test_all_kinds_of_files_give_the_same_camera(tmp_path: Path) -> None:
    rows, five, four = K.ravel().tolist(), PINHOLE.tolist(), FISHEYE.tolist()
    kalibr = "  camera_model: pinhole\n  distortion_coeffs: {}\n  distortion_model: {}\n"
    kalibr += "  intrinsics: {}\n  resolution: [640, 480]\n"
    cam0 = kalibr.format(four, "equidistant", [230.0, 231.0, 320.0, 240.0])
    cam1 = kalibr.format(five[:4], "radtan", [520.0, 515.0, 322.5, 238.0])
    ros = (
        "image_width: 640\nimage_height: 480\ncamera_name: c\n"
        f"camera_matrix:\n  rows: 3\n  cols: 3\n  data: {rows}\ndistortion_model: plumb_bob\n"
        f"distortion_coefficients:\n  rows: 1\n  cols: 5\n  data: {five}\n"
    )
    named = {"fx": 520, "fy": 515, "cx": 322.5, "cy": 238, "width": 640, "height": 480}
    named |= dict(zip(("k1", "k2", "p1", "p2", "k3"), five))
    files = {
        "opencv.yml": (opencv_text(tmp_path / "opencv.yml", False), None, CAMERAS[0]),
        "wide.yaml": (opencv_text(tmp_path / "wide.yaml", True), None, CAMERAS[2]),
        "ros.yaml": (ros, None, CAMERAS[0]),
        "echo.yaml": (f"height: 480\nwidth: 640\nd: {five}\nk: {rows}\n---\n", None, CAMERAS[0]),  # ros2 topic echo
        "named.json": (json.dumps(named), None, CAMERAS[0]),
        "projection.json": (
            json.dumps({"camera_model": "OPENCV_FISHEYE", "K": CAMERAS[2].K.tolist(), "D": four, "size": SIZE}),
            None,
            CAMERAS[2],
        ),
        "empty.json": (
            json.dumps(
                {"distortion_model": "", "model": "fisheye", "K": CAMERAS[2].K.tolist(), "D": four, "size": SIZE}
            ),
            None,
            CAMERAS[2],
        ),
        "matrix.json": (json.dumps({"K": K.tolist(), "D": five, "image_size": SIZE}), None, CAMERAS[0]),
        "chain.yaml": (f"cam0:\n{cam0}cam1:\n{cam1}", "cam0", CAMERAS[2]),
        "chain1.yaml": (f"cam0:\n{cam0}cam1:\n{cam1}", "cam1", CameraModel(K, PINHOLE[:4], size=SIZE)),
    }
    for name, (text, which, expected) in files.items():
        (tmp_path / name).write_text(text)
        camera = read_camera(str(tmp_path / name), which)
        assert (camera.lens, camera.size) == (expected.lens, SIZE), name
        assert np.allclose(camera.K, expected.K) and np.allclose(camera.distortion, expected.distortion), name
    with pytest.raises(ValueError, match=r"cam0.*cam1.*say which"):
        read_camera(str(tmp_path / "chain.yaml"))
    numbers = read_camera("520,515,322.5,238," + ",".join(map(str, five)))
    assert np.array_equal(numbers.K, K) and np.array_equal(numbers.distortion[:5], [*five])
    assert read_camera("fisheye:230,231,320,240," + ",".join(map(str, four))).lens == "fisheye"


@pytest.mark.parametrize(
    "text",
    ["", "[1, 2]", "{}", "K: [1, 2]", "{fx: 1, fy: a, cx: 2, cy: 3}", "{K: [500, 500, 320, 240], model: ds}", "a: ["],
)
def test_a_file_that_is_no_camera_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"camera\.yaml: "):
        read_camera(str(path))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"D": [0.1, 0.01, 0.001]}, "3 coefficients for a pinhole"),  # k1, k2, k3? the third is p1
        ({"D": [0.1, 0.01], "distortion_model": "fisheye"}, "2 coefficients for a fisheye"),
        ({"D": [0.1, 0.01, 0, 0], "xi": 1.2}, "omnidirectional"),
        ({"D": [0.1, 0.01, 0, 0], "camera_model": "fisheye", "distortion_model": "radtan"}, "two lenses"),
        ({"width": 1280}, "width and height"),
        ({"width": 640, "height": 480, "image_size": [480, 640]}, "two sizes"),
        ({"k1": 0.1, "s1": 0.01}, "s1 of a thin prism"),
        ({"image_size": [480, 640, 3]}, "width and height"),
        ({"K": [[6000, 0, 320], [0, 600, 240], [0, 0, 1]]}, "no camera's"),
        ({"K": [[600, 300, 320], [0, 600, 240], [0, 0, 1]]}, "no camera's"),
        ({"K": [[600, 0, 0], [0, 600, 0], [320, 240, 1]]}, "is it transposed"),
        ({"fx": 500, "fy": 500, "cx": 320, "cy": 240}, "K and fx, fy, cx, cy are two cameras"),
        ({"camera_matrix": [610, 600, 320, 240]}, "K and camera_matrix are two cameras"),
        ({"D": [True, False, False, False]}, "no number"),
        ({"k1": True}, "k1 is True, which is no number"),
        ({"k1": 0.1, "fisheye": {"k1": 0.2}}, "k1 is both at the top and in fisheye"),
    ],
)
def test_what_a_file_says_half_or_of_another_lens_is_named(values: dict, words: str, tmp_path: Path) -> None:
    path = tmp_path / "camera.json"
    path.write_text(json.dumps({"K": [[600, 0, 320], [0, 600, 240], [0, 0, 1]]} | values))
    with pytest.raises(ValueError, match=rf"camera\.json.*{words}"):
        read_camera(str(path))


def test_coefficients_by_name_in_a_mapping_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "camera.json"
    whole = {"K": [[600, 0, 320], [0, 600, 240], [0, 0, 1]], "distortion_model": " Plumb_Bob ", "image_size": None}
    path.write_text(json.dumps(whole | {"distortion": {"k1": 0.1, "p2": 0.02}}))
    camera = read_camera(str(path))
    np.testing.assert_array_equal(camera.distortion[:5], [0.1, 0, 0, 0.02, 0])
    assert camera.size is None


@pytest.mark.parametrize("key", ["dist", "distorsion", "dist_coeff", "radial_distortion", "radial", "kc"])
def test_a_distortion_by_any_name_is_read_or_refused(key: str, tmp_path: Path) -> None:
    numbers = [-0.3, 0.1, 0.001, 0.002, 0.0]
    content = {"mtx": [[900.0, 0, 640], [0, 900, 480], [0, 0, 1]], key: [numbers], "w": 1280, "h": 960}
    (tmp_path / "camera.json").write_text(json.dumps(content | {"working_distance": 0.5}))
    if key == "dist":  # OpenCV's tutorial
        camera = read_camera(str(tmp_path / "camera.json"))
        np.testing.assert_array_equal(camera.distortion[:5], numbers)
        assert camera.size == (1280, 960)
    else:
        with pytest.raises(ValueError, match=f"{key} is not understood"):
            read_camera(str(tmp_path / "camera.json"))


FISHEYE_FILE = {"K": K.tolist(), "D": FISHEYE.tolist(), "distortion_model": "equidistant", "width": 640, "height": 480}


@pytest.mark.parametrize("words", [
    {"fisheye": True}, {"is_fisheye": 1}, {"fisheye_model": "1"}, {"type": "fisheye"},
    {"camera_type": "KannalaBrandt8"}, {"projection_model": "equidistant"},
])  # fmt: skip
def test_a_fisheye_by_any_name_is_one(words: dict, tmp_path: Path) -> None:
    plain = {key: value for key, value in FISHEYE_FILE.items() if key != "distortion_model"}
    (tmp_path / "camera.json").write_text(json.dumps(plain | words))
    camera = read_camera(str(tmp_path / "camera.json"))
    assert camera.lens == "fisheye" and np.array_equal(camera.distortion, FISHEYE)
    (tmp_path / "camera.json").write_text(json.dumps({"K": K.tolist(), "D": PINHOLE.tolist(), "fisheye": False}))
    assert read_camera(str(tmp_path / "camera.json")).lens == "pinhole"
    known = {"K": K.tolist(), "D": FISHEYE.tolist(), "model": "pinhole", "rostopic": "/fisheye/image"}
    (tmp_path / "camera.json").write_text(json.dumps(known))
    assert read_camera(str(tmp_path / "camera.json")).lens == "pinhole"


def test_what_stands_beside_the_only_camera_is_of_it(tmp_path: Path) -> None:
    beside = {key: value for key, value in FISHEYE_FILE.items() if key != "K"}
    (tmp_path / "camera.json").write_text(
        json.dumps(beside | {"model": "D435", "camera": {"camera_matrix": K.tolist()}})
    )
    camera = read_camera(str(tmp_path / "camera.json"))
    assert (camera.lens, camera.size) == ("fisheye", SIZE) and np.array_equal(camera.distortion, FISHEYE)
    (tmp_path / "camera.json").write_text(json.dumps(FISHEYE_FILE | {"right": {"K": K.tolist()}}))
    with pytest.raises(ValueError, match=r"one at its top and \['right'\]; say which one"):
        read_camera(str(tmp_path / "camera.json"))
    assert read_camera(str(tmp_path / "camera.json"), "right").size == SIZE
    with pytest.raises(ValueError, match="one camera without a name, not 'cam7'"):
        read_camera("600,600,319.5,239.5", "cam7")


def test_a_fisheyes_coefficients_below_its_name_are_read(tmp_path: Path) -> None:
    lens = {f"k{number + 1}": value for number, value in enumerate(FISHEYE.tolist())}
    for content in (
        {"K": K.tolist(), "fisheye": lens},
        {"K": K.tolist(), "fisheye_model": {"D": FISHEYE.tolist()}},
        {"fisheye": {"K": K.tolist(), "D": FISHEYE.tolist()}},
    ):
        (tmp_path / "camera.json").write_text(json.dumps(content))
        camera = read_camera(str(tmp_path / "camera.json"))
        assert camera.lens == "fisheye" and np.array_equal(camera.distortion, FISHEYE)


@pytest.mark.parametrize(
    "name, text",
    [("c.json", '{"fx": 600, "fy": 600, "cx": 320, "cy": 240, "fx": 900}'), ("c.yaml", "k1: 0.1\nfx: 600\nfx: 900\n")],
)
def test_a_name_that_stands_there_twice_is_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="'fx' stands there twice"):
        read_camera(str(tmp_path / name))


@pytest.mark.parametrize(
    "size", [{"imageWidth": 640, "imageHeight": 480}, {"img_size": [640, 480]}, {"width": 640.5, "height": 480}]
)
def test_a_size_by_another_name_is_named(size: dict, tmp_path: Path) -> None:
    (tmp_path / "camera.json").write_text(json.dumps({"K": K.tolist(), **size}))
    with pytest.raises(ValueError, match="is not understood; a size is|whole numbers of pixels"):
        read_camera(str(tmp_path / "camera.json"))
