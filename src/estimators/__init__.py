"""Other estimators' results: `read_estimates` into `Predictions`, `write_estimates` back into the same keys.

A format is one module with SIGNS (keys that tell it), ``read`` and ``update``, and one row of `FORMATS`. What each
writes and which conventions it has: docs/estimators.md. Files are read, never run; no package of theirs is imported.
"""

from __future__ import annotations

import copy
import importlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from src.estimators.files import list_files, load, save
from src.estimators.records import EstimateFormatError, Hand, MissingKeyError, Options, check_centre, flip_x, pinhole
from src.estimators.subjects import name_subjects
from utils.artifacts import Predictions
from utils.camera import mirror_intrinsics

#: Name of a format -> its module.
FORMATS = {
    "hamer": "src.estimators.hamer",
    "wilor": "src.estimators.hamer",
    "wilor_mini": "src.estimators.wilor_mini",
    "fasthamer": "src.estimators.fasthamer",
    "hawor": "src.estimators.hawor",
    "sam3d_body": "src.estimators.sam3d_body",
    "mediapipe": "src.estimators.mediapipe",
    "frankmocap": "src.estimators.frankmocap",
    "mmpose": "src.estimators.mmpose",
    "joints": "src.estimators.joints",
}

__all__ = ["FORMATS", "EstimateFormatError", "read_estimates", "write_estimates"]


def read_estimates(
    path: str | os.PathLike,
    format: str,
    *,
    K: np.ndarray | None = None,
    image_size: tuple[int, int] | None = None,
    images: str | os.PathLike | None = None,
    side: str | None = None,
    sides: str | None = None,
    unit: str = "m",
    fov: float | None = None,
    subjects: str | os.PathLike = "column",
) -> Predictions:
    """Hands of another estimator, right-hand convention; ``image_id`` counts them in the order of the files.

    Pose and betas carry their hand model's name without a hash, so `Predictions.check_hand` refuses them for any hand.

    Args:
        path: a file, or a folder of files (npz, pt, pkl, json, csv, pbtxt).
        format: a name of `FORMATS`.
        K: (3,3) px, the real camera of the pictures as they are. None: the estimator's own, made-up focal length.
        image_size: width, height px of the pictures, where the file does not say.
        images: folder of the pictures: sizes are taken from them, and compared with the file's.
        side: "left" or "right", of files that name none. sides: "mirror" or "subject", how MediaPipe named them.
        unit: "m" or "mm", of plain 3D joints.
        fov: degrees of view across the longer side, instead of K.
        subjects: who is who: "column" (as the file says, else one person), "file" (each file is a person), "one", or a
            CSV with the columns image, subject.

    Raises:
        FileNotFoundError: no file. ValueError: an unknown format or option.
        EstimateFormatError: a file is not of this format (it says which key is missing and what it looks like), has
            numbers that are not finite or pictures of another size, or no file has a hand.
    """
    options = Options(side, sides, unit, image_size)
    found = []
    for number, (_, _, hands) in enumerate(_files(path, format, options, images)):
        for hand in hands:
            hand.subject = {"file": number, "one": 0}.get(str(subjects), hand.subject)
        found += hands
    if str(subjects) not in ("column", "file", "one"):
        name_subjects(found, Path(subjects))
    return _predictions(found, format, K if fov is None else fov, images, str(path))


