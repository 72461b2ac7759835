"""The two files that pass between commands: predictions (`.npz`) and an identity (`.json`).

Both carry a schema version and the hash of the hand model they were made with, so that numbers of
one hand are never fed to another. Reading executes nothing (``allow_pickle=False``; plain JSON).
Everything is in the right-hand convention: a left hand is mirrored and flagged by ``is_left``.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.artifact_checks import ArtifactError, HandMismatchError, OfHand, checked_array, model_hash
from utils.files import READ_ERRORS, atomic_path, read_reason
from utils.identity import Identity, load_identity, save_identity
from utils.short_repr import ShortRepr

__all__ = [
    "ArtifactError",
    "HandMismatchError",
    "Identity",
    "Predictions",
    "load_identity",
    "load_predictions",
    "model_hash",
    "save_identity",
    "save_predictions",
]

PREDICTIONS_SCHEMA = 1
#: Of an image's confidence, which has no unit: networks stay below 100.
MAX_CONFIDENCE = 1e6
MAX_BETA = 1000.0  # people's lie within some 5
MAX_SKEW = 0.02  # of R R^T from the identity, which a pose in half precision keeps


META_FIELDS = ("model_name", "model_hash", "hand_name", "hand_hash", "dataset", "split", "joint_definition", "camera")


def _row(shape: tuple[int, ...], dtype: type) -> dict[str, Any]:
    """What a field of `Predictions` holds for each of N samples: shape behind N, dtype on disk."""
    return {"row": (shape, dtype)}


@dataclass(repr=False)
class Predictions(ShortRepr, OfHand):
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
        vertices: (N,778,3) float32 metres, axes of the camera, relative to the row's own wrist (joint 0) | None.
            Networks that predict meshes give these instead of pose and betas.
        joints: (N,21,3) float32 metres, the same frame, standard order, so joints[:, 0] is zero | None; there if
            vertices are.
        root: (N,3) float32 metres, camera frame, where that wrist is: vertices + root is in the camera frame | None.
        status: (N,) int64, what became of finding ``transl`` or ``root`` (`src.personalization.solver.status.Status`);
            of rows that are not `usable` they are a guess | None where nothing was looked for.
        readable: (N,) bool, False: the picture could not be read, and a black one was predicted; not measured | None:
            all could.
        joints_3d: (N,21,3) float32 metres, camera axes, about the wrist, standard order, by an estimator whose scale
            is a guess (`src.estimators`); bound to no mesh, unlike ``joints`` | None.
        image_name: (N,) text, the picture's name; two hands of one picture share it | None.
        image_size: (N,2) int64 px, width and height of the picture | None.
        model_name, model_hash: which network, and `model_hash` of its weights.
        hand_name, hand_hash: `HandAssets.name` and `.hash` that pose and betas belong to.
        dataset, split: where the samples come from.
        joint_definition: how ``joints`` were made of vertices, e.g. "regressed, tips freihand".
        camera: where K is from: "given", "made up by NAME" (an estimator's own) | "" where the data set has it.

    Raises:
        ArtifactError: on a wrong shape, dtype or value; it names the array and the value.
    """

    image_id: np.ndarray = field(metadata=_row((), np.int64))
    subject_id: np.ndarray = field(metadata=_row((), np.int64))
    sequence_id: np.ndarray = field(metadata=_row((), np.int64))
    is_left: np.ndarray = field(metadata=_row((), np.bool_))
    K: np.ndarray = field(metadata=_row((3, 3), np.float32))
    pose: np.ndarray | None = field(default=None, metadata=_row((16, 3, 3), np.float32))
    betas: np.ndarray | None = field(default=None, metadata=_row((10,), np.float32))
    transl: np.ndarray | None = field(default=None, metadata=_row((3,), np.float32))
    confidence: np.ndarray | None = field(default=None, metadata=_row((), np.float32))
    keypoints_2d: np.ndarray | None = field(default=None, metadata=_row((21, 2), np.float32))
    keypoint_confidence: np.ndarray | None = field(default=None, metadata=_row((21,), np.float32))
    vertices: np.ndarray | None = field(default=None, metadata=_row((778, 3), np.float32))
    joints: np.ndarray | None = field(default=None, metadata=_row((21, 3), np.float32))
    root: np.ndarray | None = field(default=None, metadata=_row((3,), np.float32))
    status: np.ndarray | None = field(default=None, metadata=_row((), np.int64))
    readable: np.ndarray | None = field(default=None, metadata=_row((), np.bool_))
    joints_3d: np.ndarray | None = field(default=None, metadata=_row((21, 3), np.float32))
    image_name: np.ndarray | None = field(default=None, metadata=_row((), np.str_))
    image_size: np.ndarray | None = field(default=None, metadata=_row((2,), np.int64))
    model_name: str = ""
    model_hash: str = ""
    hand_name: str = ""
    hand_hash: str = ""
    dataset: str = ""
    split: str = ""
    joint_definition: str = ""
    camera: str = ""
    source: str = field(default="Predictions", repr=False, compare=False)  # the file, for messages

    def __post_init__(self) -> None:
        rows = np.asarray(self.image_id).shape[:1]
        if not rows:
            raise ArtifactError(f"{self.source}: image_id must be a (N,) array, not {self.image_id!r}")
        for name, (tail, dtype, required) in ROW_ARRAYS.items():
            value = getattr(self, name)
            if value is None and not required:
                continue
            setattr(self, name, checked_array(name, value, (*rows, *tail), dtype, self.source))
        if (self.vertices is None) != (self.joints is None) or (self.root is not None and self.joints is None):
            raise ArtifactError(f"{self.source}: vertices and joints belong together, and root belongs to them")
        ids, counts = np.unique(self.image_id, return_counts=True)
        if (counts > 1).any():
            raise ArtifactError(f"{self.source}: image_id {ids[counts > 1][0]} occurs more than once")
        if self.confidence is not None and np.abs(self.confidence).max(initial=0.0) > MAX_CONFIDENCE:
            raise ArtifactError(
                f"{self.source}: confidence spans [{self.confidence.min():g}, {self.confidence.max():g}]; beyond "
                f"{MAX_CONFIDENCE:g} it is no network's. Predict again"
            )
        if self.betas is not None and np.abs(self.betas).max(initial=0.0) > MAX_BETA:
            row = int(np.abs(self.betas).max(axis=1).argmax())
            raise ArtifactError(
                f"{self.source}: betas of image {self.image_id[row]} reach {np.abs(self.betas).max():g}; beyond "
                f"{MAX_BETA:g} they are no hand's. Predict again"
            )
        if self.pose is not None and len(self) and (bad := np.flatnonzero(~_are_rotations(self.pose))).size:
            raise ArtifactError(
                f"{self.source}: pose of image {self.image_id[bad[0]]} is not made of rotation matrices "
                f"({bad.size} of {len(self)} images); predict again"
            )
        confidence = self.keypoint_confidence
        if confidence is not None and confidence.size and (confidence.min() < 0 or confidence.max() > 1):
            raise ArtifactError(
                f"{self.source}: keypoint_confidence spans [{confidence.min():g}, {confidence.max():g}]; "
                "it must lie in [0, 1]"
            )

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def images_of(self) -> str:
        """Data set and split that ``image_id`` counts in."""
        return f"{self.dataset} {self.split}".strip()

    def select(self, rows: np.ndarray) -> Predictions:
        """The given rows (a boolean mask (N,) or indices), in that order, as new Predictions."""
        whole = {name: getattr(self, name) for name in ROW_ARRAYS}
        part: dict[str, Any] = {name: None if array is None else array[rows] for name, array in whole.items()}
        return dataclasses.replace(self, **part)


