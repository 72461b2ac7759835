"""One person, many frames: betas shared by all frames, a pose and a wrist position of each.

The normal equations are an arrow: frames do not see each other except through the betas. Frames are
eliminated first (Schur complement; Triggs et al. 2000, "Bundle adjustment", section 6), so the work is
linear in the number of frames, and the 10x10 system that is left is the betas' posterior information.
"""

from __future__ import annotations

import torch

from src.personalization.frame_problem import ShapePrior, retract_frames, step_of
from src.personalization.frame_terms import FRAME_SIZE, Observations, evaluate_frames
from src.personalization.hand_residuals import global_rotations
from src.personalization.joints_model import JointsModel
from src.personalization.least_squares import State
from src.personalization.normal_equations import damped, factorise, solve_factored
from src.personalization.shape_terms import LengthCue, shape_terms


class JointProblem:
    """`least_squares.Problem` over P persons of F frames each.

    State: pose (P,F,16,3,3), wrist (P,F,3) m, betas (P,10). Persons with fewer frames are filled up with
    frames whose keypoints have zero weight and whose pose prior sits at their start: they add nothing.

    Args:
        seen: observations of the P*F frames, person by person.
        shape_prior: on the betas; cues: measured lengths, the same for all persons.
    """

    def __init__(
        self, model: JointsModel, seen: Observations, shape_prior: ShapePrior, cues: tuple[LengthCue, ...] = ()
    ) -> None:
        self.model, self.seen, self.shape_prior, self.cues = model, seen, shape_prior, cues

    def linearise(self, state: State) -> State:
        """See `least_squares.Problem`."""
        persons, frames = state["pose"].shape[:2]
        pose, wrist = state["pose"].flatten(0, 1), state["wrist"].flatten(0, 1)
        rest = self.model.rest_points(state["betas"]).repeat_interleave(frames, dim=0)
        found = evaluate_frames(self.model, self.seen, pose, wrist, rest, with_shape=True)
        cost, gradient, hessian = shape_terms(self.model, self.shape_prior, self.cues, state["betas"])
        split = (persons, frames)
        by_frame, curve = found.gradient.unflatten(0, split), found.hessian.unflatten(0, split)
        return {
            "cost": cost + found.cost.unflatten(0, split).sum(dim=1),
            "frame_gradient": by_frame[..., :FRAME_SIZE],
            "shape_gradient": gradient + by_frame[..., FRAME_SIZE:].sum(dim=1),
            "frame_hessian": curve[..., :FRAME_SIZE, :FRAME_SIZE],
            "coupling": curve[..., :FRAME_SIZE, FRAME_SIZE:],
            "shape_hessian": hessian + curve[..., FRAME_SIZE:, FRAME_SIZE:].sum(dim=1),
            "rotations": global_rotations(pose).unflatten(0, split),
        }

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `least_squares.Problem`."""
        frame_system = damped(terms["frame_hessian"], damping[:, None])
        shape_system = damped(terms["shape_hessian"], damping)
        factor, bad_frames = factorise(frame_system)
        right = torch.cat([terms["coupling"], terms["frame_gradient"][..., None]], dim=-1)
        eliminated = solve_factored(factor, right)
        reduced = shape_system - (terms["coupling"].mT @ eliminated[..., :-1]).sum(dim=1)
        pull = terms["shape_gradient"] - (terms["coupling"].mT @ eliminated[..., -1:]).sum(dim=1)[..., 0]
        shape_factor, bad_shape = factorise((reduced + reduced.mT) / 2)
        shape_step = -solve_factored(shape_factor, pull)
        frame_step = -(eliminated[..., -1] + (eliminated[..., :-1] @ shape_step[:, None, :, None])[..., 0])

        bad = bad_shape | bad_frames.any(dim=1)
        added_frame = (frame_system - terms["frame_hessian"]).diagonal(dim1=-2, dim2=-1)
        added_shape = (shape_system - terms["shape_hessian"]).diagonal(dim1=-2, dim2=-1)
        promise = (added_frame * frame_step - terms["frame_gradient"]) * frame_step
        predicted = promise.sum(dim=(1, 2)) + ((added_shape * shape_step - terms["shape_gradient"]) * shape_step).sum(-1)
        predicted = torch.where(bad, torch.full_like(predicted, torch.nan), predicted / 2)
        step = step_of(torch.where(bad[:, None, None], torch.zeros_like(frame_step), frame_step), terms["rotations"])
        step["betas"] = torch.where(bad[:, None], torch.zeros_like(shape_step), shape_step)
        return step, predicted

    def retract(self, state: State, step: State) -> State:
        """See `least_squares.Problem`."""
        return {**retract_frames(state, step), "betas": state["betas"] + step["betas"]}


def eliminated_information(terms: State) -> torch.Tensor:
    """Information on the betas that each frame's unknown pose and wrist take away again: (P,F,10,10)."""
    zero = torch.zeros(terms["cost"].shape + (1,), dtype=terms["cost"].dtype, device=terms["cost"].device)
    factor, _ = factorise(damped(terms["frame_hessian"], zero))
    return terms["coupling"].mT @ solve_factored(factor, terms["coupling"])


def posterior_covariance(terms: State) -> torch.Tensor:
    """Laplace covariance (P,10,10) of the betas, poses and positions integrated out: inverse Schur complement."""
    reduced = terms["shape_hessian"] - eliminated_information(terms).sum(dim=1)
    factor, _ = factorise((reduced + reduced.mT) / 2)
    covariance = torch.cholesky_inverse(factor)
    return (covariance + covariance.mT) / 2
