"""Test-time fitting: 2D keypoints and a network's prediction to pose and translation, many frames at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from src.personalization.fitting.evidence import reestimated
from src.personalization.fitting.translation import wrist_at_depth, wrist_from_keypoints
from src.personalization.solver.levenberg_marquardt import LMOptions, State, minimise
from src.personalization.solver.status import Status, in_range, usable
from src.personalization.terms.frame_problem import FrameProblem, ShapePrior
from src.personalization.terms.frame_terms import Observations
from src.personalization.terms.inputs import FrameInputs, check_frames
from src.personalization.terms.noise import KeypointNoise
from src.personalization.terms.pose_prior import FlatHand, PosePrior
from template.components_first import Array, are_few, library
from template.kinematics import JointsModel, posed_points
from utils.camera import turn_to_ray


@dataclass(frozen=True)
class PosePriorOptions:
    """How far the network's rotations are trusted (standard deviations, rad; infinity: not at all).

    Attributes:
        root_std: of the hand's orientation; finger_std: of the fifteen finger joints.
        covariance: (48,48) rad^2 over (joint, axis) of the network's errors, local increments, which
            replaces the two numbers; measured on a validation split (`population.py`).
    """

    root_std: float = 0.2
    finger_std: float = 0.2
    covariance: torch.Tensor | None = None

    def stated(self, **stds: float) -> PosePriorOptions:
        """With ``root_std`` or ``finger_std`` in place of what was measured of them."""
        if self.covariance is None or len(stds) == 2:
            return replace(self, covariance=None, **stds)
        covariance = self.covariance.clone()
        for name, block in (("root_std", slice(0, 3)), ("finger_std", slice(3, 48))):
            if name in stds:
                covariance[block], covariance[:, block] = 0.0, 0.0
                covariance[block, block] = stds[name] ** 2 * torch.eye(block.stop - block.start).to(covariance)
        return replace(self, covariance=covariance)

    def precision(self, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """(1,48,48), 1/rad^2."""
        return self._precision.to(device, dtype)[None]

    @cached_property
    def _precision(self) -> torch.Tensor:
        if self.covariance is not None:
            return torch.linalg.inv(self.covariance.double())
        std = torch.full((16, 3), self.finger_std, dtype=torch.float64)
        std[0] = self.root_std
        return torch.diag_embed(std.pow(-2).flatten())


@dataclass(frozen=True)
class FitOptions:
    """Everything `fit_frames` can be told.

    Attributes:
        prior: towards the network's pose; extra_priors: further ones, e.g. `pose_prior`
            (their reference must have one row or one a frame).
        noise: trust in the keypoints.
        depth_mean, depth_std: m, Gaussian on the wrist's z; None: no depth prior.
        world_std: (21,) m, standard order, of the depth of 3D points that come with the keypoints, which they repeat
            across the picture; world_scale_std: of their scale.
        flat: frames that start with a hand shown flat have its prior in place of the extra ones, and do not hear their
            3D points: those of detectors bend straight fingers (docs/real_hands.md).
        shape_prior: free the betas, with this prior; None: betas stay as given.
        evidence_rounds: how often the noise and the spread of the prior are estimated for each frame by itself and the
            frame is solved again (`evidence`). For standard deviations that nobody measured: two rounds lower the error
            with every prior and noise of benchmarks/fit_speed.py. Not with free betas, 3D points or further priors.
        chunk: frames solved together, so that memory is bounded and stays in the cache.
    """

    prior: PosePriorOptions = PosePriorOptions()
    noise: KeypointNoise = KeypointNoise()
    depth_mean: float | None = None
    depth_std: float = 0.07
    world_std: tuple[float, ...] = (0.05,) * 21
    world_scale_std: float = 0.15
    shape_prior: ShapePrior | None = None
    extra_priors: tuple[PosePrior, ...] = ()
    flat: FlatHand | None = None
    lm: LMOptions = field(default_factory=lambda: LMOptions(max_steps=10, tolerance=3e-3, initial_damping=1e-3))
    evidence_rounds: int = 0
    chunk: int = 256


@dataclass
class FitResult:
    """N fitted frames; every number is finite, whatever the status.

    Attributes:
        pose: (N,16,3,3); transl: (N,3) m, MANO's free translation (wrist - J0(betas)); betas: (N,10).
        status: (N,) int64 of `Status`: where not `status.usable`, pose and betas are the network's (or
            neutral, if those were bad) and the wrist is at `TYPICAL_DEPTH` on the ray of the keypoints' mean.
        reprojection_px: (N,) root mean square over the keypoints that count, weighted by confidence.
        steps: (N,) linear systems solved; cost: (N,) half chi-square, priors included (of Adam: half the
            mean squared distance in px); the dtype's largest number where not usable.
    """

    pose: torch.Tensor
    transl: torch.Tensor
    betas: torch.Tensor
    status: torch.Tensor
    reprojection_px: torch.Tensor
    steps: torch.Tensor
    cost: torch.Tensor

    def rows(self, index: torch.Tensor) -> FitResult:
        return FitResult(*(getattr(self, name)[index] for name in FitResult.__dataclass_fields__))


def fit_frames(
    model: JointsModel,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None = None,
    options: FitOptions = FitOptions(),
    start: tuple[torch.Tensor, torch.Tensor] | None = None,
    world: torch.Tensor | None = None,
) -> FitResult:
    """Fit every frame on its own by Levenberg-Marquardt.

    Args:
        model: the joints-only hand; its dtype and device are used for everything.
        pose: (N,16,3,3) the network's rotations, camera frame; betas: (N,10) shape; K: (N,3,3) px.
        keypoints: (N,21,2) px of the image that K belongs to, standard order.
        confidence: (N,21) in [0,1], zero where unseen; None: all one.
        start: pose (N,16,3,3) and transl (N,3) to start from instead of the network's pose and the
            closed-form translation, e.g. the previous frame of a video. The prior stays where it was.
        world: (N,21,3) m, the estimator's own 3D points, camera axes, standard order, about any centre; NaN: none.

    Returns:
        `FitResult` in the model's dtype on its device.

    Raises:
        ValueError: ``evidence_rounds`` with what it cannot be combined with.
    """
    if options.evidence_rounds and (options.shape_prior or options.extra_priors or world is not None):
        raise ValueError("evidence_rounds estimates the network's prior alone: no shape_prior, extra_priors or world")
    pose = pose.to(model.device, model.dtype)
    inputs = check_frames(pose, betas, K, keypoints, confidence, options.noise.min_confidence)
    start = None if start is None else (start[0].to(pose), start[1].to(pose))
    world = None if world is None else world.to(pose)
    chunks = [slice(first, first + options.chunk) for first in range(0, max(len(pose), 1), options.chunk)]
    results = [_fit_chunk(model, inputs, options, start, world, rows) for rows in chunks]
    return FitResult(**{name: torch.cat([getattr(part, name) for part in results]) for name in vars(results[0])})


def problem_at(
    model: JointsModel,
    found: FitResult,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None,
    world: torch.Tensor | None,
    options: FitOptions,
    pose: torch.Tensor | None = None,
) -> tuple[FrameProblem, State]:
    """The problem, in rad and m, that hands were fitted to, and their state; arguments as of `fit_frames` (without a
    pose its prior is about what was found)."""
    pose = found.pose if pose is None else pose
    inputs = check_frames(pose, found.betas, K, keypoints, confidence, options.noise.min_confidence)
    wrist = found.transl + model.rest_points(found.betas)[:, 0]
    problem = FrameProblem(model, observe(model, inputs, options, world), options.shape_prior)
    return problem, {"pose": found.pose, "wrist": wrist, "betas": found.betas}


def observe(
    model: JointsModel, inputs: FrameInputs, options: FitOptions, world: torch.Tensor | None = None
) -> Observations:
    """`Observations` of single-camera frames: px in MANO order, weights, priors; ``world``: see `fit_frames`."""
    order = model.from_standard
    n = inputs.pose.shape[0]
    known = options.depth_mean is not None
    guess, trust, turn = None, None, None
    if world is not None:
        if bool(inputs.K[:, 2, :2].any()):  # a view that is turned: depths are along it
            turn = turn_to_ray(inputs.K[:, 2]).mT
            world = world @ turn.mT
        std = torch.tensor(options.world_std, dtype=model.dtype, device=model.device)
        there, depth = torch.isfinite(world).all(dim=-1, keepdim=True), torch.tensor([0.0, 0.0, 1.0]).to(world)
        guess, trust = torch.where(there, world, 0.0)[:, order], (there * depth / std[:, None].square())[:, order]
    network = PosePrior(inputs.pose, options.prior.precision(model.dtype, model.device))
    few = are_few(inputs.keypoints)
    given = (value.numpy() if few else value for value in (inputs.keypoints, inputs.confidence))
    weights = torch.as_tensor(keypoint_weights(options.noise, *given))
    usual = options.extra_priors
    if options.flat is not None:
        usual, shown = options.flat.instead(usual, inputs.pose, inputs.K)
        trust = None if trust is None else trust * ~shown[:, None, None]
    return Observations(
        projections=torch.cat([inputs.K, torch.zeros_like(inputs.K[..., :1])], dim=-1)[:, None],
        keypoints=inputs.keypoints[:, None, order],
        weights=weights[:, None, order],
        pose_priors=[prior for prior in (network, *usual) if bool(prior.precision.any())],
        depth=inputs.K.new_full((n,), options.depth_mean) if known else None,
        depth_weight=inputs.K.new_full((n,), options.depth_std**-2) if known else None,
        points_3d=guess,
        points_3d_weight=trust,
        points_3d_turn=turn,
        scale_std=options.world_scale_std,
        loss=options.noise.loss,
        loss_scale=options.noise.loss_scale,
    )


def keypoint_weights(noise: KeypointNoise, keypoints: Array, confidence: Array) -> Array:
    """1 / variance (N,21), 1/px^2, from keypoints (N,21,2) px and confidence (N,21), zero where unseen. Both PyTorch's,
    or both NumPy's."""
    xp, seen = library(keypoints), confidence > 0
    if noise.relative is not None:
        relative = xp.asarray(noise.relative, dtype=confidence.dtype, device=confidence.device)
        confidence = confidence / (relative * relative)
    if noise.std_px is not None:
        return confidence / noise.std_px**2
    low = xp.amin(xp.where(seen[..., None], keypoints, xp.inf), 1)
    high = xp.amax(xp.where(seen[..., None], keypoints, -xp.inf), 1)
    # Where none is seen the side is minus infinity, and no weight is left of it.
    std = noise.std_box * xp.amax(high - low, -1).clip(min=1.0)
    return confidence / (std * std)[:, None]


