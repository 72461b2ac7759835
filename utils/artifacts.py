"""The two files that pass between commands: predictions (`.npz`) and an identity (`.json`).

Both carry a schema version and the hash of the hand model they were made with, so that numbers of
one hand are never fed to another. Reading executes nothing (``allow_pickle=False``; plain JSON).
Everything is in the right-hand convention: a left hand is mirrored and flagged by ``is_left``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from utils.files import atomic_path, write_json

PREDICTIONS_SCHEMA = 1
IDENTITY_SCHEMA = 1
SIDES = ("right", "left", "both")

#: Rows of `Predictions`: shape behind N, dtype on disk, whether the array must be there.
ROW_ARRAYS: dict[str, tuple[tuple[int, ...], type, bool]] = {
    "image_id": ((), np.int64, True),
    "subject_id": ((), np.int64, True),
    "sequence_id": ((), np.int64, True),
    "is_left": ((), np.bool_, True),
    "K": ((3, 3), np.float32, True),
    "pose": ((16, 3, 3), np.float32, False),
    "betas": ((10,), np.float32, False),
    "transl": ((3,), np.float32, False),
    "confidence": ((), np.float32, False),
    "keypoints_2d": ((21, 2), np.float32, False),
    "keypoint_confidence": ((21,), np.float32, False),
}
META_FIELDS = ("model_name", "model_hash", "hand_name", "hand_hash", "dataset", "split")


class ArtifactError(ValueError):
    """A predictions or identity file (or object) is not what it should be."""


class HandMismatchError(ArtifactError):
    """The file was made with another hand model than the one in use."""


class HandLike(Protocol):
    """What a hand-hash check needs of `template.HandAssets` (which this floor cannot import)."""

    name: str
    hash: str


def model_hash(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Short SHA-256 (12 hex digits) of a state dict: names, dtypes, shapes and values, any device or order."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _check_hand(found_name: str, found_hash: str, assets: HandLike, what: str) -> None:
    if found_hash != assets.hash:
        raise HandMismatchError(
            f"{what} was made with the hand model {found_name!r} (hash {found_hash}), but the one in use is "
            f"{assets.name!r} (hash {assets.hash}): betas of one mean nothing in the other. "
            "Use the same --mano_dir as when it was made, or make it again with this hand model."
        )


def _checked_array(name: str, value: Any, shape: tuple[int, ...], dtype: type, where: str) -> np.ndarray:
    """``value`` as a finite array of ``shape`` (None stands for any length) and ``dtype``."""
    array = np.asarray(value)
    if len(array.shape) != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape)):
        raise ArtifactError(f"{where}: {name} has shape {array.shape}; it must be {shape} (None: any length)")
    if dtype in (np.int64, np.bool_):
        allowed = "iu" if dtype is np.int64 else "b"
        if array.dtype.kind not in allowed:
            raise ArtifactError(f"{where}: {name} has dtype {array.dtype}; it must be {np.dtype(dtype).name}")
    elif array.dtype.kind not in "fiu":
        raise ArtifactError(f"{where}: {name} has dtype {array.dtype}; it must be real numbers")
    elif not np.isfinite(array).all():
        first = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise ArtifactError(
            f"{where}: {name}{list(first)} is {array[first]}; every value must be finite. Predict these samples again."
        )
    return array.astype(dtype)


@dataclass
class Predictions:
    """What a network (or the fitting) said about N samples; one row a sample, right-hand convention.

    Arrays may be given as tensors' ``.numpy()`` or lists; they are checked and converted.

    Attributes:
        image_id, subject_id, sequence_id: (N,) int64, the official numbers of `datasets/sample.py`.
            image_id is unique.
        is_left: (N,) bool, the original was a left hand and this row is its mirror image.
        K: (N,3,3) float32 pixels, of the full (mirrored, if is_left) image.
        pose: (N,16,3,3) float32 rotation matrices, mean pose included | None.
        betas: (N,10) float32 | None.
        transl: (N,3) float32 metres, camera frame, MANO's free translation | None.
        confidence: (N,) float32, higher means trust more, no unit | None.
        keypoints_2d: (N,21,2) float32 pixels of the full (mirrored, if is_left) image | None.
        keypoint_confidence: (N,21) float32 in [0, 1] | None.
        model_name, model_hash: which network, and `model_hash` of its weights.
        hand_name, hand_hash: `HandAssets.name` and `.hash` that pose and betas belong to.
        dataset, split: where the samples come from.

    Raises:
        ArtifactError: on a wrong shape, dtype or value; it names the array and the value.
    """

    image_id: np.ndarray
    subject_id: np.ndarray
    sequence_id: np.ndarray
    is_left: np.ndarray
    K: np.ndarray
    pose: np.ndarray | None = None
    betas: np.ndarray | None = None
    transl: np.ndarray | None = None
    confidence: np.ndarray | None = None
    keypoints_2d: np.ndarray | None = None
    keypoint_confidence: np.ndarray | None = None
    model_name: str = ""
    model_hash: str = ""
    hand_name: str = ""
    hand_hash: str = ""
    dataset: str = ""
    split: str = ""
    source: str = field(default="Predictions", repr=False, compare=False)  # the file, for messages

    def __post_init__(self) -> None:
        rows = np.asarray(self.image_id).shape[:1]
        if not rows:
            raise ArtifactError(f"{self.source}: image_id must be a (N,) array, not {self.image_id!r}")
        for name, (tail, dtype, required) in ROW_ARRAYS.items():
            value = getattr(self, name)
            if value is None and not required:
                continue
            setattr(self, name, _checked_array(name, value, (*rows, *tail), dtype, self.source))
        ids, counts = np.unique(self.image_id, return_counts=True)
        if (counts > 1).any():
            raise ArtifactError(f"{self.source}: image_id {ids[counts > 1][0]} occurs more than once")
        confidence = self.keypoint_confidence
        if confidence is not None and confidence.size and (confidence.min() < 0 or confidence.max() > 1):
            raise ArtifactError(
                f"{self.source}: keypoint_confidence spans [{confidence.min():g}, {confidence.max():g}]; "
                "it must lie in [0, 1]"
            )

    def __len__(self) -> int:
        return len(self.image_id)

    def check_hand(self, assets: HandLike) -> None:
        """Raise HandMismatchError unless these predictions belong to the hand model ``assets``."""
        _check_hand(self.hand_name, self.hand_hash, assets, self.source)

    def select(self, rows: np.ndarray) -> Predictions:
        """The given rows (a boolean mask (N,) or indices), in that order, as new Predictions."""
        arrays = {name: getattr(self, name) for name in ROW_ARRAYS}
        return dataclasses.replace(
            self, **{name: None if array is None else array[rows] for name, array in arrays.items()}
        )


def save_predictions(path: str | os.PathLike, predictions: Predictions) -> None:
    """Write ``predictions`` to a `.npz` of plain arrays, atomically."""
    arrays = {name: getattr(predictions, name) for name in ROW_ARRAYS if getattr(predictions, name) is not None}
    meta = {name: np.array(getattr(predictions, name)) for name in META_FIELDS}
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, schema=np.array(PREDICTIONS_SCHEMA), **meta, **arrays)


def load_predictions(path: str | os.PathLike) -> Predictions:
    """Read what `save_predictions` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is not such a file, of another schema, or holds wrong values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"predictions file {path} does not exist; write it with run.py --phase predict")
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, TypeError) as error:
        raise ArtifactError(f"{path} is not a readable .npz of plain arrays ({error}); predict again") from error
    if "schema" not in content:
        raise ArtifactError(f"{path} has no key 'schema' (it has {sorted(content)}); it is not a predictions file")
    schema = int(content.pop("schema"))
    if schema != PREDICTIONS_SCHEMA:
        raise ArtifactError(f"{path}: schema is {schema}, this code reads {PREDICTIONS_SCHEMA}; predict again")
    missing = [name for name, (*_, required) in ROW_ARRAYS.items() if required and name not in content]
    if missing:
        raise ArtifactError(f"{path}: the keys {missing} are missing; predict again")
    meta = {name: str(content.pop(name, "")) for name in META_FIELDS}
    unknown = sorted(set(content) - set(ROW_ARRAYS))
    if unknown:
        raise ArtifactError(f"{path}: unknown keys {unknown}; known are {list(ROW_ARRAYS)}")
    return Predictions(**content, **meta, source=str(path))


