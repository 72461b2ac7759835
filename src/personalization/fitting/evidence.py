"""How far a frame's keypoints and its network's pose are to be trusted, by the frame itself.

Assumed standard deviations are often wrong, and the same ones are wrong differently in every image. At the minimum, a
chi-square over the degrees of freedom that it has estimates by how much its variance was off (MacKay 1992, "Bayesian
interpolation": re-estimation of alpha and beta by the evidence). A frame alone has few of them, so the assumption keeps
the weight of a few further ones: an inverse gamma distribution about it.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from src.personalization.solver.normal_equations import factorise
from src.personalization.terms.frame_terms import FRAME_SIZE, POSE, WRIST, Observations
from src.personalization.terms.keypoint_terms import keypoint_rows
from template.kinematics import JointsModel, posed_points

#: Degrees of freedom that the assumed noise and the assumed spread of the prior are worth: of 0 to 20 a compromise on
#: simulated frames of seeds 1001 and 1002 (`benchmarks.fit_speed`'s, 256 each), which hardly differ.
NOISE_BELIEF, PRIOR_BELIEF = 2.0, 10.0


def reestimated(
    model: JointsModel,
    assumed: Observations,
    last: Observations,
    pose: torch.Tensor,
    wrist: torch.Tensor,
    rest: torch.Tensor,
    hessian: torch.Tensor,
) -> Observations:
    """``assumed`` with the variances of its keypoints and of its one pose prior estimated, a factor each a frame.

    Args:
        last: the observations, of an earlier estimate or as assumed, whose minimum is
        pose: (N,16,3,3), wrist: (N,3) m, rest: (N,21,3) m; and hessian: (N,51,51) there.
    """
    prior, posed = assumed.pose_priors[0], posed_points(model, pose, rest)
    inverse = torch.cholesky_inverse(factorise(hessian))
    # Of the unknowns, how many the prior decides, and the depth's; the keypoints decide the others.
    by_prior = (inverse[:, POSE, POSE] * last.pose_priors[0].precision).sum(dim=(1, 2))
    by_depth = torch.zeros_like(by_prior)
    if last.depth_weight is not None:
        by_depth = inverse[:, WRIST, WRIST][:, 2, 2] * last.depth_weight
    misfit, _, _ = keypoint_rows(
        posed.planar + wrist.T[:, None],
        assumed.projections.permute(2, 3, 1, 0),
        assumed.keypoints.permute(3, 1, 2, 0),
        assumed.weights.permute(1, 2, 0),
        assumed.loss,
        assumed.loss_scale,
    )
    off, _ = prior.pull(prior.logarithms(posed.local[:, :3]))
    free_keypoints = 2 * (assumed.weights > 0).sum(dim=(1, 2)) - (FRAME_SIZE - by_prior - by_depth)
    noise = (NOISE_BELIEF + 2 * misfit) / (NOISE_BELIEF + free_keypoints.clamp_min(0))
    spread = (PRIOR_BELIEF + 2 * off) / (PRIOR_BELIEF + (POSE.stop - by_prior).clamp_min(0))
    return replace(
        assumed,
        weights=assumed.weights / noise[:, None, None],
        pose_priors=[replace(prior, precision=prior.precision / spread[:, None, None])],
    )
