"""One person's hand from metric 3D joints: of a headset's tracker, of motion capture, or triangulated.

Each hand by itself says something of the betas, its pose and place integrated out (`fitting.from_joints`). That adds
up, with people's shapes counted once, as far as the hands' errors do not repeat.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from src.personalization.calibration.images import evidence_of, mean_hand_points
from src.personalization.calibration.multi_frame import LAPLACE_SHARE, MAX_CONFLICT
from src.personalization.calibration.population import CalibrationOptions
from src.personalization.calibration.views import Repeats, design_effect, views_of
from src.personalization.estimates.doubts import mirrored
from src.personalization.fitting.from_joints import MAX_MISFIT_MM, MOST_OFF, JointFitOptions, fit_joints
from src.personalization.pairing import content_ids
from src.personalization.solver.status import CalibrationError, usable
from src.personalization.terms.frame_problem import ShapePrior
from src.personalization.terms.hand_size import HAND_RANGE, LengthCue, cue_conflict, lengths_mm
from src.personalization.terms.shape_terms import shape_terms
from template import HandAssets
from template.kinematics import JointsModel, joints_model
from utils.artifacts import Identity

logger = logging.getLogger(__name__)

#: Hands that are fitted, evenly drawn where there are more: what their errors share, more do not mend.
MOST_HANDS = 200
#: Standard deviations of people's hand lengths beyond which the joints' scale is doubted.
UNUSUAL = 3.0
#: Fits of all hands, each from what all said before: single hands are drawn to people's mean, and linearised there.
ROUNDS = 2


def calibrate_joints(
    joints: np.ndarray,
    confidence: np.ndarray | None,
    side: str,
    assets: HandAssets,
    options: CalibrationOptions,
    subject: int | None = None,
    device: torch.device | str = "cpu",
) -> Identity:
    """The identity of the person whose hands of one side these are.

    Args:
        joints: (N,21,3) m, standard order, any right-handed frame; confidence: (N,21) in [0,1], zero where missing.
        side: "right" or "left".
        options: ``population``, ``cues``, ``landmarks``, ``accept_conflict``, and ``error_correlation``, the part of
            their errors that different views share; the rest is of pictures.

    Raises:
        CalibrationError: another shape, no hands, the other side's, or a length that contradicts them.
    """
    points = np.asarray(joints, dtype=np.float64)
    trust = np.ones(points.shape[:2]) if confidence is None else np.asarray(confidence, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (21, 3) or not len(points) or trust.shape != points.shape[:2]:
        raise CalibrationError(
            f"joints have shape {points.shape}, their confidence {trust.shape}; (N,21,3) m and (N,21) are meant"
        )
    if not ((trust >= 0) & (trust <= 1)).all():
        raise CalibrationError(
            f"confidence spans [{trust.min():g}, {trust.max():g}]; [0,1] is meant, zero where unseen"
        )
    points = np.where(trust[..., None] > 0, points, 0.0) * [-1.0 if side == "left" else 1.0, 1.0, 1.0]
    ids = content_ids(points, np.full(len(points), side == "left"))
    rows = np.sort(np.unique(ids, return_index=True)[1])
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_HANDS)).astype(int)]
    seen, weight = torch.as_tensor(points[rows]), torch.as_tensor(trust[rows])
    people = options.population.shape_prior
    believed = JointFitOptions(shape_prior=people, landmarks=options.landmarks)
    fit = fit_joints(assets, seen, weight, options=believed, device=device)
    off = fit.residual.cpu()
    good = usable(fit.status).cpu() & (1000 * off <= MAX_MISFIT_MM)
    if 2 * int(good.sum()) < len(rows):
        raise CalibrationError(
            f"{len(rows) - int(good.sum())} of {len(rows)} hands do not fit their joints; are they metres, missing "
            "ones of confidence 0, and in standard order, the wrist, then thumb to little finger, from the palm out?"
        )
    off = off * (weight.sum(dim=1) / (weight > 0).sum(dim=1)).sqrt()  # where confidence is low, more is meant to be
    good &= off <= MOST_OFF * off[good].median()  # a wrong end among good ones would say more than all of them
    if not bool(good.all()):
        logger.warning(
            "%d of %d hands do not fit their joints as others do, or lack some whose confidence is not 0: left out",
            int((~good).sum()), len(rows),
        )  # fmt: skip
    rows, seen, weight = rows[good.numpy()], seen[good], weight[good]
    other = mirrored(assets, seen, weight, replace(believed, std=fit.std), side)
    if other is not None and not options.accept_conflict:
        raise CalibrationError(other)
    model = joints_model(assets, options.landmarks, device)
    counts, repeats = _counts(model, fit.pose[good.to(fit.pose.device)], options.error_correlation)
    known = people
    for _ in range(ROUNDS):
        start = ShapePrior(known.mean, people.precision)
        fit = fit_joints(assets, seen, weight, options=replace(believed, std=fit.std, shape_prior=start), device=device)
        found = torch.linalg.inv(fit.covariance[:, 51:, 51:].cpu())
        pull = (found @ fit.betas.cpu()[..., None])[..., 0] - people.precision @ known.mean
        pull -= LAPLACE_SHARE * fit.volume_gradient().cpu()  # else noise makes bones longer
        precision = people.precision + (counts[:, None, None] * (found - people.precision)).sum(dim=0)
        total = people.precision @ people.mean + (counts[:, None] * pull).sum(dim=0)
        known = ShapePrior(torch.linalg.solve(precision, total), (precision + precision.mT) / 2)
    model, further = joints_model(assets, options.landmarks), {"repeats": repeats}
    for cue in options.cues:
        others = _with_cues(model, known, tuple(other for other in options.cues if other is not cue))
        length, std, apart = cue_conflict(model, *others, cue)
        if abs(apart) <= MAX_CONFLICT:
            continue
        if not options.accept_conflict:
            raise CalibrationError(
                f"{cue.name} was measured as {1000 * cue.length:.1f} ± {1000 * cue.std:.1f} mm, but the joints say "
                f"{length:.1f} ± {std:.1f} mm: {abs(apart):.1f} standard deviations apart. Measure again, see whether "
                "the joints are metres and as large as the hand is, or accept_conflict"
            )
        further.setdefault("conflict", {})[cue.name] = round(abs(apart), 1)
    betas, covariance = (value.numpy() for value in _with_cues(model, known, options.cues))
    length, std = lengths_mm(assets, betas, covariance, ("hand",))["hand"]
    usually = options.population
    usual, spread = lengths_mm(assets, usually.betas_mean, usually.betas_covariance, ("hand",))["hand"]
    said = f"the hand comes out {length:.0f} mm long, people's are {usual:.0f} ± {spread:.0f}: are the joints metres?"
    if not HAND_RANGE[0] < length / 1000 < HAND_RANGE[1]:
        raise CalibrationError(said)
    if abs(length - usual) > UNUSUAL * spread:
        logger.warning("%s If they are triangulated, is the size of the cameras' board right?", said)
    return Identity(
        betas=betas,
        covariance=covariance,
        hand_name=assets.name,
        hand_hash=assets.hash,
        hand_length_mm=length,
        hand_length_std_mm=std,
        side=side,
        method="joints_3d",
        n_images=len(rows),
        image_ids=ids[rows].tolist(),
        subject_id=subject,
        created_by="handid.calibrate",
        **evidence_of(options, None, "joints_3d", **further),
    )


def _counts(model: JointsModel, pose: torch.Tensor, shared: float) -> tuple[torch.Tensor, dict[str, Any]]:
    """For how many independent hands each of N counts, ``shared`` of the errors of different views being common, and
    what `Identity` says of it."""
    view = views_of(mean_hand_points(model, pose))
    views = len(np.unique(view))
    counts = Repeats(view, view).weights(0.0) / design_effect(views, shared)
    said = {"views": views, "videos": 1, "in_common": [shared, shared], "worth": round(float(counts.sum()), 2)}
    return torch.as_tensor(counts), said


def _with_cues(model: JointsModel, known: ShapePrior, cues: tuple[LengthCue, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Betas (10,) and their covariance (10,10) of what is known and of measured lengths (m)."""
    betas = known.mean.clone()
    hessian = known.precision
    for _ in range(4 if cues else 0):  # lengths are not quite linear
        _, slope, curvature = shape_terms(model, known, cues, betas[None])
        betas, hessian = betas - torch.linalg.solve(curvature[0], slope[0]), curvature[0]
    covariance = torch.linalg.inv(hessian)
    return betas, (covariance + covariance.mT) / 2
