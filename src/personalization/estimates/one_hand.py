"""Is one hand in all images of a subject? Two people taken for one would get the mean of both, in silence."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np

from src.personalization.calibration.images import rows_by_subject
from src.personalization.solver.status import CalibrationError
from utils.artifacts import Predictions

logger = logging.getLogger(__name__)

#: Fewer images than this do not tell two groups from chance.
LEAST = 8
#: How many standard deviations more clearly than chance the images fall into two groups: doubted, refused.
DOUBTED, REFUSED = 2.0, 3.0
_DRAWS = 100


def check_one_hand(rows: Predictions) -> None:
    """Warn, or raise, where a subject's betas are of two hands.

    The test is scale-free, so it needs no knowledge of how an estimator errs: SigClust (Liu et al. 2008, "Statistical
    significance of clustering for high-dimension, low-sample size data"). The best split of the betas into two groups
    is compared with the best splits of Gaussian draws of the same covariance. That covariance holds the distance of two
    groups as well, so the test is on the safe side: images of one person stay below zero on average.

    Raises:
        CalibrationError: a subject's images are of two hands; names the images of each.
    """
    for subject, own in rows_by_subject(rows).items():
        _check_pictures(rows, subject, own)
    if rows.betas is None:
        return
    for subject, own in rows_by_subject(rows).items():
        if len(own) < LEAST:
            continue
        betas = rows.betas[own].astype(np.float64)
        clearer, group = two_groups(betas)
        if clearer < DOUBTED:
            continue
        names = rows.image_name[own] if rows.image_name is not None else rows.image_id[own].astype(str)
        parts = [", ".join(dict.fromkeys(names[group == side].tolist()[:3])) for side in (0, 1)]
        said = (
            f"subject {subject} of {rows.source} looks like two people: {int((group == 0).sum())} images such as "
            f"{parts[0]}, and {int((group == 1).sum())} such as {parts[1]} (two groups of shapes, {clearer:.0f} "
            "standard deviations clearer than chance)"
        )
        if clearer > REFUSED:
            raise CalibrationError(
                f"{said}. Say who is who with --subjects, or --accept_conflict if it is one person's hand all the same"
            )
        logger.warning("%s; if so, use --subjects", said)


def _check_pictures(rows: Predictions, subject: int, own: np.ndarray) -> None:
    """Warn where a picture shows two hands of one side: they are two people's, or one was found twice."""
    if rows.image_name is None:
        return
    hands = Counter(zip(rows.image_name[own].tolist(), rows.is_left[own].tolist(), strict=True))
    twice = [picture for picture, count in hands.items() if count > 1]
    if twice:
        name, left = twice[0]
        logger.warning(
            "subject %d has two %s hands in %d pictures of %s, such as %s: if they are two people's, say who is who "
            "with --subjects", subject, "left" if left else "right", len(dict(twice)), rows.source, name,
        )  # fmt: skip


def two_groups(values: np.ndarray, seed: int = 0) -> tuple[float, np.ndarray]:
    """How many standard deviations the best split of values (N,D) into two is clearer than chance, and it (N,)."""
    generator = np.random.default_rng(seed)
    index, group = _split(values)
    centred = values - values.mean(axis=0)
    scale = np.linalg.svd(centred, compute_uv=False) / np.sqrt(max(len(values) - 1, 1))
    drawn = np.array([_split(generator.normal(size=(len(values), len(scale))) * scale)[0] for _ in range(_DRAWS)])
    return float((drawn.mean() - index) / max(drawn.std(ddof=1), 1e-12)), group


def _split(values: np.ndarray) -> tuple[float, np.ndarray]:
    """The share of the variance within two groups (2-means, begun at the widest direction), and the groups (N,)."""
    centred = values - values.mean(axis=0)
    group = (centred @ np.linalg.svd(centred, full_matrices=False)[2][0] > 0).astype(int)
    for _ in range(10):
        if group.min() == group.max():
            return 1.0, group
        means = np.stack([centred[group == side].mean(axis=0) for side in (0, 1)])
        group = ((centred[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    if group.min() == group.max():
        return 1.0, group
    within = sum(((centred[group == side] - centred[group == side].mean(axis=0)) ** 2).sum() for side in (0, 1))
    return float(within / max((centred**2).sum(), 1e-30)), group
