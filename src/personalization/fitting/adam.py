"""The paper's test-time optimisation, kept as the reference solver (docs/facts.md 7.5).

Two stages of Adam on the mean squared reprojection error: translation alone, then translation and the
6D pose. Unlike the released code the loss is summed over images, so that a frame's result does not
depend on how many frames share the batch, and the result is read after the last update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from src.personalization.fitting.translation import wrist_at_depth
from utils.camera import project
from utils.rotations import matrix_to_rotation_6d, rotation_6d_to_matrix

#: (pose (N,16,3,3), betas (N,10), transl (N,3)) -> joints (N,21,3), standard order, metres.
JointsFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class AdamOptions:
    """Steps and rates of docs/facts.md 7.5.

    Attributes:
        translation_steps, translation_rate: stage 1. pose_steps, pose_rate: stage 2.
        use_confidence: weight keypoints by their confidence (off in the paper's code).
        decay: the rate of stage 2 falls exponentially to this fraction (1: constant, as in the paper).
    """

    translation_steps: int = 200
    translation_rate: float = 1e-2
    pose_steps: int = 100
    pose_rate: float = 1e-3
    use_confidence: bool = False
    decay: float = 1.0


@dataclass
class AdamResult:
    """pose (N,16,3,3), transl (N,3) m, and the mean squared error (N,) px^2 after the last update."""

    pose: torch.Tensor
    transl: torch.Tensor
    loss: torch.Tensor


def fit_adam(
    joints_of: JointsFunction,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None = None,
    options: AdamOptions = AdamOptions(),
    penalty: Callable[[torch.Tensor], torch.Tensor] | None = None,
    start: torch.Tensor | None = None,
    pose_once: bool = False,
) -> AdamResult:
    """Fit translation and pose of N frames to 2D keypoints.

    Args:
        joints_of: the hand, full layer or joints only; see `JointsFunction`.
        pose: (N,16,3,3) starting rotations; betas: (N,10), fixed; K: (N,3,3) px.
        keypoints: (N,21,2) px, standard order; confidence: (N,21), zero where unseen, or None.
        penalty: adds to the loss a term (N,), px^2, of the pose (N,16,3,3), e.g. a prior, so that
            solvers can be compared on one objective.
        start: (N,3) m translation to start from instead of the back-projected wrist.
        pose_once: pose the hand once for all of stage 1, since translation alone only shifts its joints;
            the same iterates up to rounding, without what the paper's loop spends on them.
    """
    weights = torch.ones_like(keypoints[..., 0]) if confidence is None else (confidence > 0).to(keypoints)
    if options.use_confidence and confidence is not None:
        weights = confidence / confidence.mean(dim=1, keepdim=True).clamp_min(1e-6)
    keypoints = torch.where((weights > 0)[..., None], keypoints, torch.zeros_like(keypoints))

    def error_of(joints: torch.Tensor) -> torch.Tensor:
        off = project(joints, K) - keypoints
        return (weights[..., None] * off * off).mean(dim=(1, 2))

    def loss_of(rotations: torch.Tensor, transl: torch.Tensor) -> torch.Tensor:
        loss = error_of(joints_of(rotations, betas, transl))
        return loss if penalty is None else loss + penalty(rotations)

    with torch.no_grad():
        still = joints_of(pose, betas, torch.zeros_like(betas[:, :3]))
        middle = (weights[..., None] * keypoints).sum(dim=1) / weights.sum(dim=1, keepdim=True).clamp_min(1e-6)
        ray = wrist_at_depth(torch.where(weights[:, :1] > 0, keypoints[:, 0], middle), K)
        transl = ray - still[:, 0] if start is None else start.clone()
    transl.requires_grad_(True)

    def shifted() -> torch.Tensor:
        return error_of(still + transl[:, None])

    first = shifted if pose_once else lambda: loss_of(pose, transl)
    _descend(first, [transl], options.translation_rate, options.translation_steps, 1.0)
    six = matrix_to_rotation_6d(pose).clone().requires_grad_(True)
    _descend(
        lambda: loss_of(rotation_6d_to_matrix(six), transl),
        [transl, six],
        options.pose_rate,
        options.pose_steps,
        options.decay,
    )
    with torch.no_grad():
        fitted = rotation_6d_to_matrix(six)
        return AdamResult(fitted, transl.detach(), loss_of(fitted, transl))


def _descend(
    loss: Callable[[], torch.Tensor], parameters: list[torch.Tensor], rate: float, steps: int, decay: float
) -> None:
    optimizer = torch.optim.Adam(parameters, lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * decay ** (step / max(steps - 1, 1))
        optimizer.zero_grad(set_to_none=True)
        loss().sum().backward()
        optimizer.step()
