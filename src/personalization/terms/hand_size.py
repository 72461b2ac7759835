"""Lengths of a person's hand: of betas, with the uncertainty that their covariance gives them, and as measured; and how
far betas err."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from src.personalization.solver.status import CalibrationError
from template import HandAssets, right_hand
from template.kinematics import JointsModel
from utils.artifacts import ArtifactError, Identity
from utils.identity import HALF_95
from utils.identity import load_identity as read_identity
from utils.joints import FINGERS, JOINT_NAMES, PARENTS

logger = logging.getLogger(__name__)

#: Lengths that can be asked for: name -> joints (standard order), then points of the skin, whose successive distances
#: are summed. Of the shipped hand the wrist joint lies below the wrist's crease and the tips are the fingers' ends, so
#: that a ruler along the flat hand reads "hand" (tests/test_measuring.py).
LENGTHS: dict[str, tuple[int, ...]] = {
    "hand": (0, 12),  # straight, wrist joint to middle fingertip, as a ruler along the stretched hand measures
    **{finger: tuple(range(1 + 4 * i, 5 + 4 * i)) for i, finger in enumerate(FINGERS)},
    "palm_width": (5, 17),  # index to little knuckle
    "breadth": (21, 22),  # over the skin, across the knuckles of index and little finger: `KNUCKLE_FLANKS`
    **{f"{JOINT_NAMES[PARENTS[joint]]}-{JOINT_NAMES[joint]}": (PARENTS[joint], joint) for joint in range(1, 21)},
}
#: The thumb's joints as anatomy calls them: base beside the wrist (CMC), knuckle (MCP) and one more (IP). `JOINT_NAMES`
#: counts them as another finger's, so that its "mcp" is the thumb's CMC. Bones: their names -> those of `LENGTHS`.
THUMB_BONES = {
    "wrist-thumb_cmc": "wrist-thumb_mcp",
    "thumb_cmc-thumb_mcp": "thumb_mcp-thumb_pip",
    "thumb_mcp-thumb_ip": "thumb_pip-thumb_dip",
    "thumb_ip-thumb_tip": "thumb_dip-thumb_tip",
}
#: Metres: lengths of hands, children's included, and of the bones and fingers in them.
HAND_RANGE, _BONE_RANGE = (0.08, 0.3), (0.005, 0.2)
#: Metres: nobody measures a hand more closely; less is an uncertainty in metres that was meant to be in millimetres.
_LEAST_STD = 1e-4
#: Identity files hold rounded betas.
_ROUNDING_MM = 0.1


@dataclass(frozen=True)
class LengthCue:
    """A length measured on the hand: a key of `LENGTHS`, metres, standard deviation in metres."""

    name: str
    length: float
    std: float

    def __post_init__(self) -> None:
        if self.name not in LENGTHS:
            raise CalibrationError(f"length {self.name!r} is unknown; choose one of {', '.join(LENGTHS)}")
        low, high = HAND_RANGE if self.name == "hand" else _BONE_RANGE
        if not (low < self.length < high and _LEAST_STD <= self.std < 1):
            raise CalibrationError(
                f"{self.name} = {1000 * self.length:g} ± {1000 * self.std:g} mm is no length of a hand "
                f"({1000 * low:g} to {1000 * high:g}); give millimetres and their uncertainty, "
                f"{1000 * _LEAST_STD:g} at least"
            )


def ruler_cues(length_mm: float | None, std_mm: float | None = None) -> tuple[LengthCue, ...]:
    """What a ruler says of the hand, wrist to middle fingertip; nothing without a length.

    Args:
        std_mm: of the measuring; 3, careful measuring, if not said.

    Raises:
        CalibrationError: no length of a hand, or an uncertainty of none.
    """
    if length_mm is None:
        if std_mm is not None:
            raise CalibrationError(f"hand_length_std_mm={std_mm} is of hand_length_mm: give that as well")
        return ()
    return (LengthCue("hand", length_mm / 1000, (3.0 if std_mm is None else std_mm) / 1000),)


def length_gradient(model: JointsModel, betas: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A named length (...,) m of the flat hand, and its gradient (...,10) m per unit, for betas (...,10).

    Raises:
        ValueError: if ``name`` is not a key of `LENGTHS`.
    """
    if name not in LENGTHS:
        raise ValueError(f"length {name!r} is unknown; choose one of {', '.join(LENGTHS)}")
    skin = model.flanks + (betas @ model.flank_directions.flatten(1)).unflatten(-1, (2, 3))
    points = torch.cat([model.rest_points(betas)[..., model.to_standard, :], skin], dim=-2)  # (...,23,3)
    directions = torch.cat([model.directions[:, model.to_standard], model.flank_directions], dim=1)
    chain = list(LENGTHS[name])
    steps = points[..., chain[1:], :] - points[..., chain[:-1], :]
    lengths = steps.norm(dim=-1)
    change = directions[:, chain[1:]] - directions[:, chain[:-1]]
    return lengths.sum(dim=-1), torch.einsum("...kc,skc->...s", steps / lengths[..., None].clamp_min(1e-9), change)


