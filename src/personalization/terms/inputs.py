"""Checking what comes in, frame by frame, so that no NaN enters the solvers and none leaves them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from src.personalization.solver.status import Status

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
    n, betas, K, keypoints = pose.shape[0], *(value.to(pose) for value in (betas, K, keypoints))
    confidence = torch.ones_like(keypoints[..., 0]) if confidence is None else confidence.to(pose)
    confidence = torch.where(torch.isfinite(confidence) & (confidence > min_confidence), confidence.clamp_max(1.0), 0.0)
    seen = confidence > 0
    status = torch.full((n,), int(Status.CONVERGED), dtype=torch.int64, device=pose.device)

    low = torch.where(seen[..., None], keypoints, torch.inf).amin(dim=1)
    high = torch.where(seen[..., None], keypoints, -torch.inf).amax(dim=1)
    status[(high - low).amax(dim=-1) < MIN_SPREAD] = Status.KEYPOINTS_COINCIDE
    status[seen.sum(dim=1) < 3] = Status.NO_KEYPOINTS
    status[(~torch.isfinite(keypoints).all(-1) & seen).any(dim=1)] = Status.KEYPOINTS_NOT_FINITE

    finite_camera = torch.isfinite(K).flatten(1).all(dim=1)
    safe = torch.where(finite_camera[:, None, None], K, torch.eye(3, dtype=K.dtype, device=K.device))
    axis = (safe[:, 2].norm(dim=1) - 1).abs() < 1e-6  # (0, 0, 1), or where a camera looks that was turned
    focal = torch.linalg.det(safe).abs() > 1e-6
    status[~(finite_camera & axis & focal)] = Status.BAD_INTRINSICS

    error = (pose @ pose.mT - torch.eye(3, dtype=pose.dtype, device=pose.device)).abs().amax(dim=(1, 2, 3))
    volume = (torch.linalg.cross(pose[..., 0, :], pose[..., 1, :]) * pose[..., 2, :]).sum(dim=-1)
    rotations = (error < 1e-2) & (volume > 0).all(dim=1)
    status[~(rotations & torch.isfinite(betas).all(dim=1))] = Status.BAD_PREDICTION

    good = status == Status.CONVERGED
    identity = torch.eye(3, dtype=pose.dtype, device=pose.device)
    camera = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=pose.dtype, device=pose.device)
    use = good[:, None]
    pose = torch.where(rotations[:, None, None, None], pose, identity)
    for _ in range(2):  # Newton steps to the nearest rotation (Higham 1986) remove float32 rounding
        pose = pose @ (3 * identity - pose.mT @ pose) / 2
    return FrameInputs(
        pose=pose,
        betas=torch.where(torch.isfinite(betas), betas, 0.0),
        K=torch.where(use[..., None], safe, camera),
        keypoints=torch.where(use[..., None] & seen[..., None], keypoints, 0.0),
        confidence=torch.where(use, confidence, 0.0),
        status=status,
    )
