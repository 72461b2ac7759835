"""From 2D keypoints alone to a posed hand: no network, nothing to start from.

A single view of 21 points leaves several explanations (a finger bent towards the camera looks like one bent
away). So every hand is laid in many orientations and fitted from those that explain its points best; the pose
statistics of the hand model, the population of shapes and, where the detector has one, its own guess in three
dimensions choose among the ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import roma
import torch

from src.personalization.calibration.population import Population
from src.personalization.fitting.fit import FitOptions, FitResult, PosePriorOptions, fit_frames, observe, problem_at
from src.personalization.fitting.shown_flat import flat_odds
from src.personalization.fitting.translation import wrist_from_keypoints
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.solver.levenberg_marquardt import LMOptions
from src.personalization.solver.status import usable
from src.personalization.terms.frame_terms import SHAPE, WRIST, Observations
from src.personalization.terms.inputs import check_frames
from src.personalization.terms.keypoint_terms import keypoint_rows
from src.personalization.terms.noise import KeypointNoise
from src.personalization.terms.point_terms import point_rows
from src.personalization.terms.pose_prior import FlatHand, all_round, habit_prior, palm_turn
from template import HandAssets
from template.kinematics import JointsModel, joints_model, posed_points
from utils.camera import turn_to_ray

#: Of a start's keypoints over the hand's box: its fingers are not yet bent, however exact the keypoints are.
START_NOISE = 0.1
#: A detector's keypoints over the hand's box. mediapipe on synthetic hands, which it was not made for: the median
#: distance is 0.07 of the box (benchmarks/own_photos.py), about 0.06 a coordinate; photos should be a little better.
DETECTOR_NOISE = KeypointNoise(std_box=0.05)
#: Of a hand posed as its 3D joints say, placed where it explains its keypoints best: how far it is from them over their
#: box (root mean square) from which the keypoints alone are believed. mediapipe's of 585 real hands: 0.05 (median), 14
#: further than this, 13 of which the last fit left over 0.1 of the box off, some at twice their depth.
MAX_MISFIT_BOX = 0.15


@dataclass(frozen=True)
class KeypointFitOptions:
    """What `fit_keypoints` believes beforehand.

    Attributes:
        noise: trust in the keypoints.
        people: whose shapes are the prior; None: unit normal betas.
        landmarks: what the keypoints' source calls wrist, knuckles and tips; None: the hand model's joints and tips.
        pose_spread: times the covariance of usual poses; world_std: (21,) m, of the depth of the detector's own 3D
            points; world_scale_std: of their scale. `of_source` takes these and the noise from the landmarks.
        flat: whether a hand may be one that is shown flat (`FlatHand`).
        prediction: what is believed of the source's own poses, in place of usual ones; None: it gives none.
        starts: orientations that are fitted, those that explain the points best as they are; rough_steps: of every
            start; kept: how many of the best then go on to ``lm``'s end.
    """

    noise: KeypointNoise = DETECTOR_NOISE
    people: Population | None = None
    landmarks: LandmarkModel | None = None
    pose_spread: float = 1.0
    world_std: tuple[float, ...] = (0.05,) * 21
    world_scale_std: float = 0.15
    flat: bool = True
    prediction: PosePriorOptions | None = None
    starts: int = 8
    rough_steps: int = 5
    kept: int = 3
    lm: LMOptions = field(default_factory=lambda: LMOptions(max_steps=40))

    @classmethod
    def of_source(cls, landmarks: LandmarkModel | None, **more: Any) -> KeypointFitOptions:
        """What is believed of a source's points."""
        if landmarks is None:
            return cls(**more)
        given = {
            "noise": landmarks.noise(),
            "landmarks": landmarks,
            "pose_spread": landmarks.pose_spread,
            "world_std": tuple(landmarks.world_std.tolist()),
            "world_scale_std": landmarks.world_scale_std,
        }
        return cls(**{**given, **more})

    def frame_options(self, assets: HandAssets, device: torch.device | str = "cpu") -> FitOptions:
        """For `fit_frames` with a known shape, from one start, which is the source's own pose or means nothing."""
        says_none = self.prediction is None
        return FitOptions(
            prior=self.prediction or PosePriorOptions(torch.inf, torch.inf),
            noise=self.noise,
            extra_priors=(habit_prior(assets, device=device, spread=self.pose_spread),) if says_none else (),
            flat=FlatHand.of(assets, device, self.pose_spread) if self.flat and says_none else None,
            world_std=self.world_std,
            world_scale_std=self.world_scale_std,
            lm=self.lm,
        )


@dataclass
class KeypointFit(FitResult):
    """N fitted hands, right-hand convention; ``cost`` holds the priors.

    Attributes:
        betas_covariance: (N,10,10) of the betas, pose and place integrated out (Laplace); zero where they were given.
        wrist_covariance: (N,3,3) m^2, of the wrist joint's place in the camera frame.
    """

    betas_covariance: torch.Tensor
    wrist_covariance: torch.Tensor


