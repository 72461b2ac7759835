"""Multi-frame calibration: one set of betas from many frames of a person, with its uncertainty."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from src.personalization.calibration.images import Images, ViewGroups
from src.personalization.calibration.population import CalibrationOptions
from src.personalization.calibration.problem import (
    OWN,
    PERSON,
    MultiFrameProblem,
    log_volume_gradient,
    posterior_covariance,
    reaction,
)
from src.personalization.calibration.views import Repeats, contradicting, design_effect
from src.personalization.fitting.fit import observe
from src.personalization.fitting.translation import place_frames
from src.personalization.solver.levenberg_marquardt import State, minimise
from src.personalization.solver.status import CalibrationError, Status, count_status, usable
from src.personalization.terms.frame_terms import join_views
from src.personalization.terms.hand_size import cue_conflict, dispersed
from src.personalization.terms.inputs import check_frames
from template.kinematics import JointsModel, posed_points
from utils.artifacts import Predictions

logger = logging.getLogger(__name__)

#: Share of Laplace's correction that is applied. Where a frame's posterior is skewed the full correction overshoots:
#: hand length of 100 simulated persons (0.25 rad, 2 px, 20 frames) was off by +2.5 mm without, -1.3 mm with all,
#: +0.1 mm with half of it. benchmarks/studies/laplace.py shows what half of it does.
LAPLACE_SHARE = 0.5
#: Where no depth is known the correction moves hands further: it is found again where they come to lie, so many times,
#: and each time that share of what is missing is added. Length of 16 simulated persons whose points lie 5 mm from a
#: detector's landmarks, 20 frames, no cue: off by -11.8 mm without, -0.2 mm so (-4.0 mm with one round).
LAPLACE_ROUNDS = 4
#: A cue further than this from what the images say, in standard deviations of the difference, is refused.
MAX_CONFLICT = 4.0
#: Of the pairs of views: one wrong camera of eight is a quarter; 5 px of noise in 100 px large hands give 1%.
MAX_CONTRADICTING = 0.2


@dataclass
class MultiFrameResult:
    """P persons, F frames each; every number is finite.

    Attributes:
        betas: (P,10); covariance: (P,10,10), Laplace, poses and positions integrated out; known: (P,10,10) what prior
            and cues say of its inverse.
        pose: (P,F,16,3,3); transl: (P,F,3) m.
        status: (P,) of `Status`; frame_status: (P,F), CONVERGED for a frame that was used, else why not; image_status:
            the same of each image by itself, of several cameras more than frames.
        offsets: (P,21,3) m, standard order, how far the persons' points lie from the landmarks; None: not solved for.
    """

    betas: torch.Tensor
    covariance: torch.Tensor
    known: torch.Tensor
    pose: torch.Tensor
    transl: torch.Tensor
    status: torch.Tensor
    frame_status: torch.Tensor
    image_status: torch.Tensor
    offsets: torch.Tensor | None = None


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
    given = (model, pose, betas, K, keypoints, confidence, options, wrist_depth, views, repeats)
    problem, state, frame_status, image_status = _set_up(*given)
    result = minimise(problem, state, options.lm)
    unknown = bool(problem.depth_unknown.all())
    laplace = not unknown if options.laplace is None else options.laplace
    rounds = LAPLACE_ROUNDS if unknown else 1
    for _ in range(rounds if laplace else 0):
        volume = log_volume_gradient(problem, result.state, result.terms)
        problem.linear = problem.linear + LAPLACE_SHARE * (volume - problem.linear)
        result = minimise(problem, result.state, options.lm)
    fitted, used = result.state, (frame_status == Status.CONVERGED).any(dim=1)
    return MultiFrameResult(
        betas=fitted["betas"],
        covariance=posterior_covariance(result.terms),
        known=result.terms["known"],
        pose=fitted["pose"],
        transl=fitted["wrist"] - model.rest_points(fitted["betas"])[:, None, 0],
        status=torch.where(used, result.status, int(Status.NO_KEYPOINTS)),
        frame_status=frame_status,
        image_status=image_status,
        offsets=fitted["offsets"][:, model.to_standard] if "offsets" in fitted else None,
    )


def solve_person(
    model: JointsModel, own: Images, repeats: Repeats, counts: np.ndarray, options: CalibrationOptions, subject: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Solve with all cues, check views and result, and each cue against everything else.

    Args:
        repeats: `Images.repeats`; counts: (N,) for how many independent images each image's predicted betas count.

    Returns:
        Betas (10,), their covariance (10,10), the mask (N,) of the images used, and what else `Identity` holds of it.

    Raises:
        CalibrationError: of `check_views` and `check_result`, or for a cue beyond `MAX_CONFLICT`.
    """
    predicted, network, people = own.predicted_betas, options.population.network, options.population
    if predicted is not None and network is not None:
        mean, covariance = network.update(predicted, people.betas_mean, people.betas_covariance, counts)
        options = replace(options, population=replace(people, betas_mean=mean, betas_covariance=covariance))
    pose, betas, K, keypoints, trust, depth = own.tensors
    check_views(own, subject, options.noise.min_confidence)
    start = betas.double().mean(dim=1)
    less = [replace(options, cues=tuple(o for o in options.cues if o is not cue)) for cue in options.cues]
    results = (
        calibrate_frames(model, pose, start, K, keypoints, trust, believed, depth, own.views, repeats)
        for believed in (options, *less)
    )
    result = next(results)
    check_result(result, own.predictions, subject, options.depths)
    covariance, further = result.covariance[0].cpu().numpy(), {}
    if options.interval_correlation:
        share = {"images": float(counts.sum()), "correlation": options.interval_correlation}
        further["intervals"] = {"solved": covariance.tolist(), **share}
        covariance = dispersed(covariance, result.known[0].cpu().numpy(), **share)
    for cue, without in zip(options.cues, results, strict=True):
        length, std, conflict = cue_conflict(model, without.betas[0], without.covariance[0], cue)
        said = (
            f"subject {subject}: {cue.name} was measured as {1000 * cue.length:.1f} ± {1000 * cue.std:.1f} mm, but the "
            f"images{', the other lengths' * bool(less[0].cues)} and the prior say {length:.1f} ± {std:.1f} mm: "
            f"{abs(conflict):.1f} standard deviations apart"
        )
        if abs(conflict) > MAX_CONFLICT and not options.accept_conflict:
            how = " (wrist joint to fingertip, hand flat)" if cue.name == "hand" else ""
            raise CalibrationError(f"{said}. Measure again{how}, or --accept_conflict")
        if abs(conflict) > MAX_CONFLICT:
            further.setdefault("conflict", {})[cue.name] = round(abs(conflict), 1)
        if abs(conflict) > MAX_CONFLICT / 2:
            logger.warning("%s", said)
    landmarks = {} if result.offsets is None else {options.landmarks.name: result.offsets[0].cpu().numpy()}
    used = (result.frame_status[0] == Status.CONVERGED).cpu().numpy()
    if own.views is not None:  # that is of instants, of which some views may not count
        instant = np.unique(own.views.instant, return_inverse=True)[1].reshape(-1)
        used = used[instant] & (result.image_status[0] == Status.CONVERGED).cpu().numpy()
    return result.betas[0].cpu().numpy(), covariance, used, {"evidence": further, "landmarks": landmarks}


