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

from src.personalization.solver.status import Status

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
        rough_steps: first steps, far from the optimum, that make do with the Gauss-Newton Hessian.
    """

    max_steps: int = 20
    tolerance: float = 1e-3
    relative_tolerance: float = 1e-6
    initial_damping: float = 1e-2
    max_damping: float = 1e8
    rough_steps: int = 3


class Problem(Protocol):
    """P independent problems; every tensor of a state or linearisation has P as its first dimension.

    As its last instead, if the problem has an attribute ``frames_last`` that is true.
    """

    def linearise(self, state: State, exact: bool = True) -> State:
        """Terms at ``state``; key "cost" (P,), infinite where the state is impossible; ``exact``: second-order."""
        ...

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """The damped step and the decrease (P,) the undamped model predicts for it (NaN: no step)."""
        ...

    def retract(self, state: State, step: State) -> State:
        """The state after the step."""
        ...

    def rows(self, index: torch.Tensor) -> Problem:
        """Some of the problems."""
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
    """Run every problem to its own end.

    A problem that has ended keeps its state whatever its neighbours do; when half of those still
    computed have ended, the others go on without them.
    """
    best, last = _start(problem, state, options), getattr(problem, "frames_last", False)
    rows = torch.arange(len(best["status"]), device=best["status"].device)
    part = best
    for step in range(options.max_steps):
        active = part["status"] == Status.ITERATION_LIMIT
        running = int(active.sum())
        if running == 0:
            break
        if 2 * running <= len(active):
            best = _put(best, rows, part, last)
            index = active.nonzero()[:, 0]
            rows, problem = rows[index], problem.rows(index)
            part = {key: value[..., index] if last else value[index] for key, value in part.items()}
        part = _advance(problem, part, options, exact=step + 1 >= options.rough_steps)
    best = _put(best, rows, part, last)
    pick = {group: {k[2:]: v for k, v in best.items() if k.startswith(group)} for group in ("s.", "t.")}
    return LMResult(pick["s."], pick["t."], best["status"], best["steps"])


def _start(problem: Problem, state: State, options: LMOptions) -> State:
    """Everything about every problem in one dict: state (s.*), terms (t.*), damping, verdict."""
    terms = problem.linearise(state, exact=options.rough_steps <= 0)
    cost = terms["cost"]
    status = torch.full(cost.shape, int(Status.ITERATION_LIMIT), dtype=torch.int64, device=cost.device)
    status[~torch.isfinite(cost)] = Status.DIVERGED
    return {
        **{f"s.{key}": value for key, value in state.items()},
        **{f"t.{key}": value for key, value in terms.items()},
        "damping": torch.full_like(cost, options.initial_damping),
        "growth": torch.full_like(cost, 2.0),
        "status": status,
        "steps": torch.zeros_like(status),
    }


def _advance(problem: Problem, now: State, options: LMOptions, exact: bool) -> State:
    """One step of each problem that has not ended; ``exact``: linearise to second order where it leads."""
    state = {key[2:]: value for key, value in now.items() if key.startswith("s.")}
    terms = {key[2:]: value for key, value in now.items() if key.startswith("t.")}
    damping, growth, status = now["damping"], now["growth"], now["status"].clone()
    active = status == Status.ITERATION_LIMIT
    last = getattr(problem, "frames_last", False)
    step, predicted = problem.solve(terms, damping)
    if last and not bool(active.all()):  # what has ended stays where it is, and is linearised there again
        step = {key: _choose(active, value, torch.zeros_like(value), last) for key, value in step.items()}
    trial = problem.retract(state, step)
    trial_terms = problem.linearise(trial, exact)
    actual = terms["cost"] - trial_terms["cost"]
    better = active & (actual > 0) & torch.isfinite(predicted)
    # Converged when the undamped model has little left to promise; under heavy damping a small
    # promise only says that the step was short.
    small = predicted <= options.tolerance + options.relative_tolerance * terms["cost"]
    ended = active & small & (damping <= 1.0)
    gain = 2 * actual / predicted.clamp_min(1e-30) - 1
    shrink = (1 - gain * gain * gain).clamp(1 / 10, 1.0)
    damping = damping * torch.where(better, shrink, growth)
    status.masked_fill_(active & (damping > options.max_damping), Status.STALLED)
    status.masked_fill_(ended, Status.CONVERGED)
    new = {**{f"s.{key}": value for key, value in trial.items()}, **{f"t.{key}": v for key, v in trial_terms.items()}}
    if last:
        rejected = (active & ~better).nonzero()[:, 0]
        if len(rejected):  # few as a rule, and what was just computed belongs to nobody else
            for key, value in new.items():
                value[..., rejected] = now[key][..., rejected]
    elif not bool(better.all()):
        new = {key: _choose(better, value, now[key], last) for key, value in new.items()}
    return {
        **new,
        "damping": damping,
        "growth": torch.where(better, 2.0, growth * 2),
        "status": status,
        "steps": now["steps"] + active,
    }


def _choose(mask: torch.Tensor, new: torch.Tensor, old: torch.Tensor, last: bool) -> torch.Tensor:
    return torch.where(mask if last else mask.view(-1, *[1] * (new.dim() - 1)), new, old)


def _put(whole: State, rows: torch.Tensor, part: State, last: bool) -> State:
    if len(rows) == len(whole["status"]):
        return part
    return {key: value.index_copy(-1 if last else 0, rows, part[key]) for key, value in whole.items()}