@dataclass
class Identity:
    """The shape of one person's hand, small enough to read: what calibration finds out.

    Attributes:
        betas: (10,) float64, shape coefficients of the hand model named below.
        side: 'right', 'left', or 'both' where images of both hands were used.
        method: how betas were obtained, e.g. 'mean', 'top-k', 'confidence', 'least-squares', 'true'.
        n_images: number of images used; image_ids: their official numbers (may be empty).
        hand_length_mm: of the zero-pose hand, wrist to middle fingertip; hand_length_std_mm: its
            standard deviation under ``covariance``, or None.
        covariance: (10,10) float64 of betas, symmetric positive semi-definite, or None.
        hand_name, hand_hash: `HandAssets.name` and `.hash`.
        subject_id: official subject number or None.
        created_by: the command that made it.
        scale_evidence: what fixes the absolute size: 'prior', 'ruler', 'cameras', ...

    Raises:
        ArtifactError: on a wrong shape or value; it names it.
    """

    betas: np.ndarray
    hand_name: str
    hand_hash: str
    hand_length_mm: float
    side: str = "right"
    method: str = ""
    n_images: int = 0
    image_ids: list[int] = field(default_factory=list)
    covariance: np.ndarray | None = None
    hand_length_std_mm: float | None = None
    subject_id: int | None = None
    created_by: str = ""
    scale_evidence: str = "prior"
    source: str = field(default="Identity", repr=False, compare=False)

    def __post_init__(self) -> None:
        self.betas = _checked_array("betas", self.betas, (10,), np.float64, self.source)
        if self.side not in SIDES:
            raise ArtifactError(f"{self.source}: side is {self.side!r}; it must be one of {SIDES}")
        self.hand_length_mm = float(_checked_array("hand_length_mm", self.hand_length_mm, (), np.float64, self.source))
        if not 50.0 < self.hand_length_mm < 400.0:
            raise ArtifactError(f"{self.source}: hand_length_mm is {self.hand_length_mm:g}; millimetres are meant")
        if self.hand_length_std_mm is not None:
            std = _checked_array("hand_length_std_mm", self.hand_length_std_mm, (), np.float64, self.source)
            self.hand_length_std_mm = float(std)
        if self.covariance is not None:
            self.covariance = _checked_array("covariance", self.covariance, (10, 10), np.float64, self.source)
            scale = max(float(np.abs(self.covariance).max()), 1e-12)
            if not np.allclose(self.covariance, self.covariance.T, atol=1e-6 * scale):
                raise ArtifactError(f"{self.source}: covariance is not symmetric")
            smallest = float(np.linalg.eigvalsh(self.covariance).min())
            if smallest < -1e-6 * scale:
                raise ArtifactError(f"{self.source}: covariance has the negative eigenvalue {smallest:g}")
        self.image_ids = [int(image_id) for image_id in self.image_ids]
        self.n_images = int(self.n_images)
        self.subject_id = None if self.subject_id is None else int(self.subject_id)

    def check_hand(self, assets: HandLike) -> None:
        """Raise HandMismatchError unless this identity belongs to the hand model ``assets``."""
        _check_hand(self.hand_name, self.hand_hash, assets, f"identity {self.source}")


