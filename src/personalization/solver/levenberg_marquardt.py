"""Batched Levenberg-Marquardt: many independent problems at once, each with its own damping and verdict.

Levenberg 1944, Marquardt 1963; damping by the gain ratio as in Nielsen 1999 (Madsen, Nielsen,
Tingleff, "Methods for non-linear least squares problems", algorithm 3.16). A problem says how to
linearise itself, how to solve its damped normal equations and how to apply a step; nothing here
knows about hands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from src.personalization.solver.status import Status

State = dict[str, torch.Tensor]

#: Bounds of the factor that lengthens or shortens a step after what the one before it gained.
SHORTEST, LONGEST = 0.5, 3.0
#: Multiples of the Hessian's diagonal, beyond which a problem is stuck.
MAX_DAMPING = 1e8


@dataclass(frozen=True)
class LMOptions:
    """When to stop and how to damp.

    Attributes:
        max_steps: linear systems solved at most.
        tolerance: converged when the undamped model at the accepted point promises less than this decrease
            of the half chi-square (no unit: 0.005 is a tenth of a standard deviation along one direction), or
            less than ``relative_tolerance`` of the cost. That promise is g.H^-1.g / 2, the gradient in the
            Hessian's own scale.
        initial_damping: multiples of the Hessian's diagonal.
    """

    max_steps: int = 20
    tolerance: float = 1e-3
    relative_tolerance: float = 1e-6
    initial_damping: float = 1e-2


class Problem(Protocol):
    """P independent problems; every tensor of a state or linearisation has P as its first dimension."""

    def linearise(self, state: State) -> State:
        """Terms at ``state``; key "cost" (P,), infinite where the state is impossible."""
        ...

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """The damped step and the decrease (P,) the undamped model predicts for it (NaN: no step).

        ``terms`` may be some of the problems' only.
        """
        ...

    def retract(self, state: State, step: State) -> State:
        """The state after the step."""
        ...

    def rows(self, index: torch.Tensor) -> Problem:
        """Some of the problems; one that is alone is not asked for any."""
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

    def rows(self, index: torch.Tensor) -> LMResult:
        return LMResult(_rows(self.state, index), _rows(self.terms, index), self.status[index], self.steps[index])


def minimise(problem: Problem, state: State, options: LMOptions = LMOptions()) -> LMResult:
    """Run every problem to its own end.

    A problem that has ended keeps its state whatever its neighbours do; when an eighth of those still
    computed have ended, the others go on without them.
    """
    terms = problem.linearise(state)
    cost = terms["cost"]
    if len(cost) == 1:
        return _minimise_one(problem, state, terms, options)
    status = torch.full(cost.shape, int(Status.ITERATION_LIMIT), dtype=torch.int64, device=cost.device)
    status[~torch.isfinite(cost)] = Status.DIVERGED
    now, ended = LMResult(state, terms, status, torch.zeros_like(status)), []
    rows = torch.arange(len(cost), device=cost.device)
    damping, growth = torch.full_like(cost, options.initial_damping), torch.full_like(cost, 2.0)
    length = torch.ones_like(cost)
    for _ in range(options.max_steps):
        active = now.status == Status.ITERATION_LIMIT
        if not bool(active.any()):
            break
        move, promised = problem.solve(now.terms, damping)
        close = active & (promised <= _enough(now, options))
        now.status = _judged(problem, now, close, options, damping)
        active = now.status == Status.ITERATION_LIMIT
        running = int(active.sum())
        if running == 0:
            break
        if 8 * running <= 7 * len(active):
            index = (~active).nonzero()[:, 0]
            ended.append((rows[index], now.rows(index)))
            index = active.nonzero()[:, 0]
            rows, now, problem, move = rows[index], now.rows(index), problem.rows(index), _rows(move, index)
            active, promised, damping, growth, length = (
                value[index] for value in (active, promised, damping, growth, length)
            )
        move = {key: value * _columns(length, value) for key, value in move.items()}
        trial = problem.retract(now.state, move)
        trial_terms = problem.linearise(trial)
        gained = now.cost - trial_terms["cost"]
        better = active & (gained > 0) & torch.isfinite(promised)
        gain = 2 * gained / promised.clamp_min(1e-30) - 1
        # Nielsen's rule may shrink to a third; a tenth saves a step where the model is good, which it mostly is.
        shrink = (1 - gain * gain * gain).clamp(1 / 10, 1.0)
        damping = damping * torch.where(better, shrink, growth)
        growth = torch.where(better, 2.0, growth * 2)
        length = torch.where(better, _next_length(length, promised, gained, now.steps), 1.0)
        now = LMResult(
            _choose(better, trial, now.state),
            _choose(better, trial_terms, now.terms),
            now.status.masked_fill(active & (damping > MAX_DAMPING), Status.STALLED),
            now.steps + active,
        )
    else:  # the last step's state has not been judged yet
        active = now.status == Status.ITERATION_LIMIT
        now.status = _judged(problem, now, active, options, torch.full_like(damping, torch.inf))
    return _together([*ended, (rows, now)])


def _minimise_one(problem: Problem, state: State, terms: State, options: LMOptions) -> LMResult:
    """`minimise` of a single problem: the same steps, in plain numbers: of one hand the calls are the time."""
    like, least = terms["cost"], torch.finfo(terms["cost"].dtype).eps ** 0.5
    cost, steps, damping, growth, length = float(like), 0, options.initial_damping, 2.0, 1.0
    status = Status.ITERATION_LIMIT if math.isfinite(cost) else Status.DIVERGED

    def is_minimum() -> bool:
        promised = problem.solve(terms, torch.full_like(like, least))[1]
        return float(promised) <= options.tolerance + options.relative_tolerance * cost

    while status == Status.ITERATION_LIMIT and steps < options.max_steps:
        move, promise = problem.solve(terms, torch.full_like(like, damping))
        promised = float(promise)
        close = promised <= options.tolerance + options.relative_tolerance * cost
        if close and (damping <= least or is_minimum()):
            status = Status.CONVERGED
            break
        trial = problem.retract(state, move if length == 1 else {key: length * value for key, value in move.items()})
        trial_terms = problem.linearise(trial)
        trial_cost = float(trial_terms["cost"])
        gained = cost - trial_cost
        if gained > 0 and math.isfinite(promised):
            gain = 2 * gained / max(promised, 1e-30) - 1
            damping, growth = damping * min(max(1 - gain**3, 0.1), 1.0), 2.0
            best = length * length * promised / max(2 * length * promised - gained, 1e-30)
            best = min(max(best, SHORTEST), 1.0 if steps < 2 else LONGEST)
            length = 1.0 if 0.75 < best < 1.5 else best
            state, terms, cost = trial, trial_terms, trial_cost
        else:
            damping, growth, length = damping * growth, 2 * growth, 1.0
        status = Status.STALLED if damping > MAX_DAMPING else status
        steps += 1
    if status == Status.ITERATION_LIMIT and is_minimum():  # the last step's state has not been judged yet
        status = Status.CONVERGED
    counts = (torch.full_like(like, int(number), dtype=torch.int64) for number in (status, steps))
    return LMResult(state, terms, *counts)


def _next_length(
    length: torch.Tensor, promised: torch.Tensor, gained: torch.Tensor, steps: torch.Tensor
) -> torch.Tensor:
    """(P,) by how much to multiply the next step, from the last one's length and what it promised and gained.

    Gauss-Newton's curvature leaves out the residuals' own. Where that matters, steps are too long or too short again
    and again. The parabola of the cost along the last step, from its slope at the start (twice the promise) and its
    end, tells the length that would have been best. Near one it is not used, and above one not after the first steps,
    whose terms change most.
    """
    best = length * length * promised / (2 * length * promised - gained).clamp_min(1e-30)
    best = best.clamp_min(SHORTEST).minimum(torch.where(steps < 2, 1.0, LONGEST).to(best))
    return torch.where((best > 0.75) & (best < 1.5), 1.0, best)


def _together(parts: list[tuple[torch.Tensor, LMResult]]) -> LMResult:
    """All problems in their order, from parts and the places (P,) of each part's problems."""
    if len(parts) == 1:
        return parts[0][1]
    order = torch.cat([rows for rows, _ in parts]).argsort()
    results = [result for _, result in parts]

    def joined(groups: list[State]) -> State:
        return {key: torch.cat([group[key] for group in groups])[order] for key in groups[0]}

    counts = joined([{"status": part.status, "steps": part.steps} for part in results])
    return LMResult(joined([part.state for part in results]), joined([part.terms for part in results]), **counts)


