"""Named grasps of the stand-in hand as joint angles, from pre-shaped (closure 0) to closed (closure 1), and the pose
components that plausible ones span.

Angles are anatomical and turned into MANO's 45 axis-angle numbers (15 joints, world-aligned frames)
with the axes of `template.stand_in.skeleton.bone_frame`. They are set by eye within the usual ranges
of adult joints (MCP 0-90, PIP 0-110, DIP 0-80 degrees); no recording of anybody's hand is behind them.
"""

from __future__ import annotations

import numpy as np

from template.stand_in.skeleton import bone_frame, finger_joints

#: Order of the 21 angles: for each of the four fingers spread (towards the thumb), MCP, PIP, DIP
#: flexion; then the thumb's opposition (about the hand's long axis), spread, CMC, MCP and IP flexion.
FINGER_ORDER = ("index", "middle", "ring", "little")

#: Lowest and highest angle of each kind, degrees.
_FINGER_LOW, _FINGER_HIGH = (-20.0, -15.0, 0.0, -5.0), (20.0, 92.0, 108.0, 75.0)
_THUMB_LOW, _THUMB_HIGH = (-15.0, -35.0, -15.0, -10.0, -15.0), (70.0, 20.0, 35.0, 60.0, 75.0)
ANGLE_LIMITS = np.array([_FINGER_LOW * 4 + _THUMB_LOW, _FINGER_HIGH * 4 + _THUMB_HIGH])

# Each row: index, middle, ring, little as (spread, mcp, pip, dip), then the thumb; degrees.
_FLAT = ((0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0, 0))
_RELAXED = ((-2, 22, 28, 12), (0, 27, 33, 15), (3, 31, 36, 16), (6, 33, 36, 16), (18, -4, 2, 10, 14))
_CLEAR = _RELAXED[:4] + ((8, 4, -4, 4, 4),)  # thumb out of the closing fingers' way
_REACH = ((2, 8, 14, 6), (0, 10, 16, 7), (-2, 11, 17, 7), (-4, 12, 17, 7), (28, 6, -6, 4, 6))

#: name -> (angles at closure 0, angles at closure 1)
GRASPS: dict[str, tuple[tuple, tuple]] = {
    "open": (_FLAT, ((6, -6, 2, 0), (0, -7, 2, 0), (-6, -6, 2, 0), (-12, -5, 2, 0), (-4, 10, -8, -4, -6))),
    "flat": (_FLAT, ((-3, 2, 3, 1), (0, 2, 3, 1), (4, 2, 3, 1), (9, 2, 3, 1), (4, -22, 0, 4, 4))),
    "relaxed": (_FLAT, _RELAXED),
    "power_cylinder": (
        _REACH,
        ((-1, 46, 58, 32), (0, 45, 58, 34), (3, 52, 62, 34), (7, 56, 60, 32), (50, 6, 4, 25, 28)),
    ),
    "power_sphere": (
        _REACH,
        ((5, 38, 44, 26), (0, 40, 46, 27), (-4, 40, 46, 27), (-8, 40, 44, 26), (52, 8, 4, 36, 38)),
    ),
    "pinch": (_REACH, ((-1, 47, 42, 14), (0, 40, 38, 18), (3, 32, 32, 16), (6, 26, 28, 14), (52, 0, 6, -4, -4))),
    "tripod": (_REACH, ((-9, 47, 39, 9), (-2, 54, 52, 22), (3, 54, 58, 30), (6, 54, 60, 30), (62, 2, 8, 0, -4))),
    "lateral": (_CLEAR, ((-2, 38, 66, 30), (0, 46, 72, 34), (3, 52, 74, 36), (7, 56, 72, 36), (18, -20, 0, 0, -8))),
    "hook": (_REACH, ((-1, 14, 82, 44), (0, 16, 86, 46), (3, 18, 86, 46), (7, 20, 80, 42), (2, -24, -8, 0, 16))),
    "box": (_REACH, ((2, 52, 14, 6), (0, 54, 16, 7), (-1, 55, 16, 7), (-2, 55, 16, 7), (55, -12, -1, 14, 16))),
    "pointing": (_CLEAR, ((0, 4, 6, 3), (0, 78, 98, 60), (3, 82, 98, 60), (7, 82, 92, 56), (42, 3, 12, 20, 30))),
    "fist": (_CLEAR, ((-2, 76, 98, 60), (0, 80, 100, 62), (3, 82, 98, 60), (7, 82, 92, 56), (69, 3, -15, 31, 35))),
    "spread": (_FLAT, ((12, -4, 2, 1), (1, -5, 2, 1), (-10, -4, 2, 1), (-18, -4, 2, 1), (-2, 14, -10, -4, -6))),
}

