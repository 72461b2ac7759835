"""Independent frames as a least-squares problem: pose and wrist, and the betas if they are free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import roma
import torch

from src.personalization.solver.levenberg_marquardt import State
from src.personalization.solver.normal_equations import solve_damped
from src.personalization.terms.frame_terms import FRAME_SIZE, POSE, SHAPE, WRIST, Observations, evaluate_frames
from template.kinematics import JointsModel

#: Of a residual's curvature so much is kept, whatever the robust loss leaves of it: less, and outliers mislead.
LEAST_CURVATURE = 0.5


@dataclass
class ShapePrior:
    """Gaussian on betas: mean (10,), precision (10,10), no unit."""

    mean: torch.Tensor
    precision: torch.Tensor

    def to(self, *where: Any) -> ShapePrior:
        """As `torch.Tensor.to`."""
        return ShapePrior(self.mean.to(*where), self.precision.to(*where))


class FrameProblem:
    """`levenberg_marquardt.Problem` over N frames with the state keys pose (N,16,3,3), wrist (N,3), betas (N,10).

    A state that also counts its steps, key accepted (N,), is on a search: from the first step on it regards the robust
    loss's own curvature, which leads astray far from the minimum and saves a quarter of the steps nearer to it.
    """

    def __init__(self, model: JointsModel, seen: Observations, shape_prior: ShapePrior | None = None) -> None:
        self.model, self.seen, self.shape_prior = model, seen, shape_prior

    def linearise(self, state: State) -> State:
        """Cost (N,), gradient, Hessian by pose (rad) and wrist (m), and the chart from a step to local increments."""
        rest = self.model.rest_points(state["betas"])
        free = self.shape_prior is not None
        accepted = state.get("accepted")
        least = None if accepted is None else torch.where(accepted > 0, LEAST_CURVATURE, 1.0).to(rest)
        terms = evaluate_frames(self.model, self.seen, state["pose"], state["wrist"], rest, free, least)
        if self.shape_prior is not None:
            off = state["betas"] - self.shape_prior.mean
            pull = off @ self.shape_prior.precision
            terms.cost = terms.cost + (off * pull).sum(-1) / 2
            terms.gradient[:, SHAPE] += pull
            terms.hessian[:, SHAPE, SHAPE] += self.shape_prior.precision
        return vars(terms)

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `levenberg_marquardt.Problem`."""
        vector, promised = solve_damped(terms["hessian"], terms["gradient"], damping)
        return step_of(vector, terms["chart"]), promised

    def retract(self, state: State, step: State) -> State:
        """See `levenberg_marquardt.Problem`."""
        moved = retract_frames(state, step)
        return moved | {"accepted": state["accepted"] + 1} if "accepted" in state else moved

    def rows(self, index: torch.Tensor) -> FrameProblem:
        return FrameProblem(self.model, self.seen.rows(index), self.shape_prior)


def step_of(vector: torch.Tensor, chart: torch.Tensor) -> State:
    """Named parts of a step (..., 51 or 61): local rotation increments (...,16,3) rad, wrist m, betas.

    Args:
        chart: (...,16,3,3) of `FrameTerms`.
    """
    unknowns = vector[..., POSE].unflatten(-1, (16, 3))
    step = {"turn": (chart * unknowns[..., None, :]).sum(dim=-1), "wrist": vector[..., WRIST]}
    if vector.shape[-1] > FRAME_SIZE:
        step["betas"] = vector[..., SHAPE]
    return step


def retract_frames(state: State, step: State) -> State:
    """After a step: pose R exp([turn]) (SO(3) exponential, rad), wrist (m); betas and offsets, if the step has some."""
    moved = {"pose": state["pose"] @ roma.rotvec_to_rotmat(step["turn"]), "wrist": state["wrist"] + step["wrist"]}
    for name in ("betas", "offsets"):
        if name in state:
            moved[name] = state[name] + step[name] if name in step else state[name]
    return moved