def cue_conflict(
    model: JointsModel, betas: torch.Tensor, covariance: torch.Tensor, cue: LengthCue
) -> tuple[float, float, float]:
    """How far a cue is from what everything else says.

    Args:
        betas, covariance: (10,), (10,10), estimated without this cue.

    Returns:
        The length (mm) and its standard deviation (mm) without the cue, and the difference in standard
        deviations of the difference.
    """
    length, slope = length_gradient(model, betas[None], cue.name)
    variance = float(slope[0] @ covariance @ slope[0])
    difference = cue.length - float(length[0])
    return 1000 * float(length[0]), 1000 * variance**0.5, difference / (variance + cue.std**2) ** 0.5


def parse_known_bone(text: str) -> LengthCue:
    """A cue from ``NAME=MM±SD`` (or ``+-``), mm, e.g. ``index_mcp-index_pip=42±2``, ``thumb_cmc-thumb_mcp=45±2``.

    A thumb's bone named as another finger's is said to be which it is taken for.

    Raises:
        CalibrationError: if the text is not of that form.
    """
    match = re.fullmatch(r"\s*([\w-]+)\s*=\s*(\d+\.?\d*)\s*(?:±|\+-|\+/-)\s*(\d*\.?\d+)\s*", text)
    if match is None:
        raise CalibrationError(f"known bone {text!r} is not of the form NAME=MM±SD, e.g. index=72±2")
    for clear, counted in THUMB_BONES.items():
        if match[1] == counted:
            logger.warning("%s: is taken for %s, a thumb having no pip and dip; better say that", text.strip(), clear)
    return LengthCue(THUMB_BONES.get(match[1], match[1]), float(match[2]) / 1000, float(match[3]) / 1000)


#: One for each hand in use: a video asks for its lengths in every frame.
joints_of = functools.lru_cache(maxsize=4)(JointsModel)


def dispersed(solved: np.ndarray, known: np.ndarray, images: float, correlation: float) -> np.ndarray:
    """How far betas err where images share a part of their errors: covariance (10,10), the sandwich of Huber (1967).

    Args:
        solved: covariance (10,10) as the solver has it, to which images are independent (White 1982, theorem 3.2).
        known: (10,10) what of its inverse the images do not say; images: how many; correlation: of their errors.
    """
    more = max(0.0, images - 1) * correlation
    return solved + more * (solved - solved @ known @ solved)


def lengths_mm(
    assets: HandAssets, betas: np.ndarray, covariance: np.ndarray | None, names: tuple[str, ...] = ("hand", *FINGERS)
) -> dict[str, tuple[float, float | None]]:
    """Named lengths in mm, each with its standard deviation (first order in the covariance) or None."""
    model = joints_of(assets)
    point = torch.as_tensor(betas, dtype=torch.float64)[None]
    found: dict[str, tuple[float, float | None]] = {}
    for name in names:
        length, gradient = length_gradient(model, point, name)
        slope = gradient[0].numpy()
        std = None if covariance is None else 1000 * float(np.sqrt(max(slope @ covariance @ slope, 0.0)))
        found[name] = (1000 * float(length[0]), std)
    return found


@dataclass(frozen=True)
class Length:
    """A length in mm, and its standard deviation or None where no covariance tells it."""

    mm: float
    std_mm: float | None = None

    @property
    def interval_95(self) -> tuple[float, float] | None:
        """The central 95% of its Gaussian, mm."""
        if self.std_mm is None:
            return None
        return self.mm - HALF_95 * self.std_mm, self.mm + HALF_95 * self.std_mm

    def __str__(self) -> str:
        interval = self.interval_95
        return f"{self.mm:.1f}" if interval is None else f"{self.mm:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"

    def as_json(self) -> dict[str, float | None]:
        """Keys mm, std_mm, low_95_mm, high_95_mm; the last three None without a covariance."""
        low, high = self.interval_95 or (None, None)
        numbers = {"mm": self.mm, "std_mm": self.std_mm, "low_95_mm": low, "high_95_mm": high}
        return {key: value if value is None else round(value, 2) for key, value in numbers.items()}