#: Grasps in which the thumb closes over the fingers, hence after them.
_THUMB_LATE = ("fist", "pointing", "lateral")

#: Spread of the variation around a named grasp, degrees: shared by a finger's joints, and single.
_FINGER_NOISE, _SINGLE_NOISE, _SPREAD_NOISE = 9.0, 3.5, 3.0


def grasp_angles(name: str, closure: float) -> np.ndarray:
    """The 21 angles (order: see `FINGER_ORDER`), radians, of a named grasp.

    Args:
        name: a key of `GRASPS`.
        closure: 0 (pre-shaped) to 1 (closed); clipped.

    Raises:
        KeyError: if the grasp is unknown; the message lists the known ones.
    """
    if name not in GRASPS:
        raise KeyError(f"grasp {name!r} is unknown; choose one of {sorted(GRASPS)}")
    first, last = (np.array([angle for group in half for angle in group], float) for half in GRASPS[name])
    closure = float(np.clip(closure, 0.0, 1.0))
    share = np.full(21, closure)
    if name in _THUMB_LATE:
        share[16:] = closure**2
    return np.radians(first + share * (last - first))


def clip_angles(angles: np.ndarray) -> np.ndarray:
    """Angles (..., 21), radians, brought within `ANGLE_LIMITS`."""
    return np.clip(angles, *np.radians(ANGLE_LIMITS))


def angles_to_rotations(angles: np.ndarray) -> np.ndarray:
    """Rotation matrices (15, 3, 3) of MANO's joints 1 to 15 from 21 angles, radians."""
    rotations = np.tile(np.eye(3), (15, 1, 1))
    for number, finger in enumerate(FINGER_ORDER):
        spread, *flexions = angles[4 * number : 4 * number + 4]
        for part, (joint, flexion) in enumerate(zip(finger_joints(finger), flexions)):
            rotations[joint - 1] = _rotation(bone_frame(finger, part)[2], flexion)
        first = finger_joints(finger)[0] - 1
        rotations[first] = _rotation(np.array([0.0, 1.0, 0.0]), spread) @ rotations[first]
    opposition, spread, *flexions = angles[16:]
    for part, (joint, flexion) in enumerate(zip(finger_joints("thumb"), flexions)):
        rotations[joint - 1] = _rotation(bone_frame("thumb", part)[2], flexion)
    first = finger_joints("thumb")[0] - 1
    swing = _rotation(np.array([1.0, 0.0, 0.0]), opposition) @ _rotation(np.array([0.0, 1.0, 0.0]), spread)
    rotations[first] = swing @ rotations[first]
    return rotations


def angles_to_pose(angles: np.ndarray) -> np.ndarray:
    """Axis-angle (45,), radians, MANO's joint order, from 21 angles, radians."""
    return np.concatenate([_rotation_vector(rotation) for rotation in angles_to_rotations(angles)])


def grasp_pose(name: str, closure: float) -> np.ndarray:
    """Axis-angle pose (45,) of `grasp_angles`: MANO's joints 1 to 15, radians, mean pose included."""
    return angles_to_pose(grasp_angles(name, closure))


def rotations_from_pose(pose: np.ndarray) -> np.ndarray:
    """Rotation matrices (15, 3, 3) from axis-angle (45,), radians (Rodrigues)."""
    return np.stack([_rotation(vector, np.linalg.norm(vector)) for vector in np.reshape(pose, (15, 3))])


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


def pose_components(count: int = 4000, seed: int = 1, floor: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """hands_mean (45,) and hands_components (45, 45): the principal directions of `sample_angles`.

    Rows are orthogonal and as long as the standard deviation along them (radians), as in MANO, so that
    unit-normal coefficients give back the spread of the grasps; directions that grasps never use keep
    a small length `floor`, so that the basis is complete and can be inverted.
    """
    rng = np.random.default_rng(seed)
    poses = np.array([angles_to_pose(sample_angles(rng)) for _ in range(count)])
    mean = poses.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(poses.T))
    deviations = np.sqrt(np.maximum(values[::-1], floor**2))
    components = vectors[:, ::-1].T
    signs = np.sign(components[np.arange(45), np.argmax(np.abs(components), axis=1)])
    return mean, components * (signs * deviations)[:, None]


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    length = np.linalg.norm(axis)
    if length < 1e-12:
        return np.eye(3)
    x, y, z = axis / length
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _rotation_vector(rotation: np.ndarray) -> np.ndarray:
    skew = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    sine, cosine = np.linalg.norm(skew) / 2, (np.trace(rotation) - 1) / 2
    if sine < 1e-12:  # grasps never reach half a turn
        return skew / 2
    return skew / (2 * sine) * np.arctan2(sine, cosine)