def _fit_chunk(
    model: JointsModel,
    everything: FrameInputs,
    options: FitOptions,
    start: tuple[torch.Tensor, torch.Tensor] | None,
    world: torch.Tensor | None,
    rows: slice,
) -> FitResult:
    inputs = everything.rows(rows)
    chunk_options = replace(options, extra_priors=tuple(prior.rows(rows) for prior in options.extra_priors))
    seen = observe(model, inputs, chunk_options, None if world is None else world[rows])
    rest = model.rest_points(inputs.betas)
    guess = wrist_at_depth(inputs.middle, inputs.K)
    if start is None:
        points = posed_points(model, inputs.pose, rest).points
        wrist, initialised = wrist_from_keypoints(points, seen.projections, seen.keypoints, seen.weights)
        pose = inputs.pose
    else:
        pose, wrist = start[0][rows], start[1][rows] + rest[:, 0]
        initialised = in_range(wrist, inputs.K)
    solvable = inputs.good & initialised
    state = {
        "pose": torch.where(solvable[:, None, None, None], pose, inputs.pose),
        "wrist": torch.where(solvable[:, None], wrist, guess),
        "betas": inputs.betas,
        "accepted": torch.zeros_like(wrist[:, 0]),
    }
    result, now = minimise(FrameProblem(model, seen, options.shape_prior), state, options.lm), seen
    for _ in range(options.evidence_rounds):
        steps, ends = result.steps, {key: result.state[key] for key in ("pose", "wrist", "betas")}
        hessian = FrameProblem(model, now).linearise(ends)["hessian"]  # the search's own is no covariance's
        now = reestimated(model, seen, now, ends["pose"], ends["wrist"], rest, hessian)
        result = minimise(FrameProblem(model, now), result.state, options.lm)
        result.steps += steps

    lost = usable(result.status) & ~in_range(result.state["wrist"], inputs.K)
    status = torch.where(lost, int(Status.OUT_OF_RANGE), result.status)
    status = torch.where(initialised, status, int(Status.BEHIND_CAMERA))
    status = torch.where(inputs.good, status, inputs.status)
    solved = usable(status)
    pose = torch.where(solved[:, None, None, None], result.state["pose"], inputs.pose)
    wrist = torch.where(solved[:, None], result.state["wrist"], guess)
    betas = torch.where(solved[:, None], result.state["betas"], inputs.betas)
    rest = model.rest_points(betas)
    points = posed_points(model, pose, rest).points + wrist[:, None]
    largest = torch.finfo(wrist.dtype).max
    return FitResult(
        pose=pose,
        transl=wrist - rest[:, 0],
        betas=betas,
        status=status,
        reprojection_px=reprojection_rmse(points, inputs.K, seen.keypoints[:, 0], seen.weights[:, 0]),
        steps=result.steps,
        cost=torch.where(solved, torch.nan_to_num(result.cost, nan=torch.inf), torch.inf).clamp_max(largest),
    )


def reprojection_rmse(points: Array, K: Array, keypoints: Array, weights: Array) -> Array:
    """Root of the weighted mean squared pixel distance (N,); zero where nothing counts. All PyTorch's, or NumPy's."""
    image = points @ K.mT
    off = image[..., :2] / image[..., 2:].clip(min=1e-3) - keypoints
    return ((weights * (off * off).sum(-1)).sum(-1) / weights.sum(-1).clip(min=1e-30)) ** 0.5
