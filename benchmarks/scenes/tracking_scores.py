"""How well hands are followed: what was reported in each frame of a clip, against the truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from utils.camera import project_numpy

#: A reported hand further from the true one, over the true box's side, is not that hand.
NEAR = 0.5


@dataclass
class Reported:
    """A hand that was reported in a frame: number of its track, side, and joints (21,3) m in the camera frame."""

    track: int
    is_left: bool
    joints: np.ndarray


@dataclass
class ClipScores:
    """Of one clip, over frames and hands that are visible.

    Attributes:
        errors: wrist-relative mean joint errors, mm, one a visible hand and frame, NaN where it was lost.
        swaps: how often a hand's track changed from one frame in which it was found to the next.
        wrong_sides: hands reported as the other side; false: hands reported where none is.
    """

    errors: list[float] = field(default_factory=list)
    swaps: int = 0
    wrong_sides: int = 0
    false: int = 0


def score_clip(
    frames: list[list[Reported]], is_left: list[bool], joints: np.ndarray, visible: np.ndarray, K: np.ndarray
) -> ClipScores:
    """Compare F frames' reports with H hands.

    Args:
        is_left: (H,); joints: (H,F,21,3) m; visible: (H,F); K: (3,3) px.
    """
    scores, last = ClipScores(), [0] * len(is_left)
    for frame, reports in enumerate(frames):
        owner = _assign(reports, joints[:, frame], K)
        scores.false += sum(one not in owner.values() for one in range(len(reports)))
        for hand, left in enumerate(is_left):
            if not visible[hand, frame]:
                continue
            if hand not in owner:
                scores.errors.append(np.nan)
                continue
            report, truth = reports[owner[hand]], joints[hand, frame]
            off = (report.joints - report.joints[0]) - (truth - truth[0])
            scores.errors.append(1000 * float(np.linalg.norm(off, axis=1).mean()))
            scores.swaps += int(last[hand] not in (0, report.track))
            scores.wrong_sides += int(report.is_left != left)
            last[hand] = report.track
    return scores


def _assign(reports: list[Reported], joints: np.ndarray, K: np.ndarray) -> dict[int, int]:
    """Hand -> place in ``reports``, by the distance of projected joints."""
    if not reports:
        return {}
    truth = [project_numpy(hand, K) for hand in joints]
    sides = [np.ptp(points, axis=0).max() for points in truth]
    costs = np.array([
        [np.linalg.norm(project_numpy(one.joints, K) - points, axis=1).mean() / side for one in reports]
        for points, side in zip(truth, sides, strict=True)
    ])  # fmt: skip
    rows, columns = linear_sum_assignment(np.minimum(costs, 1e3))
    return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if costs[r, c] <= NEAR}


def summary(tracked: list[ClipScores], labelled: list[ClipScores]) -> dict[str, float | int]:
    """Over clips; errors are compared where both the tracker and the label boxes gave a hand."""
    means, lost, seen = [], 0, 0
    for ours, labels in zip(tracked, labelled, strict=True):
        both = np.isfinite(ours.errors) & np.isfinite(labels.errors)
        lost, seen = lost + int(np.isnan(ours.errors).sum()), seen + len(ours.errors)
        means.append((np.mean(np.array(ours.errors)[both]), np.mean(np.array(labels.errors)[both])))
    ours, theirs = np.mean(means, axis=0)
    return {
        "tracked_mm": round(float(ours), 2),
        "label_boxes_mm": round(float(theirs), 2),
        "lost": round(lost / max(seen, 1), 4),
        "worst_ratio": round(float(max(one / other for one, other in means)), 3),
        "swaps": sum(one.swaps for one in tracked),
        "wrong_sides": sum(one.wrong_sides for one in tracked),
        "false_hands": sum(one.false for one in tracked),
    }
