"""The cases of `benchmarks/calibration.py`: simulated people, and real predictions."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.scenes.simulation import Simulated, SimulationOptions, second_camera, simulate
from datasets import open_labels
from src.evaluation.shape import zero_pose_mpvpe
from src.personalization.calibration.data_set_evidence import group_views, view_groups
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.images import ViewGroups, average_weights
from src.personalization.calibration.multi_frame import MultiFrameResult, calibrate_frames
from src.personalization.calibration.population import CalibrationOptions, calibration_options, load_population
from src.personalization.calibration.problem import MultiFrameProblem, posterior_covariance
from src.personalization.fitting.fit import PosePriorOptions, observe
from src.personalization.pairing import annotations_of, pair_keypoints, rows_of
from src.personalization.terms.hand_size import LENGTHS, LengthCue, length_gradient
from src.personalization.terms.inputs import check_frames
from src.personalization.terms.noise import KeypointNoise
from template import HandAssets, HandModel
from template.kinematics import JointsModel
from utils.artifacts import load_predictions
from utils.camera import project

#: Uncertainty of the ruler, m.
RULER = 0.003
KNOWN = CalibrationOptions(PosePriorOptions(0.25, 0.25), KeypointNoise(std_px=2.0, loss="none"), 0.85, 0.07)
#: Frames handled together, so that memory is bounded.
FRAMES_AT_ONCE = 200


@dataclass
class Scores:
    """Zero-pose MPVPE (mm) of every person or draw by (method, images); standardised errors by what is
    estimated; seconds of multi-frame calibrations of 20 frames; further results by name."""

    errors: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    standardised: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


def simulated_scores(args: argparse.Namespace, assets: HandAssets) -> Scores:
    """People with known betas: averages, joint without a cue, with a ruler, with a second camera, and the bound."""
    scores, hand, model = Scores(), HandModel(assets, dtype=torch.float64), JointsModel(assets)
    for count in tqdm(args.counts, desc="images", disable=None):
        persons = max(4, args.persons if count <= 20 else args.persons * 10 // count)
        at_once = max(1, FRAMES_AT_ONCE // count)
        found: list[tuple[MultiFrameResult, torch.Tensor]] = []
        for first in range(0, persons, at_once):
            size = min(at_once, persons - first)
            world = simulate(assets, size, count, SimulationOptions(), seed=1000 * count + first)
            kept = scores.seconds if count == 20 and size == 1 else []
            results = {"joint": timed(lambda w=world: without_cue(model, w), kept)}
            results["joint, ruler"] = with_ruler(model, world, seed=1000 * count + first)
            if count % 2 == 0:
                results["joint, two cameras"] = with_two_cameras(model, world)
            found.append((results["joint"], world.betas))
            record(scores, hand, count, {name: result.betas for name, result in results.items()}, world.betas)
            record(scores, hand, count, averages(world, seed=first + count), world.betas)
            covariance = bound_covariance(model, world)
            scores.errors["bound", count] += expected_error(assets, covariance).tolist()
        if count == 20:
            betas, covariance = (torch.cat([getattr(r, n) for r, _ in found]) for n in ("betas", "covariance"))
            scores.standardised = standardised(model, betas, covariance, torch.cat([truth for _, truth in found]))
    world = simulate(assets, 1, 20, SimulationOptions(), seed=7)
    for _ in range(3):
        timed(lambda: without_cue(model, world), scores.seconds)
    if ("joint", 20) in scores.errors:
        mean = {name: float(np.mean(scores.errors[name, 20])) for name in ("joint", "bound", "mean", "joint, ruler")}
        scores.more["joint_over_bound_20"] = mean["joint"] / mean["bound"]
    return scores


def timed(run: Any, seconds: list[float]) -> Any:
    """The result of ``run()``, its wall time appended."""
    started = time.perf_counter()
    result = run()
    seconds.append(time.perf_counter() - started)
    return result


def record(scores: Scores, hand: HandModel, count: int, found: dict[str, torch.Tensor], truth: torch.Tensor) -> None:
    """Append the errors of some persons."""
    for name, betas in found.items():
        scores.errors[name, count] += zero_pose_mpvpe(hand, betas, truth).tolist()


def without_cue(model: JointsModel, world: Simulated, options: CalibrationOptions = KNOWN) -> MultiFrameResult:
    """Multi-frame calibration from a start at the mean shape."""
    start = torch.zeros(len(world.betas), 10)
    return calibrate_frames(model, world.predicted, start, world.K, world.keypoints, options=options)


def with_ruler(model: JointsModel, world: Simulated, seed: int) -> MultiFrameResult:
    """Each person's hand measured once, with the ruler's error."""
    true = length_gradient(model, world.betas, "hand")[0]
    generator = torch.Generator().manual_seed(seed)
    measured = true + RULER * torch.randn(len(true), generator=generator, dtype=true.dtype)
    parts = []
    for person, length in enumerate(measured.tolist()):
        alone = Simulated(*(value[person : person + 1] for value in vars(world).values()))
        parts.append(without_cue(model, alone, replace(KNOWN, cues=(LengthCue("hand", length, RULER),))))
    return joined(parts)


def joined(parts: list[MultiFrameResult]) -> MultiFrameResult:
    """Those of several people as one."""
    names = [name for name, value in vars(parts[0]).items() if value is not None]
    return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def with_two_cameras(model: JointsModel, world: Simulated) -> MultiFrameResult:
    """Half of the instants, each seen by two cameras: the same number of images."""
    half = world.predicted.shape[1] // 2
    first = Simulated(*(value[:, :half] if value.dim() > 2 else value for value in vars(world).values()))
    second, pose = second_camera(first)
    camera_to_world = np.tile(np.stack([np.eye(4), pose.numpy()]), (half, 1, 1))
    views = ViewGroups(np.repeat(np.arange(half), 2), camera_to_world)
    parts = []
    for person in range(len(world.betas)):
        pose, K, keypoints = (
            torch.stack([getattr(first, name)[person], getattr(second, name)[person]], dim=1).flatten(0, 1)[None]
            for name in ("predicted", "K", "keypoints")
        )
        parts.append(calibrate_frames(model, pose, torch.zeros(1, 10), K, keypoints, None, KNOWN, views=views))
    return joined(parts)


def averages(world: Simulated, seed: int) -> dict[str, torch.Tensor]:
    """Averages of the simulated network's betas, and the mean shape."""
    generator = np.random.default_rng(seed)
    persons, frames = world.predicted.shape[:2]
    truth = world.betas.numpy()
    common = 0.5 * truth + 0.6 * generator.normal(size=(persons, 10))
    quality = np.abs(0.6 + 0.3 * generator.normal(size=(persons, frames)))
    betas = common[:, None] + quality[..., None] * generator.normal(size=(persons, frames, 10))
    confidence = -4 * quality + generator.normal(size=quality.shape)
    found = {
        name: np.stack([average_weights(frames, method, c) @ b for b, c in zip(betas, confidence, strict=True)])
        for name, method in (("mean", "mean"), ("top-k", "top_k"), ("confidence", "confidence"))
    }
    found["mean shape"] = np.zeros_like(truth)
    return {name: torch.as_tensor(value) for name, value in found.items()}


