"""How widely the poses of a set of pictures are spread about the hand model's usual ones, learnt from its keypoints.

The hand model's pose statistics are those of its own captures. Pictures of one person, or of one occasion, may show
less of them, or poses that the captures rarely showed. The spread is taken that makes the keypoints most likely,
whatever the poses are: the evidence (MacKay 1992, "Bayesian interpolation"), by Laplace's method at the fitted poses.
Rotations that an estimator says do not count here: estimators, and fits to 3D points, draw poses nearer to the usual
ones than they are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from src.personalization.fitting.fit import FitOptions, FitResult, fit_frames, observe
from src.personalization.solver.normal_equations import factorise
from src.personalization.solver.status import usable
from src.personalization.terms.frame_problem import FrameProblem
from src.personalization.terms.inputs import check_frames
from src.personalization.terms.pose_prior import POSE_FLOOR, PosePrior, habit_prior, inverse_right_jacobian
from template import HandAssets
from template.kinematics import JointsModel

#: Pictures that tell, evenly drawn from more; how often poses are fitted and their spread is learnt from them.
MOST, ROUNDS = 48, 2
#: Times the usual poses' covariance, and rad of every finger angle beside it, among which is chosen.
SPREADS, FLOORS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0), (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3)
#: Standard deviation of the logarithm of either about what is usual, before any picture is seen.
BELIEF = math.log(2)


def learnt_poses(
    assets: HandAssets,
    model: JointsModel,
    given: tuple[torch.Tensor, ...],
    confidence: torch.Tensor | None,
    options: FitOptions,
    spread: float = 1.0,
) -> PosePrior:
    """`habit_prior` in the model's dtype, spread as the pictures show.

    Args:
        given: pose (N,16,3,3), betas (N,10), K (N,3,3) px and keypoints (N,21,2) px as `fit_frames` takes them;
            confidence: (N,21).
        options: of the fit, without this prior. spread: times the covariance, as is believed beforehand.
    """
    rows = np.unique(np.linspace(0, len(given[0]) - 1, min(MOST, len(given[0]))).round().astype(int))
    pose, betas, K, keypoints = (value[rows].to(model.device, model.dtype) for value in given)
    confidence = None if confidence is None else confidence[rows]
    inputs = check_frames(pose, betas, K, keypoints, confidence, options.noise.min_confidence)
    alone = replace(options, prior=replace(options.prior, finger_std=math.inf), extra_priors=())
    problem = FrameProblem(model, observe(model, inputs, alone))
    start, now = None, (spread, POSE_FLOOR * spread**0.5)
    for _ in range(ROUNDS):
        told = replace(options, extra_priors=(habit_prior(assets, model.dtype, model.device, *now),))
        found = fit_frames(model, pose, betas, K, keypoints, confidence, told, start)
        start, now = (found.pose, found.transl), most_likely(assets, problem, found, now, spread)
    return habit_prior(assets, model.dtype, model.device, *now)


def most_likely(
    assets: HandAssets, problem: FrameProblem, found: FitResult, now: tuple[float, float], spread: float
) -> tuple[float, float]:
    """Of `SPREADS` and `FLOORS` (rad) those that make the keypoints of N fitted hands likeliest, one after the other.

    Args:
        problem: of the keypoints, without anything that is believed of the fingers.
        now: the two that the hands were fitted with; spread: the usual one.
    """
    wrist = found.transl + problem.model.rest_points(found.betas)[:, 0]
    terms = problem.linearise({"pose": found.pose, "wrist": wrist, "betas": found.betas})
    good = usable(found.status)
    hessian, gradient = terms["hessian"][good].double(), terms["gradient"][good].double()
    # Of finger angles alone: the hand's orientation and place follow them.
    others, fingers = [*range(3), *range(48, 51)], slice(3, 48)
    carried = torch.linalg.solve(hessian[:, others][:, :, others], hessian[:, others, fingers])
    information = hessian[:, fingers, fingers] - hessian[:, fingers, others] @ carried
    pull = gradient[:, fingers] - (gradient[:, None, others] @ carried)[:, 0]
    # In axis-angles about the usual pose, along the axes of its covariance.
    usual = habit_prior(assets, device=hessian.device)
    phi = usual.logarithms(found.pose[good].double().permute(2, 3, 1, 0))
    off = (phi - usual.offset.permute(2, 1, 0)).permute(2, 1, 0)[:, 1:].flatten(1)
    steps = torch.linalg.inv(inverse_right_jacobian(phi).permute(3, 2, 0, 1) @ terms["chart"][good].double())[:, 1:]
    turns = torch.zeros(len(off), 15, 3, 15, 3).to(hessian)
    turns.diagonal(dim1=1, dim2=3).copy_(steps.permute(0, 2, 3, 1))
    values, axes = np.linalg.eigh(assets.hands_components.T @ assets.hands_components)
    values, axes = torch.as_tensor(values).to(hessian), torch.as_tensor(axes).to(hessian)
    turns = turns.view(-1, 45, 45) @ axes
    information = turns.mT @ information @ turns
    pull = information @ (off @ axes)[..., None] - turns.mT @ pull[..., None]

    def likelihood(times: float, floor: float) -> float:
        root = (times * values + floor**2).sqrt()
        factor = factorise(torch.eye(45).to(root) + root[:, None] * information * root)
        fit = torch.linalg.solve_triangular(factor, root[:, None] * pull, upper=False)
        volume = factor.diagonal(dim1=1, dim2=2).log().sum()
        unusual = math.log(times / spread) ** 2 + math.log(floor / (POSE_FLOOR * spread**0.5)) ** 2
        return float(fit.square().sum() / 2 - volume) - unusual / (2 * BELIEF**2)

    floor = max(FLOORS, key=lambda floor: likelihood(now[0], floor))
    return max(SPREADS, key=lambda times: likelihood(times, floor)), floor
