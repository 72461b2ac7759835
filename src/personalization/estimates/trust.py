"""How far an estimator's numbers are to be trusted: a small JSON that a person can read, ``weights/trust_NAME.json``.

The shipped ones were measured on simulated people with the errors that the estimators' papers publish, not on the
estimators; each says so. ``python -m src.engine.estimates.measure_trust`` makes one from labelled data.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from src.personalization.calibration.population import CalibrationOptions, Population
from src.personalization.fitting.fit import PosePriorOptions
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.terms.noise import KeypointNoise
from template import HandAssets
from utils.artifact_checks import ArtifactError
from utils.files import write_json

logger = logging.getLogger(__name__)

TRUST_SCHEMA = 2
MAKE = "python -m src.engine.estimates.measure_trust"
_WEIGHTS = Path(__file__).resolve().parents[3] / "weights"


#: Formats whose errors are taken for another's until they are measured.
LIKE = {
    "wilor_mini": "wilor", "hawor": "wilor", "fasthamer": "hamer", "frankmocap": "hamer", "mmpose": "mediapipe",
    "joints": "mediapipe",
}  # fmt: skip


#: Estimators whose 2D points are their 3D points' projection. What their proportions say of a person is what the
#: estimator's betas say already, in every image the same: all images together tell as much as one. With ``shared``
#: instead, zero-pose errors of 44 simulated people, none of the benchmark's, were 3.7 mm, so they are 3.5 mm
#: (SAM-3D-Body-like); HaMeR-like 3.4 and 3.2 mm.
PROJECTED = ("hamer", "wilor", "sam3d_body")


def is_projected(name: str) -> bool:
    """Whether a format is of `PROJECTED`, or of an estimator that is like one of them."""
    return LIKE.get(name, name) in PROJECTED


@dataclass(frozen=True)
class Trust:
    """Errors of one estimator, Gaussian.

    Attributes:
        name: of the format (`src.estimators.FORMATS`).
        basis: what the numbers rest on, in words.
        hand_hash: the hand model that betas and rotations were measured with.
        keypoint_std_box: of a 2D coordinate over the larger side of the hand's box.
        joint_std_mm: of a coordinate of the 3D joints, centre and scale at their best.
        shared: in [0,1], the part of the images' errors that all images of a person share.
        root_std, finger_std: rad, of an axis of the hand's orientation and of the finger joints: of the estimator's
            rotations, or of those that its 3D joints give.
        shape_gain: (10) what its betas, or those of its 3D joints, see of a person's deviation from the mean.
        shape_offset: (10) what they say of the mean person, less what is true: MAP fits to noisy joints make hands
            small, and an estimator's mean person is that of its training.
        shape_shared_std, shape_std: (10) of those betas: what all images of a person share, and of one image.
    """

    name: str
    basis: str
    hand_hash: str
    keypoint_std_box: float
    joint_std_mm: float
    shared: float
    root_std: float
    finger_std: float
    shape_gain: list[float]
    shape_offset: list[float]
    shape_shared_std: list[float]
    shape_std: list[float]

    def __post_init__(self) -> None:
        for item in fields(self)[3:]:
            value, size = getattr(self, item.name), (10,) if item.name.startswith("shape") else ()
            numbers = np.asarray(value, dtype=np.float64) if not isinstance(value, str) else np.array(np.nan)
            if numbers.shape != size or not np.isfinite(numbers).all():
                raise ArtifactError(f"trust in {self.name!r}: {item.name} is {value!r}; {size or 'a number'} is meant")
            if item.name not in ("shape_gain", "shape_offset") and not (numbers > 0).all():
                raise ArtifactError(f"trust in {self.name!r}: {item.name} is {value!r}; it must be positive")
        if self.shared > 1:
            raise ArtifactError(f"trust in {self.name!r}: shared is {self.shared}; it lies in (0, 1]")

    def save(self, path: str | os.PathLike) -> None:
        """Write the JSON, atomically."""
        write_json(path, {"schema": TRUST_SCHEMA, **asdict(self)})

    def population(self, people: Population, assets: HandAssets) -> Population:
        """People's shapes, and what the estimator's betas say of them; of another hand's betas the average."""
        lists = (np.array(value) for value in (self.shape_gain, self.shape_shared_std, self.shape_std))
        measured = assets.hash == self.hand_hash  # another hand's betas have other meanings and signs
        gain, shared, std = (v if measured else np.full(10, v.mean()) for v in lists)
        offset = np.array(self.shape_offset) if measured else np.zeros(10)
        return replace(
            people.shapes_only(),
            network_gain=np.diag(gain),
            network_offset=(1 - gain) * people.betas_mean + offset,
            network_systematic=np.diag(shared**2),
            network_noise=np.diag(std**2),
        )

    def options(
        self, assets: HandAssets, people: Population, landmarks: LandmarkModel | None = None
    ) -> CalibrationOptions:
        """What is believed of its images, spreads in rad; ``landmarks``: where its points lie on the hand."""
        return CalibrationOptions(
            prior=PosePriorOptions(self.root_std, self.finger_std),
            noise=KeypointNoise(std_box=self.keypoint_std_box),
            population=self.population(people, assets),
            landmarks=landmarks,
            error_correlation=1.0 if is_projected(self.name) else self.shared,
            depths=(0.08, 10.0),  # estimators see whole people
        )


def find_trust(name: str, own_pose: bool) -> Trust:
    """The shipped trust in a format's rotations and betas (``own_pose``) or in its points, or in one like it."""
    like = LIKE.get(name, name)
    if like != name:
        logger.warning("how far %s errs was not measured: it is taken for %s; measure it: %s", name, like, MAKE)
    path = _WEIGHTS / f"trust_{like}{'_pose' if own_pose else ''}.json"
    return load_trust(path if path.is_file() else _WEIGHTS / f"trust_{like}.json")


def load_trust(path: str | os.PathLike) -> Trust:
    """Read what `Trust.save` wrote.

    Raises:
        FileNotFoundError: no such file. ArtifactError: not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"trust file {path} does not exist; make it: {MAKE}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != TRUST_SCHEMA:
            raise ValueError(f"this code reads schema {TRUST_SCHEMA}")
        return Trust(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no trust file ({error}); make it: {MAKE}") from error
