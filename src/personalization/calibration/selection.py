"""Which images to calibrate from when more are given than asked for."""

from __future__ import annotations

import numpy as np

from src.personalization.solver.status import CalibrationError

SELECTIONS = ("random", "confidence", "informative")


def choose_images(
    n: int,
    wanted: int,
    how: str = "random",
    seed: int = 0,
    confidence: np.ndarray | None = None,
    information: np.ndarray | None = None,
    prior_precision: np.ndarray | None = None,
) -> np.ndarray:
    """Rows (min(n, wanted),), ascending.

    Args:
        how: "random" (seeded); "confidence": the most confident; "informative": greedily those that
            most reduce the volume of the betas' posterior (D-optimal design), see `greedy_informative`.
        confidence: (n,); information: (n,10,10) what each image says about the betas.

    Raises:
        CalibrationError: if what ``how`` needs is missing. ValueError: if ``how`` is unknown.
    """
    if how not in SELECTIONS:
        raise ValueError(f"selection {how!r} is unknown; choose one of {SELECTIONS}")
    if wanted < 1:
        raise CalibrationError(f"--num_images is {wanted}; at least one image is needed")
    if wanted >= n:
        return np.arange(n)
    if how == "random":
        return np.sort(np.random.default_rng(seed).permutation(n)[:wanted])
    if how == "confidence":
        if confidence is None:
            raise CalibrationError("--select confidence needs the confidence of each image; use --select random")
        return np.sort(np.argsort(-confidence, kind="stable")[:wanted])
    if information is None:
        raise CalibrationError("--select informative needs 2D keypoints (--keypoints)")
    prior = np.eye(information.shape[-1]) if prior_precision is None else prior_precision
    return np.sort(greedy_informative(information, wanted, prior))


def greedy_informative(information: np.ndarray, wanted: int, prior_precision: np.ndarray) -> np.ndarray:
    """Rows (wanted,), in the order chosen: each maximises log det(prior + sum of information).

    log det is monotone and submodular, so the greedy choice reaches at least 1 - 1/e of the best
    (Nemhauser, Wolsey, Fisher 1978).
    """
    total = prior_precision.astype(np.float64).copy()
    left = np.arange(len(information))
    chosen = []
    for _ in range(wanted):
        gain = np.linalg.slogdet(total + information[left])[1]
        best = int(np.argmax(gain))
        chosen.append(left[best])
        total = total + information[left[best]]
        left = np.delete(left, best)
    return np.array(chosen)
