"""How a network sees shapes: recovered from simulated people, and as evidence honest about its uncertainty."""

from __future__ import annotations

import numpy as np
import pytest

from src.personalization.calibration.measure_population import measure_network_shape
from src.personalization.calibration.population import NetworkShape


def simulate(people: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, NetworkShape]:
    rng = np.random.default_rng(seed)
    gain = np.diag([0.3, 0.1] + [0.0] * 8)
    offset = np.linspace(-0.1, 0.1, 10)
    truth = NetworkShape(gain, offset, 0.05**2 * np.eye(10), 0.3**2 * np.eye(10))
    betas = rng.standard_normal((people, 10))
    shared = 0.05 * rng.standard_normal((people, 10))
    subject = np.repeat(np.arange(people), images)
    predicted = (betas @ gain.T + offset + shared)[subject] + 0.3 * rng.standard_normal((people * images, 10))
    return predicted, betas[subject], subject, truth


def test_measuring_recovers_what_was_simulated() -> None:
    predicted, betas, subject, truth = simulate(2000, 20, 0)
    found = measure_network_shape(predicted, betas, subject)
    assert np.abs(found.gain - truth.gain).max() < 0.02 and np.abs(found.offset - truth.offset).max() < 0.02
    assert np.abs(np.sqrt(np.diag(found.systematic)) - 0.05).max() < 0.015
    assert np.abs(np.sqrt(np.diag(found.noise)) - 0.3).max() < 0.01


def test_update_is_the_textbook_conditional() -> None:
    _, _, _, network = simulate(2, 1, 0)
    predicted = np.random.default_rng(1).standard_normal((5, 10))
    mean, covariance = np.full(10, 0.2), np.diag(np.linspace(0.5, 1.5, 10))
    # The joint Gaussian of betas and of the mean prediction, conditioned on the latter.
    cross = covariance @ network.gain.T
    total = network.gain @ covariance @ network.gain.T + network.systematic + network.noise / 5
    surprise = predicted.mean(0) - network.offset - network.gain @ mean
    expected = mean + cross @ np.linalg.solve(total, surprise)
    expected_covariance = covariance - cross @ np.linalg.solve(total, cross.T)
    found, found_covariance = network.update(predicted, mean, covariance)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    np.testing.assert_allclose(found_covariance, expected_covariance, atol=1e-10)


def test_intervals_hold_on_other_people() -> None:
    network = measure_network_shape(*simulate(250, 20, 2)[:3])
    predicted, betas, subject, _ = simulate(400, 20, 3)
    scores = []
    for person in range(400):
        rows = subject == person
        mean, covariance = network.update(predicted[rows], np.zeros(10), np.eye(10))
        scores.append((mean - betas[rows][0]) / np.sqrt(np.diag(covariance)))
    inside = (np.abs(scores) < 1).mean(axis=0)
    assert 0.6 < inside[0] < 0.76 and 0.64 < inside.mean() < 0.72
    assert np.std([score[0] for score in scores]) == pytest.approx(1, abs=0.12)


def test_too_few_people() -> None:
    with pytest.raises(ValueError, match="12 people are too few"):
        measure_network_shape(*simulate(12, 3, 0)[:3])