def write_estimates(
    path: str | os.PathLike,
    personalised: Predictions,
    source: str | os.PathLike,
    format: str,
    **read_options: Any,
) -> list[str]:
    """Write ``source`` again with what ``personalised`` changed, in the same keys, types and conventions.

    A file in which nothing changed is copied byte for byte. Points, pose and betas are written; pose and betas only if
    they are of the estimator's own hand model. The estimator's camera is solved so that its 3D points are seen where
    the 2D points are; meshes are left as they are, and listed.

    Args:
        path: file, or folder if ``source`` is one; may not be the source.
        personalised: rows of `read_estimates` of the same source, by ``image_id``, changed.
        source, format, read_options: as `read_estimates` had them.

    Returns:
        A line for every hand that changed: picture, side, keys.

    Raises:
        ValueError: rows that the source lacks, or ``path`` is the source; else as `read_estimates`.
    """
    source, path = Path(source), Path(path)
    if path.resolve() == source.resolve():
        raise ValueError(f"{path} is the source; write to another place")
    released = read_estimates(source, format, **read_options)
    row_of = {int(number): row for row, number in enumerate(personalised.image_id)}
    if strange := set(row_of) - set(released.image_id.tolist()):
        raise ValueError(f"image_id {min(strange)} is not in {source}, which has {len(released)} hands")
    given, images = read_options.get, read_options.get("images")
    options = Options(given("side"), given("sides"), given("unit", "m"), given("image_size"))
    lines: list[str] = []
    number = 0
    for file, content, hands in _files(source, format, options, images, own_copy=True):
        before = len(lines)
        for hand in hands:
            row = row_of.get(number)
            changed = [] if row is None else _update(format, hand, released, number, personalised, row)
            if changed:
                lines.append(f"{hand.name}: {', '.join(changed)}")
            number += 1
        target = path if source.is_file() else path / file.name
        if len(lines) == before:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        else:
            save(target, content)
    return lines


def _module(format: str) -> ModuleType:
    if format not in FORMATS:
        raise ValueError(f"format {format!r} is unknown; known are {', '.join(FORMATS)}")
    return importlib.import_module(FORMATS[format])


def _files(
    path: str | os.PathLike, format: str, options: Options, images: str | os.PathLike | None, own_copy: bool = False
) -> Iterator[tuple[Path, Any, list[Hand]]]:
    """Each file with its content and its hands."""
    module = _module(format)
    for file in list_files(path):
        content = load(file)
        content = copy.deepcopy(content) if own_copy else content
        sized = options
        if images is not None and options.size is None and (size := _picture_size(images, file.stem)):
            sized = replace(options, size=size)
        try:
            yield file, content, module.read(content, file.stem, str(file), sized)
        except MissingKeyError as error:
            raise EstimateFormatError(f"{error}: not a file of {format}. {_looks_like(content, format)}") from error


def _looks_like(content: Any, format: str) -> str:
    keys = set(_keys(content))
    scores = {name: len(keys & set(_module(name).SIGNS)) for name in FORMATS if FORMATS[name] != FORMATS[format]}
    best = max(scores, key=lambda name: scores[name])
    return f"It looks like {best!r}: read it with format={best!r}" if scores[best] > 1 else "Check the file's format"


