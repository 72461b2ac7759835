"""Are the hands of the side that they are said to be? A mirrored hand bends its fingers backwards."""

from __future__ import annotations

import logging

import numpy as np
import torch

from src.personalization.fitting.from_joints import JointFitOptions, fit_joints
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.solver.status import CalibrationError, usable
from template import HandAssets
from utils.artifacts import Predictions

logger = logging.getLogger(__name__)

#: A hand is taken for the other side's if its mirror image fits this much better (ratio of root mean square distances).
#: Of 400 simulated hands and of the real ones of ../shared/data none came below 0.95, HaMeR-like mirrored ones to 0.5.
ONE = 0.8
#: The same of the median of a side's hands, and how many it takes: then the file is wrong, and not single hands.
ALL, LEAST = 0.93, 4


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
    options = JointFitOptions(std=std, scale_std=0.15, landmarks=landmarks)
    signs = joints.new_tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])  # the hand as it is, and its mirror image
    one, other = (fit_joints(assets, sign * joints, options=options) for sign in signs)
    ratio = (other.residual / one.residual.clamp_min(1e-9)).cpu().numpy()
    good = (usable(one.status) & usable(other.status)).cpu().numpy()
    for left in (False, True):
        own = good & (estimates.is_left == left)
        mirrored = not known and own.sum() >= LEAST and np.median(ratio[own]) < ALL
        bad = np.flatnonzero(own & (ratio < (1.0 if mirrored else ONE)))
        if not len(bad):
            continue
        names = bad.astype(str) if estimates.image_name is None else estimates.image_name[bad]
        side, true = ("left", "right") if left else ("right", "left")
        said = (
            f"{estimates.source}: {len(bad)} of {int(own.sum())} {side} hands bend their fingers like {true} ones, "
            f"such as {', '.join(dict.fromkeys(names.tolist()[:3]))}"
        )
        if mirrored:
            raise CalibrationError(
                f"{said}: the file's sides are mirrored. Give --sides (mediapipe), --side_of, or mend is_left / right"
            )
        logger.warning("%s; are their sides right?", said)
