"""All hands of many people and one set of landmark offsets at once, under weak perspective, by Adam.

One picture does not tell an offset from a bend or a long bone. Many people do, if the mean of their shapes is held at
the population's: what all have in common goes to the landmarks. The overall size nearly stays free: flat hands of known
scale hold it. So does bending, which poses of a narrow prior would leave to the offsets: it is wide while learning.

A point of a detector lies on the skin, between two bones: before two cameras the bone from knuckle to next joint is a
third longer in a curled finger than in a stretched one, the one after it a third shorter. So a part of each offset, the
bend, turns with the next bone (of a tip: with the one before its own).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import roma
import torch

from src.personalization.landmarks.detections import Detections
from src.personalization.terms.pose_prior import habit_prior, palm_turn
from template import HandAssets, HandModel
from template.few_joints import LANDMARK_FRAMES, OTHER_FRAMES
from utils.joints import MANO_TO_STANDARD

#: m, half the usual depth of a flat hand's points about their plane.
FLATNESS = 0.006


@dataclass(frozen=True)
class SharedFitOptions:
    """What is believed beforehand.

    Attributes:
        offset_std: (3,) or (21,3) m, along the fingers, out of the palm, across it.
        bend_std: (3,) m, the same of bends; None: points that do not lie on skin have none.
        std_box: (21,) of 2D points over the box; world_std: (21,) m; world_scale_std; space_std: m, of points that two
            cameras saw, whose scale is one unknown for all.
        pose_spread: see `LandmarkModel`; wide, else offsets stand in for bends that the prior forbids.
        mean_weight: how firmly the people's mean shape is held at zero, a person's prior being 1.
        steps: of Adam.
    """

    offset_std: tuple[float, ...] | tuple[tuple[float, ...], ...] = (0.006, 0.010, 0.006)
    bend_std: tuple[float, ...] | None = (0.006, 0.006, 0.002)
    std_box: tuple[float, ...] = (0.02,) * 21
    world_std: tuple[float, ...] = (0.04,) * 21
    world_scale_std: float = 0.15
    space_std: float = 0.008
    pose_spread: float = 16.0
    mean_weight: float = 20.0
    steps: int = 350


@dataclass
class SharedFit:
    """Attributes: offsets, bends (21,3) m, see `LandmarkModel`; betas (P,10); misfit, root mean square distance over
    the box of points inside.

    residuals: (N,21,2) over the box; frames: (N,21,3,3) rotations from each landmark's bone to the camera.
    """

    offsets: np.ndarray
    bends: np.ndarray
    betas: np.ndarray
    misfit: float
    residuals: np.ndarray
    frames: np.ndarray


def fit_shared(
    assets: HandAssets,
    seen: Detections,
    shifts: tuple[np.ndarray, np.ndarray] | None = None,
    options: SharedFitOptions = SharedFitOptions(),
) -> SharedFit:
    """Poses, shapes and places (m) of all hands; and offsets and bends (21,3) m, where not given as ``shifts``.

    Deterministic.
    """
    hand, n = HandModel(assets), len(seen)
    prior = habit_prior(assets, torch.float32)
    mean, root = prior.offset[0, 1:], torch.linalg.cholesky(prior.precision[0, 3:, 3:] / options.pose_spread)
    people, person = np.unique(seen.person, return_inverse=True)
    person = torch.as_tensor(person)
    single = torch.float32
    box = torch.as_tensor(seen.box, dtype=single)
    keypoints = torch.as_tensor(seen.keypoints, dtype=single) / box[:, None, None]
    inside, world = torch.as_tensor(seen.inside, dtype=single), torch.as_tensor(seen.world, dtype=single)
    known = torch.as_tensor(seen.px_per_m, dtype=single) / box
    flat, in_space = torch.isfinite(known), torch.as_tensor(seen.in_space)
    std_2d = torch.tensor(options.std_box, dtype=single)[:, None]
    std_3d = torch.tensor(options.world_std, dtype=single).expand(n, 21).clone()
    std_3d[in_space] = options.space_std
    frames, others = (torch.tensor(of)[list(MANO_TO_STANDARD)] for of in (LANDMARK_FRAMES, OTHER_FRAMES))

    turn = palm_turn(world, hand(torch.eye(3).expand(1, 16, 3, 3), torch.zeros(1, 10)).joints[0])
    pose = torch.cat([roma.rotmat_to_rotvec(turn)[:, None], mean.expand(n, 15, 3)], dim=1).requires_grad_()
    betas = torch.zeros(len(people), 10, requires_grad=True)
    scale = torch.full((n,), math.log(1 / 0.16)).requires_grad_()
    size, place = torch.zeros(n, requires_grad=True), torch.zeros(n, 1, 2, requires_grad=True)
    space = torch.zeros((), requires_grad=True)
    given = (np.zeros((21, 3)),) * 2 if shifts is None else shifts
    moved, bent = (torch.tensor(part, dtype=single) for part in given)
    free = (moved, bent) if options.bend_std is not None else (moved,)
    learned = [] if shifts is not None else [value.requires_grad_() for value in free]
    rates = [(pose, 0.03), (betas, 0.05), (scale, 0.02), (size, 0.02), (place, 0.01), (space, 0.01)]
    rates += [(value, 5e-4) for value in learned]
    optimiser = torch.optim.Adam([{"params": [value], "lr": rate} for value, rate in rates])
    for step in range(options.steps):
        for group, (_, rate) in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * (0.02 + 0.49 * (1 + math.cos(math.pi * step / options.steps)))
        optimiser.zero_grad()
        found = hand(roma.rotvec_to_rotmat(pose), betas[person])
        own, other = (found.transforms[:, of, :, :3] for of in (frames, others))
        points = found.joints + (own @ (moved - bent)[..., None] + other @ bent[..., None])[..., 0]
        points = points - points.mean(dim=1, keepdim=True)
        off = points[..., :2] * torch.where(flat, known, scale.exp())[:, None, None] + place - keypoints
        cost = (_robust((off / std_2d).square().sum(-1)) * inside).sum()
        # Our points are scaled, not the others: else the smallest hand would fit best.
        away = points * torch.where(in_space, space, size).exp()[:, None, None] - world
        guess = _robust((away / std_3d[..., None]).square().sum(-1))
        cost = cost + (guess * ~flat[:, None]).sum() + (points[flat, :, 2] / FLATNESS).square().sum()
        cost = cost + ((pose[:, 1:] - mean).flatten(1) @ root).square().sum()
        cost = cost + betas.square().sum() + (size / options.world_scale_std).square().sum()
        for value, std in zip(learned, (options.offset_std, options.bend_std), strict=False):
            cost = cost + (value / torch.tensor(std)).square().sum()
        if learned:
            cost = cost + options.mean_weight * len(people) * betas.mean(dim=0).square().sum()
        (cost / 2).backward()
        optimiser.step()
    misfit = float(((off.detach().square().sum(-1) * inside).sum() / inside.sum()).sqrt())
    turns = found.transforms[:, frames, :, :3].detach()
    results = (moved.detach(), bent.detach(), betas.detach(), off.detach() * inside[..., None], turns)
    offsets, bends, betas, residuals, turns = (value.double().numpy() for value in results)
    return SharedFit(offsets, bends, betas, misfit, residuals, turns)


def _robust(chi: torch.Tensor) -> torch.Tensor:
    """Geman and McClure's loss, scale 4."""
    return chi / (1 + chi / 16)
