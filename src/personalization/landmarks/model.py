"""A landmark model: where the 21 points of one detector or estimator lie on our hand, and how noisy each is.

Detectors are trained on annotators' clicks, which are not the hand model's joints: mediapipe's wrist is nearer to the
fingers, its tips end before the finger does. A hand fitted to such points as if they were joints tilts its palm and
leans everybody's shape the same way. ``python -m src.personalization.landmarks.learn`` makes such a file from
unlabelled detections.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from src.personalization.terms.noise import KeypointNoise
from template import HandAssets
from utils.artifact_checks import ArtifactError, HandMismatchError
from utils.files import atomic_path
from utils.identity import Identity

logger = logging.getLogger(__name__)

#: 1 knew no bends; its files are read.
LANDMARK_SCHEMA = 2
#: Package data: the models of the stand-in hand, one file a source of points.
SHIPPED = Path(__file__).resolve().parents[3] / "weights"
MAKE = "python -m src.personalization.landmarks.learn"
#: Over the hand's length (5 mm of a mean one), how far a person's points lie from a source's, a coordinate. Of the hand
#: before two cameras (docs/real_hands.md), first half, this and twice as much leave the least error; half as much takes
#: a part for another shape.
OWN_SHARE = 0.0266


@dataclass(frozen=True)
class LandmarkModel:
    """Points of one source, standard order.

    Attributes:
        name: of the source, e.g. "mediapipe"; hand_name, hand_hash: the hand model that the offsets belong to.
        offsets: (21,3) m, from joint or tip to the point, in the rest frame of the bone that ends there (the palm's for
            wrist and knuckles).
        bends: (21,3) m, the part of ``offsets`` that turns with the next bone (of a tip: with the one before its own),
            or None: a point on the skin of a bent finger lies elsewhere than on a straight one.
        std_box: (21,) standard deviation of a coordinate over the larger side of the hand's box.
        correlation: in [0,1], the part of the 2D variance that all pictures of a person share.
        world_std: (21,) m, of the depth of the source's own 3D points, centre and scale at their best.
        world_scale_std: of their scale over the hand's.
        pose_spread: how many times the covariance of the hand model's usual poses real hands take.
        made_by: the command; people, hands: how many it saw.
    """

    name: str
    hand_name: str
    hand_hash: str
    offsets: np.ndarray
    std_box: np.ndarray
    correlation: float
    world_std: np.ndarray
    world_scale_std: float
    pose_spread: float
    made_by: str = ""
    people: int = 0
    hands: int = 0
    bends: np.ndarray | None = None

    def noise(self) -> KeypointNoise:
        """Trust in each keypoint."""
        mean = float(np.sqrt(np.mean(np.square(self.std_box))))
        return KeypointNoise(std_box=mean, relative=tuple((self.std_box / mean).tolist()))

    @property
    def own_share(self) -> np.ndarray:
        """(21,) over the hand's length, of a coordinate of how far a person's points lie from ``offsets``."""
        return OWN_SHARE * self.std_box / float(np.sqrt(np.mean(np.square(self.std_box))))

    def of_person(self, identity: Identity | None) -> LandmarkModel:
        """Of somebody whose own points were calibrated, or this."""
        own = None if identity is None else identity.landmarks.get(self.name)
        return self if own is None else replace(self, offsets=self.offsets + own)

    def save(self, path: str | os.PathLike) -> None:
        """Write a JSON that a person can read, atomically; lengths in mm."""
        content = {"schema": LANDMARK_SCHEMA, **asdict(self)}
        content["std_box"] = np.round(self.std_box, 5).tolist()
        for name in ("offsets", "bends", "world_std"):
            if (value := content.pop(name)) is not None:
                content[f"{name}_mm"] = np.round(1000 * value, 2).tolist()
        lines = [f'  "{key}": {json.dumps(value)}' for key, value in content.items()]
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
            handle.write("{\n" + ",\n".join(lines) + "\n}\n")


def find_landmarks(source: str | os.PathLike, assets: HandAssets) -> LandmarkModel | None:
    """`load_landmarks`, or None, said in the log, where there is none for this hand model."""
    try:
        return load_landmarks(source, assets.hash)
    except (FileNotFoundError, HandMismatchError) as error:
        logger.warning("%s; until then its points are taken for the hand's joints, which tilts palms", error)
        return None


def load_landmarks(source: str | os.PathLike, hand_hash: str) -> LandmarkModel:
    """The model of a named source ("mediapipe"), or a file.

    Raises:
        FileNotFoundError: no such source or file; lists those there are. ArtifactError: not such a file.
        HandMismatchError: it belongs to another hand model.
    """
    path = SHIPPED / f"landmarks_{source}.json"
    if not path.is_file():
        path = Path(source)
    if not path.is_file():
        there = ", ".join(sorted(file.stem.removeprefix("landmarks_") for file in SHIPPED.glob("landmarks_*.json")))
        raise FileNotFoundError(
            f"landmarks {os.fspath(source)!r}: no such file or source (there is {there or 'none'}); make it with {MAKE}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") not in (1, LANDMARK_SCHEMA):
            raise ValueError(f"this code reads schemas 1 and {LANDMARK_SCHEMA}")
        for name in ("offsets", "world_std", *(["bends"] if "bends_mm" in content else [])):
            content[name] = np.array(content.pop(f"{name}_mm"), dtype=np.float64) / 1000
        content["std_box"] = np.array(content["std_box"], dtype=np.float64)
        found = LandmarkModel(**content)
        _check(found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no landmark file ({error}); make it with {MAKE}") from error
    if found.hand_hash != hand_hash:
        raise HandMismatchError(
            f"{path} was made with the hand model {found.hand_name} ({found.hand_hash}), in use is {hand_hash}; "
            f"make one for it: {MAKE}"
        )
    return found


def _check(found: LandmarkModel) -> None:
    bends = {} if found.bends is None else {"bends": (21, 3)}
    for name, shape in {"offsets": (21, 3), "std_box": (21,), "world_std": (21,), **bends}.items():
        value = getattr(found, name)
        if value.shape != shape or not np.isfinite(value).all():
            raise ValueError(f"{name} must be {shape} finite numbers, not {value.shape}")
    if not (0 <= found.correlation <= 1 and found.pose_spread > 0 and found.world_scale_std >= 0):
        raise ValueError("correlation lies in [0,1], pose_spread and world_scale_std are positive")
    if not (found.std_box > 0).all() or not (found.world_std > 0).all():
        raise ValueError("standard deviations must be positive")
