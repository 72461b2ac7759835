"""Independent frames with fixed betas, solved finger by finger (`finger_terms`)."""

from __future__ import annotations

import torch

from src.personalization.finger_pose import RestFingers, rest_fingers
from src.personalization.finger_terms import SeenFingers, evaluate_fingers, seen_fingers
from src.personalization.frame_problem import retract_frames
from src.personalization.frame_terms import Observations
from src.personalization.joints_model import JointsModel
from src.personalization.least_squares import State
from src.personalization.normal_equations import factorise, marquardt

#: Of a finger's fifteen unknowns: its own nine, and the palm's six.
OWN, PALM = slice(0, 9), slice(9, 15)


class FingerProblem:
    """`least_squares.Problem` over N frames with the state keys pose (N,16,3,3), wrist (N,3), betas (N,10)."""

    def __init__(self, model: JointsModel, seen: SeenFingers, rest: RestFingers) -> None:
        self.model, self.seen, self.rest = model, seen, rest

    def linearise(self, state: State, exact: bool = True) -> State:
        """See `finger_terms.evaluate_fingers`."""
        return evaluate_fingers(self.model, self.seen, self.rest, state["pose"], state["wrist"], exact)

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `least_squares.Problem`. Frames whose exact Hessian is indefinite take Gauss-Newton's."""
        blocks = terms["blocks"]
        diagonal = blocks.diagonal(dim1=-2, dim2=-1)
        own_added = marquardt(diagonal[..., OWN], damping[:, None])
        palm_added = marquardt(
            diagonal[..., PALM].sum(dim=1) + terms["palm"].diagonal(dim1=-2, dim2=-1), damping
        )
        rest = (terms["palm"], own_added, palm_added, terms["finger_gradient"], terms["palm_gradient"])
        fingers, palm, definite = solve_arrow(terms["total"], *rest)
        if not bool(definite.all()):
            rough = ~definite
            fingers[rough], palm[rough], _ = solve_arrow(blocks[rough], *(value[rough] for value in rest), safe=True)
        predicted = ((own_added * fingers - rest[3]) * fingers).sum(dim=(1, 2))
        predicted = (predicted + ((palm_added * palm - rest[4]) * palm).sum(dim=1)) / 2
        turns = torch.cat([palm[:, None, :3], fingers.view(-1, 15, 3)], dim=1)
        step = {"turn": (terms["rotations"].mT @ turns[..., None])[..., 0], "wrist": palm[:, 3:]}
        bad = ~torch.isfinite(predicted)
        if bool(bad.any()):
            step = {key: torch.where(bad.view(-1, *[1] * (v.dim() - 1)), 0.0, v) for key, v in step.items()}
            predicted = torch.where(bad, torch.nan, predicted)
        return step, predicted

    def retract(self, state: State, step: State) -> State:
        """See `least_squares.Problem`."""
        return {**retract_frames(state, step), "betas": state["betas"]}

    def rows(self, index: torch.Tensor) -> FingerProblem:
        """Some of the frames."""
        return FingerProblem(self.model, self.seen.rows(index), self.rest.rows(index))


def finger_problem(model: JointsModel, seen: Observations, betas: torch.Tensor) -> FingerProblem:
    """The problem of N frames with fixed betas (N,10)."""
    return FingerProblem(model, seen_fingers(model, seen), rest_fingers(model, model.rest_points(betas)))


def solve_arrow(
    blocks: torch.Tensor,
    palm: torch.Tensor,
    own_added: torch.Tensor,
    palm_added: torch.Tensor,
    finger_gradient: torch.Tensor,
    palm_gradient: torch.Tensor,
    safe: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Newton steps of N frames: fingers are eliminated, the palm's 6x6 system is solved, fingers follow.

    Args:
        blocks: (N,5,15,15); palm: (N,6,6); own_added (N,5,9), palm_added (N,6): damping.
        safe: repair indefinite systems (`normal_equations.factorise`) instead of reporting them.

    Returns:
        Steps of the fingers (N,5,9) and of the palm (N,6), and a mask (N,) of definite systems.
    """
    own = blocks[..., OWN, OWN].clone()
    own.diagonal(dim1=-2, dim2=-1).add_(own_added)
    coupling = blocks[..., OWN, PALM]
    total = palm + blocks[..., PALM, PALM].sum(dim=1)
    total.diagonal(dim1=-2, dim2=-1).add_(palm_added)
    if safe:
        finite = torch.isfinite(blocks).flatten(1).all(dim=1) & torch.isfinite(total).flatten(1).all(dim=1)
        own = torch.where(finite[:, None, None, None], own, torch.eye(9, dtype=own.dtype, device=own.device))
        factor = factorise(own)
    else:
        factor, finger_info = torch.linalg.cholesky_ex(own)
    # With L L^T = own: half = L^-1 [coupling, gradient].
    half = torch.linalg.solve_triangular(factor, torch.cat([coupling, finger_gradient[..., None]], dim=-1), upper=False)
    product = (half[..., :6].mT @ half).sum(dim=1)
    reduced, pull = total - product[..., :6], palm_gradient - product[..., 6]
    if safe:
        reduced = torch.where(finite[:, None, None], reduced, torch.eye(6, dtype=own.dtype, device=own.device))
        palm_factor, definite = factorise(reduced), finite
        pull = torch.where(finite[:, None], pull, torch.nan)
    else:
        palm_factor, palm_info = torch.linalg.cholesky_ex(reduced)
        definite = (finger_info == 0).all(dim=1) & (palm_info == 0)
    palm_step = -torch.cholesky_solve(pull[..., None], palm_factor)
    back = half[..., 6:] + half[..., :6] @ palm_step[:, None]
    finger_step = -torch.linalg.solve_triangular(factor.mT, back, upper=True)
    return finger_step[..., 0], palm_step[..., 0], definite
