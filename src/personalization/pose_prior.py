"""Gaussian priors on the 16 rotations, with the exact derivative of the rotation logarithm.

The residual of joint k is ``phi = log(reference_k^T R_k) - offset_k``. Under a local increment
``R exp([d])`` it changes by ``Jr^-1(phi) d`` (inverse right Jacobian of SO(3); Sola et al. 2018,
"A micro Lie theory", eq. 144), and here ``d = A^T w`` (see `hand_residuals`).
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch


@dataclass
class PosePrior:
    """A Gaussian on the rotations of each frame.

    Attributes:
        reference: (N,16,3,3) rotations at the centre.
        precision: 1 / rad^2: (N|1,16,3,3), one block per joint, or (N|1,48,48) over (joint, axis).
        offset: (N|1,16,3) rad, subtracted from the logarithm; zero for a prior centred at ``reference``.
    """

    reference: torch.Tensor
    precision: torch.Tensor
    offset: torch.Tensor | None = None

    def rows(self, index: torch.Tensor | slice) -> PosePrior:
        """The prior of some frames."""

        def take(value: torch.Tensor | None) -> torch.Tensor | None:
            return value if value is None or value.shape[0] == 1 else value[index]

        return PosePrior(self.reference[index], take(self.precision), take(self.offset))


def inverse_right_jacobian(rotvec: torch.Tensor) -> torch.Tensor:
    """Jr^-1 (..., 3, 3) at rotation vectors (..., 3), rad, |phi| <= pi.

    I + [phi]/2 + c [phi]^2 with c = (1 - (t/2) cot(t/2)) / t^2, t = |phi|; 1/12 + t^2/720 near zero.
    """
    squared = (rotvec * rotvec).sum(-1, keepdim=True)
    small = squared < 1e-3
    safe = torch.where(small, torch.ones_like(squared), squared)
    half = safe.sqrt() / 2
    curve = torch.where(small, 1 / 12 + squared / 720, (1 - half / torch.tan(half)) / safe)[..., None]
    hat = skew(rotvec)
    outer = rotvec[..., :, None] * rotvec[..., None, :]
    identity = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    # [phi]^2 = phi phi^T - t^2 I
    return identity + hat / 2 + curve * (outer - squared[..., None] * identity)


def skew(vector: torch.Tensor) -> torch.Tensor:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3)."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def matrix_log(matrix: torch.Tensor) -> torch.Tensor:
    """Rotation vectors (..., 3), rad, of rotation matrices (..., 3, 3).

    The antisymmetric part serves up to about 150 degrees; where any rotation is larger RoMa's
    quaternion path, exact up to pi, takes those.
    """
    axis = torch.stack(
        [
            matrix[..., 2, 1] - matrix[..., 1, 2],
            matrix[..., 0, 2] - matrix[..., 2, 0],
            matrix[..., 1, 0] - matrix[..., 0, 1],
        ],
        dim=-1,
    )
    sine = axis.norm(dim=-1, keepdim=True) / 2
    cosine = (matrix.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - 1) / 2
    angle = torch.atan2(sine, cosine)
    small = sine < 1e-4
    factor = torch.where(small, 1 + sine * sine / 6, angle / torch.where(small, torch.ones_like(sine), sine))
    rotvec = axis * (factor / 2)
    large = (cosine < -0.85)[..., 0]
    if bool(large.any()):
        rotvec = rotvec.clone()
        rotvec[large] = roma.rotmat_to_rotvec(matrix[large])
    return rotvec


def prior_terms(
    prior: PosePrior, pose: torch.Tensor, rotations: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Half chi-square of the prior and its Gauss-Newton terms.

    Args:
        pose: (N,16,3,3) local rotations; rotations: (N,16,3,3) global ones.

    Returns:
        cost (N,); gradient (N,48) and Hessian with respect to w, ordered (axis, joint): blocks
        (N,3,3,16) = (axis, axis, joint) if the precision is per joint, else the full (N,48,48).
    """
    residual = matrix_log(prior.reference.mT @ pose)
    derivative = inverse_right_jacobian(residual) @ rotations.mT
    if prior.offset is not None:
        residual = residual - prior.offset
    if prior.precision.dim() == 4:
        weighted = (prior.precision @ residual[..., None])[..., 0]
        hessian = (derivative.mT @ (prior.precision @ derivative)).permute(0, 2, 3, 1)
    else:
        weighted = (prior.precision @ residual.flatten(1)[..., None])[..., 0].unflatten(1, (16, 3))
        n = pose.shape[0]
        blocks = prior.precision.unflatten(-1, (16, 3)) @ torch.eye(3, dtype=pose.dtype, device=pose.device)
        right = torch.einsum("nrka,nkac->nrck", blocks.expand(n, -1, -1, -1), derivative).flatten(2)
        left = right.unflatten(1, (16, 3))
        hessian = torch.einsum("nkac,nkad->nckd", derivative, left).flatten(1, 2)
    cost = (residual * weighted).flatten(1).sum(-1) / 2
    gradient = torch.einsum("nkac,nka->nck", derivative, weighted).flatten(1)
    return cost, gradient, hessian


def diagonal_precision(std: torch.Tensor) -> torch.Tensor:
    """Precision (1,16,3,3), 1/rad^2, from standard deviations (16,3) or (16,1), rad; infinity gives zero."""
    return torch.diag_embed(std.expand(16, 3).pow(-2))[None]