def bound_covariance(model: JointsModel, world: Simulated) -> torch.Tensor:
    """Posterior covariance (P,10,10) of the betas at the truth: the Bayesian Cramer-Rao bound of these frames."""
    persons, frames = world.predicted.shape[:2]
    flat = [value.flatten(0, 1) for value in (world.pose, world.K)]
    pixels = project(world.joints.flatten(0, 1), flat[1])
    betas = world.betas.repeat_interleave(frames, 0)
    inputs = check_frames(flat[0], betas, flat[1], pixels, None, KNOWN.noise.min_confidence)
    observations, share = observe(model, inputs, KNOWN), torch.ones(persons, 1, dtype=torch.float64)
    state = {"pose": world.pose, "wrist": world.joints[:, :, 0], "betas": world.betas}
    linear = torch.zeros(1, 10, dtype=torch.float64)
    problem = MultiFrameProblem(model, observations, share, KNOWN.population.shape_prior, (), linear)
    return posterior_covariance(problem.linearise(state))


def expected_error(assets: HandAssets, covariance: torch.Tensor, draws: int = 300) -> np.ndarray:
    """Expected zero-pose MPVPE (P,), mm, of normal errors with these covariances: vertices are linear in betas."""
    wrist = np.einsum("v,vcs->cs", assets.J_regressor[0], assets.shapedirs)
    directions = (assets.shapedirs - wrist).reshape(-1, 10)
    normal = np.random.default_rng(0).normal(size=(draws, 10))
    found = []
    for factor in np.linalg.cholesky(covariance.numpy()):
        moved = (normal @ factor.T @ directions.T).reshape(draws, -1, 3)
        found.append(1000 * np.linalg.norm(moved, axis=-1).mean())
    return np.array(found)


