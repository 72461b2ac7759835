"""Newton steps of frames whose Hessian is five fingers around a palm: elimination with the frames last.

Batched LAPACK on thousands of 9x9 matrices spends its time on calls; here each elementary operation
runs over all fingers of all frames.
"""

from __future__ import annotations

import torch

from src.personalization.solver.normal_equations import marquardt

#: Own unknowns of a finger, unknowns of the palm.
OWN, PALM = 9, 6


def solve_fingers(
    panel: torch.Tensor, palm: torch.Tensor, damping: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Steps s with (H + D) s = -g, D being ``damping`` (N,) times the last variant's diagonal.

    Args:
        panel: (16,9,V,5,N), palm: (7,6,V,N), V variants of each frame's Hessian, the last being positive
            semi-definite (see `finger_terms.evaluate_fingers`). For the damping see `normal_equations.marquardt`.

    Returns:
        Steps of the fingers (9,V,5,N) and of the palm (6,V,N), the decrease (V,N) that the undamped models predict,
        and a mask (V,N) of positive definite systems; the others' numbers mean nothing.
    """
    work = panel.clone()
    diagonal = work[:OWN].diagonal(dim1=0, dim2=1)  # (V,5,N,9)
    own_added = marquardt(diagonal[-1:], damping)
    diagonal += own_added
    factors = torch.empty_like(panel)
    reduced = torch.zeros_like(panel[9:, :PALM])
    for k in range(OWN):
        column = work[k + 1 :, k]
        factor = torch.mul(column, -1 / work[k, k], out=factors[k + 1 :, k])
        if k + 1 < OWN:
            work[k + 1 :, k + 1 :].addcmul_(factor[:, None], column[: OWN - k - 1])
        reduced.addcmul_(factor[-7:, None], column[-7:-1])
    small = reduced.sum(dim=3).add_(palm)
    palm_added = marquardt(palm[:PALM, :, -1:].diagonal(dim1=0, dim2=1), damping)  # (1,N,6)
    small_diagonal = small[:PALM].diagonal(dim1=0, dim2=1)
    small_diagonal += palm_added
    palm_factors = torch.empty_like(small)
    for k in range(PALM):
        column = small[k + 1 :, k]
        factor = torch.mul(column, -1 / small[k, k], out=palm_factors[k + 1 :, k])
        if k + 1 < PALM:
            small[k + 1 :, k + 1 :].addcmul_(factor[:, None], column[: PALM - k - 1])
    definite = (diagonal > 0).all(dim=3).all(dim=1) & (small_diagonal > 0).all(dim=2)

    palm_step = _substitute(palm_factors, torch.ones_like(small[:, 0]), PALM)
    start = torch.ones_like(work[:, 0])
    start[OWN:15] = palm_step[:PALM, :, None]
    own_step, palm_step = _substitute(factors, start, OWN)[:OWN], palm_step[:PALM]
    # -g.s - s.H.s / 2 with (H + D) s = -g is (s.D.s - g.s) / 2.
    predicted = ((own_added.permute(3, 0, 1, 2) * own_step - panel[15]) * own_step).sum(dim=(0, 2))
    predicted = (predicted + ((palm_added.permute(2, 0, 1) * palm_step - palm[6]) * palm_step).sum(dim=0)) / 2
    return own_step, palm_step, predicted, definite


def _substitute(factors: torch.Tensor, steps: torch.Tensor, count: int) -> torch.Tensor:
    """Fill in the first ``count`` of ``steps`` from the last to the first; what follows them is known."""
    for k in reversed(range(count)):
        torch.sum(factors[k + 1 :, k] * steps[k + 1 :], dim=0, out=steps[k])
    return steps
