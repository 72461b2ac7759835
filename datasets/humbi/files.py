"""HUMBI's hand files on disk (docs/facts.md 5): cameras, crops and reconstructions as text."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.bad_files import bad_file, possible_intrinsics, possible_poses, possible_rotation
from datasets.crop_cache import state_of
from utils.files import READ_ERRORS

CROP = 250
"""Width and height of every published crop, pixels."""

#: Its image folders are empty in the official release.
SKIPPED_SUBJECTS = (52,)

_SUBJECT_FOLDER = re.compile(r"subject_(\d{1,6})")
_FRAME_FOLDER = re.compile(r"\d{8}")
_HEADER_LINES = 3
_LARGEST = 100_000  # of the numbers in list.txt; the images have 1920 x 1080 pixels
_HOW_TO_GET = (
    "Give the folder that holds subject_<n>/hand/ (official: https://humbi-data.net), or write a synthetic one with "
    "python -m datasets.synthetic.humbi_writer --root DIR"
)


class Camera(NamedTuple):
    """One camera of a subject's recording: p_camera = R (p_world - centre)."""

    K: np.ndarray  # (3, 3) px of the 1920x1080 image
    R: np.ndarray  # (3, 3)
    centre: np.ndarray  # (3,) metres, world


class Crop(NamedTuple):
    """A row of list.txt: which camera, and the box of the 1920x1080 image that was resized to 250x250."""

    camera: int
    xmin: int
    xmax: int
    ymin: int
    ymax: int


class Reconstruction(NamedTuple):
    """A frame's right hand in the world, float64."""

    vertices: np.ndarray  # (778, 3) metres
    mano: np.ndarray  # (36,) translation, global axis-angle, 20 PCA coefficients, betas


def find_subjects(root: Path) -> list[int]:
    """Numbers of the subjects with a ``hand`` folder, without `SKIPPED_SUBJECTS`, in increasing order.

    Raises:
        FileNotFoundError: if the root is missing or holds none.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"data root {root} does not exist. {_HOW_TO_GET}")
    numbers = [
        int(match[1])
        for match in (_SUBJECT_FOLDER.fullmatch(path.name) for path in root.iterdir())
        if match and (root / match[0] / "hand").is_dir()
    ]
    if not numbers:
        raise FileNotFoundError(f"data root {root} holds no folder like subject_1/hand. {_HOW_TO_GET}")
    return sorted(set(numbers) - set(SKIPPED_SUBJECTS))


def split_subjects(subjects: list[int]) -> dict[str, list[int]]:
    """Subjects of each split, in increasing order.

    ``split_5`` is the paper's main one: subjects shuffled with seed 0, the first 90 % to train on. Its permutation
    was not published; ours is that of Python's ``random.Random(0).shuffle`` on the sorted numbers. ``s0`` is the
    same with a validation part: the last tenth of those to train on. Every part has at least one subject.
    """
    shuffled = list(subjects)
    random.Random(0).shuffle(shuffled)
    held_out = max(1, round(0.1 * len(shuffled)))
    train, test = shuffled[:-held_out], shuffled[-held_out:]
    validation = max(1, round(0.1 * len(train)))
    splits = {
        "split_5_train": train,
        "split_5_test": test,
        "s0_train": train[:-validation],
        "s0_val": train[-validation:],
        "s0_test": test,
    }
    return {name: sorted(numbers) for name, numbers in splits.items()}


def hand_folder(root: Path, subject: int) -> Path:
    """A subject's folder of hand data."""
    return root / f"subject_{subject}" / "hand"


def frame_names(folder: Path) -> list[str]:
    """Names of the frame folders of a subject's hand folder, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and _FRAME_FOLDER.fullmatch(path.name))


def image_name(camera: int) -> str:
    """File name of a camera's crop."""
    return f"image{camera:07d}.png"


def read_cameras(folder: Path) -> dict[int, Camera]:
    """The cameras of a subject's hand folder, by id.

    Raises:
        FileNotFoundError: if intrinsic.txt or extrinsic.txt is missing.
        BadFileError: if one is misshapen or holds no rotations.
    """
    intrinsics = _read_blocks(folder / "intrinsic.txt", (3, 3))
    extrinsics = _read_blocks(folder / "extrinsic.txt", (4, 3))
    cameras = {}
    for number, block in extrinsics.items():
        if number in intrinsics:
            if not possible_rotation(block[1:]):
                raise bad_file(folder / "extrinsic.txt", f"camera {number} has no rotation matrix")
            if not possible_intrinsics(intrinsics[number]):
                raise bad_file(folder / "intrinsic.txt", f"camera {number} has impossible numbers")
            cameras[number] = Camera(intrinsics[number], block[1:], block[0])
    return cameras


