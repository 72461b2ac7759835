"""Solving many small damped symmetric systems, each on its own."""

from __future__ import annotations

import torch

#: Smallest diagonal entry, as a fraction of the largest, that damping is taken from: keeps
#: unobserved unknowns (zero rows) solvable.
FLOOR = 1e-9


def damped(hessian: torch.Tensor, damping: torch.Tensor) -> torch.Tensor:
    """H + damping * diag(H), (P,...,U,U), Marquardt's scaling; ``damping`` broadcasts over (P,...)."""
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    floor = FLOOR * diagonal.amax(dim=-1, keepdim=True).clamp_min(1e-30)
    system = hessian.clone()
    added = damping[..., None] * diagonal.clamp_min(floor) + torch.where(diagonal < floor, floor, 0 * floor)
    system.diagonal(dim1=-2, dim2=-1).add_(added)
    return system


def factorise(system: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower factors L (..., U, U) with L L^T = system, and a mask (...) of systems that had none.

    Where Cholesky fails because rounding made a system indefinite, the factor comes from its
    eigenvalues, made positive (|w|, at least 1e-6 of the largest); non-finite systems are replaced by
    the identity and marked bad.
    """
    bad = ~torch.isfinite(system).flatten(-2).all(dim=-1)
    identity = torch.eye(system.shape[-1], dtype=system.dtype, device=system.device)
    if bool(bad.any()):
        system = torch.where(bad[..., None, None], identity, system)
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
    return factor, bad


def solve_factored(factor: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """x with L L^T x = right; right (..., U) or (..., U, M)."""
    vector = right.dim() == factor.dim() - 1
    solution = torch.cholesky_solve(right[..., None] if vector else right, factor)
    return solution[..., 0] if vector else solution
