"""Gaussian priors on the 16 rotations, with the exact derivative of the rotation logarithm.

The residual of joint k is ``phi = log(reference_k^T R_k) - offset_k``. Under a local increment
``R exp([d])`` it changes by ``Jr^-1(phi) d`` (inverse right Jacobian of SO(3); Sola et al. 2018,
"A micro Lie theory", eq. 144), and here ``d = A^T w`` (see `hand_residuals`).
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch

from src.personalization.terms.components_first import matmul, matmul_transposed, matvec


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

    @property
    def per_joint(self) -> bool:
        """The joints are independent of each other."""
        return self.precision.dim() == 4

    def rows(self, index: torch.Tensor | slice) -> PosePrior:
        """The prior of some frames."""

        def take(value: torch.Tensor | None) -> torch.Tensor | None:
            return value if value is None or value.shape[0] == 1 else value[index]

        return PosePrior(self.reference[index], take(self.precision), take(self.offset))


def inverse_right_jacobian(rotvec: torch.Tensor) -> torch.Tensor:
    """Jr^-1 (3,3,...) at rotation vectors (3,...), rad, |phi| <= pi, components first.

    I + [phi]/2 + c [phi]^2 with c = (1 - (t/2) cot(t/2)) / t^2, t = |phi|; 1/12 + t^2/720 near zero.
    """
    squared = (rotvec * rotvec).sum(dim=0)
    small = squared < 1e-3
    safe = torch.where(small, torch.ones_like(squared), squared)
    half = safe.sqrt() / 2
    curve = torch.where(small, 1 / 12 + squared / 720, (1 - half / torch.tan(half)) / safe)
    # [phi]^2 = phi phi^T - t^2 I
    out = (curve * rotvec)[:, None] * rotvec[None]
    diagonal = 1 - curve * squared
    for axis in range(3):
        out[axis, axis] += diagonal
    for row, column, axis in ((2, 1, 0), (0, 2, 1), (1, 0, 2)):
        out[row, column] += rotvec[axis] / 2
        out[column, row] -= rotvec[axis] / 2
    return out


def rotation_log(matrix: torch.Tensor) -> torch.Tensor:
    """Rotation vectors (3,...), rad, of rotation matrices (3,3,...), components first.

    The antisymmetric part serves up to about 150 degrees; larger rotations take RoMa's quaternion
    path, exact up to pi.
    """
    m = matrix
    axis = torch.stack([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    sine = (axis * axis).sum(dim=0).sqrt() / 2
    cosine = (m[0, 0] + m[1, 1] + m[2, 2] - 1) / 2
    small = sine < 1e-4
    ratio = torch.atan2(sine, cosine) / torch.where(small, torch.ones_like(sine), sine)
    rotvec = axis * (torch.where(small, 1 + sine * sine / 6, ratio) / 2)
    large = cosine < -0.85
    if bool(large.any()):
        rotvec[:, large] = roma.rotmat_to_rotvec(matrix[:, :, large].permute(2, 0, 1)).T
    return rotvec


def matrix_log(matrix: torch.Tensor) -> torch.Tensor:
    """Rotation vectors (...,3), rad, of rotation matrices (...,3,3); see `rotation_log`."""
    return rotation_log(matrix.movedim((-2, -1), (0, 1))).movedim(0, -1)


def prior_terms(
    prior: PosePrior, pose: torch.Tensor, rotations: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Half chi-square of the prior and its Gauss-Newton terms, components first.

    Args:
        prior: of N frames.
        pose: (3,3,16,N) local rotations; rotations: (3,3,16,N) global ones.

    Returns:
        cost (N,); gradient (3,16,N) with respect to w; Hessian: blocks (3,3,16,N) if the precision is per
        joint, else (N,48,48) ordered (axis, joint).
    """
    residual = rotation_log(matmul_transposed(prior.reference.permute(2, 3, 1, 0), pose))
    # Jr^-1 A^T: rows of A are columns of its transpose.
    derivative = (inverse_right_jacobian(residual)[:, :, None] * rotations.transpose(0, 1)[None]).sum(dim=1)
    if prior.offset is not None:
        residual = residual - prior.offset.permute(2, 1, 0)
    if prior.per_joint:
        precision = prior.precision.permute(2, 3, 1, 0)
        weighted = matvec(precision, residual)
        hessian = matmul_transposed(derivative, matmul(precision, derivative))
    else:
        n = residual.shape[-1]
        vector = residual.permute(2, 1, 0).reshape(n, 48)
        weighted = (prior.precision @ vector[..., None])[..., 0].view(n, 16, 3).permute(2, 1, 0)
        columns = torch.zeros(n, 16, 3, 3, 16, dtype=pose.dtype, device=pose.device)  # d phi_(k,a) / d w_(c,k)
        columns.diagonal(dim1=1, dim2=4).copy_(derivative.permute(3, 0, 1, 2))
        columns = columns.view(n, 48, 48)
        hessian = columns.mT @ (prior.precision @ columns)
    cost = (residual * weighted).sum(dim=(0, 1)) / 2
    return cost, matmul_transposed(derivative, weighted), hessian


def diagonal_precision(std: torch.Tensor) -> torch.Tensor:
    """Precision (1,16,3,3), 1/rad^2, from standard deviations (16,3) or (16,1), rad; infinity gives zero."""
    return torch.diag_embed(std.expand(16, 3).pow(-2))[None]