def read_crops(path: Path) -> list[Crop]:
    """The rows ``cam xmin xmax ymin ymax`` of a list.txt.

    Raises:
        FileNotFoundError: if it is missing.
        BadFileError: if a row is not five whole numbers, its box is empty, or its camera has a row already.
    """
    crops = []
    for line in _read_text(path).splitlines():
        if line.strip():
            try:
                numbers = [float(part) for part in line.split()]
                crop = Crop(*map(int, numbers))
            except READ_ERRORS as error:
                raise bad_file(path, f"row {line[:80]!r} is not: cam xmin xmax ymin ymax") from error
            if list(crop) != numbers:
                raise bad_file(path, f"row {line!r} has numbers that are not whole")
            if crop.camera in [other.camera for other in crops]:
                raise bad_file(path, f"lists camera {crop.camera} twice")
            if crop.xmax <= crop.xmin or crop.ymax <= crop.ymin:
                raise bad_file(path, f"row {line!r} has an empty box")
            if max(map(abs, crop)) > _LARGEST:
                raise bad_file(path, f"row {line!r} has numbers beyond {_LARGEST} px")
            crops.append(crop)
    return crops


def read_reconstruction(folder: Path) -> Reconstruction | None:
    """The right hand of a ``reconstruction`` folder; None if the frame has none.

    Raises:
        BadFileError: if a file does not hold as many finite numbers as it must.
    """
    paths = folder / "vertices_r.txt", folder / "mano_params_r.txt"
    if not all(path.is_file() for path in paths):
        return None
    vertices, mano = (_read_numbers(path, shape) for path, shape in zip(paths, ((778, 3), (36,)), strict=True))
    if not possible_poses(mano[None, 3:26], paths[1]).all():
        raise bad_file(paths[1], "holds a pose that no hand has")
    return Reconstruction(vertices, mano)


def crop_affine_of(crop: Crop) -> np.ndarray:
    """Affine (2, 3) from px of the 1920x1080 image to px of the published crop: each axis has its own scale.

    u' = (u - xmin) 250 / (xmax - xmin), and likewise for v, as HUMBI defines it.
    """
    along_x, along_y = CROP / (crop.xmax - crop.xmin), CROP / (crop.ymax - crop.ymin)
    return np.array([[along_x, 0.0, -crop.xmin * along_x], [0.0, along_y, -crop.ymin * along_y]])


def fingerprint(root: Path, subjects: list[int]) -> str:
    """Short hash of what these subjects consist of on disk: times of camera files and of folders of frames."""
    watched = []
    for subject in subjects:
        folder = hand_folder(root, subject)
        watched += [folder / "intrinsic.txt", folder / "extrinsic.txt"]
        for name in frame_names(folder):
            watched += [folder / name / "image_cropped" / "right", folder / name / "reconstruction"]
    return state_of(root, watched, hashlib.sha256(str(subjects).encode()))


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the data set is only half copied. {_HOW_TO_GET}")
    return path.read_text(encoding="utf-8", errors="replace")


def _read_numbers(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        values = np.array(_read_text(path).replace(",", " ").split(), dtype=np.float64).reshape(shape)
    except ValueError as error:
        raise bad_file(path, f"does not hold {' x '.join(map(str, shape))} numbers") from error
    if not np.isfinite(values).all():
        raise bad_file(path, "holds NaN or infinity")
    return values


def _read_blocks(path: Path, shape: tuple[int, int]) -> dict[int, np.ndarray]:
    """Camera id -> matrix, of a file with a header and then, a camera, a line that ends in its id and the rows."""
    lines = [line.split() for line in _read_text(path).splitlines()[_HEADER_LINES:] if line.strip()]
    rows = shape[0]
    blocks = {}
    for start in range(0, len(lines), rows + 1):
        try:
            number = int(lines[start][-1])
            block = np.array(lines[start + 1 : start + 1 + rows], dtype=np.float64).reshape(shape)
        except READ_ERRORS as error:
            raise bad_file(path, f"camera block {start // (rows + 1)} is not an id and {rows} rows of 3") from error
        if not np.isfinite(block).all():
            raise bad_file(path, f"camera {number} holds NaN or infinity")
        if number in blocks:
            raise bad_file(path, f"lists camera {number} twice")
        blocks[number] = block
    if not blocks:
        raise bad_file(path, "lists no camera")
    return blocks
