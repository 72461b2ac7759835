"""What a network's predicted shapes say about a person, as Gaussian evidence for the joint calibration.

A network shrinks its guess towards the mean person, and part of its error is the same in every
image of one person. Averaging cannot mend either; knowing both, from other people, can:

    mean of n predictions = gain @ betas + offset + systematic + noise / sqrt(n)

(linear-Gaussian observation; Bishop, Pattern Recognition and Machine Learning, 2006, eq. 2.116).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Fewer people cannot fix ten by ten numbers.
MIN_PEOPLE = 40


@dataclass(frozen=True)
class NetworkShape:
    """Measured over many people.

    Attributes:
        gain: (10,10); offset: (10,): mean prediction of a person with given betas.
        systematic: (10,10) covariance of what all images of a person share; noise: (10,10) of one image.
    """

    gain: np.ndarray
    offset: np.ndarray
    systematic: np.ndarray
    noise: np.ndarray

    def update(self, predicted: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (10,) and covariance (10,10) of betas after seeing predictions (n,10) of a person.

        Args:
            predicted: the network's betas, one row an image.
            mean, covariance: (10,), (10,10) before.
        """
        residual = self.systematic + self.noise / len(predicted)
        weight = self.gain.T @ np.linalg.inv(residual)
        posterior = np.linalg.inv(np.linalg.inv(covariance) + weight @ self.gain)
        innovation = predicted.mean(axis=0) - self.offset - self.gain @ mean
        return mean + posterior @ weight @ innovation, posterior


def measure_network_shape(predicted: np.ndarray, truth: np.ndarray, subject: np.ndarray) -> NetworkShape:
    """Fit `NetworkShape` by ridge regression of each person's mean prediction on their betas.

    Args:
        predicted, truth: (N,10) betas; subject: (N,) whose image each row is.

    Raises:
        ValueError: fewer than 40 people, which cannot fix ten by ten numbers.
    """
    people, index, counts = np.unique(subject, return_inverse=True, return_counts=True)
    if len(people) < MIN_PEOPLE:
        raise ValueError(
            f"{len(people)} people are too few to measure how a network sees shapes; {MIN_PEOPLE} are needed"
        )
    means = np.stack([predicted[index == row].mean(axis=0) for row in range(len(people))])
    betas = np.stack([truth[index == row][0] for row in range(len(people))])
    centre = betas.mean(axis=0)
    spread = betas - centre
    # A ridge worth one person keeps weakly seen components from being fitted to noise.
    gain = np.linalg.solve(spread.T @ spread + np.eye(10), spread.T @ (means - means.mean(axis=0))).T
    offset = means.mean(axis=0) - gain @ centre
    within = predicted - means[index]
    noise = within.T @ within / max(1, len(predicted) - len(people))
    left = means - offset - betas @ gain.T
    shared = left.T @ left / (len(people) - 11) - noise * (1 / counts).mean()
    values, axes = np.linalg.eigh(shared)
    floor = 1e-3 * np.trace(noise) / 10  # the image noise may explain all of a component: keep it invertible
    return NetworkShape(gain, offset, (axes * np.maximum(values, floor)) @ axes.T, noise + floor * np.eye(10))
