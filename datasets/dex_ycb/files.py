"""DexYCB's files on disk (docs/facts.md 1.1 to 1.4): which are needed, what they hold, what can be wrong with them."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from datasets.bad_files import bad_file, possible_intrinsics, possible_rotation, read_npz, reading
from datasets.crop_cache import state_of
from datasets.dex_ycb.splits import OFFICIAL_SEQUENCES_PER_SUBJECT, SERIALS, SUBJECTS, Split

logger = logging.getLogger(__name__)

WIDTH, HEIGHT = 640, 480
_FARTHEST_CAMERA = 20.0  # m, from the world's origin, which is another camera

_SUBJECT_FOLDER = re.compile(r"\d{8}-subject-(\d{1,6})")
_SEQUENCE_FOLDER = re.compile(r"\d{8}_\d{6}")
_HOW_TO_GET = (
    "Give the folder that holds the subject folders and calibration/ (official: https://dex-ycb.github.io), "
    f"or write a synthetic one with python -m {__name__.removesuffix('.dex_ycb.files')}.synthetic --root DIR"
)
#: What the writer of synthetic sets leaves beside them.
DESCRIPTION = "synthetic.json"
#: Of a labels file's small arrays.
LABEL_SHAPES = {"pose_m": (1, 51), "joint_3d": (1, 21, 3), "joint_2d": (1, 21, 2)}


class _YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """The safe loader and one thing more: the plain tuples that DexYCB's calibration files contain."""


_YamlLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: tuple(loader.construct_sequence(node))
)


class SequenceFolder(NamedTuple):
    """A sequence that belongs to a split: ``path`` relative to the root, subject number (1-based), place in it."""

    path: str
    subject_id: int
    number: int


def read_yaml(path: Path) -> Any:
    """Read a YAML file, tuples allowed, nothing executed.

    Raises:
        FileNotFoundError: if it is missing, with the remedy.
        BadFileError: if it is not YAML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the data set is only half copied. {_HOW_TO_GET}")
    with reading(path, "readable as YAML"):
        try:
            return yaml.load(path.read_bytes(), Loader=_YamlLoader)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error


def find_subjects(root: Path) -> dict[int, str]:
    """Subject number (1-based) -> folder name, of all subject folders under ``root``.

    Raises:
        FileNotFoundError: if the root is missing or holds no subject folder.
        ValueError: if two folders claim the same number.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"data root {root} does not exist. {_HOW_TO_GET}")
    subjects: dict[int, str] = {}
    for folder in sorted(root.iterdir()):
        match = _SUBJECT_FOLDER.fullmatch(folder.name)
        if match is None or not folder.is_dir():
            continue
        if int(match[1]) in subjects:
            raise ValueError(f"{root} holds two folders of one subject: {subjects[int(match[1])]} and {folder.name}")
        subjects[int(match[1])] = folder.name
    if not subjects:
        raise FileNotFoundError(f"data root {root} holds no folder like {SUBJECTS[0]}. {_HOW_TO_GET}")
    return subjects


def _sequence_names(subject: Path) -> list[str]:
    return sorted(path.name for path in subject.iterdir() if path.is_dir() and _SEQUENCE_FOLDER.fullmatch(path.name))


def unusual_subjects(root: Path, split: Split) -> dict[str, int | None]:
    """Subjects of the split that do not have their 100 sequences, with how many they have, None: no folder. Image ids
    count what is there, so they are official only where there is none of them."""
    folders, unusual = find_subjects(root), {}
    for index in split.subjects:
        name = folders.get(index + 1)
        count = None if name is None else len(_sequence_names(root / name))
        if count != OFFICIAL_SEQUENCES_PER_SUBJECT:
            unusual[name or SUBJECTS[index]] = count
    return unusual


def check_official(root: Path, split: Split) -> None:
    """Raise ValueError unless image ids are the official ones, as result files need; a synthetic set's are its own."""
    unusual = unusual_subjects(root, split)
    if unusual and not (root / DESCRIPTION).is_file():
        counts = ", ".join(f"{folder} has {count or 0}" for folder, count in unusual.items())
        raise ValueError(
            f"{root}: {counts} of its {OFFICIAL_SEQUENCES_PER_SUBJECT} sequences, so image ids of {split.name} are not "
            "the official ones, which result files need; copy what is missing, and move away what is not DexYCB's"
        )


