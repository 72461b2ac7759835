"""Joint calibration: one set of betas from many frames of a person, with its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from src.personalization.fitting import FitOptions, PosePriorOptions, observe
from src.personalization.frame_problem import ShapePrior
from src.personalization.frame_terms import Observations
from src.personalization.hand_residuals import posed_points
from src.personalization.inputs import check_frames
from src.personalization.joint_problem import JointProblem, posterior_covariance
from src.personalization.joints_model import JointsModel
from src.personalization.least_squares import LMOptions, minimise
from src.personalization.noise import KeypointNoise
from src.personalization.shape_terms import LengthCue
from src.personalization.status import Status
from src.personalization.translation import wrist_at_depth, wrist_from_keypoints


@dataclass(frozen=True)
class JointOptions:
    """What joint calibration believes beforehand.

    Attributes:
        prior, noise, depth_mean, depth_std: as in `fitting.FitOptions`.
        shape_mean (10,), shape_covariance (10,10): the population's betas; None: unit normal.
        cues: measured lengths.
    """

    prior: PosePriorOptions = PosePriorOptions()
    noise: KeypointNoise = KeypointNoise()
    depth_mean: float | None = None
    depth_std: float = 0.07
    shape_mean: torch.Tensor | None = None
    shape_covariance: torch.Tensor | None = None
    cues: tuple[LengthCue, ...] = ()
    lm: LMOptions = field(default_factory=lambda: LMOptions(max_steps=50))

    def shape_prior(self, model: JointsModel) -> ShapePrior:
        """The population prior in the model's dtype and on its device."""
        mean = torch.zeros(10) if self.shape_mean is None else self.shape_mean
        covariance = torch.eye(10) if self.shape_covariance is None else self.shape_covariance
        precision = torch.linalg.inv(covariance.double())
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

    def flat(value: torch.Tensor) -> torch.Tensor:
        return value.flatten(0, 1).to(model.device, model.dtype)

    inputs = check_frames(
        flat(pose),
        betas.to(model.device, model.dtype).repeat_interleave(frames, dim=0),
        flat(K),
        flat(keypoints),
        None if confidence is None else flat(confidence),
        options.noise.min_confidence,
    )
    shared = FitOptions(options.prior, options.noise, options.depth_mean, options.depth_std)
    seen = observe(model, inputs, shared)
    if wrist_depth is not None:
        seen = with_measured_depth(seen, flat(wrist_depth), wrist_depth_std)
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
    state = {"pose": pose.unflatten(0, (persons, frames)), "wrist": wrist.unflatten(0, (persons, frames)), "betas": betas}
    problem = JointProblem(model, seen, persons, options.shape_prior(model), options.cues)
    result = minimise(problem, state, options.lm)
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


def with_measured_depth(seen: Observations, depth: torch.Tensor, std: float) -> Observations:
    """Observations with measured wrist depths (N,) m in place of the depth prior where they are finite."""
    known = torch.isfinite(depth)
    old_depth = torch.zeros_like(depth) if seen.depth is None else seen.depth
    old_weight = torch.zeros_like(depth) if seen.depth_weight is None else seen.depth_weight
    weight = torch.where(known, torch.full_like(depth, std**-2), old_weight)
    return replace(seen, depth=torch.where(known, depth, old_depth), depth_weight=weight)
