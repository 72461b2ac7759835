"""One person's hand shape while pictures of it come in: evidence is only what a picture itself said."""

from __future__ import annotations

import numpy as np

from src.personalization.calibration.population import Population
from src.personalization.terms.hand_size import Length, lengths_mm
from src.photos.result import HandLength, Result
from template import HandAssets
from utils.artifacts import Identity

#: An identity whose length is at most so uncertain, over people's spread, knows the size from something measured.
MEASURED = 0.75


class ShapeFilter:
    """Betas to fit with, from an identity file, or from what the pictures so far said.

    The frames of a video count as one picture, not as many: view, light and grip are the same in all of them, and so
    is most of the error. So predictions are averaged, and information too.

    Args:
        identity: settles it; None: learn from evidence.
        population: how networks see shapes, and which shapes there are; None: predictions are taken at their word
            and there is no interval.

    A copy (`copy.copy`) is not changed by later updates.

    Attributes:
        is_anothers: not that of the person who is watched (`video.watching`).
        betas: (10,) to fit with; covariance: (10,10) or None where nothing tells it. is_settled: learns no more.
    """

    is_anothers = False

    def __init__(
        self, assets: HandAssets, identity: Identity | None = None, population: Population | None = None
    ) -> None:
        self.assets, self.identity, self.population = assets, identity, population
        self.betas = np.zeros(10) if identity is None else identity.betas
        self.covariance: np.ndarray | None = None
        self.count, self.is_settled = 0, False
        self._predictions, self._information, self._precision = np.zeros(10), np.zeros(10), np.zeros((10, 10))

    @property
    def is_known(self) -> bool:
        """Settled, by an identity file or by whoever says that no more is to be learned."""
        return self.identity is not None or self.is_settled

    def update(self, predicted: np.ndarray) -> np.ndarray:
        """Take in the betas (10,) that a network predicted by itself in one more frame; returns the betas now."""
        if self.is_known:
            return self.betas
        self.count += 1
        self._predictions = self._predictions + predicted  # a new array: copies of the filter stay as they were
        mean, people = self._predictions / self.count, self.population
        self.betas = mean
        if people is not None and people.network is not None:
            self.betas, self.covariance = people.network.update(mean[None], people.betas_mean, people.betas_covariance)
        return self.betas

    def update_posterior(self, betas: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """Take in one more frame's own fit, betas (10,) with covariance (10,10), prior included; the betas now."""
        if self.is_known:
            return self.betas
        self.count += 1
        precision = np.linalg.inv(covariance)
        self._precision = self._precision + precision
        self._information = self._information + precision @ betas
        self.betas = np.linalg.solve(self._precision, self._information)
        self.covariance = self.count * np.linalg.inv(self._precision)
        return self.betas

    def saw(self, hand: Result, track: int, seconds: float) -> None:
        """A hand of this shape was found in a video's frame, followed as ``track``: for shapes that grow with it."""

    @property
    def description(self) -> str:
        """Whence the shape is known."""
        if self.identity is not None:
            images = f", {self.identity.n_images} images" if self.identity.n_images else ""
            return f"identity file ({self.identity.method or 'method unknown'}{images})"
        words = ("mean shape, nobody's in particular", "this image alone")
        return words[self.count] if self.count < 2 else f"the mean of {self.count} frames"

    @property
    def length(self) -> HandLength:
        """Of the stretched hand, with its uncertainty where that is known."""
        people = self._people()
        if self.identity is not None:
            return identity_length(self.identity, people, self.description)
        people = people or Length(*self._length(np.zeros(10), None))
        return HandLength(*self._length(self.betas, self.covariance), self.description, people)

    def _length(self, betas: np.ndarray, covariance: np.ndarray | None) -> tuple[float, float | None]:
        """mm, and standard deviation or None."""
        return lengths_mm(self.assets, betas, covariance, ("hand",))["hand"]

    def _people(self) -> Length | None:
        return None if self.population is None else people_length(self.population, self.assets)


def people_length(people: Population, assets: HandAssets) -> Length:
    """Of people's stretched hands."""
    return Length(*lengths_mm(assets, people.betas_mean, people.betas_covariance, ("hand",))["hand"])


def identity_length(identity: Identity, people: Length | None, source: str) -> HandLength:
    """Of the stretched hand, with ``people`` where nothing measured told the size (`MEASURED`)."""
    mm, std = identity.hand_length_mm, identity.hand_length_std_mm
    measured = people is None or people.std_mm is None or std is None or std < MEASURED * people.std_mm
    return HandLength(mm, std, source, None if measured else people)
