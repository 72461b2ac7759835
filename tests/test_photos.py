"""Own pictures of every kind: formats, depths, orientation, lens, and files that are none."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from src.photos.camera import DEFAULT_FOV, choose_camera, parse_intrinsics
from src.photos.image import Photo, UnusableImage, list_photos, read_photo
from utils.cameras.intrinsics import checked_fov


@pytest.fixture
def picture() -> np.ndarray:
    """(40,60,3) RGB without symmetry."""
    v, u = np.mgrid[:40, :60]
    return np.stack([u * 4, v * 6, (u + v) * 2], axis=2).astype(np.uint8)


def store(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def test_every_kind_of_pixel_becomes_rgb8(tmp_path: Path, picture: np.ndarray) -> None:
    bgr = np.ascontiguousarray(picture[..., ::-1])
    assert (read_photo(store(tmp_path / "rgb.png", bgr)).image == picture).all()
    sixteen = read_photo(store(tmp_path / "sixteen.png", bgr.astype(np.uint16) * 257)).image
    assert (sixteen == picture).all()
    grey = read_photo(store(tmp_path / "grey.png", bgr[..., 0])).image
    assert grey.shape == picture.shape and (grey == picture[..., 2:]).all()
    grey16 = read_photo(store(tmp_path / "grey16.tif", bgr[..., 0].astype(np.uint16) * 257)).image
    assert (grey16 == grey).all()
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:, :30] = 0
    shown = read_photo(store(tmp_path / "alpha.png", np.concatenate([bgr, alpha], axis=2))).image
    assert (shown[:, 30:] == picture[:, 30:]).all() and (shown[:, :30] == 255).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_fewer_bits_stored_in_sixteen_are_not_read_dark(
    tmp_path: Path, picture: np.ndarray, bits: int, suffix: str
) -> None:
    grey = picture[..., 1].astype(np.uint16)
    stored = np.round(grey * ((2**bits - 1) / 255)).astype(np.uint16)
    image = read_photo(store(tmp_path / f"a{suffix}", stored)).image
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_sixteen_bits_are_not_read_dark(
    tmp_path: Path, picture: np.ndarray, bits: int, suffix: str, alpha: bool
) -> None:
    """Every bit counts: against the numbers that were stored, in either order of bytes, turned or not."""
    stored = np.round(picture * ((2**bits - 1) / 255)).astype(np.uint16)[..., ::-1]
    if alpha and suffix != ".ppm":
        stored = np.dstack([stored, np.full(stored.shape[:2], 65535, np.uint16)])
    path = store(tmp_path / f"a{suffix}", stored)
    np.testing.assert_array_equal(read_photo(path).image, picture)
    if suffix == ".png":
        exif = Image.Exif()
        exif[0x0112] = 6
        data, chunk = path.read_bytes(), b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        end = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        path.write_bytes(data[:33] + end + data[33:])  # behind the header
        np.testing.assert_array_equal(read_photo(path).image, np.rot90(picture, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pil(tmp_path: Path, picture: np.ndarray, orientation: int) -> None:
    stored, exif = Image.fromarray(picture), Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(read_photo(tmp_path / "a.png").image, expected)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff\xe0 broken"])
def test_files_that_are_no_pictures(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnusableImage, match="a.jpg"):
        read_photo(tmp_path / "a.jpg")


def test_one_pixel_and_8000_pixels(tmp_path: Path) -> None:
    with pytest.raises(UnusableImage, match="1 x 1 pixels"):
        read_photo(store(tmp_path / "dot.png", np.zeros((1, 1, 3), np.uint8)))
    wide = np.zeros((30, 8000, 3), np.uint8)
    assert read_photo(store(tmp_path / "wide.png", wide)).size == (8000, 30)


def test_names_are_sorted_and_unique(tmp_path: Path, picture: np.ndarray) -> None:
    for name in ("b.png", "a.jpg", "a.png", "10.bmp"):
        store(tmp_path / name, picture)
    (tmp_path / "a_K.npy").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no picture")
    assert [name for name, _ in list_photos(tmp_path)] == ["10", "a_jpg", "a_png", "b"]
    assert list_photos(tmp_path / "b.png") == [("b", tmp_path / "b.png")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        list_photos(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="missing"):
        list_photos(tmp_path / "missing")


def test_who_says_what_the_camera_is(tmp_path: Path, picture: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26
    Image.fromarray(picture).save(tmp_path / "phone.jpg", exif=exif)
    Image.fromarray(picture).save(tmp_path / "plain.jpg")
    phone, plain = read_photo(tmp_path / "phone.jpg"), read_photo(tmp_path / "plain.jpg")
    given = parse_intrinsics("50,51,30,20")

    guess = choose_camera(plain)
    assert guess.is_guess and str(int(DEFAULT_FOV)) in guess.source
    # An edge pixel of the longer side is seen at half the angle.
    assert np.degrees(np.arctan(30 / guess.K[0, 0])) == pytest.approx(DEFAULT_FOV / 2)
    lens = choose_camera(phone)
    assert "EXIF" in lens.source and not lens.is_guess
    assert lens.K[0, 0] == pytest.approx(26 * np.hypot(60, 40) / np.hypot(36, 24), rel=1e-4)
    choose_camera(phone, None, 70.0)
    assert not caplog.text
    assert choose_camera(phone, None, 90.0).K[0, 0] == pytest.approx(30)
    assert "view of 90 degrees" in caplog.text and "here 69 by EXIF, 26 mm" in caplog.text
    assert choose_camera(phone, given, 90.0) is given and given.K[1, 1] == 51
    K = np.array([[70.0, 0, 29], [0, 70, 19], [0, 0, 1]])
    np.save(tmp_path / "phone_K.npy", K)
    beside = choose_camera(phone, given, 90.0)
    assert (beside.K == K).all() and beside.source == "phone_K.npy"


@pytest.mark.parametrize(
    "K", [np.eye(4), np.zeros((3, 3)), np.full((3, 3), np.nan), np.ones(9), np.array([["a"] * 3] * 3)]
)
def test_a_camera_matrix_that_is_none(tmp_path: Path, picture: np.ndarray, K: np.ndarray) -> None:
    np.save(tmp_path / "a_K.npy", K)
    with pytest.raises(UnusableImage, match="a_K.npy"):
        choose_camera(Photo("a", tmp_path / "a.png", picture))
    with pytest.raises(ValueError, match="a_K.npy"):
        parse_intrinsics(str(tmp_path / "a_K.npy"))


def test_options_that_are_no_camera() -> None:
    for words in ("600", "600,600,a,b", "0,600,320,240"):
        with pytest.raises(ValueError, match="--K"):
            parse_intrinsics(words)
    with pytest.raises(FileNotFoundError, match="missing.npy"):
        parse_intrinsics("missing.npy")
    with pytest.raises(ValueError, match="--fov"):
        checked_fov(200.0)


def test_a_camera_of_no_picture_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jpg", "a_K.npy", "a_bbox.json", "a.jpg_K.npy", "b_bbox.json"):
        (tmp_path / name).touch()
    assert [name for name, _ in list_photos(tmp_path)] == ["a"]
    assert caplog.messages == [
        "left out, no picture by its name, nor a picture's camera or box: a.jpg_K.npy, b_bbox.json"
    ]
