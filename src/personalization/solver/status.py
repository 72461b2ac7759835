"""What became of each problem of a batch. Callers must look at it; no problem fails silently."""

from __future__ import annotations

import enum
from collections import Counter

import torch

from utils.artifacts import ArtifactError


class Status(enum.IntEnum):
    """Outcome of one least-squares problem (a frame, or a subject's calibration)."""

    CONVERGED = 0  #: the last accepted step promised and brought next to nothing
    ITERATION_LIMIT = 1  #: still improving when the iterations ran out; the best state is returned
    STALLED = 2  #: no step improved the cost although the model promised one; the best state is returned
    DIVERGED = 3  #: the cost was not finite at the start; the starting state is returned
    KEYPOINTS_NOT_FINITE = 4  #: a keypoint that counts is NaN or infinite
    NO_KEYPOINTS = 5  #: fewer than three keypoints with a confidence above the threshold
    KEYPOINTS_COINCIDE = 6  #: all keypoints lie at one point: no direction, no size
    BAD_INTRINSICS = 7  #: K is not finite, not invertible, or its last row is not (0, 0, 1)
    BAD_PREDICTION = 8  #: the network's pose or shape is not finite or not a rotation
    BEHIND_CAMERA = 9  #: the hand could not be placed in front of the camera


#: Outcomes whose numbers come from the optimisation and may be used.
USABLE = (Status.CONVERGED, Status.ITERATION_LIMIT, Status.STALLED)


class CalibrationError(ArtifactError):
    """Calibration or fitting cannot be done with what was given; the message says why and what to do."""


def usable(status: torch.Tensor) -> torch.Tensor:
    """Mask, same shape as ``status`` (integers of `Status`): the state is a result, not a fallback."""
    return status <= max(USABLE)


def count_status(status: torch.Tensor) -> dict[str, int]:
    """Number of problems by name of their `Status`, lower case, only those that occur."""
    counts = Counter(status.reshape(-1).tolist())
    return {Status(value).name.lower(): counts[value] for value in sorted(counts)}
