"""One shape, and poses and wrist positions of all frames of a video together."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import roma
import torch

from src.personalization.fitting.fit import FitOptions, FitResult, fit_frames, observe, reprojection_rmse
from src.personalization.fitting.sequence_problem import Chain, SequenceProblem
from src.personalization.solver.levenberg_marquardt import LMOptions, minimise
from src.personalization.solver.status import Status, in_range, usable
from src.personalization.terms.frame_terms import Observations
from src.personalization.terms.inputs import check_frames
from src.personalization.terms.smoothness import Smoothness
from template.kinematics import JointsModel, posed_points

logger = logging.getLogger(__name__)

#: s; frames further apart begin a new chain.
LARGEST_GAP = 0.6
#: How many times as far off as each frame alone, and how many pixels, is no motion of a hand.
UNRELATED = (5.0, 20.0)


@dataclass(frozen=True)
class SequenceOptions:
    """Everything `fit_sequence` can be told.

    Attributes:
        frame: what counts within a frame; with a ``shape_prior`` one shape is fitted for all frames.
        smoothness: how fast velocities change.
        lm: of the whole; its tolerance is for each frame.
    """

    frame: FitOptions = FitOptions()
    smoothness: Smoothness = Smoothness()
    lm: LMOptions = field(default_factory=lambda: LMOptions(max_steps=8, tolerance=3e-3, initial_damping=1e-3))

    def __post_init__(self) -> None:
        if self.frame.evidence_rounds:
            raise ValueError("evidence_rounds is of single frames; a sequence does not use it")


def fit_sequence(
    model: JointsModel,
    pose: torch.Tensor,
    betas: torch.Tensor,
    K: torch.Tensor,
    keypoints: torch.Tensor,
    seconds: torch.Tensor,
    confidence: torch.Tensor | None = None,
    options: SequenceOptions = SequenceOptions(),
    track: torch.Tensor | None = None,
    world: torch.Tensor | None = None,
) -> FitResult:
    """Fit all frames of a video at once: Gauss-Newton on a chain, in time linear in the number of frames.

    Frames without a usable prediction or keypoints (NaN, confidence zero) take part: their neighbours carry them.

    Args:
        model, pose (T,16,3,3), K (T,3,3), keypoints (T,21,2), confidence (T,21), world (T,21,3): as in `fit_frames`.
        betas: (10,) the person's shape (with a shape prior: where to start), or (T,10), a shape for each frame.
        seconds: (T,) when each frame was taken.
        track: (T,) number of the hand that each frame shows, equal numbers in a row; None: one hand.

    Returns:
        `FitResult`; status `NO_KEYPOINTS` (and the others of `check_frames`) is kept only for frames that no frame
        within `LARGEST_GAP` could help; cost (T,) holds the whole's, shared evenly.

    Raises:
        ValueError: times of a track that do not increase (names the first), or not one for each frame.
    """
    seconds = torch.as_tensor(seconds, dtype=torch.float64)
    if not len(pose) == len(seconds) == (len(seconds) if track is None else len(track)):
        raise ValueError(f"{len(pose)} poses, {len(seconds)} times, {'no' if track is None else len(track)} tracks")
    track = torch.zeros(len(seconds), dtype=torch.int64) if track is None else torch.as_tensor(track)
    chain = chain_of(seconds, track)
    shape = betas.to(model.device, model.dtype).expand(len(seconds), -1)
    least = options.frame.noise.min_confidence
    inputs = check_frames(pose.to(shape), shape, K, keypoints, confidence, least)
    alone = fit_frames(model, pose, shape, K, keypoints, confidence, options.frame, world=world)
    if len(seconds) == 0:
        return alone
    started = usable(alone.status)
    linked = chain.linked.to(model.device)
    number = _chain_number(linked)
    helped = torch.bincount(number, weights=started.double(), minlength=len(started))[number] > 0  # by their chain
    if not helped.any():
        return alone
    wrist = alone.transl + model.rest_points(alone.betas)[:, 0]
    when = seconds.to(model.device)
    near, far, share = _neighbours(started, linked, when)
    share = share.to(model.dtype)
    helped &= torch.minimum((when - when[near]).abs(), (when[far] - when).abs()) <= LARGEST_GAP
    shape = torch.where(torch.isfinite(shape).all(dim=1, keepdim=True), shape, alone.betas[near])
    turn = roma.rotmat_to_rotvec(alone.pose[near].mT @ alone.pose[far])
    begin = alone.pose[near] @ roma.rotvec_to_rotmat(share[:, None, None] * turn)
    state = {
        "pose": begin[None],
        "wrist": (wrist[near] + share[:, None] * (wrist[far] - wrist[near]))[None],
        "betas": shape[None] if options.frame.shape_prior is None else alone.betas[started].mean(dim=0)[None, None],
    }
    inputs.pose = torch.where(inputs.good[:, None, None, None], inputs.pose, begin)
    seen = observe(model, inputs, options.frame, None if world is None else world.to(model.device, model.dtype))
    silence(seen, inputs.good)
    chain = Chain(chain.steps.to(model.device, model.dtype), linked)
    problem = SequenceProblem(model, seen, chain, options.smoothness, options.frame.shape_prior)
    lm = replace(options.lm, tolerance=options.lm.tolerance * len(seconds))
    result = minimise(problem, state, lm)
    pose, wrist = result.state["pose"][0], result.state["wrist"][0]
    found = result.state["betas"][0].expand(len(seconds), -1)
    status = torch.where(in_range(wrist, inputs.K), result.status, int(Status.OUT_OF_RANGE))
    status = torch.where(helped, status, alone.status)
    solved = usable(status)
    pose = torch.where(solved[:, None, None, None], pose, alone.pose)
    found = torch.where(solved[:, None], found, alone.betas)
    rest = model.rest_points(found)
    transl = torch.where(solved[:, None], wrist - rest[:, 0], alone.transl)
    points = posed_points(model, pose, rest).points + (transl + rest[:, 0])[:, None]
    misfit = reprojection_rmse(points, inputs.K, seen.keypoints[:, 0], seen.weights[:, 0])
    compared = solved & started
    together, apart = (float(error[compared].median()) for error in (misfit, alone.reprojection_px))
    if together > UNRELATED[0] * apart and together > UNRELATED[1]:
        logger.warning(
            "fitted as one motion the hands are %.0f px off their keypoints, each alone %.1f px: do these frames "
            "follow each other, in this order and at these times?", together, apart,
        )  # fmt: skip
    return FitResult(
        pose=pose,
        transl=transl,
        betas=found,
        status=status,
        reprojection_px=misfit,
        steps=result.steps.expand(len(seconds)),
        cost=torch.where(solved, result.cost / len(seconds), alone.cost),
    )


def chain_of(seconds: torch.Tensor, track: torch.Tensor) -> Chain:
    """Which frames (T,) follow each other: one track, and not further apart in time than `LARGEST_GAP`.

    Raises:
        ValueError: see `fit_sequence`.
    """
    if not torch.isfinite(seconds).all():
        raise ValueError(f"frame {int((~torch.isfinite(seconds)).nonzero()[0])} has no time: {seconds.tolist()}")
    step = seconds[1:] - seconds[:-1]
    together = track[1:] == track[:-1]
    backwards = (together & (step <= 0)).nonzero()
    if len(backwards):
        row = int(backwards[0])
        raise ValueError(
            f"time runs backwards: frame {row} at {float(seconds[row]):g} s, then {float(seconds[row + 1]):g} s; "
            "give the frames in the order of their times, each once"
        )
    linked = together & (step <= LARGEST_GAP)
    if together.any() and not linked.any():
        logger.warning(
            "no two frames are within %g s of each other (mostly %g s): each is fitted alone; are times in seconds?",
            LARGEST_GAP, step[together].median(),
        )  # fmt: skip
    return Chain(torch.where(linked, step, 1.0), linked)


def _chain_number(linked: torch.Tensor) -> torch.Tensor:
    """(T,) number of each frame's chain, from 0."""
    return torch.cat([linked.new_zeros(1, dtype=torch.int64), (~linked).long().cumsum(0)])


