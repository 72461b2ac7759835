"""What is believed of one person's hand shape while pictures of it are looked at."""

from __future__ import annotations

import numpy as np

from src.personalization.calibration.population import Population
from src.personalization.terms.hand_size import lengths_mm
from src.photos.result import HandLength
from template import HandAssets
from utils.artifacts import Identity


class ShapeBelief:
    """Betas to fit with, from an identity file, or from what the network said of the pictures so far.

    Args:
        assets: right hand in use.
        identity: settles it; None: learn from predictions.
        population: how networks see shapes, and which shapes there are; None: predictions are taken at their word
            and there is no interval.
    """

    def __init__(
        self, assets: HandAssets, identity: Identity | None = None, population: Population | None = None
    ) -> None:
        self.assets, self.identity, self.population = assets, identity, population
        self._predicted: list[np.ndarray] = []
        self.betas = np.zeros(10) if identity is None else identity.betas
        self.covariance: np.ndarray | None = None
        self._words = "mean shape, nobody's in particular"

    @property
    def is_known(self) -> bool:
        """Settled by an identity file."""
        return self.identity is not None

    def take(self, betas: np.ndarray, covariance: np.ndarray, words: str) -> None:
        """Believe betas (10,) with a covariance (10,10) from now on; ``words`` say whence."""
        self.betas, self.covariance, self._words = betas, covariance, words

    def see(self, predicted: np.ndarray) -> np.ndarray:
        """Take in a network's betas (10,) of one more frame of this person; returns the betas believed now.

        The mean over a video's frames counts as one picture, not as many: view, light and grip are the same in
        all of them, and so is most of the network's error.
        """
        if self.identity is not None:
            return self.betas
        self._predicted.append(np.asarray(predicted, dtype=np.float64))
        seen, people = np.stack(self._predicted), self.population
        if people is None or people.network is None:
            self.betas = seen.mean(axis=0)
        else:
            self.betas, self.covariance = people.network.update(
                seen.mean(axis=0, keepdims=True), people.betas_mean, people.betas_covariance
            )
        self._words = "this image alone" if len(seen) == 1 else f"the mean of {len(seen)} frames"
        return self.betas

    @property
    def length(self) -> HandLength:
        """Of the stretched hand, with its uncertainty where that is known."""
        if self.identity is not None:
            return HandLength(self.identity.hand_length_mm, self.identity.hand_length_std_mm, self._identity_words())
        mm, std = lengths_mm(self.assets, self.betas, self.covariance, ("hand",))["hand"]
        return HandLength(mm, std, self._words)

    def _identity_words(self) -> str:
        images = f", {self.identity.n_images} images" if self.identity.n_images else ""
        return f"identity file ({self.identity.method or 'method unknown'}{images})"
