"""One person, many frames: betas shared by all frames, a pose and a wrist position of each.

The normal equations are an arrow: frames do not see each other except through what is the person's. Frames are
eliminated first (Schur complement; Triggs et al. 2000, "Bundle adjustment", section 6), so the work is
linear in the number of frames, and the small system that is left is the person's posterior information.

A detector errs in the same way in all pictures of a person: its points lie elsewhere on this hand than on others. Where
that is asked for, how far is solved for together with the betas, which would take it for another shape.

At the optimum the betas' own posterior is corrected for the poses' freedom (Laplace's method, see
`log_volume_gradient`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from src.personalization.solver.levenberg_marquardt import State
from src.personalization.solver.normal_equations import damped, factorise, solve_factored
from src.personalization.terms.frame_problem import ShapePrior, retract_frames, step_of
from src.personalization.terms.frame_terms import FRAME_SIZE, Observations, evaluate_frames
from src.personalization.terms.hand_size import LengthCue
from src.personalization.terms.shape_terms import offset_terms, shape_terms
from template.kinematics import JointsModel

#: A frame's own unknowns, and the person's: the betas, and the offsets of their points where these are free.
OWN, PERSON = slice(None, FRAME_SIZE), slice(FRAME_SIZE, None)
#: Of the latter.
BETAS, OFFSETS = slice(0, 10), slice(10, None)
#: Half step of the central difference, units of betas: far above rounding, far below the curvature's scale.
STEP = 0.02


@dataclass
class MultiFrameProblem:
    """`levenberg_marquardt.Problem` over P persons of F frames each.

    State: pose (P,F,16,3,3), wrist (P,F,3) m, betas (P,10), and offsets (P,21,3) m (MANO's order) if they
    are free. Persons with fewer frames are filled up with frames whose keypoints have zero weight and whose pose prior
    sits at their start: they add nothing.

    Attributes:
        observations: of the P*F frames, person by person.
        share: (P,F|1) what a frame's information counts: less than one where errors are taken to repeat.
        shape_prior: on the betas; cues: measured lengths, the same for all persons.
        linear: (P|1,10) term ``linear . betas`` of the cost, see `log_volume_gradient`.
        offset_share: (21,) see `offset_terms`, MANO's order; None: the offsets are not free.
    """

    model: JointsModel
    observations: Observations
    share: torch.Tensor
    shape_prior: ShapePrior
    cues: tuple[LengthCue, ...]
    linear: torch.Tensor
    offset_share: torch.Tensor | None = None

    @property
    def depth_unknown(self) -> torch.Tensor:
        """(P,F) whether only keypoints of one camera tell how far away the hand is."""
        seen, weight = self.observations, self.observations.depth_weight
        alone = seen.keypoints.new_full((len(seen.keypoints),), seen.projections.shape[1] == 1, dtype=torch.bool)
        return (alone if weight is None else alone & (weight <= 0)).view(len(self.share), -1)

    def linearise(self, state: State) -> State:
        """Cost (P,), person_gradient (P,S) and person_hessian (P,S,S) of everything, S = 10 or 73 being the person's
        unknowns, ``known`` (P,10,10) of the betas' without the frames, and of each frame gradient (P,F,51+S) by pose
        (rad), wrist (m) and the person's, Gauss-Newton hessian (P,F,51+S,51+S), chart (P,F,16,3,3)."""
        persons, frames = state["pose"].shape[:2]
        rest = self.model.rest_points(state["betas"]).repeat_interleave(frames, dim=0)
        pose, wrist = state["pose"].flatten(0, 1), state["wrist"].flatten(0, 1)
        offsets = state["offsets"].repeat_interleave(frames, dim=0) if "offsets" in state else None
        found = evaluate_frames(self.model, self.observations, pose, wrist, rest, with_shape=True, offsets=offsets)
        split = (persons, frames)
        share = self.share[..., None]
        gradient = share * found.gradient.unflatten(0, split)
        hessian = share[..., None] * found.hessian.unflatten(0, split)
        cost, pull, known = shape_terms(self.model, self.shape_prior, self.cues, state["betas"])
        cost = cost + (self.share * found.cost.view(split)).sum(dim=1) + (self.linear * state["betas"]).sum(dim=1)
        person_gradient, person_hessian = gradient[..., PERSON].sum(dim=1), hessian[..., PERSON, PERSON].sum(dim=1)
        person_gradient[:, BETAS] += pull + self.linear
        person_hessian[:, BETAS, BETAS] += known
        if self.offset_share is not None:
            more = offset_terms(self.model, self.offset_share, state["betas"], state["offsets"])
            cost, person_gradient, person_hessian = cost + more[0], person_gradient + more[1], person_hessian + more[2]
        return {
            "cost": cost,
            "gradient": gradient,
            "hessian": hessian,
            "chart": found.chart.unflatten(0, split),
            "person_gradient": person_gradient,
            "person_hessian": person_hessian,
            "known": known,
        }

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `levenberg_marquardt.Problem`; a step in rad, m and betas."""
        gradient, coupling = terms["gradient"][..., OWN], terms["hessian"][..., OWN, PERSON]
        system, added = damped(terms["hessian"][..., OWN, OWN], damping[:, None])
        solved = solve_factored(factorise(system), torch.cat([coupling, gradient[..., None]], dim=-1))
        eliminated, own = solved[..., :-1], solved[..., -1]
        reduced, added_person = damped(terms["person_hessian"], damping)
        reduced -= (coupling.mT @ eliminated).sum(dim=1)
        person_gradient = terms["person_gradient"]
        pull = person_gradient - (coupling.mT @ own[..., None]).sum(dim=1)[..., 0]
        person_step = -solve_factored(factorise((reduced + reduced.mT) / 2), pull)
        frame_step = -(own + (eliminated @ person_step[:, None, :, None])[..., 0])
        # -g.s - s.H.s / 2 with (H + D) s = -g is (s.D.s - g.s) / 2.
        promised = ((added * frame_step - gradient) * frame_step).sum(dim=(1, 2)) / 2
        promised = promised + ((added_person * person_step - person_gradient) * person_step).sum(-1) / 2
        bad = ~torch.isfinite(promised)
        step = step_of(frame_step.masked_fill(bad[:, None, None], 0.0), terms["chart"])
        person_step = person_step.masked_fill(bad[:, None], 0.0)
        step["betas"] = person_step[:, BETAS]
        step["offsets"] = person_step[:, OFFSETS].unflatten(1, (-1, 3))
        return step, promised.masked_fill(bad, torch.nan)

    retract = staticmethod(retract_frames)

    def rows(self, index: torch.Tensor) -> MultiFrameProblem:
        frames = len(self.observations.weights) // len(self.share)
        every = (index[:, None] * frames + torch.arange(frames, device=index.device)).flatten()
        observations, linear = self.observations.rows(every), self.linear.expand(len(self.share), -1)[index]
        return replace(self, observations=observations, share=self.share[index], linear=linear)


def own_factor(hessian: torch.Tensor) -> torch.Tensor:
    """Cholesky factors (...,51,51) of the frames' own part (rad, m) of Hessians (...,51+S,51+S), not damped."""
    return factorise(damped(hessian[..., OWN, OWN], hessian.new_zeros(()))[0])


def reaction(hessian: torch.Tensor) -> torch.Tensor:
    """How poses (rad) and wrists (m) (...,51,S) move with what is the person's at the optimum, of Hessians
    (...,51+S,51+S)."""
    return -solve_factored(own_factor(hessian), hessian[..., OWN, PERSON])


def posterior_covariance(terms: State) -> torch.Tensor:
    """Laplace covariance (P,10,10) of the betas, poses, positions and offsets integrated out: of the inverse
    Schur complement."""
    hessian = terms["hessian"]
    reduced = terms["person_hessian"] + (hessian[..., OWN, PERSON].mT @ reaction(hessian)).sum(dim=1)
    covariance = torch.cholesky_inverse(factorise((reduced + reduced.mT) / 2))[:, BETAS, BETAS]
    return (covariance + covariance.mT) / 2


def log_volume_gradient(problem: MultiFrameProblem, state: State, terms: State) -> torch.Tensor:
    """Gradient (P,10) of ``sum_f share log det H_f / 2`` with respect to the betas, at an optimum and its ``terms``.

    Maximising over poses and betas together is biased: a finger that may point towards the camera or away
    looks shorter in either case, so a longer hand leaves the poses more room. Integrating the poses out by
    Laplace's method adds that sum to the cost (Tierney and Kadane 1986, eq. 2.3; MacKay 2003, section 27),
    H_f being the Hessian of frame f in its own pose and wrist. Where nothing tells the depth z, all sizes of a picture
    are alike beforehand, so the wrist's prior is 1/z^3: in metres a hand twice as long, twice as far, would have eight
    times the room. The gradient is taken numerically along the frames' optimal reaction to the betas.
    """
    moves, gradient = reaction(terms["hessian"]), torch.zeros_like(state["betas"])
    for index in range(gradient.shape[1]):
        sides = []
        for amount in (STEP, -STEP):
            step = step_of(amount * moves[..., index], terms["chart"])
            step["betas"] = torch.zeros_like(gradient)
            step["betas"][:, index] = amount
            moved = problem.retract(state, step)
            factor = own_factor(problem.linearise(moved)["hessian"])
            half = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)  # of the determinants' logarithms, (P,F)
            sides.append(torch.where(problem.depth_unknown, half + 3 * moved["wrist"][..., 2].log(), half))
        gradient[:, index] = (problem.share * (sides[0] - sides[1])).sum(dim=1) / (2 * STEP)
    return gradient
