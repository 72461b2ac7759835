"""Independent frames with fixed betas, solved finger by finger (`finger_terms`)."""

from __future__ import annotations

import torch

from src.personalization.fitting.finger_points import seen_points
from src.personalization.fitting.finger_pose import RestFingers, frame_poses, local_transforms, rest_fingers
from src.personalization.fitting.finger_prior import is_isotropic, pulled_pose
from src.personalization.fitting.finger_system import solve_fingers
from src.personalization.fitting.finger_terms import SeenFingers, evaluate_fingers
from src.personalization.solver.levenberg_marquardt import LMOptions, LMResult, State, minimise
from src.personalization.terms.components_first import cayley, product, product_transposed
from src.personalization.terms.frame_terms import Observations
from src.personalization.terms.joints_model import FingerTables, JointsModel


class FingerProblem:
    """`least_squares.Problem` over N frames, frames last, with the state keys local (3,4,16,N) and wrist (3,N).

    See `finger_pose.local_transforms`.
    """

    frames_last = True

    def __init__(self, tables: FingerTables, seen: SeenFingers, rest: RestFingers) -> None:
        self.tables, self.seen, self.rest = tables, seen, rest

    def linearise(self, state: State, exact: bool = True) -> State:
        """See `finger_terms.evaluate_fingers`; ``exact`` (N,) says which variant of the Hessian leads."""
        terms = evaluate_fingers(self.tables, self.seen, self.rest, state["local"], state["wrist"])
        terms["exact"] = torch.full_like(terms["cost"], exact, dtype=torch.bool)
        return terms

    def solve(self, terms: State, damping: torch.Tensor) -> tuple[State, torch.Tensor]:
        """See `least_squares.Problem`. Frames whose exact Hessian is indefinite take Gauss-Newton's."""
        own, palm, predicted, definite = solve_fingers(terms["panel"], terms["palm"], damping)
        newton = definite[0] & terms["exact"]
        pairs = (own.transpose(1, 2), palm, predicted)
        own, palm, predicted = (torch.where(newton, *value.unbind(-2)) for value in pairs)
        bad = ~((newton | definite[1]) & torch.isfinite(predicted))
        if bool(bad.any()):
            own, palm = (torch.where(bad, 0.0, value) for value in (own, palm))
            predicted = torch.where(bad, torch.nan, predicted)
        turns = torch.cat([own.view(3, 3, 5, -1).transpose(0, 1).flatten(1, 2), palm[:3, None]], dim=1)
        return {"turn": product_transposed(terms["world"][:, :3], turns), "wrist": palm[3:]}, predicted

    def retract(self, state: State, step: State) -> State:
        """Rotations R cayley(turn), wrist + step."""
        local = state["local"].clone()
        product(state["local"][:, :3], cayley(step["turn"]), out=local[:, :3])
        return {"local": local, "wrist": state["wrist"] + step["wrist"]}

    def rows(self, index: torch.Tensor) -> FingerProblem:
        """Some of the frames."""
        return FingerProblem(self.tables, self.seen.rows(index), self.rest.rows(index))


def is_quick(seen: Observations) -> bool:
    """Whether `fit_fingers` can take these observations: one camera, pose priors that are one number a joint."""
    return seen.projections.shape[1] == 1 and all(is_isotropic(prior) for prior in seen.pose_priors)


def finger_problem(model: JointsModel, seen: Observations, betas: torch.Tensor) -> FingerProblem:
    """The problem of N frames with fixed betas (N,10); the observations must be `is_quick`."""
    tables = model.fingers
    order = tables.point_order
    points = seen_points(
        seen.projections[:, 0], seen.keypoints[:, 0, order], seen.weights[:, 0, order], seen.loss, seen.loss_scale
    )
    priors = [pulled_pose(prior, tables.joint_order) for prior in seen.pose_priors]
    fingers = SeenFingers(points, priors, seen.depth, seen.depth_weight)
    return FingerProblem(tables, fingers, rest_fingers(model, model.rest_points(betas)))


def fit_fingers(model: JointsModel, seen: Observations, state: State, options: LMOptions) -> LMResult:
    """`minimise` over the frames of `finger_problem`, with states as `frame_problem.FrameProblem` has them.

    The result's terms are those of `finger_terms.evaluate_fingers`, frames last.
    """
    problem = finger_problem(model, seen, state["betas"])
    start = {"local": local_transforms(model, problem.rest, state["pose"]), "wrist": state["wrist"].T.contiguous()}
    result = minimise(problem, start, options)
    result.state = {
        "pose": frame_poses(model, result.state["local"]), "wrist": result.state["wrist"].T.contiguous(),
        "betas": state["betas"],
    }
    return result
