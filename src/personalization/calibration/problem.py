"""One person, many frames: betas shared by all frames, a pose and a wrist position of each.

The normal equations are an arrow: frames do not see each other except through the betas. Frames are
eliminated first (Schur complement; Triggs et al. 2000, "Bundle adjustment", section 6), so the work is
linear in the number of frames, and the 10x10 system that is left is the betas' posterior information.

At the optimum the betas' own posterior is corrected for the poses' freedom (Laplace's method, see
`log_volume_gradient`).
"""

from __future__ import annotations

import torch

from src.personalization.solver.levenberg_marquardt import State
from src.personalization.solver.normal_equations import damping_diagonal, factorise, solve_factored
from src.personalization.terms.frame_problem import ShapePrior, retract_frames, step_of
from src.personalization.terms.frame_terms import FRAME_SIZE, Observations, evaluate_frames
from src.personalization.terms.shape_terms import LengthCue, shape_terms
from template.kinematics import JointsModel

#: A frame's own unknowns among its 61, and the betas.
OWN, SHAPE = slice(None, FRAME_SIZE), slice(FRAME_SIZE, None)
#: Half step of the central difference, units of betas: far above rounding, far below the curvature's scale.
STEP = 0.02


class MultiFrameProblem:
    """`levenberg_marquardt.Problem` over P persons of F frames each.

    State: pose (P,F,16,3,3), wrist (P,F,3) m, betas (P,10). Persons with fewer frames are filled up with
    frames whose keypoints have zero weight and whose pose prior sits at their start: they add nothing.

    Args:
        observations: of the P*F frames, person by person.
        shape_prior: on the betas; cues: measured lengths, the same for all persons.
        share: (P,) what a frame's information counts; one over the number of frames where their errors are
            taken to repeat.
        linear: (P,10) term ``linear . betas`` of the cost, see `log_volume_gradient`.
    """

    def __init__(
        self,
        model: JointsModel,
        observations: Observations,
        share: torch.Tensor,
        shape_prior: ShapePrior,
        cues: tuple[LengthCue, ...] = (),
        linear: torch.Tensor | None = None,
    ) -> None:
        self.model, self.observations, self.shape_prior, self.cues = model, observations, shape_prior, cues
        self.share = share
        self.linear = torch.zeros_like(share)[:, None].expand(-1, 10) if linear is None else linear

    def linearise(self, state: State) -> State:
        """Cost (P,), shape_gradient (P,10) and shape_hessian (P,10,10) of everything, and of each frame
        gradient (P,F,61) by pose (rad), wrist (m) and betas, Gauss-Newton hessian (P,F,61,61), chart (P,F,16,3,3)."""
        persons, frames = state["pose"].shape[:2]
        rest = self.model.rest_points(state["betas"]).repeat_interleave(frames, dim=0)
        pose, wrist = state["pose"].flatten(0, 1), state["wrist"].flatten(0, 1)
        found = evaluate_frames(self.model, self.observations, pose, wrist, rest, with_shape=True)
        split = (persons, frames)
        share = self.share[:, None, None]
        gradient = share * found.gradient.unflatten(0, split)
        hessian = share[..., None] * found.hessian.unflatten(0, split)
        cost, shape_gradient, shape_hessian = shape_terms(self.model, self.shape_prior, self.cues, state["betas"])
        return {
            "cost": cost + self.share * found.cost.view(split).sum(dim=1) + (self.linear * state["betas"]).sum(dim=1),
            "gradient": gradient,
            "hessian": hessian,
            "chart": found.chart.unflatten(0, split),
            "shape_gradient": shape_gradient + gradient[..., SHAPE].sum(dim=1) + self.linear,
            "shape_hessian": shape_hessian + hessian[..., SHAPE, SHAPE].sum(dim=1),
        }

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `levenberg_marquardt.Problem`."""
        hessian, gradient = terms["hessian"][..., OWN, OWN], terms["gradient"][..., OWN]
        coupling = terms["hessian"][..., OWN, SHAPE]
        shape_gradient, shape_hessian = terms["shape_gradient"], terms["shape_hessian"]
        finite = torch.isfinite(terms["hessian"]).flatten(1).all(dim=1) & torch.isfinite(shape_hessian).flatten(1).all(
            1
        )
        added = damping_diagonal(hessian, damping[:, None].expand(hessian.shape[:2]))
        added_shape = damping_diagonal(shape_hessian, damping)
        factor = factorise(_safe(hessian + torch.diag_embed(added), finite))
        solved = solve_factored(factor, torch.cat([coupling, gradient[..., None]], dim=-1))
        eliminated, own = solved[..., :-1], solved[..., -1]
        reduced = shape_hessian + torch.diag_embed(added_shape) - (coupling.mT @ eliminated).sum(dim=1)
        pull = shape_gradient - (coupling.mT @ own[..., None]).sum(dim=1)[..., 0]
        shape_step = -solve_factored(factorise(_safe((reduced + reduced.mT) / 2, finite)), pull)
        frame_step = -(own + (eliminated @ shape_step[:, None, :, None])[..., 0])
        # -g.s - s.H.s / 2 with (H + D) s = -g is (s.D.s - g.s) / 2.
        promised = ((added * frame_step - gradient) * frame_step).sum(dim=(1, 2)) / 2
        promised = promised + ((added_shape * shape_step - shape_gradient) * shape_step).sum(-1) / 2
        step = step_of(torch.where(finite[:, None, None], frame_step, 0.0), terms["chart"])
        step["betas"] = torch.where(finite[:, None], shape_step, 0.0)
        return step, torch.where(finite, promised, torch.nan)

    def retract(self, state: State, step: State) -> State:
        """See `levenberg_marquardt.Problem`."""
        return {**retract_frames(state, step), "betas": state["betas"] + step["betas"]}

    def rows(self, index: torch.Tensor) -> MultiFrameProblem:
        """Some of the persons."""
        frames = len(self.observations.weights) // len(self.share)
        every = (index[:, None] * frames + torch.arange(frames, device=index.device)).flatten()
        return MultiFrameProblem(
            self.model,
            self.observations.rows(every),
            self.share[index],
            self.shape_prior,
            self.cues,
            self.linear[index],
        )


def _safe(system: torch.Tensor, finite: torch.Tensor) -> torch.Tensor:
    """``system`` (P,...,U,U), the identity where a person's is not ``finite`` (P,)."""
    identity = torch.eye(system.shape[-1], dtype=system.dtype, device=system.device)
    return torch.where(finite.view(-1, *[1] * (system.dim() - 1)), system, identity)


