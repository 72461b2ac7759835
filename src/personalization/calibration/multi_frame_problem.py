"""One person, many frames: betas shared by all frames, a pose and a wrist position of each.

The normal equations are an arrow: frames do not see each other except through the betas. Frames are
eliminated first (Schur complement; Triggs et al. 2000, "Bundle adjustment", section 6), so the work is
linear in the number of frames, and the 10x10 system that is left is the betas' posterior information.
"""

from __future__ import annotations

import torch

from src.personalization.solver.levenberg_marquardt import State
from src.personalization.solver.normal_equations import (
    Factored,
    damping_diagonal,
    factorise,
    factorise_model,
    solve_factored,
)
from src.personalization.terms.frame_problem import ShapePrior, retract_frames, step_of
from src.personalization.terms.frame_terms import FRAME_SIZE, Observations, evaluate_frames
from template.kinematics import JointsModel
from src.personalization.terms.shape_terms import LengthCue, shape_terms


class JointProblem:
    """`least_squares.Problem` over P persons of F frames each.

    State: pose (P,F,16,3,3), wrist (P,F,3) m, betas (P,10). Persons with fewer frames are filled up with
    frames whose keypoints have zero weight and whose pose prior sits at their start: they add nothing.

    Args:
        seen: observations of the P*F frames, person by person.
        shape_prior: on the betas; cues: measured lengths, the same for all persons.
        tilt: (P,10) linear term ``tilt . betas`` of the cost, see `marginal.volume_gradient`.
    """

    def __init__(
        self,
        model: JointsModel,
        seen: Observations,
        persons: int,
        shape_prior: ShapePrior,
        cues: tuple[LengthCue, ...] = (),
        tilt: torch.Tensor | None = None,
    ) -> None:
        self.persons, self.tilt = persons, tilt
        self.model, self.seen, self.shape_prior, self.cues = model, seen, shape_prior, cues

    def linearise(self, state: State, exact: bool = True) -> State:
        """Cost (P,), shape_gradient (P,10), shape_hessian (P,10,10) of prior and cues, and of each frame
        gradient (P,F,61), hessian and excess (P,F,61,61), rotations (P,F,16,3,3)."""
        persons, frames = state["pose"].shape[:2]
        rest = self.model.rest_points(state["betas"]).repeat_interleave(frames, dim=0)
        found = evaluate_frames(
            self.model, self.seen, state["pose"].flatten(0, 1), state["wrist"].flatten(0, 1), rest, True, exact
        )
        terms = {name: value.unflatten(0, (persons, frames)) for name, value in vars(found).items()}
        cost, terms["shape_gradient"], terms["shape_hessian"] = shape_terms(
            self.model, self.shape_prior, self.cues, state["betas"]
        )
        terms["cost"] = cost + terms["cost"].sum(dim=1)
        if self.tilt is not None:
            terms["cost"] = terms["cost"] + (self.tilt * state["betas"]).sum(dim=1)
            terms["shape_gradient"] = terms["shape_gradient"] + self.tilt
        return terms

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `least_squares.Problem`."""
        frames, coupling, shape_hessian = _eliminate(terms, damping)
        gradient = terms["gradient"][..., :FRAME_SIZE]
        shape_gradient = terms["shape_gradient"] + terms["gradient"][..., FRAME_SIZE:].sum(dim=1)
        solved = solve_factored(frames.factor, torch.cat([coupling, gradient[..., None]], dim=-1))
        eliminated, own = solved[..., :-1], solved[..., -1]
        added_shape = damping_diagonal(shape_hessian, damping)
        reduced = shape_hessian + torch.diag_embed(added_shape) - (coupling.mT @ eliminated).sum(dim=1)
        bad = frames.bad.any(dim=1) | ~torch.isfinite(reduced).flatten(1).all(dim=1)
        reduced = torch.where(bad[:, None, None], torch.eye(10, dtype=reduced.dtype, device=reduced.device), reduced)
        pull = shape_gradient - (coupling.mT @ own[..., None]).sum(dim=1)[..., 0]
        shape_step = -solve_factored(factorise((reduced + reduced.mT) / 2), pull)
        frame_step = -(own + (eliminated @ shape_step[:, None, :, None])[..., 0])

        predicted = ((frames.added * frame_step - gradient) * frame_step).sum(dim=(1, 2))
        predicted = (predicted + ((added_shape * shape_step - shape_gradient) * shape_step).sum(-1)) / 2
        predicted = torch.where(bad, torch.full_like(predicted, torch.nan), predicted)
        step = step_of(torch.where(bad[:, None, None], torch.zeros_like(frame_step), frame_step), terms["rotations"])
        step["betas"] = torch.where(bad[:, None], torch.zeros_like(shape_step), shape_step)
        return step, predicted

    def retract(self, state: State, step: State) -> State:
        """See `least_squares.Problem`."""
        return {**retract_frames(state, step), "betas": state["betas"] + step["betas"]}

    def rows(self, index: torch.Tensor) -> JointProblem:
        """Some of the persons."""
        frames = len(self.seen.weights) // self.persons
        every = (index[:, None] * frames + torch.arange(frames, device=index.device)).flatten()
        tilt = None if self.tilt is None else self.tilt[index]
        return JointProblem(self.model, self.seen.rows(every), len(index), self.shape_prior, self.cues, tilt)


def _eliminate(terms: State, damping: torch.Tensor) -> tuple[Factored, torch.Tensor, torch.Tensor]:
    """Factored frame blocks, coupling (P,F,51,10) and shape Hessian (P,10,10).

    A frame whose exact block is indefinite takes the Gauss-Newton terms throughout.
    """
    hessian, excess = terms["hessian"], terms["excess"]
    part = slice(None, FRAME_SIZE)
    count = hessian.shape[1]
    frames = factorise_model(hessian[..., part, part], excess[..., part, part], damping[:, None].expand(-1, count))
    used = hessian + torch.where(frames.exact[..., None, None], excess, torch.zeros_like(excess))
    return frames, used[..., part, FRAME_SIZE:], terms["shape_hessian"] + used[..., FRAME_SIZE:, FRAME_SIZE:].sum(dim=1)


def posterior_covariance(terms: State) -> torch.Tensor:
    """Laplace covariance (P,10,10) of the betas, poses and positions integrated out: inverse Schur complement."""
    frames, coupling, shape_hessian = _eliminate(terms, torch.zeros_like(terms["cost"]))
    reduced = shape_hessian - (coupling.mT @ solve_factored(frames.factor, coupling)).sum(dim=1)
    covariance = torch.cholesky_inverse(factorise((reduced + reduced.mT) / 2))
    return (covariance + covariance.mT) / 2
