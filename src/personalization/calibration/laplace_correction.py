"""From the joint optimum to the optimum of the betas' own posterior.

Maximising over poses and betas together is biased: a finger that may point towards the camera or away
looks shorter in either case, so a longer hand leaves the poses more room. Integrating the poses out by
Laplace's method adds ``sum_f log det H_f(betas) / 2`` to the cost (Tierney and Kadane 1986, eq. 2.3;
MacKay 2003, section 27), H_f being the Hessian of frame f in its own pose and wrist. Its gradient, taken
numerically along the frames' optimal reaction to the betas, is given back to the solver as a linear term.
"""

from __future__ import annotations

from typing import Protocol

import torch

from src.personalization.solver.levenberg_marquardt import State
from src.personalization.solver.normal_equations import factorise_model, solve_factored
from src.personalization.terms.frame_problem import retract_frames, step_of
from src.personalization.terms.frame_terms import FRAME_SIZE

#: Half step of the central difference, units of betas: far above rounding, far below the curvature's scale.
STEP = 0.02


class Linearisable(Protocol):
    """A `joint_problem.JointProblem`."""

    def linearise(self, state: State) -> State:
        """See `joint_problem.JointProblem.linearise`."""
        ...


def volume_gradient(problem: Linearisable, state: State, terms: State) -> torch.Tensor:
    """Gradient (P,10) of sum_f log det H_f / 2 with respect to the betas, at an optimum and its ``terms``."""
    part = slice(None, FRAME_SIZE)
    zero = torch.zeros(terms["hessian"].shape[:2], dtype=terms["hessian"].dtype, device=terms["hessian"].device)
    frames = factorise_model(terms["hessian"][..., part, part], terms["excess"][..., part, part], zero)
    coupling = terms["hessian"][..., part, FRAME_SIZE:] + torch.where(
        frames.exact[..., None, None], terms["excess"][..., part, FRAME_SIZE:], 0.0
    )
    reaction = -solve_factored(frames.factor, coupling)  # (P,F,51,10)
    gradient = torch.zeros_like(state["betas"])
    for index in range(gradient.shape[1]):
        sides = [_half_log_det(problem, _moved(state, terms, reaction[..., index], index, s)) for s in (STEP, -STEP)]
        both = sides[0][1] & sides[1][1]
        high, low = (torch.where(both, side[0], side[2]) for side in sides)
        gradient[:, index] = (high - low).sum(dim=1) / (2 * STEP)
    return gradient


def _moved(state: State, terms: State, reaction: torch.Tensor, index: int, amount: float) -> State:
    moved = retract_frames(state, step_of(amount * reaction, terms["rotations"]))
    moved["betas"] = state["betas"].clone()
    moved["betas"][:, index] += amount
    return moved


def _half_log_det(problem: Linearisable, state: State) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Half log determinants (P,F) of the exact frame Hessians, where they are definite, and of Gauss-Newton's."""
    terms = problem.linearise(state)
    part = slice(None, FRAME_SIZE)
    rough = terms["hessian"][..., part, part]
    factor, info = torch.linalg.cholesky_ex(rough + terms["excess"][..., part, part])
    rough_factor, _ = torch.linalg.cholesky_ex(rough)
    logs = [f.diagonal(dim1=-2, dim2=-1).clamp_min(1e-30).log().sum(-1) for f in (factor, rough_factor)]
    return logs[0], info == 0, logs[1]
