"""What every official result file must satisfy; a server's verdict in advance, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from src.evaluation.shape import bone_lengths
from utils.joints import MANO_TO_STANDARD, STANDARD_TO_MANO

PALM_LENGTH = (0.02, 0.3)  # metres, wrist to middle mcp; adults have about 0.09
FARTHEST = 10.0  # metres from the camera, of any point
DEPTH = (0.1, 5.0)  # metres, wrist in front of the camera
BENT_BACK = 0.2  # median of a data set's fingers, over their length; stretched ones reach 0.1
KNUCKLES, TIPS = [5, 9, 13, 17], [8, 12, 16, 20]  # standard order, without the thumb's


class SubmissionError(ValueError):
    """A result file, or what was to be written into one, is not what the server takes."""


def check_order(ids: Sequence[str] | np.ndarray, expected: Sequence[str] | np.ndarray, what: str) -> None:
    """Raise SubmissionError unless ``ids`` equals ``expected`` (both 1D), element by element."""
    ids, expected = np.asarray(ids), np.asarray(expected)
    if len(ids) != len(expected):
        missing = [str(name) for name in expected[~np.isin(expected, ids)][:3]]
        raise SubmissionError(
            f"{what}: {len(ids)} predictions for {len(expected)} images (first missing: {missing or 'none'}); "
            "predict the whole evaluation set, invalid and left-hand frames included where the server wants them"
        )
    wrong = np.flatnonzero(ids != expected)
    if len(wrong):
        first = wrong[0]
        raise SubmissionError(
            f"{what}: row {first} is image {ids[first]}, but the official order has {expected[first]} there "
            f"({len(wrong)} rows differ); sort by the official image id"
        )


def check_points(points: np.ndarray, count: int, per_sample: int, what: str) -> np.ndarray:
    """``points`` as float64 (N,P,3), metres, or a SubmissionError that says what is wrong."""
    points = np.asarray(points, dtype=np.float64)
    if points.shape != (count, per_sample, 3):
        raise SubmissionError(f"{what} has shape {points.shape}; it must be {(count, per_sample, 3)}")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))
    if len(bad):
        raise SubmissionError(f"{what}: row {bad[0]} is not finite ({len(bad)} such rows)")
    return points


def check_distance(points: np.ndarray, names: Sequence[str] | np.ndarray, what: str) -> None:
    """Raise SubmissionError, naming the image, if a point (N,P,3), metres, is more than `FARTHEST` from the camera.

    One such hand is a solver or a network that ran away, which the medians of `check_hands` do not see. It would
    outweigh all others in the server's means.
    """
    distance = np.linalg.norm(points, axis=-1).max(axis=1, initial=0.0)
    rows = np.flatnonzero(distance > FARTHEST)
    if len(rows):
        raise SubmissionError(
            f"{what}: the hand of image {names[rows[0]]} is {distance[rows[0]]:.3g} m away ({len(rows)} beyond "
            f"{FARTHEST:g} m). Leave no failed fit in the predictions: predict or fit these images again"
        )


def check_hands(joints: np.ndarray, vertices: np.ndarray | None, what: str) -> None:
    """Raise SubmissionError unless these look like hands in metres, before an OpenCV camera, in standard order.

    Judged by medians over samples, so that a few failed predictions pass but a wrong unit, axis or
    joint order does not.

    Args:
        joints: (N,21,3); vertices: (N,778,3) or None.
    """
    palm = float(np.median(np.linalg.norm(joints[:, 9] - joints[:, 0], axis=-1)))
    if not PALM_LENGTH[0] < palm < PALM_LENGTH[1]:
        raise SubmissionError(
            f"{what}: wrist to middle knuckle measures {palm:.4g} (median); a hand in metres has about 0.09. "
            "Wrong unit, or an empty prediction"
        )
    depth = float(np.median(joints[:, 0, 2]))
    if not DEPTH[0] < depth < DEPTH[1]:
        raise SubmissionError(
            f"{what}: the wrist's depth is {depth:.4g} m (median); it must lie in {DEPTH} in front of the camera. "
            "Negative: wrong axes (OpenCV against OpenGL); near zero: root-relative, a translation is missing"
        )
    reach, *others = (
        float(np.median(bone_lengths(joints[:, list(order)]).sum(axis=1)))
        for order in (range(21), MANO_TO_STANDARD, STANDARD_TO_MANO)
    )
    if reach > min(others):
        raise SubmissionError(
            f"{what}: the 21 joints make shorter bones in another order than in the one expected here; "
            "FreiHAND and DexYCB use the standard order, HO-3D MANO's with the tips behind"
        )
    roots = np.median(np.linalg.norm(joints[:, [1, *KNUCKLES]] - joints[:, :1], axis=-1), axis=0)
    if roots.argmin() > 0:
        raise SubmissionError(
            f"{what}: the finger that begins nearest to the wrist is not the first one, as a thumb's does; the order "
            "is thumb, index, middle, ring, little finger"
        )
    if vertices is not None:  # right hands alone; DexYCB's file has both: `check_sides`
        gap = float(np.median(np.linalg.norm(vertices.mean(axis=1) - joints.mean(axis=1), axis=-1)))
        if gap > 0.1:
            raise SubmissionError(
                f"{what}: mesh and joints lie {gap:.3g} m apart (median); they must share frame and unit"
            )
        check_sides(joints, np.zeros(len(joints), dtype=bool), what)


def check_sides(joints: np.ndarray, is_left: np.ndarray, what: str) -> None:
    """Raise SubmissionError if the hands of a side are mirrored, judged by their median.

    Args:
        joints: (N,21,3) in our right-hand convention, of left hands (N,) mirrored.
    """
    bends = bends_of_right_hands(joints)
    for left in (False, True):
        bend = float(np.median(bends[is_left == left])) if (is_left == left).any() else 0.0
        if bend < -BENT_BACK:
            raise SubmissionError(
                f"{what}: the fingers bend backwards (by {-bend:.2g} of their length, median): all "
                f"{'left' if left else 'right'} hands are mirrored; x is to the right and y down in the original images"
            )


def bends_of_right_hands(joints: np.ndarray) -> np.ndarray:
    """(N,) of joints (N,21,3) in standard order: how far the fingertips lie to the palm's side of the knuckles, as a
    part of their distance; of a right hand's mirror image the negative."""
    out = (joints[:, TIPS] - joints[:, KNUCKLES]).mean(axis=1)
    palm = np.cross(joints[:, KNUCKLES[0]] - joints[:, 0], joints[:, KNUCKLES[-1]] - joints[:, 0])
    lengths = np.linalg.norm(out, axis=1) * np.linalg.norm(palm, axis=1)
    return (out * palm).sum(axis=1) / np.maximum(lengths, 1e-12)