def _own_factor(terms: State) -> torch.Tensor:
    """Cholesky factors (P,F,51,51) of the frames' own Hessians, undamped but where nothing was observed."""
    hessian = terms["hessian"][..., OWN, OWN]
    return factorise(hessian + torch.diag_embed(damping_diagonal(hessian, torch.zeros_like(hessian[..., 0, 0]))))


def _reaction(terms: State) -> torch.Tensor:
    """How poses and wrists (P,F,51,10) move with the betas at the optimum."""
    return -solve_factored(_own_factor(terms), terms["hessian"][..., OWN, SHAPE])


def posterior_covariance(terms: State) -> torch.Tensor:
    """Laplace covariance (P,10,10) of the betas, poses and positions integrated out: inverse Schur complement."""
    reduced = terms["shape_hessian"] + (terms["hessian"][..., OWN, SHAPE].mT @ _reaction(terms)).sum(dim=1)
    covariance = torch.cholesky_inverse(factorise((reduced + reduced.mT) / 2))
    return (covariance + covariance.mT) / 2


def log_volume_gradient(problem: MultiFrameProblem, state: State, terms: State) -> torch.Tensor:
    """Gradient (P,10) of ``sum_f share log det H_f / 2`` with respect to the betas, at an optimum and its ``terms``.

    Maximising over poses and betas together is biased: a finger that may point towards the camera or away
    looks shorter in either case, so a longer hand leaves the poses more room. Integrating the poses out by
    Laplace's method adds that sum to the cost (Tierney and Kadane 1986, eq. 2.3; MacKay 2003, section 27),
    H_f being the Hessian of frame f in its own pose and wrist. The gradient is taken numerically along the
    frames' optimal reaction to the betas.
    """
    reaction, gradient = _reaction(terms), torch.zeros_like(state["betas"])
    for index in range(gradient.shape[1]):
        sides = []
        for amount in (STEP, -STEP):
            moved = retract_frames(state, step_of(amount * reaction[..., index], terms["chart"]))
            moved["betas"] = state["betas"].clone()
            moved["betas"][:, index] += amount
            sides.append(_half_log_det(problem, moved))
        gradient[:, index] = problem.share * (sides[0] - sides[1]).sum(dim=1) / (2 * STEP)
    return gradient


def _half_log_det(problem: MultiFrameProblem, state: State) -> torch.Tensor:
    """Half log determinants (P,F) of the frames' Hessians."""
    return _own_factor(problem.linearise(state)).diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