def check_views(own: Images, subject: int, min_confidence: float) -> None:
    """Raise a CalibrationError if most views of one person's images contradict each other, and warn if many do;
    keypoints of no more than ``min_confidence`` do not count."""
    if own.views is None or own.predictions.keypoints_2d is None:
        return
    keypoints, trust, K = own.predictions.keypoints_2d, own.predictions.keypoint_confidence, own.predictions.K
    seen = np.isfinite(keypoints).all(axis=-1) & (trust is None or trust > min_confidence)
    good = np.isfinite(K).all(axis=(1, 2)) & (np.linalg.det(np.nan_to_num(K)) > 0)  # others' images are left out
    points = np.where(seen[..., None], keypoints, np.nan).astype(np.float64)[good]
    apart = contradicting(points, K[good].astype(np.float64), own.views.instant[good], own.views.camera_to_world[good])
    said = (
        f"subject {subject}: {apart.sum()} of {len(apart)} pairs of views contradict each other (keypoints lie off "
        "epipolar lines), so cameras tell a wrong size; check the extrinsics (camera to world, m) and the keypoints "
        f"of {own.predictions.source}"
    )
    if 2 * apart.sum() > len(apart):
        raise CalibrationError(said)
    if apart.sum() > MAX_CONTRADICTING * len(apart):
        logger.warning("%s", said)