def _enough(now: LMResult, options: LMOptions) -> torch.Tensor:
    """(P,) decrease of the cost that is not worth a step."""
    return options.tolerance + options.relative_tolerance * now.cost


def _judged(
    problem: Problem, now: LMResult, candidates: torch.Tensor, options: LMOptions, damping: torch.Tensor
) -> torch.Tensor:
    """Status (P,) with those ``candidates`` (P,) converged whose undamped step promises too little at their state.

    A step under ``damping`` (P,) may promise little because it is short, and the promise before a rejected step says
    nothing of what follows: only the gradient here, in the undamped Hessian's scale, says that this is a minimum.
    """
    least = torch.finfo(now.cost.dtype).eps ** 0.5  # what is damped less is as good as undamped: the rest is rounding
    damped = candidates & (damping > least)
    index = damped.nonzero()[:, 0]
    status = now.status.masked_fill(candidates & ~damped, int(Status.CONVERGED))
    if len(index) == 0:
        return status
    part = now.rows(index)
    _, promised = problem.solve(part.terms, torch.full_like(part.cost, least))
    return status.index_fill(0, index[promised <= _enough(part, options)], int(Status.CONVERGED))


def _rows(group: State, index: torch.Tensor) -> State:
    return {key: value[index] for key, value in group.items()}


def _columns(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``values`` (P,) in a shape that broadcasts along all of ``like`` (P, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _choose(mask: torch.Tensor, new: State, old: State) -> State:
    """``new`` where ``mask`` (P,), else ``old``."""
    if bool(mask.all()):
        return new
    return {key: torch.where(_columns(mask, v), v, old[key]) for key, v in new.items()}
