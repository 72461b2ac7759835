"""Finger postures between a grasp's pre-shape and its closed end, each finger on its own."""

from __future__ import annotations

import numpy as np

from template.stand_in.grasps import angles_to_pose, clip_angles, grasp_angles

#: Finger (thumb 0 ... little 4) of each of the 21 angles of `template.stand_in.grasps`.
_FINGER_OF_ANGLE = np.array([1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [0] * 5)

#: Finger (thumb 0 ... little 4) of each of MANO's 16 joints; -1 for the wrist.
FINGER_OF_JOINT = np.array([-1, 1, 1, 1, 2, 2, 2, 4, 4, 4, 3, 3, 3, 0, 0, 0])

#: A finger may close further than its grasp's end, on a thin object.
MAX_CLOSURE = 1.5


def closure_angles(grasp: str, closure: np.ndarray) -> np.ndarray:
    """The 21 anatomical angles, radians, with ``closure`` (5,) of thumb, index, middle, ring, little.

    0 is the grasp's pre-shape, 1 its end; up to `MAX_CLOSURE` the fingers go on the same way.
    """
    opened, closed = grasp_angles(grasp, 0.0), grasp_angles(grasp, 1.0)
    return clip_angles(opened + closure[_FINGER_OF_ANGLE] * (closed - opened))


def finger_pose(angles: np.ndarray) -> np.ndarray:
    """Axis-angles (F, 45), radians, MANO order, right hand, of anatomical angles (F, 21), radians."""
    return np.stack([angles_to_pose(row) for row in clip_angles(angles)])
