"""The identity file: one person's hand shape as a small JSON that a person can read and keep."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.artifact_checks import ArtifactError, OfHand, checked_array
from utils.files import READ_ERRORS, once_each, write_text
from utils.short_repr import ShortRepr

IDENTITY_SCHEMA = 1
#: Half of a Gaussian's central 95%, in standard deviations.
HALF_95 = 1.959964
SIDES = ("right", "left", "both")
#: m, by which no detector's point lies elsewhere on one hand than on others.
MOST_OWN = 0.05


@dataclass(repr=False, eq=False)
class Identity(ShortRepr, OfHand):
    """The shape of one person's hand, small enough to read: what calibration finds out.

    Attributes:
        betas: (10,) float64, shape coefficients of the hand model named below.
        side: 'right', 'left', or 'both' where images of both hands were used.
        method: how betas were obtained, e.g. 'mean', 'top-k', 'confidence', 'least-squares', 'true'.
        n_images: number of images used; image_ids: their official numbers (may be empty), which count within
            ``images_of``, data set and split ("": not known), of merged files of several a list, one for each number.
        hand_length_mm: of the zero-pose hand, wrist to middle fingertip; hand_length_std_mm: its
            standard deviation under ``covariance``, or None.
        covariance: (10,10) float64 of betas, symmetric positive semi-definite, or None.
        hand_name, hand_hash: `HandAssets.name` and `.hash`.
        subject_id: official subject number or None.
        created_by: the command that made it.
        scale_evidence: what fixes the absolute size: 'prior', 'ruler', 'cameras', ...
        evidence: what several files of a person may share and must count once when they are merged: "prior" (hash of
            the population), "errors_repeat", "network" (mean predicted betas, images), "cues" ([name, mm, std_mm]);
            and "repeats", what was assumed of images that repeat each other: "views" and "videos", what all images and
            views of a video have "in_common" of their errors, and how many independent images they are "worth".
        landmarks: by source of keypoints, (21,3) m: how far its points lie on this hand from where they lie on others
            (`LandmarkModel.offsets`), which is no property of the hand alone.

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
    evidence: dict[str, Any] = field(default_factory=dict)
    images_of: str | list[str] = ""
    landmarks: dict[str, np.ndarray] = field(default_factory=dict)
    source: str = field(default="Identity", repr=False, compare=False)

    def __post_init__(self) -> None:
        self.betas = checked_array("betas", self.betas, (10,), np.float64, self.source)
        if self.side not in SIDES:
            raise ArtifactError(f"{self.source}: side is {self.side!r}; it must be one of {SIDES}")
        self.hand_length_mm = float(checked_array("hand_length_mm", self.hand_length_mm, (), np.float64, self.source))
        if not 50.0 < self.hand_length_mm < 400.0:
            raise ArtifactError(f"{self.source}: hand_length_mm is {self.hand_length_mm:g}; millimetres are meant")
        if self.hand_length_std_mm is not None:
            std = checked_array("hand_length_std_mm", self.hand_length_std_mm, (), np.float64, self.source)
            self.hand_length_std_mm = float(std)
            if self.hand_length_std_mm < 0:
                raise ArtifactError(f"{self.source}: hand_length_std_mm is {std:g}; a standard deviation is positive")
        if self.covariance is not None:
            self.covariance = checked_array("covariance", self.covariance, (10, 10), np.float64, self.source)
            scale = max(float(np.abs(self.covariance).max()), 1e-12)
            if not np.allclose(self.covariance, self.covariance.T, atol=1e-6 * scale):
                raise ArtifactError(f"{self.source}: covariance is not symmetric")
            smallest = float(np.linalg.eigvalsh(self.covariance).min())
            if smallest < -1e-6 * scale:
                raise ArtifactError(f"{self.source}: covariance has the negative eigenvalue {smallest:g}")
        if isinstance(self.image_ids, str | dict) or not isinstance(self.image_ids, Iterable):
            raise ArtifactError(f"{self.source}: image_ids is {self.image_ids!r}; a list of whole numbers is meant")
        self.image_ids = [self._whole("image_ids", image_id) for image_id in self.image_ids]
        self.n_images = self._whole("n_images", self.n_images)
        if self.n_images < 0:
            raise ArtifactError(f"{self.source}: n_images is {self.n_images}; it must not be negative")
        if not isinstance(self.evidence, dict):
            raise ArtifactError(f"{self.source}: evidence is {self.evidence!r}; an object is meant")
        if not isinstance(self.landmarks, dict):
            raise ArtifactError(f"{self.source}: landmarks is {self.landmarks!r}; an object is meant")
        self.landmarks = {
            name: checked_array(f"landmarks {name}", own, (21, 3), np.float64, self.source)
            for name, own in self.landmarks.items()
        }
        for name, own in self.landmarks.items():
            if np.abs(own).max() > MOST_OWN:
                raise ArtifactError(
                    f"{self.source}: landmarks of {name} lie {1000 * np.abs(own).max():.0f} mm off; at most "
                    f"{1000 * MOST_OWN:.0f} are meant"
                )
        self.subject_id = None if self.subject_id is None else self._whole("subject_id", self.subject_id)
        of = self.images_of
        if not isinstance(of, str) and not (
            isinstance(of, list) and len(of) == len(self.image_ids) and all(isinstance(one, str) for one in of)
        ):
            raise ArtifactError(f"{self.source}: images_of is {of!r}; text, or a list as long as image_ids, is meant")
        for name in ("hand_name", "hand_hash", "method", "created_by", "scale_evidence"):
            if not isinstance(getattr(self, name), str):
                raise ArtifactError(f"{self.source}: {name} is {getattr(self, name)!r}; text is meant")

    def _whole(self, name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ArtifactError(f"{self.source}: {name} is or holds {value!r}; a whole number is meant")
        return int(value)

    def images(self) -> list[tuple[int, str]]:
        """Each of ``image_ids`` with the data set and split that it counts within; "": not known."""
        of = [self.images_of] * len(self.image_ids) if isinstance(self.images_of, str) else self.images_of
        return list(zip(self.image_ids, of, strict=True))

    @property
    def length_mm(self) -> float:
        """Of the stretched hand, wrist to middle fingertip, mm."""
        return self.hand_length_mm

    @property
    def interval_mm(self) -> tuple[float, float] | None:
        """The central 95% of `length_mm`, mm; None where no covariance tells it."""
        if self.hand_length_std_mm is None:
            return None
        return self.length_mm - HALF_95 * self.hand_length_std_mm, self.length_mm + HALF_95 * self.hand_length_std_mm

    def save(self, path: str | os.PathLike) -> None:
        """`save_identity`."""
        save_identity(path, self)


def save_identity(path: str | os.PathLike, identity: Identity) -> None:
    """Write ``identity`` as JSON that a person can read, atomically.

    A hand's shape tells people apart: only the file's owner may read it, whatever the umask says.
    """
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
        "evidence": identity.evidence,
        "image_ids": identity.image_ids,
        "images_of": identity.images_of,
        "covariance": None if covariance is None else covariance.tolist(),
    }
    if identity.landmarks:
        content["landmarks_mm"] = {name: (1000 * own).round(2).tolist() for name, own in identity.landmarks.items()}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_text(path, text, private=True)