def check_result(result: MultiFrameResult, own: Predictions, subject: int, depths: tuple[float, float]) -> None:
    """Raise a CalibrationError if one person's images ``own`` gave no result, and warn if one of less than all of them.

    Args:
        depths: m, see `CalibrationOptions`.
    """
    counts = count_status(result.frame_status)
    elsewhere = int((result.frame_status == Status.BEHIND_CAMERA).sum())
    if 2 * elsewhere > result.frame_status.shape[1]:
        raise CalibrationError(
            f"subject {subject}: keypoints and K place the hand nearer than {depths[0]} or further than {depths[1]} m "
            f"in {elsewhere} of {result.frame_status.shape[1]} images of {own.source} (K of the first is "
            f"{np.round(own.K[0], 1).tolist()}): give the K, in pixels, of the images that the keypoints belong to"
        )
    if int(result.status[0]) == Status.NO_KEYPOINTS:
        raise CalibrationError(
            f"subject {subject}: no usable frame among {len(own)} ({counts}); nothing to calibrate from"
        )
    if not bool(usable(result.status)[0]):
        name = Status(int(result.status[0])).name.lower()
        raise CalibrationError(f"subject {subject}: the calibration {name}; check K and keypoints of {own.source}")
    if int(result.status[0]) != Status.CONVERGED:
        logger.warning("subject %d: stopped before convergence (%s)", subject, count_status(result.status))
    if set(counts) != {"converged"}:
        logger.warning("subject %d: some frames were left out: %s", subject, counts)


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
    trust = None if confidence is None else confidence[:, None]
    options = replace(options, own_points=False)
    problem, state, status, _ = _set_up(model, pose[:, None], betas, K[:, None], keypoints[:, None], trust, options)
    hessian = problem.linearise(state)["hessian"][:, 0]
    information = hessian[:, PERSON, PERSON] + hessian[:, OWN, PERSON].mT @ reaction(hessian)
    return torch.where((status == Status.CONVERGED)[..., None], information, torch.zeros_like(information))


def _set_up(
    model: JointsModel,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None,
    options: CalibrationOptions,
    wrist_depth: torch.Tensor | None = None,
    views: ViewGroups | None = None,
    repeats: Repeats | None = None,
) -> tuple[MultiFrameProblem, State, torch.Tensor, torch.Tensor]:
    """The problem that `calibrate_frames` is given, where it starts, and the frames' (P,F) and the images' status."""
    persons, count = pose.shape[:2]
    pose, K, keypoints = (value.flatten(0, 1) for value in (pose, K, keypoints))
    confidence = None if confidence is None else confidence.flatten(0, 1)
    pose, starts = pose.to(model.device, model.dtype), betas.repeat_interleave(count, dim=0)
    inputs = check_frames(pose, starts, K, keypoints, confidence, options.noise.min_confidence)
    seen, pose, status, betas = observe(model, inputs, options), inputs.pose, inputs.status, inputs.betas[::count]
    if views is not None:
        seen, pose, status = join_views(seen, inputs, views.instant, views.camera_to_world)
    elif wrist_depth is not None:
        depth = wrist_depth.flatten().to(pose)
        known, none = torch.isfinite(depth), torch.zeros_like(depth)
        believed, weight = seen.depth, seen.depth_weight
        seen.depth = torch.where(known, depth, none if believed is None else believed)
        measured = torch.full_like(depth, options.wrist_depth_std**-2)
        seen.depth_weight = torch.where(known, measured, none if weight is None else weight)
    split = (persons, len(pose) // persons)
    points = posed_points(model, pose, model.rest_points(betas).repeat_interleave(split[1], dim=0)).points
    seen, wrist, placed = place_frames(seen, points, options.depths)
    frame_status = torch.where((status == Status.CONVERGED) & ~placed, int(Status.BEHIND_CAMERA), status).view(split)
    used, (everywhere, in_video) = frame_status == Status.CONVERGED, options.in_common
    share = torch.ones_like(frame_status, dtype=betas.dtype)
    if repeats is not None:
        share = torch.as_tensor(repeats.weights(in_video, used[0].cpu().numpy()))[None].to(betas)
    share = share / design_effect((share * used).sum(dim=1, keepdim=True).clamp_min(1), everywhere)
    prior = options.population.shape_prior.to(betas)
    problem = MultiFrameProblem(model, seen, share, prior, options.cues, betas.new_zeros(1, 10))
    state = {"pose": pose.unflatten(0, split), "wrist": wrist.unflatten(0, split), "betas": betas}
    if (share_of_length := options.own_share) is not None:
        problem.offset_share = torch.as_tensor(share_of_length).to(betas)[model.from_standard]
        state["offsets"] = betas.new_zeros(persons, 21, 3)
    return problem, state, frame_status, inputs.status.view(persons, count)
