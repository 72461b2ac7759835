"""Are points that somebody gave those of hands, in the right order, of the side that is said? Warnings where not."""

from __future__ import annotations

import logging

import numpy as np
import torch

from src.personalization.estimates.sides import ENOUGH, LOOKED_AT, check_stated_side
from src.personalization.fitting.fit import FitResult
from src.personalization.fitting.from_joints import (
    LEARN_FROM,
    LEAST_HANDS,
    MAX_MISFIT_MM,
    MIRRORED,
    ONE_MIRRORED,
    JointFitOptions,
    mirror_ratio,
)
from src.personalization.fitting.from_keypoints import MAX_MISFIT_BOX, KeypointFitOptions, box_misfit
from src.personalization.solver.status import CalibrationError, Status, usable
from template import HandAssets
from utils.artifacts import Predictions

logger = logging.getLogger(__name__)


def doubt_points(found: FitResult, keypoints: torch.Tensor, confidence: torch.Tensor | None) -> torch.Tensor:
    """Warn of hands that lie far from their keypoints (N,21,2) px: these may not be a hand's, in that order.

    Returns:
        (M,) rows of the hands that lie on theirs; none where those are the fewer.
    """
    status = found.status.cpu()
    rows, behind = torch.nonzero(usable(status))[:, 0], torch.nonzero(status == int(Status.BEHIND_CAMERA))[:, 0]
    far = box_misfit(found, keypoints, confidence).cpu() > MAX_MISFIT_BOX
    bad = torch.cat([rows[far], behind]).sort().values
    total = len(rows) + len(behind)
    if 2 * len(bad) > total:
        logger.warning(
            "%d of %d hands lie more than %.2f of their keypoints' box off these, or behind the camera (%d): are they "
            "the 21 in standard order, the wrist, then thumb to little finger from the palm outwards, x before y?",
            len(bad), total, MAX_MISFIT_BOX, len(behind),
        )  # fmt: skip
        return rows[:0]
    if len(bad):
        logger.warning(
            "%d of %d hands lie more than %.2f of their keypoints' box off these, or behind the camera (rows %s): is a "
            "keypoint of theirs wrong? Give missing ones a confidence of 0",
            len(bad), total, MAX_MISFIT_BOX, _some(bad),
        )  # fmt: skip
    return rows[~far]


def _some(rows: torch.Tensor) -> str:
    """The first of them."""
    return ", ".join(map(str, rows[:5].tolist())) + (", ..." if len(rows) > 5 else "")


def doubt_side(
    good: torch.Tensor,
    points: torch.Tensor,
    K: torch.Tensor,
    confidence: torch.Tensor | None,
    assets: HandAssets,
    options: KeypointFitOptions,
    side: str,
    device: torch.device | str,
) -> None:
    """Warn of keypoints (N,21,2) px, right-hand convention, that are, all together, the other side's hand.

    Args:
        good: (M,) rows that `doubt_points` believes.
    """
    if len(good) < ENOUGH:
        return
    some = good[np.linspace(0, len(good) - 1, min(len(good), LOOKED_AT)).astype(int)]
    trust = torch.ones_like(points[some, :, 0]) if confidence is None else confidence[some]
    rows = Predictions(
        image_id=some,
        subject_id=0 * some,
        sequence_id=0 * some,
        is_left=np.full(len(some), side == "left"),
        K=K[some],
        keypoints_2d=torch.where(trust[..., None] > 0, points[some], 0.0),
        keypoint_confidence=trust,
        image_name=[f"row {row}" for row in some.tolist()],
        source=f"side={side!r}",
    )
    try:
        check_stated_side(rows, assets, options, device, "is the side right, and x before y?")
    except CalibrationError as error:
        logger.warning("%s", error)


def doubt_joints(
    assets: HandAssets,
    points: torch.Tensor,
    trust: torch.Tensor | None,
    residual: torch.Tensor,
    options: JointFitOptions,
    side: str,
) -> None:
    """Warn of points (N,21,3) m, right-hand convention, that are no hand's, or the other side's."""
    off = residual[torch.isfinite(residual)]
    far = torch.nonzero(residual > MAX_MISFIT_MM)[:, 0]
    if len(off) and float(off.median()) > MAX_MISFIT_MM:
        logger.warning(
            "hands lie %.0f mm off their joints (median): are they the 21 in standard order, the wrist, then thumb to "
            "little finger from the palm outwards?", float(off.median()),
        )  # fmt: skip
        return
    if len(far):
        logger.warning(
            "%d of %d hands lie more than %.0f mm off their joints (rows %s): is a joint of theirs wrong? Give missing "
            "ones a confidence of 0", len(far), len(off), MAX_MISFIT_MM, _some(far),
        )  # fmt: skip
    other = mirrored(assets, points, trust, options, side)
    if other is not None:
        logger.warning("%s", other)


def mirrored(
    assets: HandAssets, points: torch.Tensor, trust: torch.Tensor | None, options: JointFitOptions, side: str
) -> str | None:
    """What speaks for points (N,21,3) m, right-hand convention, being the other side's; None where nothing does."""
    some = np.linspace(0, len(points) - 1, min(len(points), LEARN_FROM)).astype(int)  # more say the same
    ratio = mirror_ratio(assets, points[some], None if trust is None else trust[some], options)
    ratio = ratio[torch.isfinite(ratio)]
    if len(ratio) and float(ratio.median()) < (MIRRORED if len(ratio) >= LEAST_HANDS else ONE_MIRRORED):
        return (
            f"{len(ratio)} joints' mirror images are better {side} hands (misfit times {float(ratio.median()):.2f}, "
            "median): are axes left-handed (Unity), or the hands of the other side?"
        )
    return None
