"""Joint calibration: one set of betas from many frames of a person, with its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from src.personalization.calibration.laplace_correction import volume_gradient
from src.personalization.calibration.multi_frame_problem import JointProblem, posterior_covariance
from src.personalization.calibration.shape_observation_model import NetworkShape
from src.personalization.fitting.fit import FitOptions, PosePriorOptions, observe
from src.personalization.fitting.translation import wrist_at_depth, wrist_from_keypoints
from src.personalization.solver.levenberg_marquardt import LMOptions, minimise
from src.personalization.solver.normal_equations import damping_diagonal, factorise, solve_factored
from src.personalization.solver.status import Status
from src.personalization.terms.frame_problem import ShapePrior
from src.personalization.terms.frame_terms import FRAME_SIZE, Observations, evaluate_frames
from template.kinematics import posed_points
from src.personalization.terms.inputs import FrameInputs, check_frames
from template.kinematics import JointsModel
from src.personalization.terms.noise import KeypointNoise
from src.personalization.terms.pose_prior import PosePrior
from src.personalization.terms.shape_terms import LengthCue


@dataclass(frozen=True)
class JointOptions:
    """What joint calibration believes beforehand.

    Attributes:
        prior, noise, depth_mean, depth_std, extra_priors: as in `fitting.FitOptions`.
        shape_mean (10,), shape_covariance (10,10): the population's betas; None: unit normal.
        cues: measured lengths.
        network: how the network sees shapes; `joint_identity` then counts its predicted betas as evidence.
        marginal_rounds: corrections towards the betas' own posterior (`marginal.py`); 0: joint optimum.
        marginal_weight: share of Laplace's correction that is applied. Where a frame's posterior is skewed
            the full correction overshoots: hand length of 100 simulated persons (0.25 rad, 2 px, 20 frames)
            was off by +2.5 mm without, -1.3 mm with all, +0.1 mm with half of it.
    """

    prior: PosePriorOptions = PosePriorOptions()
    noise: KeypointNoise = KeypointNoise()
    depth_mean: float | None = None
    depth_std: float = 0.07
    extra_priors: tuple[PosePrior, ...] = ()
    shape_mean: torch.Tensor | None = None
    shape_covariance: torch.Tensor | None = None
    cues: tuple[LengthCue, ...] = ()
    network: NetworkShape | None = None
    marginal_rounds: int = 1
    marginal_weight: float = 0.5
    lm: LMOptions = field(default_factory=lambda: LMOptions(max_steps=50))

    def prior_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (10,) and covariance (10,10) of the population prior."""
        mean = np.zeros(10) if self.shape_mean is None else self.shape_mean.double().cpu().numpy()
        covariance = np.eye(10) if self.shape_covariance is None else self.shape_covariance.double().cpu().numpy()
        return mean, covariance

    def shape_prior(self, model: JointsModel) -> ShapePrior:
        """The population prior in the model's dtype and on its device."""
        mean, covariance = (torch.as_tensor(value) for value in self.prior_moments())
        precision = torch.linalg.inv(covariance)
        return ShapePrior(mean.to(model.device, model.dtype), precision.to(model.device, model.dtype))


@dataclass
class JointResult:
    """P persons, F frames each; every number is finite.

    Attributes:
        betas: (P,10); covariance: (P,10,10), Laplace, poses and positions integrated out.
        pose: (P,F,16,3,3); transl: (P,F,3) m.
        status: (P,) of `Status`; frame_status: (P,F), CONVERGED for a frame that was used, else why not.
        cost: (P,) half chi-square at the end; steps: (P,).
    """

    betas: torch.Tensor
    covariance: torch.Tensor
    pose: torch.Tensor
    transl: torch.Tensor
    status: torch.Tensor
    frame_status: torch.Tensor
    cost: torch.Tensor
    steps: torch.Tensor


def calibrate_joint(
    model: JointsModel,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None = None,
    options: JointOptions = JointOptions(),
    wrist_depth: torch.Tensor | None = None,
    wrist_depth_std: float = 0.01,
) -> JointResult:
    """Calibrate P persons from F single-camera frames each.

    Args:
        pose: (P,F,16,3,3) the network's rotations; betas: (P,10) where to start; K: (P,F,3,3) px.
        keypoints: (P,F,21,2) px, standard order; confidence: (P,F,21) in [0,1], all zero for filler frames.
        wrist_depth: (P,F) m measured depth of the wrist joint, NaN where unknown; replaces the depth
            prior of ``options`` there.

    Returns:
        `JointResult`; a person without a usable frame gets the prior, with status NO_KEYPOINTS.
    """
    persons, frames = pose.shape[:2]

    def flat(value: torch.Tensor | None) -> torch.Tensor | None:
        return None if value is None else value.flatten(0, 1)

    each = betas.repeat_interleave(frames, dim=0)
    inputs, seen = _observe(model, flat(pose), each, flat(K), flat(keypoints), flat(confidence), options)
    if wrist_depth is not None:
        seen = with_measured_depth(seen, flat(wrist_depth).to(model.device, model.dtype), wrist_depth_std)
    first_betas = inputs.betas.unflatten(0, (persons, frames))[:, 0]
    return solve_joint(model, seen, inputs.pose, first_betas, inputs.status.unflatten(0, (persons, frames)), options)


