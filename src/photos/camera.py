"""Which intrinsics belong to a picture, and who says so."""

from __future__ import annotations

import functools
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.photos.image import Photo, UnusableImage, shown_name
from utils.cameras.files import read_camera
from utils.cameras.intrinsics import FOV_RANGE, MAX_OFF_CENTRE, checked_intrinsics, doubt_size
from utils.cameras.lens import CameraModel
from utils.files import READ_ERRORS, read_reason

logger = logging.getLogger(__name__)

#: Degrees across the longer side where nothing is known: phones and webcams lie between 55 and 75.
DEFAULT_FOV = 62.0
#: How the source of a camera begins of which nobody said anything.
GUESSED = "default:"
#: A stated focal length that is so many times EXIF's, or the reverse, is another lens's, or of the uncropped picture.
_OTHER_LENS = 1.2
_LARGEST_FILE = 4096  # bytes of a .npy file with nine numbers


@dataclass(frozen=True)
class Camera:
    """Intrinsics K (3,3) float64, pixels of the upright image, and where they come from.

    is_guess: nobody said anything about the lens, so distances scale with an unknown factor.
    lens: with distortion, whose K it is; None: a pinhole camera.
    """

    K: np.ndarray
    source: str
    is_guess: bool = False
    lens: CameraModel | None = None

    @property
    def model(self) -> CameraModel:
        """The lens, of a pinhole camera one without distortion."""
        return self.lens or CameraModel(self.K, np.zeros(0), source=self.source)

    def project(self, points: np.ndarray) -> np.ndarray:
        """px (...,2) of points (...,3) m in the camera frame; NaN where it does not see them."""
        return self.model.project(points)


def lens_camera(lens: str | os.PathLike | CameraModel, name: str | None = None) -> Camera:
    """The camera of a lens with distortion, or of a file or numbers that `read_camera` reads (px).

    Raises:
        FileNotFoundError, ValueError: see `read_camera`.
    """
    lens = lens if isinstance(lens, CameraModel) else read_camera(os.fspath(lens), name)
    return Camera(lens.K, f"--camera {lens.source}", lens=lens)


def choose_camera(
    photo: Photo, K: Camera | None = None, fov: float | None = None, lens: CameraModel | None = None
) -> Camera:
    """The camera of a picture: ``<name>_K.npy`` beside it, else ``lens``, ``K``, ``fov``, EXIF, or a default.

    What EXIF contradicts is logged, once of each lens: a folder may hold pictures of several.

    Args:
        photo: upright; its K file belongs to the upright image.
        K: of `parse_intrinsics`, or with a lens; fov: degrees across the longer side; lens: of `read_camera`.

    Raises:
        UnusableImage: the K file is not a camera matrix, or the camera belongs to a picture of another size.
    """
    camera = _chosen(photo, K, fov, lens)
    if photo.focal_px is not None and camera.lens is None:
        said, exif = (float(max(photo.size) / focal) for focal in (camera.K[0, 0], photo.focal_px))
        if not 1 / _OTHER_LENS < said / exif < _OTHER_LENS:
            _doubt_lens(camera.source, round(said, 2), round(exif, 2), photo.focal_source)
    return camera


@functools.lru_cache(maxsize=64)
def _doubt_lens(source: str, said: float, exif: float, exif_source: str) -> None:
    """Warn, once, of a stated lens that sees another part of its distance, across the longer side, than EXIF says."""
    degrees = [2 * math.degrees(math.atan(across / 2)) for across in (said, exif)]
    logger.warning(
        "%s: is a view of %.0f degrees across the longer side, and that of pictures here %.0f by %s: of another lens, "
        "or cropped? Distances are as wrong; give each its own NAME_K.npy, or say nothing of the lens to take EXIF's",
        source, *degrees, exif_source,
    )  # fmt: skip