def save_identity(path: str | os.PathLike, identity: Identity) -> None:
    """Write ``identity`` as JSON that a person can read, atomically."""
    covariance = identity.covariance
    content = {
        "schema": IDENTITY_SCHEMA,
        "betas": [round(float(value), 6) for value in identity.betas],
        "hand_length_mm": round(identity.hand_length_mm, 3),
        "hand_length_std_mm": identity.hand_length_std_mm and round(identity.hand_length_std_mm, 3),
        "side": identity.side,
        "subject_id": identity.subject_id,
        "method": identity.method,
        "n_images": identity.n_images,
        "scale_evidence": identity.scale_evidence,
        "hand_model": {"name": identity.hand_name, "hash": identity.hand_hash},
        "created_by": identity.created_by,
        "image_ids": identity.image_ids,
        "covariance": None if covariance is None else covariance.tolist(),
    }
    write_json(path, content)


def load_identity(path: str | os.PathLike, side: str | None = None) -> Identity:
    """Read what `save_identity` wrote; then call `Identity.check_hand` before using the betas.

    Args:
        side: if given, refuse an identity of the other side ('both' suits either).

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is not such a file, of another schema or side, or holds wrong values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"identity file {path} does not exist; calibrate_from_shape_params.py writes one")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); calibrate again") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} holds a {type(content).__name__}, not an identity; calibrate again")
    schema = content.pop("schema", None)
    if schema != IDENTITY_SCHEMA:
        raise ArtifactError(f"{path}: schema is {schema}, this code reads {IDENTITY_SCHEMA}; calibrate again")
    hand = content.pop("hand_model", None)
    if not isinstance(hand, dict) or not {"name", "hash"} <= set(hand):
        raise ArtifactError(f"{path}: hand_model is {hand!r}; it must hold 'name' and 'hash'")
    try:
        identity = Identity(**content, hand_name=hand["name"], hand_hash=hand["hash"], source=str(path))
    except TypeError as error:
        raise ArtifactError(f"{path}: {error}; calibrate again") from error
    if side is not None and identity.side not in (side, "both"):
        raise ArtifactError(f"{path}: side is {identity.side!r}, but a {side} hand is asked for")
    return identity