def _are_rotations(pose: np.ndarray) -> np.ndarray:
    """(N,) bool: all matrices of (N,16,3,3) are rotations, to the precision of half floats."""
    apart = np.abs(pose @ np.swapaxes(pose, -1, -2) - np.eye(3, dtype=pose.dtype)).max(axis=(1, 2, 3))
    return (apart < MAX_SKEW) & (np.linalg.det(pose) > 0).all(axis=1)


#: Rows of `Predictions`: shape behind N, dtype on disk, whether the array must be there.
ROW_ARRAYS: dict[str, tuple[tuple[int, ...], type, bool]] = {
    entry.name: (*entry.metadata["row"], entry.default is dataclasses.MISSING)
    for entry in dataclasses.fields(Predictions)
    if entry.metadata
}


def save_predictions(path: str | os.PathLike, predictions: Predictions) -> None:
    """Write ``predictions`` to a `.npz` of plain arrays, atomically."""
    values = {name: getattr(predictions, name) for name in (*ROW_ARRAYS, *META_FIELDS)}
    arrays: dict[str, Any] = {name: np.array(value) for name, value in values.items() if value is not None}
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, schema=np.array(PREDICTIONS_SCHEMA), **arrays)


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
            content: dict[str, Any] = {name: archive[name] for name in archive.files}
    except READ_ERRORS as error:
        reason = read_reason(error)
        raise ArtifactError(f"{path} is not a readable .npz of plain arrays ({reason}); predict again") from error
    if "schema" not in content:
        raise ArtifactError(f"{path} has no key 'schema' (it has {sorted(content)}); it is not a predictions file")
    schema = content.pop("schema")
    if schema.shape != () or schema.dtype.kind not in "iu" or int(schema) != PREDICTIONS_SCHEMA:
        raise ArtifactError(f"{path}: schema is {schema!s:.40}, this code reads {PREDICTIONS_SCHEMA}; predict again")
    missing = [name for name, (*_, required) in ROW_ARRAYS.items() if required and name not in content]
    if missing:
        raise ArtifactError(f"{path}: the keys {missing} are missing; predict again")
    meta: dict[str, Any] = {name: str(content.pop(name, "")) for name in META_FIELDS}
    unknown = sorted(set(content) - set(ROW_ARRAYS))
    if unknown:
        raise ArtifactError(f"{path}: unknown keys {unknown}; known are {list(ROW_ARRAYS)}")
    return Predictions(**content, **meta, source=str(path))