def find_sequences(root: Path, split: Split, allow_missing_subjects: bool = False) -> list[SequenceFolder]:
    """The split's sequences in the official order: subjects as the split lists them, then sorted folders.

    A split's rule on sequence indices is applied to the place among the folders that are there.

    Raises:
        FileNotFoundError: if the root, or one of the split's subjects, is missing (the latter only logs a
            warning with ``allow_missing_subjects``), or if no sequence is left.
    """
    folders, unusual = find_subjects(root), unusual_subjects(root, split)
    missing = [name for name, count in unusual.items() if count is None]
    if missing and not allow_missing_subjects:
        raise FileNotFoundError(
            f"{root} lacks {', '.join(missing)}, which split {split.name} needs. Copy the missing folders, choose "
            "another split, or pass allow_missing_subjects=True (image ids then count the present subjects only)"
        )
    if missing:
        logger.warning("%s lacks %s: image ids of %s are not official", root, ", ".join(missing), split.name)
    elif unusual and not (root / DESCRIPTION).is_file():
        counts = ", ".join(f"{folder}: {count}" for folder, count in unusual.items())
        logger.warning(
            "%s: subjects without exactly %d sequences (%s), so image ids of %s are not official",
            root, OFFICIAL_SEQUENCES_PER_SUBJECT, counts, split.name,
        )  # fmt: skip
    wanted = [index + 1 for index in split.subjects]
    if split.takes_extra_subjects:
        wanted += sorted(number for number in folders if number > len(SUBJECTS))
    sequences = [
        SequenceFolder(f"{folders[number]}/{name}", number, place)
        for number in wanted
        if number in folders
        for place, name in enumerate(_sequence_names(root / folders[number]))
        if split.keeps_sequence(place)
    ]
    if not sequences:
        raise FileNotFoundError(
            f"{root} holds no sequence of split {split.name}: the present subjects ({sorted(folders)}) have none, "
            "or too few for the split's rule on sequence numbers"
        )
    return sequences


def read_sequence_info(root: Path, sequence: SequenceFolder) -> tuple[int, bool, np.ndarray]:
    """Frame count, whether the hand is a left one, and betas (10,): of meta.yml and the calibration that it names.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        BadFileError: if one lacks what it must hold.
    """
    meta_path = root / sequence.path / "meta.yml"
    meta = read_yaml(meta_path)
    with reading(meta_path, "a mapping with num_frames, and one entry each in mano_calib and mano_sides"):
        num_frames, (calibration,), (side,) = int(meta["num_frames"]), meta["mano_calib"], meta["mano_sides"]
    if num_frames < 1:
        raise bad_file(meta_path, f"num_frames is {num_frames}")
    if side not in ("right", "left"):
        raise bad_file(meta_path, f"mano_sides is {side!r} instead of 'right' or 'left'")
    mano_path = root / "calibration" / f"mano_{calibration}" / "mano.yml"
    with reading(mano_path, "a mapping with ten betas"):
        betas = np.array(read_yaml(mano_path)["betas"], dtype=np.float32)
    if betas.shape != (10,) or not np.isfinite(betas).all():
        raise bad_file(mano_path, f"betas are not 10 finite numbers (shape {betas.shape})")
    return num_frames, side == "left", betas


def read_intrinsics(root: Path, serial: str) -> np.ndarray:
    """Colour intrinsics (3, 3) float64, pixels of the 640x480 image, of one camera.

    Raises:
        FileNotFoundError: if the calibration file is missing.
        BadFileError: if it lacks one of color: fx, fy, ppx, ppy.
    """
    path = root / "calibration" / "intrinsics" / f"{serial}_{WIDTH}x{HEIGHT}.yml"
    with reading(path, "a mapping with color: fx, fy, ppx, ppy"):
        color = read_yaml(path)["color"]
        fx, fy, cx, cy = (float(color[key]) for key in ("fx", "fy", "ppx", "ppy"))
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    if not possible_intrinsics(K):
        raise bad_file(path, f"fx, fy, ppx, ppy are {fx}, {fy}, {cx}, {cy}")
    return K


