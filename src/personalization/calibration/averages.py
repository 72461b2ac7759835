"""The paper's calibration: many predicted shapes of one person, averaged (FACTS 7.3)."""

from __future__ import annotations

import numpy as np

from src.personalization.solver.status import CalibrationError

AVERAGES = ("mean", "top_k", "confidence")


def average_weights(
    n: int, method: str, confidence: np.ndarray | None, top_k: int = 10, temperature: float = 1.0
) -> np.ndarray:
    """Weight (n,) of each image; they sum to 1.

    Args:
        method: "mean": equal (what the released code did); "top_k": equal for the ``top_k`` most
            confident, zero for the rest; "confidence": softmax(confidence / temperature).
        confidence: (n,) ranking scores, higher is better; its scale is that of the ranking loss's
            margin, 1. Not needed for "mean".

    Raises:
        CalibrationError: no image, or no confidence where it is needed.
        ValueError: an unknown method, or top_k or temperature not positive.
    """
    if method not in AVERAGES:
        raise ValueError(f"average {method!r} is unknown; choose one of {AVERAGES}")
    if top_k < 1 or temperature <= 0:
        raise ValueError(f"top_k is {top_k} and temperature {temperature}; both must be positive")
    if n == 0:
        raise CalibrationError("no image to average; give predictions of this subject")
    if method == "mean":
        return np.full(n, 1 / n)
    if confidence is None:
        raise CalibrationError(
            f"--method {method} needs the confidence of each image, which the predictions lack; "
            "predict with the mano_baseline_conf network, or use --method mean"
        )
    weights = np.zeros(n)
    if method == "top_k":
        best = np.argsort(-confidence, kind="stable")[:top_k]
        weights[best] = 1 / len(best)
        return weights
    shifted = (confidence.astype(np.float64) - confidence.max()) / temperature
    weights = np.exp(shifted)
    return weights / weights.sum()


def average_betas(betas: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean (10,) float64 of betas (n,10)."""
    return weights @ betas.astype(np.float64)
