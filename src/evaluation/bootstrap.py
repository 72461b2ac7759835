"""Is a difference real? Bootstrap over whole sequences, because frames of one are nearly copies."""

from __future__ import annotations

import numpy as np


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, groups: np.ndarray, n: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of a - b over samples, with a 95% percentile interval from resampling whole groups.

    Args:
        a, b: (N,) values of the same samples under two methods.
        groups: (N,) integer or string label of the sequence of each sample. Each replicate draws as
            many groups as there are, with replacement, and takes the mean over all their samples.
        n: number of replicates.

    Returns:
        (mean difference, low, high), in the unit of ``a``.

    Raises:
        ValueError: on different lengths, values that are not finite, or fewer than two groups.
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    groups = np.asarray(groups)
    if difference.shape != groups.shape or np.shape(a) != np.shape(b) or difference.ndim != 1:
        raise ValueError(f"a {np.shape(a)}, b {np.shape(b)} and groups {groups.shape} must be (N,) alike")
    if not np.isfinite(difference).all():
        raise ValueError(f"the difference of sample {int(np.flatnonzero(~np.isfinite(difference))[0])} is not finite")
    labels, member = np.unique(groups, return_inverse=True)
    if len(labels) < 2:
        raise ValueError(f"{len(labels)} sequence(s) given; resampling whole sequences needs at least two")
    sums = np.bincount(member, weights=difference)
    counts = np.bincount(member)
    drawn = np.random.default_rng(seed).integers(0, len(labels), (n, len(labels)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - 0.95) / 2, (1 + 0.95) / 2])
    return float(difference.mean()), float(low), float(high)
