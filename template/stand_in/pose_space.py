"""Pose components: principal directions of plausible grasps, carrying their spreads like MANO's."""

from __future__ import annotations

import numpy as np

from template.stand_in.grasps import GRASPS, angles_to_pose, clip_angles, grasp_angles

#: Spread of the variation around a named grasp, degrees: shared by a finger's joints, and single.
_FINGER_NOISE, _SINGLE_NOISE, _SPREAD_NOISE = 9.0, 3.5, 3.0


def sample_angles(rng: np.random.Generator) -> np.ndarray:
    """One plausible hand: the 21 angles, radians, of two blended grasps with correlated variation."""
    names = list(GRASPS)
    first, second = rng.choice(len(names), 2)
    share = rng.beta(0.5, 0.5) if rng.random() < 0.4 else 0.0
    closure = rng.random()
    angles = (1 - share) * grasp_angles(names[first], closure) + share * grasp_angles(names[second], closure)
    common = 6.0 * rng.standard_normal()  # all fingers together
    noise = _SINGLE_NOISE * rng.standard_normal(21)
    for finger in range(4):
        curl = common + _FINGER_NOISE * rng.standard_normal()
        # DIP follows PIP at about two thirds: the tendons couple them.
        noise[4 * finger : 4 * finger + 4] += np.array([0.0, 0.6, 1.0, 0.65]) * curl
        noise[4 * finger] = _SPREAD_NOISE * rng.standard_normal()
    noise[16:] += rng.standard_normal() * np.array([4.0, -2.0, 2.0, 4.0, 5.0])
    return clip_angles(angles + np.radians(noise))


def sample_poses(rng: np.random.Generator, count: int) -> np.ndarray:
    """Axis-angle poses (N, 45), radians."""
    return np.array([angles_to_pose(sample_angles(rng)) for _ in range(count)])


def pose_components(count: int = 4000, seed: int = 1, floor: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """hands_mean (45,) and hands_components (45, 45).

    Rows are orthogonal and as long as the standard deviation along them (radians), as in MANO, so that
    unit-normal coefficients give back the spread of the grasps; directions that grasps never use keep
    a small length `floor`, so that the basis is complete and can be inverted.
    """
    poses = sample_poses(np.random.default_rng(seed), count)
    mean = poses.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(poses.T))
    deviations = np.sqrt(np.maximum(values[::-1], floor**2))
    components = vectors[:, ::-1].T
    signs = np.sign(components[np.arange(45), np.argmax(np.abs(components), axis=1)])
    return mean, components * (signs * deviations)[:, None]
