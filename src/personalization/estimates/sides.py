"""Are the hands of the side that they are said to be? A mirrored hand bends its fingers backwards."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch

from src.personalization.calibration.from_keypoints import (
    SOMEBODY,
    KeypointHands,
    fit_options,
    predictions_from_keypoints,
)
from src.personalization.calibration.images import mean_hand_points
from src.personalization.calibration.population import CalibrationOptions
from src.personalization.calibration.views import views_of
from src.personalization.fitting.from_joints import (
    LEAST_HANDS,
    MIRRORED,
    ONE_MIRRORED,
    JointFitOptions,
    mirror_ratio,
)
from src.personalization.fitting.from_keypoints import KeypointFit, KeypointFitOptions, fit_keypoints
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.solver.status import CalibrationError, usable
from template import HandAssets
from template.kinematics import JointsModel
from utils.artifacts import Predictions

logger = logging.getLogger(__name__)

#: Natural logarithm of the odds that a side's keypoints, all together, are of the other side; how many hands that are
#: looked at, spread over all. One picture rarely tells: from afar a right palm looks as a left hand's back does. Nor do
#: many of a hand held still, whose errors repeat: those of one view count for one.
DOUBTED, REFUSED, LOOKED_AT = 3.0, 10.0, 40
#: Keypoints of fewer hands seldom tell a side that somebody states.
ENOUGH = 10
_REMEDY = "the file's sides are mirrored. Give --sides (mediapipe), --side_of, or mend is_left / right"
_STATED = 'is hand="left" right, and x before y? accept_conflict if they are right all the same'


def check_sides(
    estimates: Predictions,
    joints: torch.Tensor,
    std: float,
    assets: HandAssets,
    landmarks: LandmarkModel | None,
    known: bool = False,
) -> None:
    """Name the hands whose 3D joints (N,21,3) m, right-hand convention, are the other side's.

    Args:
        std: m, of a coordinate of the joints. known: single hands are looked for, not sides.

    Raises:
        CalibrationError: most hands of a side are the other side's.
    """
    ratio = mirror_ratio(assets, joints, None, JointFitOptions(std=std, landmarks=landmarks)).cpu().numpy()
    good = np.isfinite(ratio)
    for left in (False, True):
        own = good & (estimates.is_left == left)
        mirrored = not known and own.sum() >= LEAST_HANDS and np.median(ratio[own]) < MIRRORED
        bad = np.flatnonzero(own & (ratio < (1.0 if mirrored else ONE_MIRRORED)))
        if not len(bad):
            continue
        side, true = ("left", "right") if left else ("right", "left")
        said = f"{len(bad)} of {int(own.sum())} {side} hands bend their fingers like {true} ones"
        said = f"{estimates.source}: {said}, such as {_names(estimates, bad)}"
        if mirrored:
            raise CalibrationError(f"{said}: {_REMEDY}")
        logger.warning("%s; are their sides right?", said)


def check_sides_in_pictures(
    estimates: Predictions,
    found: KeypointFit,
    assets: HandAssets,
    options: KeypointFitOptions,
    device: torch.device | str = "cpu",
    remedy: str = _REMEDY,
) -> None:
    """The same of hands of which there are keypoints (px) alone, fitted as ``found``: mirrored ones are fitted too.

    Usual poses and perspective tell the two apart; benchmarks/studies/sides_of_keypoints.py, on which `REFUSED` was
    chosen, shows how well.

    Raises:
        CalibrationError: a side's keypoints are the other side's.
    """
    assert estimates.keypoints_2d is not None
    for left in (False, True):
        own = np.flatnonzero((estimates.is_left == left) & usable(found.status).cpu().numpy())
        if not len(own):
            continue
        own = own[np.linspace(0, len(own) - 1, min(len(own), LOOKED_AT)).astype(np.int64)]
        rows = estimates.select(own)
        assert rows.keypoints_2d is not None
        trust = None if rows.keypoint_confidence is None else torch.as_tensor(rows.keypoint_confidence)
        given = torch.as_tensor(rows.keypoints_2d).double(), torch.as_tensor(rows.K).double(), trust
        other = fit_mirrored(assets, *given, options, device)
        odds = torch.where(usable(other.status), found.cost[own] - other.cost, 0.0).cpu().numpy()
        view = views_of(mean_hand_points(JointsModel(assets), found.pose[own].cpu()))
        odds = odds / np.bincount(view)[view]
        if odds.sum() < DOUBTED:
            continue
        side, true = ("left", "right") if left else ("right", "left")
        said = (
            f"{estimates.source}: the keypoints of {len(own)} {side} hands are a {true} hand's, all together (odds of "
            f"e^{odds.sum():.0f}), most clearly {_names(rows, np.argsort(-odds))}"
        )
        if odds.sum() > REFUSED:
            raise CalibrationError(f"{said}: {remedy}")
        logger.warning("%s; are their sides right?", said)


def check_stated_side(
    rows: Predictions,
    assets: HandAssets,
    options: KeypointFitOptions,
    device: torch.device | str = "cpu",
    remedy: str = _STATED,
) -> None:
    """`check_sides_in_pictures` of enough keypoints whose side somebody stated.

    Raises:
        CalibrationError: they are, all together, the other side's hand, or have x and y in turn.
    """
    if len(rows) < ENOUGH:
        return
    options = replace(options, flat=False)  # flat, a hand is as well the other one from behind
    given = (rows.keypoints_2d, rows.K, rows.keypoint_confidence)
    points, K, trust = (torch.as_tensor(value).double() for value in given)
    found = fit_keypoints(assets, points, K, trust, options=options, device=device)
    check_sides_in_pictures(rows, found, assets, options, device, remedy)


def side_conflict(hands: KeypointHands, assets: HandAssets, options: CalibrationOptions) -> str | None:
    """Why hands of a stated side are, all together, the other side's (`check_stated_side`), or not hands at all."""
    try:
        rows = predictions_from_keypoints(hands, assets, options, SOMEBODY)
        check_stated_side(rows, assets, fit_options(options))
    except CalibrationError as error:
        return str(error)
    return None


def fit_mirrored(
    assets: HandAssets,
    keypoints: torch.Tensor,
    K: torch.Tensor,
    confidence: torch.Tensor | None,
    options: KeypointFitOptions,
    device: torch.device | str = "cpu",
) -> KeypointFit:
    """`fit_keypoints` of the other side's hand to keypoints (N,21,2) px, float64: both are mirrored about x = 0."""
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    given = keypoints @ mirror[:2, :2], mirror @ K @ mirror, confidence
    return fit_keypoints(assets, *given, options=options, device=device)


def _names(estimates: Predictions, rows: np.ndarray) -> str:
    """Of the first three pictures."""
    names = rows.astype(str) if estimates.image_name is None else estimates.image_name[rows]
    return ", ".join(dict.fromkeys(names.tolist()[:3]))
