"""Batched Levenberg-Marquardt: many independent problems at once, each with its own damping and verdict.

Levenberg 1944, Marquardt 1963; damping by the gain ratio as in Nielsen 1999 (Madsen, Nielsen,
Tingleff, "Methods for non-linear least squares problems", algorithm 3.16). A problem says how to
linearise itself, how to solve its damped normal equations and how to apply a step; nothing here
knows about hands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from src.personalization.status import Status

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LMOptions:
    """When to stop and how to damp.

    Attributes:
        max_steps: linear systems solved at most.
        tolerance: converged when the model promises less than this decrease of the half chi-square
            (no unit: 0.005 is a tenth of a standard deviation along one direction), or less than
            ``relative_tolerance`` of the cost.
        initial_damping, max_damping: multiples of the Hessian's diagonal.
    """

    max_steps: int = 20
    tolerance: float = 1e-4
    relative_tolerance: float = 1e-6
    initial_damping: float = 1e-3
    max_damping: float = 1e8


class Problem(Protocol):
    """P independent problems; every tensor of a state or linearisation has P as its first dimension."""

    def linearise(self, state: State) -> State:
        """Gauss-Newton terms at ``state``; key "cost" (P,), infinite where the state is impossible."""
        ...

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """The damped step and the decrease (P,) the undamped model predicts for it (NaN: no step)."""
        ...

    def retract(self, state: State, step: State) -> State:
        """The state after the step."""
        ...


@dataclass
class LMResult:
    """Best state of each problem, its linearisation, `Status` (P,) int64 and steps taken (P,)."""

    state: State
    terms: State
    status: torch.Tensor
    steps: torch.Tensor

    @property
    def cost(self) -> torch.Tensor:
        """(P,) half chi-square."""
        return self.terms["cost"]


def minimise(problem: Problem, state: State, options: LMOptions = LMOptions()) -> LMResult:
    """Run every problem to its own end. A problem that has ended keeps its state whatever its neighbours do."""
    terms = problem.linearise(state)
    cost = terms["cost"]
    status = torch.full(cost.shape, int(Status.ITERATION_LIMIT), dtype=torch.int64, device=cost.device)
    status[~torch.isfinite(cost)] = Status.DIVERGED
    damping = torch.full_like(cost, options.initial_damping)
    growth = torch.full_like(cost, 2.0)
    steps = torch.zeros_like(status)
    for _ in range(options.max_steps):
        active = status == Status.ITERATION_LIMIT
        if not bool(active.any()):
            break
        step, predicted = problem.solve(terms, damping)
        trial = problem.retract(state, step)
        trial_terms = problem.linearise(trial)
        steps += active
        actual = terms["cost"] - trial_terms["cost"]
        small = predicted <= options.tolerance + options.relative_tolerance * terms["cost"]
        better = active & (actual > 0) & torch.isfinite(predicted)
        state, terms = _where(better, trial, state), _where(better, trial_terms, terms)
        # Converged when the undamped model has little left to promise; under heavy damping a small
        # promise only says that the step was short.
        status[active & small & (damping <= 1.0)] = Status.CONVERGED
        gain = actual / predicted.clamp_min(1e-30)
        shrink = (1 - (2 * gain - 1) ** 3).clamp(1 / 10, 1.0)
        damping = torch.where(better, damping * shrink, damping * growth)
        growth = torch.where(better, torch.full_like(growth, 2.0), growth * 2)
        status[(status == Status.ITERATION_LIMIT) & (damping > options.max_damping)] = Status.STALLED
    return LMResult(state, terms, status, steps)


def _where(mask: torch.Tensor, new: State, old: State) -> State:
    if bool(mask.all()):
        return new
    return {key: torch.where(mask.view(-1, *[1] * (new[key].dim() - 1)), new[key], old[key]) for key in old}
