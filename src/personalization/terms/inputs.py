"""Checking what comes in, frame by frame, so that no NaN enters the solvers and none leaves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from src.personalization.solver.status import Status
from template.components_first import Array, are_few, library

#: Keypoints spread less than this (px, larger side of their box) carry neither direction nor size.
MIN_SPREAD = 1.0


@dataclass
class FrameInputs:
    """N frames in standard joint order, already on one device and dtype.

    Attributes:
        pose: (N,16,3,3) the network's rotations; betas: (N,10); K: (N,3,3) px, or K R of a camera whose frame is
            turned by R (p' = R p).
        keypoints: (N,21,2) px; confidence: (N,21) in [0,1], zero where unseen.
        status: (N,) int64 of `Status`; anything but CONVERGED marks a frame that cannot be used, whose
            other fields hold harmless numbers and whose confidence is zero.
    """

    pose: torch.Tensor
    betas: torch.Tensor
    K: torch.Tensor
    keypoints: torch.Tensor
    confidence: torch.Tensor
    status: torch.Tensor

    def rows(self, index: torch.Tensor | slice) -> FrameInputs:
        return FrameInputs(**{name: value[index] for name, value in vars(self).items()})

    @property
    def middle(self) -> torch.Tensor:
        """(N,2) px, mean of the keypoints that count; the principal point where none does."""
        total = self.confidence.sum(dim=1, keepdim=True)
        mean = (self.keypoints * self.confidence[..., None]).sum(dim=1) / total.clamp_min(1e-9)
        return torch.where(total > 0, mean, self.K[:, :2, 2])

    @property
    def good(self) -> torch.Tensor:
        """(N,) mask of usable frames."""
        return self.status == Status.CONVERGED


def check_frames(
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None,
    min_confidence: float = 0.0,
) -> FrameInputs:
    """Judge each frame (K and keypoints in px) and replace what is unusable by harmless values (see `FrameInputs`).

    All are brought to the dtype and the device of ``pose``. Keypoints with a confidence of ``min_confidence`` or less
    (or one that is not finite) do not count; none counts for more than 1.
    """
    betas, K, keypoints = (value.to(pose) for value in (betas, K, keypoints))
    confidence = torch.ones_like(keypoints[..., 0]) if confidence is None else confidence.to(pose)
    given = (pose, betas, K, keypoints, confidence)
    if not are_few(pose):
        return FrameInputs(*_checked(*given, min_confidence))
    with np.errstate(all="ignore"):  # what is not finite is looked for
        return FrameInputs(*map(torch.from_numpy, _checked(*(value.numpy() for value in given), min_confidence)))


def _checked(
    pose: Array, betas: Array, K: Array, keypoints: Array, confidence: Array, min_confidence: float
) -> tuple[Any, ...]:
    """The fields of `FrameInputs`."""
    n, xp, like = len(pose), library(pose), {"dtype": pose.dtype, "device": pose.device}
    confidence = xp.where(xp.isfinite(confidence) & (confidence > min_confidence), confidence.clip(max=1.0), 0.0)
    seen = confidence > 0
    status = xp.full((n,), int(Status.CONVERGED), dtype=xp.int64, device=pose.device)

    low = xp.amin(xp.where(seen[..., None], keypoints, xp.inf), 1)
    high = xp.amax(xp.where(seen[..., None], keypoints, -xp.inf), 1)
    status[xp.amax(high - low, -1) < MIN_SPREAD] = int(Status.KEYPOINTS_COINCIDE)
    status[seen.sum(1) < 3] = int(Status.NO_KEYPOINTS)
    status[(~xp.isfinite(keypoints).all(-1) & seen).any(1)] = int(Status.KEYPOINTS_NOT_FINITE)

    identity = xp.eye(3, **like)
    finite_camera = xp.isfinite(K).all(-1).all(-1)
    safe = xp.where(finite_camera[:, None, None], K, identity)
    axis = abs(xp.linalg.norm(safe[:, 2], axis=1) - 1) < 1e-6  # (0, 0, 1), or where a camera looks that was turned
    focal = _determinant(safe) > 1e-6  # below 0: one focal length is, and the camera sees a mirror image
    status[~(finite_camera & axis & focal)] = int(Status.BAD_INTRINSICS)

    error = xp.amax(abs(pose @ pose.mT - identity), (1, 2, 3))
    rotations = (error < 1e-2) & (_determinant(pose) > 0).all(1)
    status[~(rotations & xp.isfinite(betas).all(1))] = int(Status.BAD_PREDICTION)

    use = (status == int(Status.CONVERGED))[:, None]
    camera = xp.asarray([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], **like)
    pose = xp.where(rotations[:, None, None, None], pose, identity)
    for _ in range(2):  # Newton steps to the nearest rotation (Higham 1986) remove float32 rounding
        pose = pose @ (3 * identity - pose.mT @ pose) / 2
    return (
        pose,
        xp.where(xp.isfinite(betas), betas, 0.0),
        xp.where(use[..., None], safe, camera),
        xp.where(use[..., None] & seen[..., None], keypoints, 0.0),
        xp.where(use, confidence, 0.0),
        status,
    )


def _determinant(matrix: Array) -> Array:
    """Of matrices (...,3,3), whatever their library: of a few, both libraries' own take ten times as long."""
    (a, b, c), (d, e, f), (g, h, i) = ([matrix[..., row, column] for column in range(3)] for row in range(3))
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