def box_misfit(fit: FitResult, keypoints: torch.Tensor, confidence: torch.Tensor | None) -> torch.Tensor:
    """(M,) of the hands that are usable: how far they lie off their keypoints (N,21,2) px, over their box."""
    seen = torch.ones_like(keypoints[..., 0]) if confidence is None else confidence.to(keypoints)
    low, high = (torch.where((seen > 0)[..., None], keypoints, side * torch.inf) for side in (1, -1))
    side = (high.amax(dim=1) - low.amin(dim=1)).amax(dim=-1)
    return (fit.reprojection_px.to(side) / side)[usable(fit.status).to(side.device)]


def fit_keypoints(
    assets: HandAssets,
    keypoints: torch.Tensor,
    K: torch.Tensor,
    confidence: torch.Tensor | None = None,
    betas: torch.Tensor | None = None,
    world: torch.Tensor | None = None,
    options: KeypointFitOptions = KeypointFitOptions(),
    device: torch.device | str = "cpu",
    pose: torch.Tensor | None = None,
) -> KeypointFit:
    """Fit every hand on its own.

    Args:
        keypoints: (N,21,2) px of the image that K (N,3,3) belongs to, standard order, right hands (mirror left
            ones, and K, on entry).
        confidence: (N,21) in [0,1]; None: all one.
        betas: (N,10) or (10,) a known identity; None: betas are fitted too, with the population as prior.
        world: (N,21,3) m `Detection.world`, NaN where there is none.
        options, device: the arithmetic is float64.
        pose: (N,16,3,3) `Detection.pose`, where each fit starts, and its prior as ``options.prediction`` says.

    Returns:
        `KeypointFit`, float64 on ``device``.
    """
    model = joints_model(assets, options.landmarks, device)
    n = keypoints.shape[0]
    keypoints, K = keypoints.to(device, torch.float64), K.to(device, torch.float64)
    confidence = None if confidence is None else confidence.to(device, torch.float64)
    prior = (options.people or Population()).shape_prior.to(device)
    shape = (prior.mean if betas is None else betas.to(device, torch.float64)).expand(n, 10).clone()
    if pose is None or options.prediction is None:
        pose, options = None, replace(options, prediction=None)
    fit = replace(options.frame_options(assets, device), shape_prior=prior if betas is None else None)
    given = (K, keypoints, confidence, world_direction(world, K, keypoints))
    said = None if pose is None else turned_to_camera(pose, K, keypoints)

    def fitted(rows: torch.Tensor, pose: torch.Tensor, betas: torch.Tensor, *transl: torch.Tensor, lm: LMOptions):
        """Hands ``rows`` (R,) from poses (R,16,3,3) and places (R,3) m; starts of a hand compete by their cost."""
        *own, direction = (None if value is None else value[rows] for value in given)
        start = (pose, *transl) if transl else None
        prior = pose if said is None else said[rows]
        return fit_frames(model, prior, betas, *own, replace(fit, lm=lm), start, direction)

    pose = _starts(model, assets, options.starts, shape, given, fit) if said is None else said[:, None]
    count = pose.shape[1]
    rows = torch.arange(n, device=keypoints.device).repeat_interleave(count)
    rough = fitted(rows, pose.flatten(0, 1), shape[rows], lm=replace(fit.lm, max_steps=options.rough_steps))
    kept = min(options.kept, count)
    best = rough.cost.unflatten(0, (n, count)).argsort(dim=1, stable=True)[:, :kept] if n else rows.new_zeros(0, kept)
    chosen = (best + count * torch.arange(n, device=best.device)[:, None]).flatten()
    rows, ends = rows[chosen], [rough.pose[chosen], rough.betas[chosen], rough.transl[chosen]]
    if fit.flat is not None:  # one more, a hand shown flat as the best of them lies
        rows, ends = torch.cat([rows, rows[::kept]]), [torch.cat([value, value[::kept]]) for value in ends]
        ends[0][kept * n :] = fit.flat.start(ends[0][kept * n :], K)
    fine = fitted(rows, *ends, lm=fit.lm)
    row = torch.arange(n, device=best.device)
    winner = fine.cost[: kept * n].unflatten(0, (n, kept)).argmin(dim=1) if n else row
    chosen = winner + kept * row
    if fit.flat is not None:
        flat = kept * n + row
        odds = flat_odds(model, fine.rows(chosen), fine.rows(flat), given, replace(fit, flat=None), fit.flat)
        chosen = torch.where(odds > 0, flat, chosen)
    found = fine.rows(chosen)
    problem, state = problem_at(model, found, *given, fit, said)
    terms = problem.linearise(state)
    covariance = _covariance(terms["hessian"])
    good = usable(found.status) & torch.isfinite(covariance).flatten(1).all(dim=1)
    nothing = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    covariance = torch.where(good[:, None, None], covariance, nothing)
    found.cost = torch.nan_to_num(terms["cost"], posinf=torch.finfo(torch.float64).max)
    shape = covariance[:, SHAPE, SHAPE] if betas is None else covariance.new_zeros(n, 10, 10)
    return KeypointFit(**vars(found), betas_covariance=shape, wrist_covariance=covariance[:, WRIST, WRIST])


