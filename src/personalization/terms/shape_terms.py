"""What is known about a person's betas apart from the frames: a population, a network's guesses, measured lengths."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch

from src.personalization.solver.status import CalibrationError
from src.personalization.terms.frame_problem import ShapePrior
from src.personalization.terms.hand_size import LENGTHS, length_gradient
from template.kinematics import JointsModel

#: Metres: lengths of hands, children's included, and of the bones and fingers in them.
HAND_RANGE, _BONE_RANGE = (0.08, 0.3), (0.005, 0.2)


@dataclass(frozen=True)
class LengthCue:
    """A length measured on the hand: a key of `hand_size.LENGTHS`, metres, standard deviation in metres."""

    name: str
    length: float
    std: float

    def __post_init__(self) -> None:
        if self.name not in LENGTHS:
            raise CalibrationError(f"length {self.name!r} is unknown; choose one of {', '.join(LENGTHS)}")
        low, high = HAND_RANGE if self.name == "hand" else _BONE_RANGE
        if not (low < self.length < high and 0 < self.std < 1):
            raise CalibrationError(
                f"{self.name} = {1000 * self.length:g} ± {1000 * self.std:g} mm is no length of a hand "
                f"({1000 * low:g} to {1000 * high:g}); give millimetres and a positive uncertainty"
            )


@dataclass(frozen=True)
class NetworkShape:
    """What a network's predicted shapes say about a person, as linear-Gaussian evidence.

    A network shrinks its guess towards the mean person, and part of its error is the same in every
    image of one person. Averaging cannot mend either; knowing both, from other people, can::

        mean of n predictions = gain @ betas + offset + systematic + noise / sqrt(n)

    (Bishop, Pattern Recognition and Machine Learning, 2006, eq. 2.116).

    Attributes:
        gain: (10,10); offset: (10,): mean prediction of a person with given betas.
        systematic: (10,10) covariance of what all images of a person share; noise: (10,10) of one image.
    """

    gain: np.ndarray
    offset: np.ndarray
    systematic: np.ndarray
    noise: np.ndarray

    def information(self, predicted: np.ndarray, images: float) -> tuple[np.ndarray, np.ndarray]:
        """What the mean (10,) of predictions of so many images says: precision (10,10) and precision @ betas (10,)."""
        weight = self.gain.T @ np.linalg.inv(self.systematic + self.noise / images)
        return weight @ self.gain, weight @ (predicted - self.offset)

    def update(
        self, predicted: np.ndarray, mean: np.ndarray, covariance: np.ndarray, counts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean (10,) and covariance (10,10) of betas after seeing predictions (n,10) of a person.

        Args:
            predicted: the network's betas, one row an image.
            mean, covariance: (10,), (10,10) before.
            counts: (n,) for how many images each one counts; None: for one.
        """
        counts = np.ones(len(predicted)) if counts is None else counts
        precision, pulled = self.information(np.average(predicted, axis=0, weights=counts), float(counts.sum()))
        before = np.linalg.inv(covariance)
        posterior = np.linalg.inv(before + precision)
        return posterior @ (before @ mean + pulled), posterior


def parse_known_bone(text: str) -> LengthCue:
    """A cue from ``NAME=MM±SD`` (or ``+-``), millimetres, e.g. ``index_mcp-index_pip=42±2``.

    Raises:
        CalibrationError: if the text is not of that form.
    """
    match = re.fullmatch(r"\s*([\w-]+)\s*=\s*(\d+\.?\d*)\s*(?:±|\+-|\+/-)\s*(\d*\.?\d+)\s*", text)
    if match is None:
        raise CalibrationError(f"known bone {text!r} is not of the form NAME=MM±SD, e.g. index=72±2")
    return LengthCue(match[1], float(match[2]) / 1000, float(match[3]) / 1000)


def shape_terms(
    model: JointsModel, prior: ShapePrior, cues: tuple[LengthCue, ...], betas: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Half chi-square (P,), gradient (P,10) and Hessian (P,10,10) of prior and cues (m) at betas (P,10)."""
    off = betas - prior.mean
    gradient = off @ prior.precision
    cost = (off * gradient).sum(-1) / 2
    hessian = prior.precision.expand(betas.shape[0], -1, -1).clone()
    for cue in cues:
        length, slope = length_gradient(model, betas, cue.name)
        residual = (length - cue.length) / cue.std
        slope = slope / cue.std
        cost = cost + residual * residual / 2
        gradient = gradient + residual[:, None] * slope
        hessian += slope[:, :, None] * slope[:, None, :]
    return cost, gradient, hessian


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
