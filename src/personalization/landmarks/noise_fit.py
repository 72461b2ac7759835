"""How noisy a source's points are, and how bent real hands: from the hands of people whom the offsets did not see.

Expectation-maximisation (Dempster et al. 1977) by Laplace's method: every hand is fitted as the product fits it, and
the mean square of a residual is the fitted one's and what pose, place and shape left open add to it, J S J^T with their
covariance S. Without that part a fit with many unknowns would find its keypoints ever more exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from src.personalization.calibration.population import Population
from src.personalization.fitting.fit import problem_at
from src.personalization.fitting.from_keypoints import KeypointFitOptions, fit_keypoints, world_direction
from src.personalization.landmarks.detections import Detections
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.landmarks.shared_fit import SharedFit
from src.personalization.solver.levenberg_marquardt import State
from src.personalization.solver.normal_equations import damped, factorise
from src.personalization.solver.status import usable
from src.personalization.terms.frame_problem import retract_frames, step_of
from src.personalization.terms.frame_terms import POSE
from src.personalization.terms.pose_prior import FlatHand, PosePrior
from template import HandAssets
from template.kinematics import JointsModel, joints_model, posed_points
from utils.camera import project

#: Where a hand whose camera is not known is put: m, and its size there, m.
DISTANCE, SIZE = 0.6, 0.16
#: Confidence of a point outside the picture.
OUTSIDE = 0.25
#: Directions drawn from each hand's posterior, and how far along each its derivative is taken.
DRAWS, STEP = 12, 1e-4
#: Hands a landmark's own noise is held to that of all by: a few wild fits do not decide it.
HELD = 20.0
#: Pictures of a person from which something can repeat.
MIN_PICTURES = 4


@dataclass
class NoiseSums:
    """Sums over hands.

    Attributes:
        trust, square: (21,) weights and weighted squares of 2D coordinates over the box.
        pose, angles: chi-square of the finger angles about the usual ones, and how many.
    """

    trust: np.ndarray
    square: np.ndarray
    pose: float
    angles: float

    def plus(self, other: NoiseSums) -> NoiseSums:
        """Both."""
        return NoiseSums(
            *(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True))
        )

    def improved(self, model: LandmarkModel) -> LandmarkModel:
        """The model with this noise, a landmark's own drawn to that of all as `HELD` hands would, and spread."""
        mean = self.square.sum() / self.trust.sum()
        held = (self.square + HELD * mean) / (self.trust + HELD)
        return replace(model, std_box=np.sqrt(held), pose_spread=self.pose / self.angles)


