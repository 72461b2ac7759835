"""Solving many small damped symmetric systems, each on its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Columns of a Jacobian shorter than this many times the rounding of the longest say nothing (unobserved unknowns);
#: their systems are kept solvable. Longer ones count, however short: a runaway's vanishing slope is no minimum.
SILENT = 10.0


@dataclass
class Factored:
    """Cholesky factors of damped systems.

    Attributes:
        factor: (...,U,U); added: (...,U) what damping added to the diagonal.
        bad: (...) systems that were not finite; their factor is the identity.
        exact: (...) systems that contain the excess; the others were indefinite with it.
    """

    factor: torch.Tensor
    added: torch.Tensor
    bad: torch.Tensor
    exact: torch.Tensor


def factorise_model(hessian: torch.Tensor, excess: torch.Tensor, damping: torch.Tensor) -> Factored:
    """Factorise hessian + excess + damping; without the excess where that is not positive definite.

    Args:
        hessian: (...,U,U) Gauss-Newton part; excess: (...,U,U) rest of the Hessian.
        damping: (...), times the Gauss-Newton diagonal (Marquardt's scaling).
    """
    added = damping_diagonal(hessian, damping)
    bad = ~torch.isfinite(hessian + excess).flatten(-2).all(dim=-1)
    system = hessian + excess
    system.diagonal(dim1=-2, dim2=-1).add_(added)
    if bool(bad.any()):
        identity = torch.eye(system.shape[-1], dtype=system.dtype, device=system.device)
        system = torch.where(bad[..., None, None], identity, system)
    factor, info = torch.linalg.cholesky_ex(system)
    failed = info > 0
    if bool(failed.any()):
        safer = hessian[failed] + torch.diag_embed(added[failed])
        factor[failed] = factorise(safer)
    return Factored(factor, added, bad, ~failed)


def damping_diagonal(hessian: torch.Tensor, damping: torch.Tensor) -> torch.Tensor:
    """`marquardt` of the diagonal of ``hessian`` (...,U,U)."""
    return marquardt(hessian.diagonal(dim1=-2, dim2=-1), damping)


def marquardt(diagonal: torch.Tensor, damping: torch.Tensor) -> torch.Tensor:
    """What damping (...) adds to a diagonal (...,U): a multiple of it, and a floor where nothing was observed."""
    rounding = (SILENT * torch.finfo(diagonal.dtype).eps) ** 2
    floor = rounding * diagonal.amax(dim=-1, keepdim=True).clamp_min(1e-20)
    return damping[..., None] * diagonal.clamp_min(floor) + floor * (diagonal < floor)


def factorise(system: torch.Tensor) -> torch.Tensor:
    """Lower factors L (..., U, U) with L L^T = system, finite and symmetric.

    Where Cholesky fails because rounding made a system indefinite, the factor comes from its
    eigenvalues, made positive (|w|, at least 1e-6 of the largest).
    """
    factor, info = torch.linalg.cholesky_ex(system)
    failed = info > 0
    if bool(failed.any()):
        values, vectors = torch.linalg.eigh(system[failed])
        values = values.abs()
        values = values.clamp_min(1e-6 * values.amax(dim=-1, keepdim=True).clamp_min(1e-30))
        # QR of W^(1/2) V^T gives R with R^T R = V W V^T; its transpose is the lower factor.
        upper = torch.linalg.qr(values.sqrt()[..., None] * vectors.mT, mode="r").R
        sign = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(system.dtype)
        factor[failed] = (sign[..., None] * upper).mT
    return factor


def solve_factored(factor: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """x with L L^T x = right; right (..., U) or (..., U, M)."""
    vector = right.dim() == factor.dim() - 1
    solution = torch.cholesky_solve(right[..., None] if vector else right, factor)
    return solution[..., 0] if vector else solution