def read_extrinsics(root: Path, sequence: Path) -> dict[str, np.ndarray]:
    """Camera-to-world (4, 4) float64, m, by serial: of the calibration that a sequence's meta.yml names.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        BadFileError: if one lacks what it must hold, or a camera turned by no rotation or 20 m away.
    """
    meta_path = sequence / "meta.yml"
    meta = read_yaml(meta_path)
    with reading(meta_path, "a mapping with extrinsics", can_skip=False):
        path = root / "calibration" / f"extrinsics_{meta['extrinsics']}" / "extrinsics.yml"
    content, found = read_yaml(path), {}
    with reading(path, "a mapping with extrinsics: 12 numbers a camera", can_skip=False):
        for serial, numbers in content["extrinsics"].items():
            pose = np.eye(4)
            pose[:3] = np.array(numbers, dtype=np.float64).reshape(3, 4)
            if not np.isfinite(pose).all():
                raise ValueError(f"{serial} is not finite")
            if serial in SERIALS and not possible_rotation(pose[:3, :3]):
                raise ValueError(f"{serial} has no rotation matrix; the numbers are rows of [R|t], camera to world")
            if serial in SERIALS and np.linalg.norm(pose[:3, 3]) >= _FARTHEST_CAMERA:
                raise ValueError(f"{serial} stands at {pose[:3, 3].tolist()}, in m; are these mm? Divide them by 1000")
            found[serial] = pose
    return found


def check_camera_folder(folder: Path, num_frames: int) -> None:
    """Check that a camera folder holds the picture and the labels of every frame; warn of pictures beyond the last.

    A warning, as the official toolkit counts ``num_frames`` too, and so do official image ids.

    Raises:
        FileNotFoundError: naming the first file that is missing.
    """
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    for frame in range(num_frames):
        for name in (color_name(frame), labels_name(frame)):
            if name not in present:
                raise FileNotFoundError(
                    f"{folder / name} is missing (meta.yml promises {num_frames} frames): the data set is only half "
                    f"copied. {_HOW_TO_GET}"
                )
    if color_name(num_frames) in present:
        logger.warning(
            "%s holds %d pictures, but meta.yml promises %d frames: the others are left out and not counted in image "
            "ids. Remove them, or copy meta.yml again", folder, count_frames(folder), num_frames,
        )  # fmt: skip


def count_frames(folder: Path) -> int:
    """Frames of a camera folder by its pictures, for a sequence whose meta.yml is unusable."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sum(name.startswith("color_") and name.endswith(".jpg") for name in names)


def color_name(frame: int) -> str:
    return f"color_{frame:06d}.jpg"


def labels_name(frame: int) -> str:
    return f"labels_{frame:06d}.npz"


def read_labels(path: Path) -> dict[str, np.ndarray]:
    """The small arrays of a labels file, float32: pose_m (51,), joint_3d (21, 3), joint_2d (21, 2).

    The segmentation mask beside them is not decompressed.

    Raises:
        BadFileError: if the file is truncated, lacks a key, or holds a wrong shape, NaN or infinity.
    """
    labels = read_npz(path, LABEL_SHAPES)
    return {key: array[0].astype(np.float32) for key, array in labels.items()}


def fingerprint(root: Path, split: Split, sequences: list[SequenceFolder]) -> str:
    """Short hash of what the split consists of on disk, without opening its files.

    It covers the times of calibration files, meta.yml and camera folders (which change when a file is added, removed
    or replaced by renaming) and their names below the root: a data set that is moved, or copied with its times
    (``cp -a``, ``rsync -a``), keeps it. A labels file that is rewritten in place escapes it: delete the cache after
    doing that.
    """
    digest = hashlib.sha256(f"{split.name} {split.serials}".encode())
    watched = sorted((root / "calibration").rglob("*.yml"))
    if (root / DESCRIPTION).is_file():
        watched.append(root / DESCRIPTION)
    for sequence in sequences:
        folder = root / sequence.path
        watched += [folder / "meta.yml", *(folder / serial for serial in split.serials)]
    return state_of(root, watched, digest)
