"""How a network sees a person's shape: its predicted betas as evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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

    def information(self, predicted: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray]:
        """What the mean (10,) of predictions of so many images says: precision (10,10) and precision @ betas (10,)."""
        weight = self.gain.T @ np.linalg.inv(self.systematic + self.noise / images)
        return weight @ self.gain, weight @ (predicted - self.offset)

    def update(self, predicted: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (10,) and covariance (10,10) of betas after seeing predictions (n,10) of a person.

        Args:
            predicted: the network's betas, one row an image.
            mean, covariance: (10,), (10,10) before.
        """
        precision, pulled = self.information(predicted.mean(axis=0), len(predicted))
        before = np.linalg.inv(covariance)
        posterior = np.linalg.inv(before + precision)
        return posterior @ (before @ mean + pulled), posterior
