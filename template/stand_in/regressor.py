"""The joint regressor: a few vertices around each joint whose mean is the joint, whoever's hand it is."""

from __future__ import annotations

import numpy as np


def joint_regressor(hands: np.ndarray, joints: np.ndarray, most: int = 40) -> np.ndarray:
    """Sparse non-negative J_regressor (16, 778), rows summing to 1.

    Non-negative least squares over a population, so that it holds for every shape and not only for
    the mean hand; a small term pulls the weights towards being equal.

    Args:
        hands: (P, 778, 3) people's vertices, metres.
        joints: (P, 16, 3) their joints.
        most: how many of the nearest vertices a joint may use.
    """
    from scipy.optimize import nnls

    regressor = np.zeros((joints.shape[1], hands.shape[1]))
    chosen = np.linspace(0, len(hands) - 1, min(60, len(hands))).astype(int)
    for number in range(joints.shape[1]):
        distance = np.linalg.norm(hands.mean(axis=0) - joints[:, number].mean(axis=0), axis=1)
        near = np.argsort(distance)[: most * (2 if number == 0 else 1)]
        rows = np.concatenate(
            [
                hands[chosen][:, near].transpose(0, 2, 1).reshape(-1, len(near)) * 1e3,
                1e4 * np.ones((1, len(near))),
                2.0 * np.eye(len(near)),
            ]
        )
        wanted = np.concatenate([joints[chosen, number].reshape(-1) * 1e3, [1e4], np.full(len(near), 2.0 / len(near))])
        weights, _ = nnls(rows, wanted)
        regressor[number, near] = weights / weights.sum()
    return regressor
