"""What is known about a person's betas apart from the frames: a population, a network's guesses, measured lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from src.personalization.terms.frame_problem import ShapePrior
from src.personalization.terms.hand_size import LengthCue, length_gradient
from template.kinematics import JointsModel


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


def offset_terms(
    model: JointsModel, share: torch.Tensor, betas: torch.Tensor, offsets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Half chi-square (P,), gradient (P,73) and Gauss-Newton Hessian (P,73,73) of how far persons' points lie off, by
    their betas (P,10) and the offsets (P,21,3) m, MANO's order.

    Args:
        share: (21,) standard deviation of the offsets' coordinates over the hand's length: in metres small hands would
            explain them best.
    """
    length, slope = length_gradient(model, betas, "hand")
    root = 1 / (share.repeat_interleave(3) * length[:, None])
    residuals = root * offsets.flatten(1)
    columns = torch.cat([-residuals[..., None] * (slope / length[:, None])[:, None], torch.diag_embed(root)], 2)
    return residuals.square().sum(dim=1) / 2, (residuals[:, None] @ columns)[:, 0], columns.mT @ columns
