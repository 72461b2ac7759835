"""Independent frames as a least-squares problem: pose and wrist, and the betas if they are free."""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch

from src.personalization.solver.levenberg_marquardt import State
from src.personalization.solver.normal_equations import factorise_model, solve_factored
from src.personalization.terms.frame_terms import FRAME_SIZE, Observations, evaluate_frames
from src.personalization.terms.joints_model import JointsModel


@dataclass
class ShapePrior:
    """Gaussian on betas: mean (10,), precision (10,10), no unit."""

    mean: torch.Tensor
    precision: torch.Tensor


class FrameProblem:
    """`least_squares.Problem` over N frames with the state keys pose (N,16,3,3), wrist (N,3), betas (N,10)."""

    def __init__(self, model: JointsModel, seen: Observations, shape_prior: ShapePrior | None = None) -> None:
        self.model, self.seen, self.shape_prior = model, seen, shape_prior

    def linearise(self, state: State, exact: bool = True) -> State:
        """Cost, gradient, Hessian, its excess, and the global rotations that turn a step into local increments."""
        rest = self.model.rest_points(state["betas"])
        free = self.shape_prior is not None
        terms = evaluate_frames(self.model, self.seen, state["pose"], state["wrist"], rest, free, exact)
        if self.shape_prior is not None:
            off = state["betas"] - self.shape_prior.mean
            pull = off @ self.shape_prior.precision
            terms.cost = terms.cost + (off * pull).sum(-1) / 2
            terms.gradient[:, FRAME_SIZE:] += pull
            terms.hessian[:, FRAME_SIZE:, FRAME_SIZE:] += self.shape_prior.precision
        return vars(terms)

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `least_squares.Problem`."""
        factored = factorise_model(terms["hessian"], terms["excess"], damping)
        vector = -solve_factored(factored.factor, terms["gradient"])
        # -g.s - s.H.s / 2 with (H + D) s = -g is (s.D.s - g.s) / 2.
        predicted = ((factored.added * vector - terms["gradient"]) * vector).sum(-1) / 2
        predicted = torch.where(factored.bad, torch.full_like(predicted, torch.nan), predicted)
        vector = torch.where(factored.bad[:, None], torch.zeros_like(vector), vector)
        return step_of(vector, terms["rotations"]), predicted

    def retract(self, state: State, step: State) -> State:
        """See `least_squares.Problem`."""
        moved = retract_frames(state, step)
        moved["betas"] = state["betas"] + step["betas"] if "betas" in step else state["betas"]
        return moved

    def rows(self, index: torch.Tensor) -> FrameProblem:
        """Some of the frames."""
        return FrameProblem(self.model, self.seen.rows(index), self.shape_prior)


def step_of(vector: torch.Tensor, rotations: torch.Tensor) -> State:
    """Named parts of a step (..., 51 or 61): local rotation increments (...,16,3) rad, wrist m, betas."""
    turns = vector[..., :48].unflatten(-1, (3, 16)).transpose(-1, -2)
    step = {"turn": (rotations.mT @ turns[..., None])[..., 0], "wrist": vector[..., 48:51]}
    if vector.shape[-1] > FRAME_SIZE:
        step["betas"] = vector[..., FRAME_SIZE:]
    return step


def retract_frames(state: State, step: State) -> State:
    """Pose and wrist after a step: R exp([turn]) (SO(3) exponential), wrist + step."""
    return {
        "pose": state["pose"] @ roma.rotvec_to_rotmat(step["turn"]),
        "wrist": state["wrist"] + step["wrist"],
    }
