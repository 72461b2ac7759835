"""Orientation, lens and intrinsics of pictures, and numbers in files that are no sizes."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from photo_cases import K
from PIL import Image

from src.photos.boxes import checked_box
from src.photos.camera import Camera, check_size, choose_camera, parse_intrinsics, pinhole, read_intrinsics
from src.photos.image import Photo, UnusableImage, read_photo

FAULTS = Path("../../shared/data/faults")
needs_faults = pytest.mark.skipif(not FAULTS.is_dir(), reason=f"{FAULTS} is not there")


def exif_with_orientation(kind: int, count: int, value: bytes) -> bytes:
    """EXIF of one entry: the orientation, of any TIFF type."""
    return (
        b"Exif\0\0II*\0\x08\0\0\0"
        + struct.pack("<HHHI4sI", 1, 0x0112, kind, count, value.ljust(4, b"\0"), 0)
        + (b"\0" * 8)
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
    turns = {
        1: (False, 0),
        2: (True, 0),
        3: (False, 2),
        4: (True, 2),
        5: (True, 1),
        6: (False, -1),
        7: (True, -1),
        8: (False, 1),
    }  # mirrored left to right, then quarter turns counter-clockwise
    mirror, quarters = turns[orientation]
    expected = np.rot90(stored[:, ::-1] if mirror else stored, quarters)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").image, expected)


@needs_faults
def test_pictures_that_were_wrong() -> None:
    assert read_photo(FAULTS / "orientation6.tif").size == (64, 96)
    assert read_photo(FAULTS / "orientation_as_byte.jpg").size == (480, 640)
    assert read_photo(FAULTS / "stale_focal_plane.jpg").focal_px == pytest.approx(768)


def save_with_lens(
    path: Path, size: tuple[int, int], exif_size: tuple[int, int] | None, make: str = "", **lens: float
) -> Photo:
    exif, tags = Image.Exif(), {"film": 0xA405, "length": 0x920A, "resolution": 0xA20E, "unit": 0xA210, "zoom": 0xA404}
    ifd, exif[0x010F] = exif.get_ifd(0x8769), make
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
    assert "4000 x 3000 px, cropped since" in choose_camera(read_photo(tmp_path / "b.jpg")).source
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


def test_a_camera_of_a_resized_picture_is_doubted(caplog: pytest.LogCaptureFixture) -> None:
    whole, seen = Camera(pinhole(1280, 720, 66), "--K 1280"), (1024, 576)
    for _ in range(3):
        assert check_size(whole, *seen) is whole
    assert caplog.text.count("its centre is that of a picture of 1280 x 720 px, this one is 1024 x 576") == 1
    assert "multiply K's first two rows by 0.8" in caplog.text
    caplog.clear()
    check_size(Camera(pinhole(1280, 720, 66) + [[0, 0, 60], [0, 0, -9], [0, 0, 0]], "--K off"), 1280, 720)
    check_size(Camera(pinhole(1000, 720, 66), "--K cropped"), 900, 720)
    assert not caplog.records


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
    bomb = (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", 4)
        + b"".join(
            struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 90000), (257, 90000), (258, 8), (262, 1))
        )
        + b"\0" * 4
    )
    (tmp_path / "bomb.tif").write_bytes(bomb)
    with pytest.raises(UnusableImage, match="bomb.tif"):
        read_photo(tmp_path / "bomb.tif")


@pytest.mark.parametrize(
    ("lens", "words"),
    [
        ({"length": 50.0, "film": 5.0}, "50 mm like 5 mm on film is a sensor of 433 mm"),
        ({"length": 4.2, "resolution": 9000.0, "unit": 4}, "4000 px at 9000 px/mm is a sensor of 0.444 mm"),
        # An iPhone 8's whole picture, made smaller: flutter/flutter#142931.
        ({"length": 3.99, "film": 177.0}, "3.99 mm like 177 mm on film is a sensor of 0.975 mm"),
    ],
)
def test_a_lens_without_a_sensor_is_not_believed(tmp_path: Path, lens: dict[str, float], words: str) -> None:
    photo = save_with_lens(tmp_path / "a.jpg", (640, 480), (4000, 3000), **lens)
    camera = choose_camera(photo)
    assert photo.focal_px is None and camera.is_guess and words in camera.source
    zoomed = save_with_lens(tmp_path / "b.jpg", (640, 480), (4000, 3000), length=4.2, film=104.0, zoom=4.0)
    assert zoomed.focal_px == pytest.approx(104 * 800 / np.hypot(36, 24), rel=1e-4)
    assert "digital zoom of 4 taken to be in it" in choose_camera(zoomed).source


def test_square_pictures_of_an_iphone_say_their_equivalent_by_the_longer_side(tmp_path: Path) -> None:
    photo = save_with_lens(tmp_path / "a.jpg", (302, 302), (3024, 3024), make="Apple", length=3.99, film=38.0)
    assert photo.focal_px == pytest.approx(3.99 / 1.22e-3 * 302 / 3024, rel=0.03)  # its pixels are of 1.22 um
    whole = save_with_lens(tmp_path / "b.jpg", (403, 302), (4032, 3024), make="Apple", length=3.99, film=28.0)
    assert whole.focal_px == pytest.approx(3.99 / 1.22e-3 * 403 / 4032, rel=0.03)


def test_a_panorama_is_no_picture_of_one_lens(tmp_path: Path) -> None:
    photo = save_with_lens(tmp_path / "a.jpg", (1638, 363), (16382, 3628), length=4.25, film=26.0)
    assert photo.focal_px is None and "panorama" in choose_camera(photo).source
