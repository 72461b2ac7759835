"""People: the first stand-in's measured population, with what flesh MakeHuman's bodies add to it.

Length, breadth, thickness, girth and finger proportions, their means, spreads and correlations are those of
`template.stand_in.population` (its sources are named there). Sex, age, weight and muscle change MakeHuman's hand
besides; of that only what no measure explains is kept (least squares), so that the named figures stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from template.stand_in.population import Deformer, Measures, sample_measures

#: The mean hand's measures.
MEAN = Measures(1.0, 1.0, 1.0, np.ones(5), 1.0, np.ones(5), 1.0)


def sample_bodies(rng: np.random.Generator, count: int) -> np.ndarray:
    """Weights (count, 2, 2, 3, 3) of MakeHuman's bodies (sex, age, muscle, weight); every second one a woman."""
    found = np.zeros((count, 2, 2, 3, 3))
    for number in range(count):
        age = rng.beta(1.0, 2.5)
        muscle, weight = (_levels(np.clip(0.5 + 0.22 * rng.standard_normal(), 0, 1)) for _ in range(2))
        found[number, number % 2] = np.einsum("a,m,w->amw", [1 - age, age], muscle, weight)
    return found


def _levels(value: float) -> np.ndarray:
    """Shares of the low, average and high body for a value in 0..1."""
    return np.array([max(0.0, 1 - 2 * value), 1 - abs(2 * value - 1), max(0.0, 2 * value - 1)])


def flesh_offsets(hands: np.ndarray, mean: np.ndarray, deform: Deformer) -> np.ndarray:
    """What (N, V, 3), metres, the bodies' hands (N, V, 3), all on the mean skeleton, have besides the measures."""
    offsets = hands - mean
    names = ("breadth", "thickness", "girth", "taper", "palm_length", "fingers")
    steps = [replace(MEAN, **{name: 1.01 * getattr(MEAN, name)}) for name in names]
    base = deform(MEAN)
    basis = np.stack([(deform(step) - base).ravel() for step in steps], axis=1)
    flat = offsets.reshape(len(hands), -1)
    return (flat - np.linalg.lstsq(basis, flat.T, rcond=None)[0].T @ basis.T).reshape(offsets.shape)


def sample_people(
    mean: np.ndarray, bodies: np.ndarray, count: int = 600, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Adults' rest vertices (count, V, 3) and joints (count, 16, 3), metres.

    Args:
        mean: (V, 3) the mean body's hand on the mean skeleton.
        bodies: (36, V, 3) hands of MakeHuman's bodies on the mean skeleton, in the order of `sample_bodies`.
    """
    rng = np.random.default_rng(seed)
    deform = Deformer(mean)
    flesh = flesh_offsets(bodies, mean, deform)
    shares = sample_bodies(rng, count).reshape(count, -1)
    shares -= shares.mean(axis=0)
    people = sample_measures(rng, count)
    hands = np.array([deform(person) for person in people]) + np.einsum("pb,bvc->pvc", shares, flesh)
    return hands, np.array([deform.joints_of(person) for person in people])


def shape_directions(coarse: np.ndarray, fine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten directions of the coarse hands (P, 778, 3), and what the fine ones (P, V, 3) do along the same betas.

    Returns:
        (778, 3, 10) and (V, 3, 10), metres for one standard deviation; and the cumulative share of variance (10,).
    """
    count = len(coarse)
    scores, values, rows = np.linalg.svd((coarse - coarse.mean(axis=0)).reshape(count, -1), full_matrices=False)
    betas = scores[:, :10] * np.sqrt(count - 1)
    directions = (rows[:10] * values[:10, None] / np.sqrt(count - 1)).reshape(10, -1, 3)
    far = np.argmin(coarse.mean(axis=0)[:, 0])
    signs = np.where(directions[:, far, 0] > 0, -1.0, 1.0)  # a positive coefficient makes the hand longer
    along = np.einsum("pb,pvc->vcb", betas * signs, fine - fine.mean(axis=0)) / (count - 1)
    return np.moveaxis(directions * signs[:, None, None], 0, 2), along, np.cumsum(values**2)[:10] / (values**2).sum()