def noise_sums(assets: HandAssets, seen: Detections, landmarks: LandmarkModel) -> NoiseSums:
    """Expected squares (of the box, and rad^2) of the hands of ``seen``, each fitted on its own through ``landmarks``.

    The camera of a picture being unknown, the hand is put at `DISTANCE`, in the middle of the picture. How fingers are
    usually bent is learned of hands that are not shown flat.
    """
    options = KeypointFitOptions.of_source(landmarks)
    keypoints = torch.as_tensor(seen.keypoints)
    box, K = torch.as_tensor(seen.box), torch.eye(3, dtype=torch.float64).repeat(len(seen), 1, 1)
    K[:, 0, 0] = K[:, 1, 1] = box * DISTANCE / SIZE
    trust = torch.where(torch.as_tensor(seen.inside), 1.0, OUTSIDE).double()
    world = torch.as_tensor(seen.world)
    found = fit_keypoints(assets, keypoints, K, trust, world=world, options=options)
    model, good = joints_model(assets, landmarks), usable(found.status)
    beliefs = replace(options.frame_options(assets), shape_prior=Population().shape_prior)
    problem, state = problem_at(model, found, K, keypoints, trust, world_direction(world, K, keypoints), beliefs)
    terms, habit = problem.linearise(state), beliefs.extra_priors[0]
    bent = good & ~FlatHand.of(assets, spread=landmarks.pose_spread).are_shown(found.pose)
    hessian = terms["hessian"]
    factor = factorise(damped(hessian, torch.zeros_like(terms["cost"]))[0])
    image, angles = _predicted(model, state, K, habit)
    std = torch.as_tensor(landmarks.std_box)
    off = (image - keypoints) / box[:, None, None]
    precision = habit.precision[0, 3:, 3:] * landmarks.pose_spread
    bend = (angles - habit.offset[:, 1:]).flatten(1)
    spread, spread_pose = torch.zeros_like(off[..., 0]), torch.zeros(len(seen), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        draw = torch.randn(*hessian.shape[:2], 1, generator=generator, dtype=torch.float64)
        draw = torch.linalg.solve_triangular(factor.mT, draw, upper=True)[..., 0]
        step = step_of(STEP * draw, terms["chart"])
        moved = retract_frames(state, step)
        other, _ = _predicted(model, moved, K, habit)
        spread += ((other - image) / STEP / box[:, None, None]).square().sum(-1) / DRAWS
        pose = draw[:, POSE][:, 3:]  # the prior's own logarithms are the unknowns
        spread_pose += (pose @ precision * pose).sum(-1) / DRAWS
    # The robust loss's own doubt of a point (Geman and McClure): what it leaves out is not noise.
    doubt = (1 + off.square().sum(-1) / std.square() / options.noise.loss_scale**2).pow(-2)
    weight = doubt * trust * torch.as_tensor(seen.inside) * good[:, None]
    square = (off.square().sum(-1) + spread) / 2
    chi = (bend @ precision * bend).sum(-1) + spread_pose
    return NoiseSums(
        trust=weight.sum(0).numpy(),
        square=(weight * square).sum(0).numpy(),
        pose=float(chi[bent].sum()),
        angles=45.0 * int(bent.sum()),
    )


def _predicted(model: JointsModel, state: State, K: torch.Tensor, prior: PosePrior) -> tuple[torch.Tensor, ...]:
    """Pixels (N,21,2), standard order, and finger angles (N,15,3) rad."""
    posed = posed_points(model, state["pose"], model.rest_points(state["betas"]))
    points = posed.points[:, model.to_standard] + state["wrist"][:, None]
    return project(points, K), prior.logarithms(posed.local[:, :3]).permute(2, 1, 0)[:, 1:]


def shared_part(fit: SharedFit, seen: Detections) -> float:
    """The part of the 2D variance that all pictures of a person share, in the bones' frames, between 0 and 1.

    A residual in the picture is what is seen of a vector fixed to its bone: with Q = R^T diag(1, 1, 0) R, R turning
    from the bone to the camera, two pictures i and j of a person share ``tr(Q_i Q_j)`` times a coordinate's variance.
    """
    turned = np.einsum("nlba,nlb->nla", fit.frames[:, :, :2], fit.residuals)  # (N,21,3): R^T (dx, dy, 0)
    share = np.einsum("nlba,nlbc->nlac", fit.frames[:, :, :2], fit.frames[:, :, :2])
    shared = total = 0.0
    for person in np.unique(seen.person):
        rows = np.flatnonzero((seen.person == person) & ~seen.in_space)
        if len(rows) < MIN_PICTURES:
            continue
        inside = seen.inside[rows].astype(float)
        both = np.einsum("il,jl->ijl", inside, inside) * (1 - np.eye(len(rows)))[:, :, None] / len(rows)
        shared += float((both * np.einsum("ila,jla->ijl", turned[rows], turned[rows])).sum())
        variance = (inside * np.square(turned[rows]).sum(-1)).sum(0) / np.maximum(inside.sum(0), 1) / 2
        overlap = np.einsum("ilab,jlba->ijl", share[rows], share[rows])
        total += float((both * overlap * variance).sum())
    return float(np.clip(shared / total, 0.0, 1.0)) if total > 0 else 0.25
