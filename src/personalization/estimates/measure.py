"""An estimator's trust from labelled data: where it differs from the truth, and how much of that repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import roma
import torch

from src.personalization.calibration.images import rows_by_subject
from src.personalization.calibration.population import Population
from src.personalization.estimates.evidence import prepare, turn_of
from src.personalization.estimates.trust import Trust, is_projected
from src.personalization.fitting.from_joints import JointFitOptions, fit_joints
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.solver.status import CalibrationError, usable
from template import HandAssets
from utils.artifacts import Predictions

#: Before anything is known: wide.
WIDE = Trust("", "nothing", "", 0.05, 15.0, 0.2, 0.3, 0.3, [0.5] * 10, [0.0] * 10, [0.5] * 10, [0.5] * 10)
#: Times the shared error of betas that 3D joints say, where the 2D points count beside them: what the points say of the
#: shape was partly in those betas already. Where the points are the joints' projection they count as one image, which
#: changes hardly anything, and betas are believed as they were measured. On 88 simulated people of four seeds, none of
#: the benchmark's, zero-pose errors without a cue were 22 and 23% under those of the mean of their betas with factors
#: of 1.3 and 1.6 (HaMeR-like, own betas; SAM-3D-Body-like, of joints), and are 28 and 35% with none; lengths were 0.95
#: and 0.92 standard deviations off, and are 1.03. MediaPipe-like: 14% with 1.6, 13% with none, lengths 1.06 and 1.10.
COUNTED_TWICE = 1.6
#: Nothing is taken for surer than this, in the unit of each number.
_LEAST = 1e-3


def measure_trust(
    estimates: Predictions,
    labels: Predictions,
    assets: HandAssets,
    people: Population,
    basis: str,
    landmarks: LandmarkModel | None = None,
    theirs: bool | None = None,
) -> Trust:
    """Errors of estimates (N rows) against labels of the same hands, row by row.

    Args:
        labels: keypoints_2d px, joints_3d m (metric, camera axes), subject_id; betas of the hand ``assets`` where they
            are known, else those that the joints of each subject say together.
        basis: in words, for the file. landmarks, theirs: see `evidence.prepare`.

    Raises:
        CalibrationError: rows that do not match, labels without keypoints or joints, fewer than five people.
    """
    if len(estimates) != len(labels) or not np.array_equal(estimates.is_left, labels.is_left):
        raise CalibrationError(f"{labels.source} and {estimates.source} are not the same hands, row by row")
    if labels.keypoints_2d is None or labels.joints_3d is None or estimates.keypoints_2d is None:
        raise CalibrationError(f"{labels.source}: labels need keypoints_2d and joints_3d")
    groups = list(rows_by_subject(labels).values())
    if len(groups) < 5:
        raise CalibrationError(f"{labels.source} has {len(groups)} people; what differs between people needs 5 or more")
    truth = torch.as_tensor(labels.joints_3d).double()
    betas = true_betas(labels, assets, people, groups)
    pose = fit_joints(assets, truth, betas=torch.as_tensor(betas), options=JointFitOptions(std=0.001)).pose

    joint_std = WIDE.joint_std_mm
    if estimates.joints_3d is not None:
        points = (torch.as_tensor(estimates.joints_3d).double() @ turn_of(estimates).mT).numpy()
        joint_std = 1000 * max(similarity_std(points, labels.joints_3d), 1e-4)
    # Poses and betas of 3D joints depend on how far the joints are believed: as they will be, not as before.
    wide = replace(WIDE, name=estimates.model_name, joint_std_mm=joint_std)
    ready = prepare(estimates, assets, people, wide, landmarks, theirs)
    assert ready.rows.pose is not None
    off = roma.rotmat_to_rotvec(pose.mT @ torch.as_tensor(ready.rows.pose).double()).numpy()
    box = np.ptp(labels.keypoints_2d, axis=1).max(axis=1)[:, None, None].clip(1.0)
    pixels = (estimates.keypoints_2d - labels.keypoints_2d) / box
    changes: dict = {"joint_std_mm": joint_std}
    if ready.rows.betas is not None:
        found = shape_errors(ready.rows.betas - people.betas_mean, betas - people.betas_mean, groups)
        factor = 1.0 if is_projected(estimates.model_name) else COUNTED_TWICE
        changes |= {key: value.round(4).tolist() for key, value in found.items()}
        changes["shape_shared_std"] = (factor * found["shape_shared_std"]).round(4).tolist()
    return replace(
        WIDE,
        name=estimates.model_name,
        basis=basis,
        hand_hash=assets.hash,
        keypoint_std_box=max(float(np.sqrt((pixels**2).mean())), _LEAST),
        shared=float(np.clip(shared_part(off[:, 1:].reshape(len(off), -1), groups), 0.01, 1.0)),
        root_std=max(float(np.sqrt((off[:, 0] ** 2).mean())), _LEAST),
        finger_std=max(float(np.sqrt((off[:, 1:] ** 2).mean())), _LEAST),
        **changes,
    )


def true_betas(labels: Predictions, assets: HandAssets, people: Population, groups: list[np.ndarray]) -> np.ndarray:
    """(N,10): as labelled, or each subject's mean of what its joints (m) say."""
    if labels.betas is not None:
        return labels.betas.astype(np.float64)
    options = JointFitOptions(shape_prior=people.shape_prior)
    found = fit_joints(assets, torch.as_tensor(labels.joints_3d).double(), options=options)
    each, good = found.betas.numpy(), usable(found.status).numpy()
    for own in groups:
        each[own] = each[own[good[own]] if good[own].any() else own].mean(axis=0)
    return each