def standardised(
    model: JointsModel, betas: torch.Tensor, covariance: torch.Tensor, truth: torch.Tensor
) -> dict[str, np.ndarray]:
    """Errors in standard deviations: of the betas (P*10,), the hand's length (P,), and finger lengths (P*5,)."""
    found = {"betas": ((betas - truth) / covariance.diagonal(dim1=1, dim2=2).sqrt()).flatten().numpy()}
    by_name = {}
    for name in list(LENGTHS)[:6]:
        length, slope = length_gradient(model, betas, name)
        std = torch.einsum("pi,pij,pj->p", slope, covariance, slope).sqrt()
        by_name[name] = ((length - length_gradient(model, truth, name)[0]) / std).numpy()
    found["hand length"] = by_name.pop("hand")
    found["finger lengths"] = np.concatenate(list(by_name.values()))
    return found


def real_scores(args: argparse.Namespace, assets: HandAssets) -> Scores:
    """Real predictions: every method, number of images and draw, each unseen subject."""
    scores, hand, model = Scores(), HandModel(assets, dtype=torch.float64), JointsModel(assets)
    predictions = pair_keypoints(load_predictions(args.predictions), load_predictions(args.keypoints))
    predictions.check_hand(assets)
    dataset = open_labels(args.dataset, args.data_root, predictions.split, mano_dir=args.mano_dir)
    truth = annotations_of(dataset, predictions)
    options = CalibrationOptions(errors_repeat=True)
    if args.prior is not None:
        options = calibration_options(load_population(args.prior, assets.hash))
    views = view_groups(dataset, rows_of(dataset, predictions), predictions.is_left)
    if predictions.confidence is not None:
        error = np.abs(predictions.betas - truth["betas"]).mean(axis=1)
        scores.more["ranking_accuracy"] = ranking_accuracy(predictions.confidence, error)
    for subject in np.unique(predictions.subject_id):
        rows = np.flatnonzero(predictions.subject_id == subject)
        own, own_views, betas = predictions.select(rows), views.rows(rows), truth["betas"][rows[0]]
        length = float(length_gradient(model, torch.as_tensor(betas, dtype=torch.float64), "hand")[0])
        off = float(zero_pose_mpvpe(hand, np.zeros((1, 10)), betas[None])[0])
        scores.errors["mean shape", args.counts[0]].append(off)
        for count in tqdm([n for n in args.counts if n <= len(own)], desc=f"subject {subject}", disable=None):
            for draw in range(args.draws):
                generator = np.random.default_rng([int(subject), count, draw])
                ruler = LengthCue("hand", length + RULER * generator.normal(), RULER)
                ruled = replace(options, cues=(ruler,), accept_conflict=True)
                cases = {
                    "mean": ("mean", options),
                    "joint": ("multi_frame", options),
                    "joint, ruler": ("multi_frame", ruled),
                }
                if predictions.confidence is not None:
                    cases |= {"top-k": ("top_k", options), "confidence": ("confidence", options)}
                for name, (method, believed) in cases.items():
                    found = calibrate_predictions(own, assets, believed, method=method, num_images=count, seed=draw)
                    error = zero_pose_mpvpe(hand, next(iter(found.values())).betas[None], betas[None])
                    scores.errors[name, count].append(float(error[0]))
                if count >= 2:
                    pairs = group_views(own_views.instant, 2, seed=draw)
                    found = calibrate_predictions(
                        own.select(pairs), assets, options, num_images=count, seed=draw, views=own_views.rows(pairs)
                    )
                    error = zero_pose_mpvpe(hand, next(iter(found.values())).betas[None], betas[None])
                    scores.errors["joint, two cameras", count].append(float(error[0]))
    return scores


def ranking_accuracy(confidence: np.ndarray, error: np.ndarray, pairs: int = 200_000) -> float:
    """Share of random pairs of images in which the more confident one has the smaller error."""
    generator = np.random.default_rng(0)
    a, b = generator.integers(len(error), size=(2, pairs))
    differ = error[a] != error[b]
    return float(((confidence[a] > confidence[b]) == (error[a] < error[b]))[differ].mean())
