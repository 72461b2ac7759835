"""What became of each problem of a batch. Callers must look at it; no problem fails silently."""

from __future__ import annotations

import enum
import logging
from collections import Counter

import numpy as np
import torch

from utils.artifacts import ArtifactError


class Status(enum.IntEnum):
    """Outcome of one least-squares problem (a frame, or a subject's calibration)."""

    CONVERGED = 0  #: the gradient there, in the Hessian's scale, is next to nothing
    ITERATION_LIMIT = 1  #: still improving when the iterations ran out; the best state is returned
    STALLED = 2  #: no step improved the cost although the model promised one; the best state is returned
    DIVERGED = 3  #: the cost was not finite at the start; the starting state is returned
    KEYPOINTS_NOT_FINITE = 4  #: a keypoint that counts is NaN or infinite
    NO_KEYPOINTS = 5  #: fewer than three keypoints with a confidence above the threshold
    KEYPOINTS_COINCIDE = 6  #: all keypoints lie at one point: no direction, no size
    BAD_INTRINSICS = 7  #: K is not finite, not invertible, mirrors, or its last row has not length 1
    BAD_PREDICTION = 8  #: the network's pose or shape is not finite or not a rotation
    BEHIND_CAMERA = 9  #: the hand could not be placed in front of the camera
    OUT_OF_RANGE = 10  #: nearer than `NEAR`, farther than `FAR`, or no hand of any size: no solution, whatever its cost


#: Depths of a wrist (m) between which a state is believed. A hand of a pixel or two fits any keypoints from afar.
NEAR, FAR = 0.05, 10.0
#: Outcomes whose numbers come from the optimisation and may be used.
USABLE = (Status.CONVERGED, Status.ITERATION_LIMIT, Status.STALLED)


class CalibrationError(ArtifactError):
    """Calibration or fitting cannot be done with what was given; the message says why and what to do."""


def usable(status: torch.Tensor) -> torch.Tensor:
    """Mask, same shape as ``status`` (integers of `Status`): the state is a result, not a fallback."""
    return status <= max(USABLE)


def in_range(position: torch.Tensor, K: torch.Tensor | None = None) -> torch.Tensor:
    """Mask (...) of positions (...,3), m, camera frame, from `NEAR` to `FAR`, and not further to the side; no NaN.

    Args:
        K: (...,3,3), of views that may be turned against that frame; None: they look along z.
    """
    depth = position[..., 2] if K is None else (position * K[..., 2, :]).sum(dim=-1)
    return (depth >= NEAR) & (position.abs() <= FAR).all(dim=-1)


def count_status(status: torch.Tensor | np.ndarray) -> dict[str, int]:
    """Number of problems by name of their `Status`, lower case, only those that occur."""
    counts = Counter(status.reshape(-1).tolist())
    return {Status(value).name.lower(): counts[value] for value in sorted(counts)}


def log_unusable(log: logging.Logger, status: torch.Tensor | np.ndarray, what: str, remedy: str) -> None:
    """Warn, by status, of the problems whose numbers are a fallback; silent if there are none.

    Args:
        what: the problems, plural, e.g. "frames"; remedy: what was done instead.
    """
    counts = count_status(status)
    bad = {name: count for name, count in counts.items() if Status[name.upper()] not in USABLE}
    if bad:
        reasons = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in bad.items())
        total = (sum(bad.values()), sum(counts.values()))
        log.warning("%d of %d %s could not be fitted (%s); %s", *total, what, reasons, remedy)