def _neighbours(
    started: torch.Tensor, linked: torch.Tensor, seconds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The ``started`` frames (T,) before and after each frame in its chain, and how far it is between them, 0 to 1.

    A frame that was started is its own neighbour; beyond the last one of a chain both are the last one.
    """
    index = torch.arange(len(started), device=started.device)
    number = _chain_number(linked)
    before = torch.where(started, index, -1).cummax(0).values
    after = torch.where(started, index, len(started)).flip(0).cummin(0).values.flip(0)
    has_before = (before >= 0) & (number[before.clamp_min(0)] == number)
    last = after.clamp_max(len(started) - 1)
    has_after = (after < len(started)) & (number[last] == number)
    near = torch.where(has_before, before, torch.where(has_after, last, index))
    far = torch.where(has_after, last, near)
    span = seconds[far] - seconds[near]
    share = torch.where(span > 0, (seconds - seconds[near]) / span.clamp_min(1e-9), 0.0)
    return near, far, share


def silence(seen: Observations, good: torch.Tensor) -> None:
    """Frames that are not ``good`` (T,) say nothing: what is theirs was made up to be harmless."""
    if bool(good.all()):
        return
    seen.weights = seen.weights * good[:, None, None]
    # New priors: those of the options are of every window and every hand.
    seen.pose_priors = [replace(prior, precision=prior.precision * good[:, None, None]) for prior in seen.pose_priors]
    if seen.depth_weight is not None:
        seen.depth_weight = seen.depth_weight * good
    if seen.points_3d_weight is not None:
        seen.points_3d_weight = seen.points_3d_weight * good[:, None, None]