def _keys(content: Any) -> Iterable[str]:
    """Names in the upper levels, list items seen through."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield str(key).split(".")[0]
            if isinstance(value, (dict, list)):
                yield from _keys(value)
    elif isinstance(content, (list, tuple)) and content and isinstance(content[0], (dict, list)):
        yield from _keys(content[0])


def _picture_size(images: str | os.PathLike, name: str) -> tuple[int, int] | None:
    folder = Path(images)
    for file in [folder / name, *(folder / f"{name}{suffix}" for suffix in (".jpg", ".jpeg", ".png"))]:
        if file.is_file():
            with Image.open(file) as picture:
                return picture.size
    return None


def _predictions(
    hands: list[Hand], format: str, K: np.ndarray | float | None, images: str | os.PathLike | None, source: str
) -> Predictions:
    if not hands:
        raise EstimateFormatError(f"{source}: no hand in any of its pictures; there is nothing to read")
    names = {hand.hand_name for hand in hands}
    if len(names) > 1:
        raise EstimateFormatError(f"{source}: hands of several hand models ({sorted(names)}); read them apart")
    for hand in hands:
        real = None if images is None else _picture_size(images, hand.image)
        if real is not None and hand.size is not None and real != tuple(hand.size):
            raise EstimateFormatError(
                f"{source}: {hand.name} was estimated on {hand.size[0]} x {hand.size[1]} px, the picture has "
                f"{real[0]} x {real[1]}; give the pictures that were estimated on"
            )
        hand.size = hand.size or real
    rows = [_row(hand, K, source) for hand in hands]
    count = np.arange(len(hands))
    columns: dict[str, Any] = {
        key: np.stack([row[key] for row in rows]) if all(row[key] is not None for row in rows) else None
        for key in rows[0]
    }
    return Predictions(
        image_id=count,
        subject_id=np.array([hand.subject for hand in hands]),
        sequence_id=np.zeros_like(count),
        is_left=np.array([hand.is_left for hand in hands]),
        image_name=np.array([hand.image for hand in hands]),
        image_size=None if any(hand.size is None for hand in hands) else np.array([hand.size for hand in hands]),
        **columns,
        model_name=format,
        hand_name=names.pop(),
        camera="given" if K is not None or format == "joints" else f"made up by {format}",
        source=source,
    )


def _row(hand: Hand, K: np.ndarray | float | None, source: str) -> dict[str, Any]:
    """A hand as a row of `Predictions`: left ones mirrored with their K and keypoints."""
    if isinstance(K, float | int):
        if hand.size is None:
            raise EstimateFormatError(f"{source}: {hand.name}: fov needs the picture's size; give image_size or images")
        K = pinhole(max(hand.size) / (2 * np.tan(np.radians(K) / 2)), *((side - 1) / 2 for side in hand.size))
    camera = hand.K if K is None else np.asarray(K, dtype=np.float64)
    if camera is None:
        raise EstimateFormatError(
            f"{source}: K is needed, this format has no camera and without one no hand has a place; give K=(3,3) px"
        )
    if camera.shape != (3, 3) or not np.isfinite(camera).all():
        raise ValueError(f"K is {camera.tolist()}; it must be a finite (3,3) matrix, px")
    if K is not None and hand.size is not None:
        check_centre(camera, hand.size, f"{source}: {hand.name}")
    pixels, joints = hand.keypoints_2d, hand.joints_3d
    joints = None if joints is None else joints - joints[0]
    if hand.is_left:
        if hand.size is None:
            raise EstimateFormatError(
                f"{source}: {hand.name}: its picture's width is needed to mirror it; give image_size=(width, height)"
            )
        camera = mirror_intrinsics(camera, hand.size[0])
        pixels = None if pixels is None else _mirror_pixels(pixels, hand.size[0])
        joints = None if joints is None else flip_x(joints)
    return {
        "K": camera, "keypoints_2d": pixels, "keypoint_confidence": hand.confidence, "joints_3d": joints,
        "pose": hand.pose, "betas": hand.betas,
    }  # fmt: skip


def _mirror_pixels(pixels: np.ndarray, width: int) -> np.ndarray:
    mirrored = pixels.copy()
    mirrored[..., 0] = width - 1 - pixels[..., 0]
    return mirrored


def _update(format: str, hand: Hand, released: Predictions, old: int, changed: Predictions, row: int) -> list[str]:
    """Write what differs of one hand into its entry; the keys that changed."""
    if bool(changed.is_left[row]) != hand.is_left:
        raise ValueError(f"{hand.name}: is_left of image_id {old} was changed; rows must be those that were read")
    new = Hand(hand.entry, hand.index, hand.is_left, hand.image, hand.size)
    for key in ("keypoints_2d", "joints_3d", "pose", "betas"):
        before, after = getattr(released, key), getattr(changed, key)
        if before is None or after is None or np.array_equal(before[old], after[row]):
            continue
        if key in ("pose", "betas") and changed.hand_name != hand.hand_name:
            continue
        value = after[row].astype(np.float64)
        if key == "keypoints_2d" and hand.is_left:
            assert hand.size is not None
            value = _mirror_pixels(value, hand.size[0])
        elif key == "joints_3d":
            assert hand.joints_3d is not None
            value = (flip_x(value) if hand.is_left else value) + hand.joints_3d[0]
        setattr(new, key, value)
    keys = list(dict.fromkeys(_module(format).update(hand, new)))
    stale = [key for key in ("pred_vertices", "vertices", "pred_vertices_smpl") if hand.entry.has(key)]
    return [*keys, *(f"{key} as it was" for key in stale)] if keys else []
