"""Test-time fitting: 2D keypoints and a network's prediction to pose and translation, many frames at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from src.personalization.fitting.finger_pose import quick_points
from src.personalization.fitting.finger_problem import fit_fingers, is_quick
from src.personalization.fitting.translation import wrist_at_depth, wrist_from_keypoints
from src.personalization.solver.levenberg_marquardt import LMOptions, minimise
from src.personalization.solver.status import Status
from src.personalization.terms.frame_problem import FrameProblem, ShapePrior
from src.personalization.terms.frame_terms import Observations
from src.personalization.terms.inputs import FrameInputs, check_frames
from src.personalization.terms.joints_model import JointsModel
from src.personalization.terms.noise import KeypointNoise, keypoint_weights
from src.personalization.terms.pose_prior import PosePrior, diagonal_precision


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

    def precision(self, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """(1,16,3,3) or (1,48,48), 1/rad^2."""
        if self.covariance is not None:
            return torch.linalg.inv(self.covariance.double()).to(device, dtype)[None]
        std = torch.full((16, 1), self.finger_std, dtype=dtype, device=device)
        std[0] = self.root_std
        return diagonal_precision(std)


@dataclass(frozen=True)
class FitOptions:
    """Everything `fit_frames` can be told.

    Attributes:
        prior: towards the network's pose; extra_priors: further ones, e.g. `population_pose_prior`
            (their reference must have one row or one a frame).
        noise: trust in the keypoints.
        depth_mean, depth_std: m, Gaussian on the wrist's z; None: no depth prior.
        shape_prior: free the betas, with this prior; None: betas stay as given.
        chunk: frames solved together, so that memory is bounded and stays in the cache.
    """

    prior: PosePriorOptions = PosePriorOptions()
    noise: KeypointNoise = KeypointNoise()
    depth_mean: float | None = None
    depth_std: float = 0.07
    shape_prior: ShapePrior | None = None
    extra_priors: tuple[PosePrior, ...] = ()
    lm: LMOptions = field(default_factory=lambda: LMOptions(max_steps=10))
    chunk: int = 256


@dataclass
class FitResult:
    """N fitted frames; every number is finite, whatever the status.

    Attributes:
        pose: (N,16,3,3); transl: (N,3) m, MANO's free translation (wrist - J0(betas)); betas: (N,10).
        status: (N,) int64 of `Status`: where not `status.usable`, pose and betas are the network's (or
            neutral, if those were bad) and the translation is a guess.
        reprojection_px: (N,) root mean square over the keypoints that count, weighted by confidence.
        steps: (N,) linear systems solved.
    """

    pose: torch.Tensor
    transl: torch.Tensor
    betas: torch.Tensor
    status: torch.Tensor
    reprojection_px: torch.Tensor
    steps: torch.Tensor


def fit_frames(
    model: JointsModel,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    confidence: torch.Tensor | None = None,
    options: FitOptions = FitOptions(),
    start: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> FitResult:
    """Fit every frame on its own by Levenberg-Marquardt.

    Args:
        model: the joints-only hand; its dtype and device are used for everything.
        pose: (N,16,3,3) the network's rotations, camera frame; betas: (N,10) shape; K: (N,3,3) px.
        keypoints: (N,21,2) px of the image that K belongs to, standard order.
        confidence: (N,21) in [0,1], zero where unseen; None: all one.
        start: pose (N,16,3,3) and transl (N,3) to start from instead of the network's pose and the
            closed-form translation, e.g. the previous frame of a video. The prior stays where it was.

    Returns:
        `FitResult` in the model's dtype on its device.
    """
    inputs = check_frames(
        *(value.to(model.device, model.dtype) for value in (pose, betas, K, keypoints)),
        None if confidence is None else confidence.to(model.device, model.dtype),
        options.noise.min_confidence,
    )
    if start is not None:
        start = (start[0].to(model.device, model.dtype), start[1].to(model.device, model.dtype))
    n = pose.shape[0]
    chunks = [slice(first, first + options.chunk) for first in range(0, n, options.chunk)]
    results = [_fit_chunk(model, inputs, options, start, rows) for rows in chunks]
    if not results:
        return _fit_chunk(model, inputs, options, start, slice(0, 0))
    return FitResult(*(torch.cat([getattr(r, name) for r in results]) for name in FitResult.__dataclass_fields__))


def observe(model: JointsModel, inputs: FrameInputs, options: FitOptions) -> Observations:
    """`Observations` of single-camera frames: keypoints in MANO order, weights, priors."""
    order = model.from_standard
    n = inputs.pose.shape[0]
    known = options.depth_mean is not None
    return Observations(
        projections=torch.cat([inputs.K, torch.zeros_like(inputs.K[..., :1])], dim=-1)[:, None],
        keypoints=inputs.keypoints[:, None, order],
        weights=keypoint_weights(options.noise, inputs.keypoints, inputs.confidence)[:, None, order],
        pose_priors=[PosePrior(inputs.pose, options.prior.precision(model.dtype, model.device))]
        + [replace(prior, reference=prior.reference.expand(n, -1, -1, -1)) for prior in options.extra_priors],
        depth=inputs.K.new_full((n,), options.depth_mean) if known else None,
        depth_weight=inputs.K.new_full((n,), options.depth_std**-2) if known else None,
        loss=options.noise.loss,
        loss_scale=options.noise.loss_scale,
    )


def _fit_chunk(
    model: JointsModel,
    everything: FrameInputs,
    options: FitOptions,
    start: tuple[torch.Tensor, torch.Tensor] | None,
    rows: slice,
) -> FitResult:
    inputs = FrameInputs(*(getattr(everything, name)[rows] for name in FrameInputs.__dataclass_fields__))
    chunk_options = replace(options, extra_priors=tuple(_prior_rows(prior, rows) for prior in options.extra_priors))
    seen = observe(model, inputs, chunk_options)
    rest = model.rest_points(inputs.betas)
    first_pose = inputs.pose
    if start is None:
        points = quick_points(model, first_pose, rest)
        wrist, placed = wrist_from_keypoints(points, seen.projections, seen.keypoints, seen.weights)
        placed |= ~inputs.good
    else:
        first_pose, wrist = start[0][rows], start[1][rows] + rest[:, 0]
        placed = torch.isfinite(wrist).all(-1) & (wrist[:, 2] > 0)
        first_pose = torch.where((inputs.good & placed)[:, None, None, None], first_pose, inputs.pose)
    fallback = wrist_at_depth(_mean_pixel(inputs), inputs.K, 0.85)
    wrist = torch.where((placed & inputs.good)[:, None], wrist, fallback)
    state = {"pose": first_pose, "wrist": wrist, "betas": inputs.betas}
    if options.shape_prior is None and is_quick(seen):
        result = fit_fingers(model, seen, state, options.lm)
    else:
        result = minimise(FrameProblem(model, seen, options.shape_prior), state, options.lm)

    fitted = result.state
    status = torch.where(placed, result.status, torch.full_like(result.status, int(Status.BEHIND_CAMERA)))
    status = torch.where(inputs.good, status, inputs.status)
    rest = model.rest_points(fitted["betas"])
    points = quick_points(model, fitted["pose"], rest) + fitted["wrist"][:, None]
    return FitResult(
        pose=fitted["pose"],
        transl=fitted["wrist"] - rest[:, 0],
        betas=fitted["betas"],
        status=status,
        reprojection_px=reprojection_rmse(points, inputs.K, seen.keypoints[:, 0], seen.weights[:, 0]),
        steps=result.steps,
    )


def reprojection_rmse(
    points: torch.Tensor, K: torch.Tensor, keypoints: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Root of the weighted mean squared pixel distance (N,); zero where nothing counts."""
    image = points @ K.mT
    pixels = image[..., :2] / image[..., 2:].clamp_min(1e-3)
    squared = (pixels - keypoints).square().sum(-1)
    return ((weights * squared).sum(-1) / weights.sum(-1).clamp_min(1e-30)).sqrt()


def _mean_pixel(inputs: FrameInputs) -> torch.Tensor:
    total = inputs.confidence.sum(dim=1, keepdim=True)
    mean = (inputs.keypoints * inputs.confidence[..., None]).sum(dim=1) / total.clamp_min(1e-9)
    return torch.where(total > 0, mean, inputs.K[:, :2, 2])


def _prior_rows(prior: PosePrior, rows: slice) -> PosePrior:
    return prior if prior.reference.shape[0] == 1 else prior.rows(rows)
