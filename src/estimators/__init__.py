"""Other estimators' results: `read_estimates` into `Predictions`, `write_estimates` back into the same keys.

A format is one module with SIGNS (keys that tell it), ``read`` and ``update``, and one row of `formats.FORMATS`. What
each writes and which conventions it has: docs/estimators.md. Files are read, never run; no package of theirs is
imported. `reader.Reader` gives the files one by one, for more of them than memory holds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from src.estimators.formats import FORMATS
from src.estimators.reader import Reader
from src.estimators.records import EstimateFormatError
from src.estimators.writer import write_file
from utils.artifacts import Predictions

__all__ = ["FORMATS", "EstimateFormatError", "Reader", "read_estimates", "write_estimates", "write_file"]


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
    reader = Reader(path, format, K=K, image_size=image_size, images=images, side=side, sides=sides, unit=unit,
                    fov=fov, subjects=subjects)  # fmt: skip
    return reader.predictions(
        [row for number in range(len(reader.files)) for row in reader.rows(reader.open(number)[1])]
    )


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
        ValueError: rows that the source lacks, or ``path`` is the source or of another kind; else as `read_estimates`.
    """
    source, path = Path(source), Path(path)
    if path.resolve() == source.resolve():
        raise ValueError(f"{path} is the source; write to another place")
    if source.is_file() and path.suffix.lower() != source.suffix.lower():
        raise ValueError(f"{path} ends in {path.suffix!r}; it is written as the source is, with {source.suffix!r}")
    reader = Reader(source, format, **read_options)
    first = np.cumsum([0, *(len(reader.rows(reader.open(number)[1])) for number in range(len(reader.files)))])
    if strange := [number for number in personalised.image_id.tolist() if not 0 <= number < first[-1]]:
        raise ValueError(f"image_id {min(strange)} is not in {source}, which has {first[-1]} hands")
    lines = []
    for number, file in enumerate(reader.files):
        target = path if source.is_file() else path / file.name
        lines += write_file(reader, number, int(first[number]), target, personalised)
    return lines
