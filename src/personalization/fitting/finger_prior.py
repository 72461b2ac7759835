"""The pose prior of the quick problem: one number a joint says how far its rotation is trusted."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from src.personalization.terms.components_first import matvec, product
from src.personalization.terms.pose_prior import PosePrior, rotation_log


@dataclass
class PulledPose:
    """An isotropic Gaussian on each rotation, joints ordered as in `finger_pose`.

    Attributes:
        back: (3,3,16,N) transposed rotations at the centre; precision: (16,N) or (16,1), 1/rad^2.
    """

    back: torch.Tensor
    precision: torch.Tensor

    def rows(self, index: torch.Tensor) -> PulledPose:
        """Some of the frames."""
        shared = self.precision.shape[1] == 1
        return PulledPose(self.back[..., index], self.precision if shared else self.precision[:, index])


def is_isotropic(prior: PosePrior) -> bool:
    """The prior is centred at its reference and its precision is a multiple of the identity at each joint."""
    if not prior.per_joint or prior.offset is not None:
        return False
    even = prior.precision[..., :1, :1] * torch.eye(3, dtype=prior.precision.dtype, device=prior.precision.device)
    return torch.equal(even, prior.precision)


def pulled_pose(prior: PosePrior, joint_order: torch.Tensor) -> PulledPose:
    """An isotropic `PosePrior` rearranged."""
    back = prior.reference[:, joint_order].permute(3, 2, 1, 0).contiguous()
    return PulledPose(back, prior.precision[:, joint_order, 0, 0].T.contiguous())


def prior_pull(
    prior: PulledPose, pose: torch.Tensor, rotations: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Half chi-square of the prior and its Gauss-Newton terms in turns about the camera's axes.

    With phi the rotation vector from the reference, psi the same in the camera's axes and t = |phi|: the
    logarithm's derivative leaves phi alone and stretches what is across it by (t/2) / sin(t/2), so that
    the gradient is psi and the Hessian s I + (1 - s) psi psi^T / t^2 with s that factor's square.

    Args:
        pose: (3,3,16,N) local rotations; rotations: (3,3,16,N) global ones.

    Returns:
        cost (N,), gradient (3,16,N), Hessian (3,3,16,N).
    """
    relative = product(prior.back, pose)
    vector = rotation_log(relative)
    squared = (vector * vector).sum(dim=0)
    small = squared < 1e-2
    drop = 3 - relative[0, 0] - relative[1, 1] - relative[2, 2]  # 2 (1 - cos t)
    stretch = torch.where(small, 1 + squared / 12, squared / drop)
    along = torch.where(small, -1 / 12 - squared / 240, (1 - stretch) / squared)
    turned = matvec(rotations, vector)
    weighted = turned * prior.precision
    cost = (squared * prior.precision).sum(dim=0) / 2
    hessian = (weighted * along)[:, None] * turned
    across = prior.precision * stretch
    for axis in range(3):
        hessian[axis, axis].add_(across)
    return cost, weighted, hessian
