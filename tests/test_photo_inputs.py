"""Pictures, what lies beside them and what a caller says of them: what is none of these is named, not guessed at."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from photo_cases import ASSETS, Fixed, K, arguments
from PIL import Image

from src.engine.checkpoint import ModelCard
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import lengths_mm
from src.photos import run_images, setup
from src.photos.api import PhotoEstimator
from src.photos.boxes import choose_regions
from src.photos.camera import choose_camera, read_intrinsics
from src.photos.hands import find_photo_hands
from src.photos.image import Photo, UnusableImage, list_photos, read_photo
from utils.artifacts import ArtifactError, Identity, save_identity
from utils.cameras.intrinsics import checked_intrinsics
from utils.file_lock import LockedError, locked


def picture(path: Path) -> Path:
    Image.new("RGB", (64, 48), (120,) * 3).save(path, format="PNG")
    return path


def person(**changes: object) -> Identity:
    """An identity that is what it says."""
    betas, covariance = np.full(10, 0.3), 0.04 * np.eye(10)
    length, std = lengths_mm(ASSETS, betas, covariance, ("hand",))["hand"]
    known = Identity(betas, ASSETS.name, ASSETS.hash, length, covariance=covariance, hand_length_std_mm=std)
    return replace(known, **changes)


def test_names_as_long_as_file_systems_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_images, "open_tools", lambda _: PhotoEstimator(Fixed()))
    (tmp_path / "in").mkdir()
    for name in ("n" * 250 + ".png", "é" * 125 + ".png"):
        picture(tmp_path / "in" / name)
    gallery = run_images.image_demo(arguments("--images", str(tmp_path / "in"), "--output", str(tmp_path / "out")))
    assert gallery.counts == (2, 0)


def test_nothing_but_a_file_is_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("b.psd", "notes.txt", "a_K.npy", ".hidden.txt"):
        (tmp_path / name).touch()
    reasons = {}
    with caplog.at_level(logging.WARNING):
        for _, path in list_photos(tmp_path):
            try:
                read_photo(path)
            except UnusableImage as error:
                reasons[path.name] = str(error)
    assert list(reasons) == ["folder.jpg", "gone.jpg", "pipe.png", "zeros.png"]
    for name, what in (("folder.jpg", "a folder"), ("gone.jpg", "a link to nothing"), ("pipe.png", "pipe or device")):
        assert name in reasons[name] and what in reasons[name]
    assert "b.psd, notes.txt" in caplog.text and "hidden" not in caplog.text and "a_K.npy" not in caplog.text
    with pytest.raises(CalibrationError, match="no .*hand found in any of 5 images"):  # and does not wait for ever
        find_photo_hands(tmp_path, finder=lambda _: [])
    assert "pipe.png: is a pipe" in caplog.text


@pytest.mark.parametrize("ending", ["_K.npy", "_bbox.json"])
@pytest.mark.parametrize("what", ["folder", "link", "pipe"])
def test_what_lies_beside_is_not_passed_over(tmp_path: Path, ending: str, what: str) -> None:
    photo, beside = read_photo(picture(tmp_path / "a.png")), tmp_path / f"a{ending}"
    {"folder": beside.mkdir, "link": lambda: beside.symlink_to("nowhere"), "pipe": lambda: os.mkfifo(beside)}[what]()
    with pytest.raises(UnusableImage, match=f"a{ending}: is a {what}"):
        choose_camera(photo, None, 60) if ending == "_K.npy" else choose_regions(photo, (0, 0, 40, 40))


@pytest.mark.parametrize("content", ["[" * 100_000, "\0", "[1, 2, 3]", '{"a": 1}'])
def test_boxes_that_are_none_name_their_file(tmp_path: Path, content: str) -> None:
    photo = read_photo(picture(tmp_path / "a.png"))
    (tmp_path / "a_bbox.json").write_text(content)
    with pytest.raises(UnusableImage, match="a_bbox.json"):
        choose_regions(photo)


def test_nobody_is_told_to_read_a_file_unsafely(tmp_path: Path) -> None:
    (tmp_path / "a_K.npy").write_text("600 0 320 0 600 240 0 0 1")
    with pytest.raises(
        ValueError, match="a_K.npy: is not a .npy file of plain numbers .it holds something else"
    ) as refused:
        read_intrinsics(tmp_path / "a_K.npy")
    assert "unsafe" not in str(refused.value)


def test_pixels_are_about_square() -> None:
    for bad in ([[600, 0, 320], [0, 12, 240], [0, 0, 1]], [[600, 300, 320], [0, 600, 240], [0, 0, 1]]):
        with pytest.raises(ValueError, match="pixels are about square"):
            checked_intrinsics(np.array(bad), "a")
    anamorphic = np.array([[600, 1, 320], [0, 400, 240], [0, 0, 1.0]])
    np.testing.assert_array_equal(checked_intrinsics(anamorphic, "a"), anamorphic)


def test_numbers_of_unknown_range_are_no_picture(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (48, 1))
    for name, values in (("float255.tif", 255 * ramp), ("negative.tif", ramp - 0.5), ("nan.tif", ramp * np.nan)):
        cv2.imwrite(str(tmp_path / name), values)
    for name, top in (("int8.tif", 255), ("int20.tif", 2**20)):
        Image.fromarray((top * ramp).astype(np.int32)).save(tmp_path / name)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(UnusableImage, match=f"{path.name}: is no readable image .its values are .* is meant"):
            read_photo(path)
    highlights = ramp.copy()
    highlights[0, 0] = 7.0
    cv2.imwrite(str(tmp_path / "ok.tif"), highlights)
    Image.fromarray((65535 * ramp).astype(np.int32)).save(tmp_path / "ok32.tif")
    for name in ("ok.tif", "ok32.tif"):
        np.testing.assert_allclose(read_photo(tmp_path / name).image[1, :, 0], 255 * ramp[0], atol=0.6)


def tools_of(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = SimpleNamespace(card=ModelCard(model), assets=ASSETS)
    monkeypatch.setattr(setup, "open_estimator", lambda *_, **__: PhotoEstimator(estimator))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--K 600,600,320,240 --fov 60", "--K and --fov"),
        ("--resume", "--resume without a file"),
        ("--shape gt", "--shape gt"),
        ("--shape mean --identity ME", "--shape mean"),
        ("--shape predicted --identity ME", "--shape predicted"),
        ("--shape mean", "leave --shape out"),
        ("--shape mean --keypoints network", "--shape mean has no effect"),
        ("--backbone resnet50", "--backbone"),
        ("--hierarchy a", "--hierarchy"),
        ("--model cmr_identity --checkpoint a", "is a mano_baseline_conf, not a cmr_identity"),
        ("--keypoints mediapipe --checkpoint a --model mano_identity", "leave --checkpoint, --model out"),
    ],
)
def test_options_of_the_demo_without_effect(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_identity(tmp_path / "me.json", person())
    tools_of("mano_baseline_conf", monkeypatch)
    given = words.replace("ME", str(tmp_path / "me.json")).split()
    with pytest.raises(ValueError, match=said):
        setup.open_tools(arguments("--images", "x", *given))


def test_an_identity_of_one_side_is_given_to_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimate, image = PhotoEstimator(Fixed()), np.zeros((480, 640, 3), np.uint8)
    left = person(side="left")
    save_identity(tmp_path / "left.json", left)
    for identity in (left, tmp_path / "left.json"):
        with pytest.raises(ArtifactError, match="'left', but a right hand"):
            estimate(image, K=K, identity=identity, box=(200, 200, 300, 300))
        assert estimate(image, K=K, side="auto", identity=identity, box=(200, 200, 300, 300)).side == "left"
    tools_of("mano_identity", monkeypatch)
    assert (
        setup.open_tools(
            arguments("--images", "x", "--keypoints", "network", "--identity", str(tmp_path / "left.json"))
        ).hand
        == "left"
    )


def test_an_identity_whose_length_was_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = person()
    for change in ({"hand_length_mm": known.hand_length_mm + 7}, {"hand_length_std_mm": 0.2}):
        save_identity(tmp_path / "me.json", replace(known, **change))
        with pytest.raises(ArtifactError, match="me.json: states a hand of .*edited"):
            PhotoEstimator(Fixed())(np.zeros((480, 640, 3), np.uint8), K=K, identity=tmp_path / "me.json")
        tools_of("mano_identity", monkeypatch)
        with pytest.raises(ArtifactError, match="me.json: states a hand of .*edited"):
            setup.open_tools(arguments("--images", "x", "--identity", str(tmp_path / "me.json")))


def test_arrays_are_pictures_of_hands_or_none() -> None:
    estimate = PhotoEstimator(Fixed())
    with pytest.raises(UnusableImage, match="5 x 5 pixels are too few"):
        estimate(np.zeros((5, 5, 3), np.uint8), fov=60)
    with pytest.raises(ValueError, match="K and fov"):
        estimate(np.zeros((480, 640, 3), np.uint8), K=K, fov=60)
    assert Photo("a", None, np.zeros((48, 64, 3), np.uint8)).beside("_K.npy") is None


def test_predictions_hold_each_name_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_images, "open_tools", lambda _: PhotoEstimator(Fixed()))
    for name in ("two.mpo", "a.ppm"):
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    run_images.image_demo(arguments("--images", str(tmp_path), "--output", str(tmp_path / "out")))
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert [(entry["file"], entry["status"]) for entry in entries] == [("a.ppm", "ok"), ("two.mpo", "ok")]


def test_what_an_earlier_run_left_of_a_picture_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_images, "open_tools", lambda _: PhotoEstimator(Fixed()))
    words = arguments("--images", str(picture(tmp_path / "a.png")), "--output", str(tmp_path / "out"))
    run_images.image_demo(words)
    left = {path.name for path in (tmp_path / "out").iterdir()}
    further = tmp_path / "out" / "further_hands"
    further.mkdir()
    for name in ("a_2_mesh.ply", "a_3_plot.jpg", "a_2_2_mesh.ply"):  # the last one is of a picture called a_2
        (further / name).touch()
    (tmp_path / "a.png").write_bytes(b"no picture")
    run_images.image_demo(words)
    assert left - {path.name for path in (tmp_path / "out").iterdir()} == {"a_mesh.ply", "a_mesh.glb", "a_plot.jpg"}
    assert [path.name for path in further.iterdir()] == ["a_2_2_mesh.ply"]


def test_files_are_what_they_hold_whatever_they_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 48), (200, 10, 10)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "jpeg.heic")
    assert read_photo(tmp_path / "jpeg.heic").image[0, 0, 0] > 190
    (tmp_path / "heic.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnusableImage, match="HEIC is read where pillow-heif is installed"):
        read_photo(tmp_path / "heic.jpg")
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(48, 0)
    Image.fromarray(ramp).save(tmp_path / "white.tif", tiffinfo={262: 0})
    np.testing.assert_allclose(read_photo(tmp_path / "white.tif").image[0, :, 0], 255 - ramp[0] / 257, atol=1)


def test_two_demos_do_not_write_to_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_images, "open_tools", lambda _: PhotoEstimator(Fixed()))
    words = arguments("--images", str(picture(tmp_path / "a.png")), "--output", str(tmp_path / "out"))
    with locked(tmp_path / "out" / run_images.LOCK), pytest.raises(LockedError, match="out is in use"):
        run_images.image_demo(words)
    assert not list((tmp_path / "out").iterdir())
    assert run_images.image_demo(words).counts == (1, 0) and not (tmp_path / "out" / run_images.LOCK).exists()


def test_a_lock_is_held_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with locked(tmp_path / "lock"), pytest.raises(LockedError), locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "lock").exists()


def test_a_detector_that_breaks_is_not_a_picture_without_a_hand(tmp_path: Path) -> None:
    def broken(_: np.ndarray) -> list:
        raise RuntimeError("no such model file")

    picture(tmp_path / "a.png")
    with pytest.raises(CalibrationError, match="1 of them failed .first: a.png: RuntimeError: no such model file"):
        find_photo_hands(tmp_path, finder=broken)