def _covariance(hessian: torch.Tensor) -> torch.Tensor:
    """Inverse of Gauss-Newton Hessians (N,U,U), scaled to a unit diagonal first: metres and radians differ much."""
    scale = hessian.diagonal(dim1=1, dim2=2).clamp_min(1e-12).rsqrt()
    unit = scale[:, :, None] * hessian * scale[:, None, :]
    unit.diagonal(dim1=1, dim2=2).add_(1e-9)
    factor, _ = torch.linalg.cholesky_ex(unit)
    return scale[:, :, None] * torch.cholesky_inverse(factor) * scale[:, None, :]


def ray_turn(K: torch.Tensor, pixel: torch.Tensor) -> torch.Tensor:
    """Smallest rotations (N,3,3) that take the optical axis to the ray through pixels (N,2)."""
    homogeneous = torch.cat([pixel, torch.ones_like(pixel[:, :1])], dim=1)
    ray = torch.nn.functional.normalize(torch.linalg.solve_ex(K, homogeneous[..., None])[0][..., 0], dim=1)
    return turn_to_ray(ray)


def world_direction(world: torch.Tensor | None, K: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor | None:
    """A detector's 3D points (N,21,3) m about their mean, turned from its camera, which looks at the hand, to ours."""
    if world is None:
        return None
    turn = torch.nan_to_num(ray_turn(K, keypoints.mean(dim=1)))
    world = world.to(K)
    return (world - world.mean(dim=1, keepdim=True)) @ turn.mT


def turned_to_camera(pose: torch.Tensor, K: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
    """A detector's poses (N,16,3,3), turned from its camera, which looks at keypoints (N,21,2) px, to that of K (N,3,3)
    px."""
    turn = torch.nan_to_num(ray_turn(K, keypoints.mean(dim=1)))
    pose = pose.to(K)
    return torch.cat([(turn @ pose[:, 0])[:, None], pose[:, 1:]], dim=1)


def _starts(
    model: JointsModel,
    assets: HandAssets,
    count: int,
    betas: torch.Tensor,
    given: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None],
    options: FitOptions,
) -> torch.Tensor:
    """Poses (N,S,16,3,3), the ``count`` best: the mean pose turned all round, and as the detector's 3D palm (m) lies.

    They differ in the hand's orientation alone, so one posed hand, turned, tells their costs.
    """
    K, keypoints, confidence, direction = given
    n = len(K)
    fingers = roma.rotvec_to_rotmat(torch.as_tensor(assets.hands_mean).view(15, 3)).to(keypoints)
    pose = torch.cat([torch.eye(3).to(K).expand(n, 1, 3, 3), fingers.expand(n, 15, 3, 3)], dim=1)
    turns = all_round().to(K).expand(n, -1, -1, -1)
    if direction is not None:
        aligned = palm_turn(torch.nan_to_num(direction), model.rest[model.to_standard])
        turns = torch.cat([turns, aligned[:, None]], dim=1)
    options = replace(options, noise=replace(options.noise, std_px=None, std_box=START_NOISE))
    inputs = check_frames(pose, betas, K, keypoints, confidence, options.noise.min_confidence)
    seen = observe(model, inputs, options, direction)
    points = posed_points(model, pose, model.rest_points(betas)).points
    best = torch.cat([
        _costs(seen.rows(rows), turns[rows], points[rows]).argsort(dim=1, stable=True)[:, :count]
        for rows in torch.arange(n, device=K.device).split(options.chunk)
    ])  # fmt: skip
    turns = turns[torch.arange(n, device=K.device)[:, None], best]
    return torch.cat([turns[:, :, None], pose[:, None, 1:].expand(-1, turns.shape[1], -1, -1, -1)], dim=2)


def _costs(seen: Observations, turns: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(N,S) half chi-square of points (N,21,3) m turned by (N,S,3,3), each where its keypoints want it."""
    n, count = turns.shape[:2]
    seen = seen.rows(torch.arange(n, device=turns.device).repeat_interleave(count))
    points = (points[:, None] @ turns.mT).flatten(0, 1)
    wrist, good = wrist_from_keypoints(points, seen.projections, seen.keypoints, seen.weights)
    planar = points.permute(2, 1, 0)
    cost, _, _ = keypoint_rows(
        planar + wrist.T[:, None],
        seen.projections.permute(2, 3, 1, 0),
        seen.keypoints.permute(3, 1, 2, 0),
        seen.weights.permute(1, 2, 0),
        seen.loss,
        seen.loss_scale,
    )
    if seen.points_3d is not None and seen.points_3d_weight is not None:
        target, weight, turn = seen.points_3d, seen.points_3d_weight, seen.points_3d_turn
        cost = cost + point_rows(planar, target, weight, seen.scale_std, turn).cost
    return cost.masked_fill(~good, torch.inf).view(n, count)
