"""The result files of the three official servers: written with checks, and read back with the same ones.

| server   | file              | content                                                                    |
|----------|-------------------|----------------------------------------------------------------------------|
| FreiHAND | pred.json in zip  | [xyz N x 21 x 3, verts N x 778 x 3], m, OpenCV camera frame, standard order |
| HO-3D    | pred.json in zip  | the same lists, m, **OpenGL** frame, **MANO order, tips behind**             |
| DexYCB   | text              | one line an image: id, then 63 numbers in **mm**, both sides, un-mirrored    |

Formats: docs/facts.md 2, 3.3, 4. All functions here take and give metres, the OpenCV camera frame and the
standard order; the conversions are theirs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from src.evaluation.submission_checks import (
    SubmissionError,
    check_distance,
    check_hands,
    check_order,
    check_points,
    check_sides,
)
from utils.files import READ_ERRORS, atomic_path
from utils.joints import MANO_TO_STANDARD, STANDARD_TO_MANO

logger = logging.getLogger(__name__)

#: Images of the official evaluation sets; a file of another length is for a local evaluator only.
OFFICIAL_COUNTS = {"freihand": 3960, "ho3d_v2": 11524, "ho3d_v3": 20137}
DEXYCB_FIELDS = 64
OPENGL = np.array([1.0, -1.0, -1.0])
ARCHIVE_MEMBER = "pred.json"
DECIMALS_METRES = 9  # 1e-6 mm, so that an evaluator's numbers are ours to that precision
DECIMALS_MILLIMETRES = 6


def unmirror(points: np.ndarray, is_left: np.ndarray) -> np.ndarray:
    """Points (N,P,3), m, of our right-hand convention in the original images' camera frame: x -> -x of left hands."""
    signs = np.ones((len(points), 1, 3))
    signs[np.asarray(is_left, dtype=bool), :, 0] = -1.0
    return points * signs


def write_lists(
    path: str | os.PathLike,
    kind: str,
    joints: np.ndarray,
    vertices: np.ndarray,
    names: Sequence[str] | np.ndarray,
    expected: Sequence[str] | np.ndarray,
    strict: bool = True,
) -> tuple[Path, Path]:
    """Write FreiHAND's or HO-3D's list to ``path`` (`.json`) and the server's flat zip beside it; returns both paths.

    Args:
        kind: of `OFFICIAL_COUNTS`.
        joints: (N,21,3) metres, OpenCV camera frame, **standard** order; vertices: (N,778,3) likewise.
        names: of each row, its number in FreiHAND, 'SEQ/ID' in HO-3D; expected: of all images, in the official order.
        strict: False for points whose unit, axes and order are known (predictions of this code): if they do not
            look like hands, the network is bad, which is said in the log and no reason to write nothing.

    Raises:
        SubmissionError: naming the row or the quantity that the server would not take.
    """
    path, count = Path(path), len(expected)
    _check_kind(kind)
    check_order(names, expected, f"{kind} {path}")
    if path.suffix != ".json":
        raise SubmissionError(f"{path} must end in .json; the zip is written beside it")
    if count != OFFICIAL_COUNTS[kind]:
        logger.warning("%s has %d rows; the %s server takes %d", path, count, kind, OFFICIAL_COUNTS[kind])
    joints = check_points(joints, count, 21, f"{kind} joints")
    vertices = check_points(vertices, count, 778, f"{kind} vertices")
    _judge(joints, vertices, names, f"{kind} {path}", strict)
    if kind.startswith("ho3d"):
        joints, vertices = joints[:, list(STANDARD_TO_MANO)] * OPENGL, vertices * OPENGL
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as handle:
        handle.write("[")
        for separator, points in (("", joints), (", ", vertices)):  # row by row: v3 as one list would need gigabytes
            handle.write(f"{separator}[")
            for row, sample in enumerate(np.round(points, DECIMALS_METRES)):
                handle.write((", " if row else "") + json.dumps(sample.tolist(), allow_nan=False))
            handle.write("]")
        handle.write("]")
    archive = path.with_suffix(".zip")
    with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.write(path, ARCHIVE_MEMBER)
    return path, archive


def write_dexycb(
    path: str | os.PathLike,
    joints: np.ndarray,
    image_id: np.ndarray,
    is_left: np.ndarray,
    expected_ids: np.ndarray,
    strict: bool = True,
) -> Path:
    """Write DexYCB's hand-pose text file (setups s0 to s3).

    Args:
        joints: (N,21,3) metres, camera frame, standard order, **our right-hand convention**: rows
            with ``is_left`` (N,) are mirrored back here.
        image_id: (N,) official ids (docs/facts.md 1.7) in rising order.
        expected_ids: the ids the evaluator asks for: every sample of the split with a valid hand,
            both sides, every frame. More ids than these are allowed.
        strict: as of `write_lists`.

    Raises:
        SubmissionError: naming the row, or the ids that are missing.
    """
    what = f"DexYCB {path}"
    image_id = np.asarray(image_id)
    joints = check_points(joints, len(image_id), 21, what)
    _judge(joints, None, image_id, what, strict)
    _check_dexycb_ids(image_id, expected_ids, what)
    if np.shape(is_left) != image_id.shape:
        raise SubmissionError(f"{what}: is_left has shape {np.shape(is_left)}; it must be {image_id.shape}")
    with _verdict(strict):
        check_sides(joints, np.asarray(is_left, dtype=bool), what)
    rows = unmirror(joints, is_left).reshape(-1, DEXYCB_FIELDS - 1) * 1000
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as handle:
        for number, row in zip(image_id.tolist(), rows, strict=True):
            handle.write(",".join([str(number), *(f"{value:.{DECIMALS_MILLIMETRES}f}" for value in row)]) + "\n")
    return Path(path)