def identity_lengths(identity: Identity, assets: HandAssets) -> dict[str, Length]:
    """Hand length and the five finger lengths of an identity, mm, with the uncertainty of its covariance."""
    found = lengths_mm(assets, identity.betas, identity.covariance)
    return {name: Length(*numbers) for name, numbers in found.items()}


def check_stated_length(identity: Identity, assets: HandAssets) -> Identity:
    """The identity, if it is of this hand and the length (mm) that it states is that of its betas.

    Raises:
        HandMismatchError: it is of another hand.
        ArtifactError: it is not: somebody has edited the file, and would be shown one hand and given another.
    """
    length, std = lengths_mm(assets, identity.betas, identity.covariance, ("hand",))["hand"]
    identity.check_hand(assets)
    stated = (identity.hand_length_mm, identity.hand_length_std_mm)
    if abs(length - stated[0]) <= _ROUNDING_MM and (None in (std, stated[1]) or abs(std - stated[1]) <= _ROUNDING_MM):
        return identity
    said, found = (f"{mm:.1f} mm" + ("" if std is None else f" ± {std:.1f}") for mm, std in (stated, (length, std)))
    raise ArtifactError(
        f"{identity.source}: states a hand of {said}, but its betas and covariance are of one of {found}. Has it been "
        "edited? A measured length is given with --hand_length_mm when calibrating"
    )


def accepted_conflicts(identity: Identity) -> dict[str, float]:
    """Measured lengths that contradicted the images when they were calibrated, and by how many standard deviations.

    Raises:
        ArtifactError: the file says something else there.
    """
    found = identity.evidence.get("conflict") or {}
    if not isinstance(found, dict) or not all(isinstance(one, int | float) for one in found.values()):
        raise ArtifactError(
            f"{identity.source}: evidence.conflict is {found!r}; names of lengths with standard deviations are meant. "
            "Has it been edited? Calibrate again"
        )
    return found


def load_identity(path: str | os.PathLike, side: str | None = None, hand: HandAssets | None = None) -> Identity:
    """Read what `save_identity` wrote, and compare the length that it states with that of its betas.

    Args:
        path: the file, or a folder with a single one.
        side: if given, refuse an identity of the other side ("both" suits either).
        hand: the right hand's model that it must be of. None: the one in use (`load_hand_assets`); the length of an
            identity of another is not looked at, and `Identity.check_hand` refuses it where it is used.

    Raises:
        FileNotFoundError, ArtifactError: see `utils.identity.load_identity` and `check_stated_length`.
    """
    found, assets = read_identity(path, side), right_hand(hand)
    if hand is not None or found.hand_hash == assets.hash:
        check_stated_length(found, assets)
    for name, deviations in accepted_conflicts(found).items():
        logger.warning(
            "%s: its measured length (%s) contradicted the images by %s standard deviations, which was accepted "
            "when it was calibrated", found.source, name, deviations,
        )  # fmt: skip
    return found


def opened_identity(identity: Identity | str | os.PathLike, assets: HandAssets) -> Identity:
    """An identity of this hand, or that of a file, after `check_stated_length`; of an object a failure is a warning.

    Raises:
        TypeError: neither. Others: see `load_identity`.
    """
    if isinstance(identity, str | os.PathLike):
        return load_identity(identity, hand=assets)
    if not isinstance(identity, Identity):
        raise TypeError(f"identity is a {type(identity).__name__}; an Identity or the path of its file is meant")
    identity.check_hand(assets)
    try:
        return check_stated_length(identity, assets)
    except ArtifactError as error:  # who made it by hand may not care for the length
        logger.warning("%s", error)
        return identity


def describe_lengths(identity: Identity, assets: HandAssets) -> str:
    """One line for the terminal: ``mm [95% interval]: hand 178.3 [170.1, 186.5], thumb ...``."""
    known = "mm [95% interval]" if identity.covariance is not None else f"mm (method {identity.method}: no interval)"
    lengths = identity_lengths(identity, assets)
    return f"{known}: " + ", ".join(f"{name} {length}" for name, length in lengths.items())


def lengths_as_json(identities: Mapping[int, Identity], assets: HandAssets) -> dict[str, Any]:
    """Lengths (mm) of several people for a results file: ``subject-NN`` -> length name -> `Length.as_json`."""
    return {
        f"subject-{number:02d}": {name: length.as_json() for name, length in identity_lengths(one, assets).items()}
        for number, one in identities.items()
    }
