"""Solving many small damped symmetric systems, each on its own."""

from __future__ import annotations

import torch

from template.components_first import Array, library

#: Columns of a Jacobian shorter than this many times the rounding of the longest say nothing (unobserved unknowns);
#: their systems are kept solvable. Longer ones count, however short: a runaway's vanishing slope is no minimum.
SILENT = 10.0


def solve_damped(
    hessian: torch.Tensor, gradient: torch.Tensor, damping: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Levenberg-Marquardt steps and what the undamped models promise of them.

    Args:
        hessian: (P,U,U) positive semi-definite; gradient: (P,U); damping: (P,), times the Hessian's diagonal
            (Marquardt's scaling).

    Returns:
        steps (P,U), s with (H + D) s = -g; the promised decrease (P,), -g.s - s.H.s / 2. Systems that are not
        finite: a zero step, and NaN.
    """
    system, added = damped(hessian, damping)
    step = -solve_factored(factorise(system), gradient)
    # -g.s - s.H.s / 2 with (H + D) s = -g is (s.D.s - g.s) / 2.
    promised = ((added * step - gradient) * step).sum(dim=-1) / 2
    bad = ~torch.isfinite(promised)
    return step.masked_fill(bad[:, None], 0.0), promised.masked_fill(bad, torch.nan)


def damped(hessian: torch.Tensor, damping: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``hessian`` (...,U,U) with `marquardt` added to its diagonal, and what was added (...,U)."""
    added, system = marquardt(hessian.diagonal(dim1=-2, dim2=-1), damping), hessian.clone()
    system.diagonal(dim1=-2, dim2=-1).add_(added)
    return system, added


def marquardt(diagonal: Array, damping: Array) -> Array:
    """What damping (...) adds to a diagonal (...,U): a multiple of it, and a floor where nothing was observed."""
    xp = library(diagonal)
    rounding = (SILENT * xp.finfo(diagonal.dtype).eps) ** 2
    floor = rounding * xp.amax(diagonal, -1)[..., None].clip(min=1e-20)
    return damping[..., None] * diagonal.clip(min=floor) + floor * (diagonal < floor)


def factorise(system: torch.Tensor) -> torch.Tensor:
    """Lower factors L (..., U, U) with L L^T = system, symmetric.

    Where Cholesky fails because rounding made a system indefinite, the factor comes from its
    eigenvalues, made positive (|w|, at least 1e-6 of the largest). Systems that are not finite give NaN.
    """
    upper, info = torch.linalg.cholesky_ex(system, upper=True)  # LAPACK's own layout: the lower one is copied once more
    factor = upper.mT
    failed = info > 0
    if bool(failed.any()):
        factor[failed] = torch.nan
        failed &= torch.isfinite(system).flatten(-2).all(dim=-1)
        values, vectors = torch.linalg.eigh(system[failed])
        values = values.abs()
        values = values.clamp_min(1e-6 * values.amax(dim=-1, keepdim=True).clamp_min(1e-30))
        # QR of W^(1/2) V^T gives R with R^T R = V W V^T; its transpose is the lower factor.
        root = torch.linalg.qr(values.sqrt()[..., None] * vectors.mT, mode="r").R
        sign = torch.where(root.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(system.dtype)
        factor[failed] = (sign[..., None] * root).mT
    return factor


def solve_factored(factor: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """x with L L^T x = right; right (..., U) or (..., U, M)."""
    vector = right.dim() == factor.dim() - 1
    half = torch.linalg.solve_triangular(factor, right[..., None] if vector else right, upper=False)
    solution = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return solution[..., 0] if vector else solution