def read_lists(
    path: str | os.PathLike, kind: str, count: int | None = None, strict: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Read and check FreiHAND's or HO-3D's JSON or zip: joints (N,21,3) **standard** order, vertices (N,778,3), OpenCV
    camera frame, metres.

    Raises:
        SubmissionError: if the server would not take it; ``count`` defaults to the official one of ``kind``.
    """
    path = Path(path)
    _check_kind(kind)
    count = OFFICIAL_COUNTS[kind] if count is None else count
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as bundle:
                if bundle.namelist() != [ARCHIVE_MEMBER]:
                    raise SubmissionError(f"{path} holds {bundle.namelist()}; it must hold {ARCHIVE_MEMBER} alone")
                text = bundle.read(ARCHIVE_MEMBER).decode("ascii")
        else:
            text = path.read_text(encoding="ascii")
        content = json.loads(text)
    except (SubmissionError, FileNotFoundError):
        raise
    except READ_ERRORS as error:
        raise SubmissionError(f"{path} is not JSON, or no zip of it: {error}") from error
    if not isinstance(content, list) or len(content) != 2:
        raise SubmissionError(f"{path} must be a list of two lists: joints and vertices")
    lists = []
    for name, rows, size in (("joints", content[0], 21), ("vertices", content[1], 778)):
        try:
            points = np.asarray(rows, dtype=np.float64)
        except READ_ERRORS as error:
            raise SubmissionError(f"{path}: the {name} do not form an array: {error}") from error
        lists.append(check_points(points, count, size, f"{path} {name}"))
    joints, vertices = lists
    if kind.startswith("ho3d"):
        joints, vertices = joints[:, list(MANO_TO_STANDARD)] * OPENGL, vertices * OPENGL
    _judge(joints, vertices, np.arange(count), f"{kind} {path}", strict)
    return joints, vertices


def read_dexycb(
    path: str | os.PathLike, expected_ids: np.ndarray | None = None, strict: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Read and check DexYCB's text file: ids (N,), joints (N,21,3) metres, camera frame, un-mirrored."""
    lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    ids, rows = np.zeros(len(lines), np.int64), np.zeros((len(lines), DEXYCB_FIELDS - 1))
    for number, line in enumerate(lines):
        fields = line.split(",")
        if len(fields) != DEXYCB_FIELDS:
            raise SubmissionError(f"{path} line {number + 1} has {len(fields)} fields; it must have {DEXYCB_FIELDS}")
        try:
            ids[number], rows[number] = int(fields[0]), [float(value) for value in fields[1:]]
        except (ValueError, OverflowError) as error:
            raise SubmissionError(f"{path} line {number + 1}: {error}") from error
    joints = check_points(rows.reshape(-1, 21, 3) / 1000, len(lines), 21, f"DexYCB {path}")
    _check_dexycb_ids(ids, ids if expected_ids is None else expected_ids, f"DexYCB {path}")
    _judge(joints, None, ids, f"DexYCB {path}", strict)
    return ids, joints


def _judge(
    joints: np.ndarray, vertices: np.ndarray | None, names: Sequence[str] | np.ndarray, what: str, strict: bool
) -> None:
    """`check_hands`, whose verdict is only logged unless ``strict``, and then `check_distance`."""
    with _verdict(strict):
        check_hands(joints, vertices, what)
    for points in (joints, vertices):
        if points is not None:
            check_distance(points, names, what)


@contextlib.contextmanager
def _verdict(strict: bool) -> Iterator[None]:
    """Around checks whose verdict is only logged unless ``strict``."""
    try:
        yield
    except SubmissionError as error:
        if strict:
            raise
        logger.warning("the network's output does not look like hands, and the server will score it so: %s", error)


def _check_kind(kind: str) -> None:
    if kind not in OFFICIAL_COUNTS:
        raise SubmissionError(f"{kind!r} is unknown; it must be one of {', '.join(OFFICIAL_COUNTS)}")


def _check_dexycb_ids(ids: np.ndarray, expected: np.ndarray, what: str) -> None:
    if len(ids) == 0:
        raise SubmissionError(f"{what}: no prediction")
    steps = np.diff(ids)
    if (steps <= 0).any():
        row = int(np.flatnonzero(steps <= 0)[0]) + 1
        raise SubmissionError(f"{what}: row {row} (image {ids[row]}) follows {ids[row - 1]}; ids must rise, once each")
    missing = np.setdiff1d(expected, ids)
    if len(missing):
        raise SubmissionError(
            f"{what}: {len(missing)} of {len(np.unique(expected))} images are missing, first {missing[:3].tolist()}; "
            "the evaluator wants both hand sides and every frame (--side both)"
        )