def load_identity(path: str | os.PathLike, side: str | None = None) -> Identity:
    """Read what `save_identity` wrote; then call `Identity.check_hand` before using the betas.

    Args:
        path: the file, or a folder with a single one.
        side: if given, refuse an identity of the other side ('both' suits either).

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is not such a file, of another schema or side, or holds wrong values.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if len(files) != 1:
            said, whose = ", ".join(file.name for file in files[:8]) or "none", f" of a {side} hand" if side else ""
            raise ArtifactError(f"{path} is a folder with {len(files)} identity files ({said}); name the one{whose}")
        (path,) = files
    if not path.is_file():
        raise FileNotFoundError(f"identity file {path} does not exist; calibrate_from_shape_params.py writes one")
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a mark before it
        content = json.loads(text, object_pairs_hook=once_each)
    except READ_ERRORS as error:
        raise ArtifactError(f"{path} is not JSON ({error}); calibrate again") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} holds a {type(content).__name__}, not an identity; calibrate again")
    schema = content.pop("schema", None)
    if schema != IDENTITY_SCHEMA:
        raise ArtifactError(f"{path}: schema is {schema}, this code reads {IDENTITY_SCHEMA}; calibrate again")
    hand = content.pop("hand_model", None)
    if not isinstance(hand, dict) or not {"name", "hash"} <= set(hand):
        raise ArtifactError(f"{path}: hand_model is {hand!r}; it must hold 'name' and 'hash'")
    if "side" not in content:
        raise ArtifactError(f"{path}: does not say of which side it is (right, left, both); calibrate again")
    try:
        own = content.pop("landmarks_mm", {}).items()
        content["landmarks"] = {name: np.array(mm, dtype=np.float64) / 1000 for name, mm in own}
    except (TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: landmarks_mm are not 21 points of each source ({error})") from error
    try:
        identity = Identity(**content, hand_name=hand["name"], hand_hash=hand["hash"], source=str(path))
    except TypeError as error:
        raise ArtifactError(f"{path}: {error}; calibrate again") from error
    if side is not None and identity.side not in (side, "both"):
        raise ArtifactError(f"{path}: side is {identity.side!r}, but a {side} hand is asked for")
    return identity