def shape_errors(seen: np.ndarray, true: np.ndarray, groups: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Gain, offset, shared and single errors (10) of betas ``seen`` (N,10) of ``true`` ones, about the mean person.

    Least squares over people, each beta by itself.
    """
    means = np.stack([seen[own].mean(axis=0) for own in groups])
    truth = np.stack([true[own[0]] for own in groups])
    centred = truth - truth.mean(axis=0)
    gain = (means * centred).sum(axis=0) / (centred**2).sum(axis=0).clip(1e-9)
    offset = means.mean(axis=0) - gain * truth.mean(axis=0)
    single = sum(((seen[own] - seen[own].mean(axis=0)) ** 2).sum(axis=0) for own in groups)
    single = single / max(len(seen) - len(groups), 1)
    between = ((means - gain * truth - offset) ** 2).sum(axis=0) / (len(groups) - 2)
    shared = between - single * np.mean([1 / len(own) for own in groups])
    stds = {"shape_shared_std": np.sqrt(shared.clip(_LEAST)), "shape_std": np.sqrt(single.clip(_LEAST))}
    return {"shape_gain": gain, "shape_offset": offset, **stds}


def shared_part(errors: np.ndarray, groups: list[np.ndarray]) -> float:
    """Intraclass correlation of errors (N,D): one-way analysis of variance over people."""
    count = np.mean([len(own) for own in groups])
    within = sum(((errors[own] - errors[own].mean(axis=0)) ** 2).sum() for own in groups) / (len(errors) - len(groups))
    between = sum(len(own) * (errors[own].mean(axis=0) ** 2).sum() for own in groups) / len(groups)
    return float((between - within) / max(between + (count - 1) * within, 1e-30))


def similarity_std(points: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square coordinate (m) left of points (N,21,3) after centre and scale are at their best."""
    points, truth = (v - v.mean(axis=1, keepdims=True) for v in (points.astype(np.float64), truth.astype(np.float64)))
    scale = (points * truth).sum(axis=(1, 2)) / (points**2).sum(axis=(1, 2)).clip(1e-12)
    return float(np.sqrt(((scale[:, None, None] * points - truth) ** 2).mean()))