def solve_joint(
    model: JointsModel,
    seen: Observations,
    pose: torch.Tensor,
    betas: torch.Tensor,
    frame_status: torch.Tensor,
    options: JointOptions,
) -> JointResult:
    """The same from ready observations of any number of cameras.

    Args:
        seen: observations of P*F frames; pose: (P*F,16,3,3) to start from; betas: (P,10);
        frame_status: (P,F), see `JointResult`.
    """
    persons, frames = frame_status.shape
    seen, wrist, placed = place_frames(model, seen, pose, model.rest_points(betas).repeat_interleave(frames, 0))
    good = frame_status == Status.CONVERGED
    frame_status = torch.where(good & ~placed.view(persons, frames), int(Status.BEHIND_CAMERA), frame_status)
    split = (persons, frames)
    state = {"pose": pose.unflatten(0, split), "wrist": wrist.unflatten(0, split), "betas": betas}
    problem = JointProblem(model, seen, persons, options.shape_prior(model), options.cues)
    result = minimise(problem, state, options.lm)
    for _ in range(options.marginal_rounds):
        tilt = options.marginal_weight * volume_gradient(problem, result.state, result.terms)
        problem = JointProblem(model, seen, persons, options.shape_prior(model), options.cues, tilt)
        result = minimise(problem, result.state, options.lm)
    status = result.status.clone()
    status[~(frame_status == Status.CONVERGED).any(dim=1)] = Status.NO_KEYPOINTS
    fitted = result.state
    return JointResult(
        betas=fitted["betas"],
        covariance=posterior_covariance(result.terms),
        pose=fitted["pose"],
        transl=fitted["wrist"] - model.rest_points(fitted["betas"])[:, None, 0],
        status=status,
        frame_status=frame_status,
        cost=result.cost,
        steps=result.steps,
    )


def place_frames(
    model: JointsModel, seen: Observations, pose: torch.Tensor, rest: torch.Tensor
) -> tuple[Observations, torch.Tensor, torch.Tensor]:
    """Closed-form wrist positions (N,3); frames that cannot be placed lose their keypoints' weight.

    Returns:
        The observations, the wrists, and the mask (N,) of placed frames (True where nothing is seen).
    """
    points = posed_points(model, pose, rest).points
    wrist, placed = wrist_from_keypoints(points, seen.projections, seen.keypoints, seen.weights)
    unseen = (seen.weights == 0).flatten(1).all(dim=1)
    K = seen.projections[:, 0, :, :3]
    middle = seen.keypoints[:, 0].mean(dim=1)
    centre = torch.where(unseen[:, None], K[:, :2, 2], middle)
    wrist = torch.where((placed & ~unseen)[:, None], wrist, wrist_at_depth(centre, K, 0.85))
    weights = torch.where(placed[:, None, None], seen.weights, torch.zeros_like(seen.weights))
    return replace(seen, weights=weights), wrist, placed | unseen


def image_information(
    model: JointsModel,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None,
    options: JointOptions,
) -> torch.Tensor:
    """What each of N images alone says about the betas, its pose and wrist unknown: (N,10,10).

    Taken at the network's pose and the closed-form wrist, Gauss-Newton, so it is positive semi-definite;
    zero for images that cannot be used. Arguments as in `fitting.fit_frames`.
    """
    inputs, seen = _observe(model, pose, betas, K, keypoints, confidence, options)
    rest = model.rest_points(inputs.betas)
    seen, wrist, _ = place_frames(model, seen, inputs.pose, rest)
    terms = evaluate_frames(model, seen, inputs.pose, wrist, rest, with_shape=True)
    own = terms.hessian[:, :FRAME_SIZE, :FRAME_SIZE]
    coupling = terms.hessian[:, :FRAME_SIZE, FRAME_SIZE:]
    none = torch.zeros_like(terms.cost)
    factor = factorise(own + torch.diag_embed(damping_diagonal(own, none)))
    information = terms.hessian[:, FRAME_SIZE:, FRAME_SIZE:] - coupling.mT @ solve_factored(factor, coupling)
    return torch.where(inputs.good[:, None, None], information, torch.zeros_like(information))


def _observe(
    model: JointsModel,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None,
    options: JointOptions,
) -> tuple[FrameInputs, Observations]:
    given = [value.to(model.device, model.dtype) for value in (pose, betas, K, keypoints)]
    found = None if confidence is None else confidence.to(model.device, model.dtype)
    inputs = check_frames(*given, found, options.noise.min_confidence)
    believed = FitOptions(
        options.prior, options.noise, options.depth_mean, options.depth_std, extra_priors=options.extra_priors
    )
    return inputs, observe(model, inputs, believed)


def with_measured_depth(seen: Observations, depth: torch.Tensor, std: float) -> Observations:
    """Observations with measured wrist depths (N,) m in place of the depth prior where they are finite."""
    known = torch.isfinite(depth)
    old_depth = torch.zeros_like(depth) if seen.depth is None else seen.depth
    old_weight = torch.zeros_like(depth) if seen.depth_weight is None else seen.depth_weight
    weight = torch.where(known, torch.full_like(depth, std**-2), old_weight)
    return replace(seen, depth=torch.where(known, depth, old_depth), depth_weight=weight)
