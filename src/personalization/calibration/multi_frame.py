"""Multi-frame calibration: one set of betas from many frames of a person, with its uncertainty."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from src.personalization.calibration.multi_view import ViewGroups, observe_views
from src.personalization.calibration.population import (
    MAKE,
    SHARED_ERROR_FACTOR,
    Population,
    shipped_population,
    with_population,
)
from src.personalization.calibration.problem import (
    OWN,
    SHAPE,
    MultiFrameProblem,
    log_volume_gradient,
    posterior_covariance,
    reaction,
)
from src.personalization.calibration.views import SHARED, Repeats
from src.personalization.fitting.fit import FitOptions, observe
from src.personalization.fitting.translation import wrist_at_depth, wrist_from_keypoints
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.solver.levenberg_marquardt import LMOptions, minimise
from src.personalization.solver.status import CalibrationError, Status
from src.personalization.terms.frame_terms import Observations, evaluate_frames
from src.personalization.terms.inputs import check_frames
from src.personalization.terms.shape_terms import LengthCue
from template.kinematics import JointsModel, posed_points
from utils.artifact_checks import HandLike

logger = logging.getLogger(__name__)

#: Share of Laplace's correction that is applied. Where a frame's posterior is skewed the full correction overshoots:
#: hand length of 100 simulated persons (0.25 rad, 2 px, 20 frames) was off by +2.5 mm without, -1.3 mm with all,
#: +0.1 mm with half of it. benchmarks/studies/laplace.py shows what half of it does.
LAPLACE_SHARE = 0.5


@dataclass(frozen=True)
class CalibrationOptions(FitOptions):
    """What calibration believes beforehand: `FitOptions` (``shape_prior`` and ``chunk`` are not used), and

    Attributes:
        population: people's shapes, and how the network sees them: its predicted betas are then evidence.
        cues: measured lengths.
        wrist_depth_std: m, of measured wrist depths.
        errors_repeat: how keypoints and poses err was not measured, so the worst is assumed: the same error in every
            image of a person. All of them together then tell as much as one.
        landmarks: of the keypoints' source; None: the hand's own joints and tips.
        error_correlation: the part of the images' errors that they share: n images tell as much as
            n / (1 + (n - 1) error_correlation) independent ones (the design effect, Kish 1965, section 5.4).
        video_correlation: the same of the different views of one video, where it is more.
        same_video: all images are frames of one video, or none repeats another; None: told from the hands in them.
        laplace: correct the betas for the room that poses and positions have (`problem.log_volume_gradient`); None:
            where the depth is known. Elsewhere a longer hand has more room in metres, and noisy hands get too long.
        accept_conflict: use a cue even where it contradicts the images.
        depths: m; a hand that its keypoints and K place elsewhere was seen by another camera than that K's.
    """

    population: Population = field(default_factory=Population)
    cues: tuple[LengthCue, ...] = ()
    wrist_depth_std: float = 0.01
    errors_repeat: bool = False
    landmarks: LandmarkModel | None = None
    error_correlation: float = 0.0
    video_correlation: float = SHARED
    same_video: bool | None = None
    laplace: bool | None = None
    accept_conflict: bool = False
    depths: tuple[float, float] = (0.08, 4.0)
    lm: LMOptions = field(default_factory=lambda: LMOptions(max_steps=100))


def in_common(options: CalibrationOptions) -> tuple[float, float]:
    """Of their errors, the part that all images share, and of the rest the part that views of a video share besides."""
    everywhere = 1.0 if options.errors_repeat else options.error_correlation
    in_video = max(0.0, options.video_correlation - everywhere)
    return everywhere, in_video / (1 - everywhere) if in_video else 0.0


def correlated(share: float) -> dict[str, Any]:
    """Changes of `CalibrationOptions` where it is stated what part of their errors different images share, 0 to 1.

    Raises:
        CalibrationError: no such part.
    """
    if not 0 <= share <= 1:
        raise CalibrationError(f"error_correlation is {share}; it is a part of the errors, 0 to 1")
    return {"errors_repeat": False, "error_correlation": share, "video_correlation": share}


def calibration_options(
    population: Population,
    options: CalibrationOptions = CalibrationOptions(),
    keep_depth: bool = False,
    shared_error: float = SHARED_ERROR_FACTOR,
) -> CalibrationOptions:
    """`with_population`, and the people's shapes and the network's habits as prior of a calibration."""
    return replace(with_population(options, population, keep_depth, shared_error), population=population)


def default_options(assets: HandLike, model_name: str, dataset: str) -> CalibrationOptions:
    """What is believed of predictions where no prior file is given: the shipped one, as far as it is about them.

    Args:
        model_name, dataset: network and data set of the predictions. Of another network only people's shapes are
            taken from the file, of another data set not the depth; of another hand nothing.
    """
    found = shipped_population(assets)
    if found is not None and found.model_name == model_name:
        return calibration_options(found, keep_depth=found.dataset != dataset)
    whose = "people's hands" if found is None else f"the errors of the network {model_name!r}"
    logger.warning(
        "how much %s differ was not measured: shapes are taken for %s, and errors for repeating in every image, so "
        "intervals are as wide as of one image. Measure it (%s) and give the file (--prior), or give --keypoint_std "
        "and --finger_std",
        whose,
        "unit normal" if found is None else "the shipped population's",
        MAKE,
    )
    return CalibrationOptions(population=Population() if found is None else found.shapes_only(), errors_repeat=True)


@dataclass
class MultiFrameResult:
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


def calibrate_frames(
    model: JointsModel,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None = None,
    options: CalibrationOptions = CalibrationOptions(),
    wrist_depth: torch.Tensor | None = None,
    views: ViewGroups | None = None,
    repeats: Repeats | None = None,
) -> MultiFrameResult:
    """Calibrate P persons from F frames each.

    Args:
        pose: (P,F,16,3,3) the network's rotations; betas: (P,10) where to start; K: (P,F,3,3) px.
        keypoints: (P,F,21,2) px, standard order; confidence: (P,F,21) in [0,1], all zero for filler frames.
        wrist_depth: (P,F) m measured depth of the wrist joint, NaN where unknown; replaces the depth
            prior of ``options`` there. Not used with views.
        views: of one person: which of its F images show one instant, and their cameras. Results are of instants.
        repeats: of one person: which of its F images (or instants) repeat each other; None: none does.

    Returns:
        `MultiFrameResult`; a person without a usable frame gets the prior, with status NO_KEYPOINTS.
    """
    persons, count = pose.shape[:2]
    pose, K, keypoints = (value.flatten(0, 1) for value in (pose, K, keypoints))
    confidence = None if confidence is None else confidence.flatten(0, 1)
    pose, starts = pose.to(model.device, model.dtype), betas.repeat_interleave(count, dim=0)
    inputs = check_frames(pose, starts, K, keypoints, confidence, options.noise.min_confidence)
    betas = inputs.betas[::count]
    if views is not None:
        observations, pose, status = observe_views(model, inputs, views, options)
    else:
        observations, pose, status = observe(model, inputs, options), inputs.pose, inputs.status
        if wrist_depth is not None:
            depth = wrist_depth.flatten().to(pose)
            known, none = torch.isfinite(depth), torch.zeros_like(depth)
            believed, weight = observations.depth, observations.depth_weight
            observations.depth = torch.where(known, depth, none if believed is None else believed)
            measured = torch.full_like(depth, options.wrist_depth_std**-2)
            observations.depth_weight = torch.where(known, measured, none if weight is None else weight)
    split = (persons, len(pose) // persons)
    rest = model.rest_points(betas).repeat_interleave(split[1], 0)
    observations, wrist, placed = place_frames(model, observations, pose, rest, options.depths)
    frame_status = torch.where((status == Status.CONVERGED) & ~placed, int(Status.BEHIND_CAMERA), status).view(split)
    used = frame_status == Status.CONVERGED
    everywhere, in_video = in_common(options)
    share = torch.ones_like(frame_status, dtype=betas.dtype)
    if repeats is not None:
        share = torch.as_tensor(repeats.weights(in_video, used[0].cpu().numpy()))[None].to(betas)
    share = share / (1 + everywhere * ((share * used).sum(dim=1, keepdim=True) - 1).clamp_min(0))
    prior = options.population.shape_prior(model.dtype, model.device)
    state = {"pose": pose.unflatten(0, split), "wrist": wrist.unflatten(0, split), "betas": betas}
    problem = MultiFrameProblem(model, observations, share, prior, options.cues, betas.new_zeros(1, 10))
    result = minimise(problem, state, options.lm)
    laplace = options.laplace
    if laplace is None:
        weight = observations.depth_weight
        laplace = weight is not None and bool((weight > 0).any()) or observations.projections.shape[1] > 1
    if laplace:
        problem.linear = LAPLACE_SHARE * log_volume_gradient(problem, result.state, result.terms)
        result = minimise(problem, result.state, options.lm)
    fitted = result.state
    return MultiFrameResult(
        betas=fitted["betas"],
        covariance=posterior_covariance(result.terms),
        pose=fitted["pose"],
        transl=fitted["wrist"] - model.rest_points(fitted["betas"])[:, None, 0],
        status=torch.where(used.any(dim=1), result.status, int(Status.NO_KEYPOINTS)),
        frame_status=frame_status,
        cost=result.cost,
        steps=result.steps,
    )


def place_frames(
    model: JointsModel,
    observations: Observations,
    pose: torch.Tensor,
    rest: torch.Tensor,
    depths: tuple[float, float],
) -> tuple[Observations, torch.Tensor, torch.Tensor]:
    """Closed-form wrists (N,3) m; frames that cannot be placed between ``depths`` (m) lose their keypoints' weight.

    Returns:
        The observations, the wrists, and the mask (N,) of placed frames (True where nothing is seen).
    """
    points = posed_points(model, pose, rest).points
    wrist, placed = wrist_from_keypoints(points, observations.projections, observations.keypoints, observations.weights)
    placed = placed & (wrist[:, 2] > depths[0]) & (wrist[:, 2] < depths[1])
    unseen = (observations.weights == 0).flatten(1).all(dim=1)
    K = observations.projections[:, 0, :, :3]
    centre = torch.where(unseen[:, None], K[:, :2, 2], observations.keypoints[:, 0].mean(dim=1))
    wrist = torch.where((placed & ~unseen)[:, None], wrist, wrist_at_depth(centre, K))
    weights = torch.where(placed[:, None, None], observations.weights, torch.zeros_like(observations.weights))
    return replace(observations, weights=weights), wrist, placed | unseen


def image_information(
    model: JointsModel,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None,
    options: CalibrationOptions,
) -> torch.Tensor:
    """What each of N images alone says about the betas, its pose and wrist unknown: (N,10,10).

    Taken at the network's pose and the closed-form wrist, Gauss-Newton, so it is positive semi-definite;
    zero for images that cannot be used. Arguments as in `fitting.fit_frames` (K and keypoints in px).
    """
    pose = pose.to(model.device, model.dtype)
    inputs = check_frames(pose, betas, K, keypoints, confidence, options.noise.min_confidence)
    rest = model.rest_points(inputs.betas)
    observations, wrist, _ = place_frames(model, observe(model, inputs, options), inputs.pose, rest, options.depths)
    terms = evaluate_frames(model, observations, inputs.pose, wrist, rest, with_shape=True)
    information = terms.hessian[:, SHAPE, SHAPE] + terms.hessian[:, OWN, SHAPE].mT @ reaction(terms.hessian)
    return torch.where(inputs.good[:, None, None], information, torch.zeros_like(information))