def _chosen(photo: Photo, K: Camera | None, fov: float | None, lens: CameraModel | None) -> Camera:
    width, height = photo.size
    beside, lens = photo.beside("_K.npy"), K.lens if K is not None and lens is None else lens
    if lens is not None:
        if beside is not None:
            raise UnusableImage(f"{shown_name(beside)} and --camera both say what the lens is; keep one")
        return _with_lens(lens, width, height)
    if beside is not None:
        try:
            camera = Camera(read_intrinsics(beside), shown_name(beside))
        except ValueError as error:
            raise UnusableImage(str(error).replace(str(beside), shown_name(beside))) from error
        return check_size(camera, width, height)
    if K is not None:
        return check_size(K, width, height)
    if fov is not None:
        return Camera(pinhole(width, height, fov), f"--fov {fov:g}")
    if photo.focal_px is not None:
        return Camera(centred(photo.focal_px, width, height), photo.focal_source)
    doubt = f"; {photo.focal_source}" if photo.focal_source else ""
    source = f"{GUESSED} {DEFAULT_FOV:g}° across the longer side{doubt}"
    return Camera(pinhole(width, height, DEFAULT_FOV), source, True)


@functools.lru_cache(maxsize=4)
def _with_lens(lens: CameraModel, width: int, height: int) -> Camera:
    try:
        lens = lens.for_picture(width, height)
    except ValueError as error:
        raise UnusableImage(f"--camera {error}") from error
    return check_size(Camera(lens.K, f"--camera {lens.source}", lens=lens), width, height)


def check_size(camera: Camera, width: int, height: int) -> Camera:
    """The camera, if it can belong to a picture of ``width`` x ``height`` px.

    Raises:
        UnusableImage: its principal point is far from the middle, or its angle of view is none of a lens; it names
            the numbers and the remedy.
    """
    fx, fy, cx, cy = (float(value) for value in camera.K[[0, 1, 0, 1], [0, 1, 2, 2]])
    off = max(abs(cx - (width - 1) / 2) / width, abs(cy - (height - 1) / 2) / height)
    fov = math.degrees(2 * math.atan(max(width / fx, height / fy) / 2))
    if off <= MAX_OFF_CENTRE and FOV_RANGE[0] < fov < FOV_RANGE[1]:
        doubt_size(camera.source, 2 * cx + 1, 2 * cy + 1, width, height)
        return camera
    said = f"fx {fx:.4g}, fy {fy:.4g}, cx {cx:.4g}, cy {cy:.4g}"
    raise UnusableImage(
        f"{camera.source}: {said} cannot belong to a picture of {width} x {height} pixels: its centre would be "
        f"{cx:.4g}, {cy:.4g} and its view {fov:.3g}° wide. It is of a picture of about {2 * cx:.0f} x {2 * cy:.0f} "
        "pixels: multiply its first two rows by the factor by which this one was resized, or turn them alike; of a "
        "part cut out of a picture, give the whole picture and --bbox"
    )


def parse_intrinsics(text: str) -> Camera:
    """``--K``: FX,FY,CX,CY in pixels, or the path of a ``.npy`` file.

    Raises:
        FileNotFoundError, ValueError: naming the option and what it must be.
    """
    if text.endswith(".npy"):
        if not Path(text).is_file():
            raise FileNotFoundError(f"--K {text}: no such file")
        return Camera(read_intrinsics(text), f"--K {text}")
    try:
        fx, fy, cx, cy = (float(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f"--K {text}: must be FX,FY,CX,CY in pixels or a .npy file with a (3,3) matrix") from error
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return Camera(checked_intrinsics(K, f"--K {text}"), f"--K {text}")


def read_intrinsics(path: str | Path) -> np.ndarray:
    """K (3,3) float64 from a ``.npy`` file.

    Raises:
        ValueError: not such a file, or no camera matrix.
    """
    try:
        if Path(path).stat().st_size > _LARGEST_FILE:  # before its header says how much memory to take
            raise ValueError(f"it is larger than {_LARGEST_FILE} bytes")
        K = np.load(path, allow_pickle=False)
    except READ_ERRORS as error:
        raise ValueError(f"{path}: is not a .npy file of plain numbers ({read_reason(error)})") from error
    if not isinstance(K, np.ndarray):
        raise ValueError(f"{path}: is an archive of {sorted(K.files)}; it must be a .npy file with a (3,3) matrix")
    return checked_intrinsics(K, path)


def pinhole(width: int, height: int, fov: float) -> np.ndarray:
    """K of a camera that sees ``fov`` degrees across the longer side, principal point in the middle."""
    return centred(max(width, height) / 2 / math.tan(math.radians(fov) / 2), width, height)


def centred(focal: float, width: int, height: int) -> np.ndarray:
    """K of a focal length in pixels with the principal point in the middle."""
    return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
