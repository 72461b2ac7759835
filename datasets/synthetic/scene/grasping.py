"""How each kind of grasp approaches and holds its object, and where the fingers stop.

Frames: the table frame of `datasets.synthetic.scene.cameras`; the hand's is MANO's (right hand: fingers -x,
back +y, thumb +z). A hand's heading is three angles: yaw (0 = fingers away from the subject, positive
to the left), pitch (fingers down) and roll (0 = palm down, 90 degrees = thumb up).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from datasets.synthetic.scene.objects import CatalogueObject
from template import HandModel, axis_angle_to_pose
from template.stand_in.grasps import angles_to_pose, clip_angles, grasp_angles

#: Finger (thumb 0 ... little 4) of each of the 21 angles of `template.stand_in.grasps`.
_FINGER_OF_ANGLE = np.array([1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [0] * 5)
#: Finger (thumb 0 ... little 4) of each of MANO's 16 joints; -1 for the wrist.
FINGER_OF_JOINT = np.array([-1, 1, 1, 1, 2, 2, 2, 4, 4, 4, 3, 3, 3, 0, 0, 0])
#: A finger may close further than its grasp's end, on a thin object.
MAX_CLOSURE = 1.5
# Columns: MANO's axes in the table frame for a palm-down hand that points away from the subject.
_PALM_DOWN = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_REFERENCE_LENGTH = 0.095  # wrist to middle knuckle that the offsets below were set with, metres
_LEVELS = np.linspace(0.0, MAX_CLOSURE, 21)
_ALLOWED_DEPTH = 0.0015  # fingers may press this far into an object, metres


@dataclass(frozen=True)
class GraspStyle:
    """One way to take an object."""

    fingers: str  # a key of template.stand_in.grasps.GRASPS
    heading: tuple[float, float, float]  # mean yaw, pitch, roll, degrees
    from_above: bool  # holds the top of the object rather than its middle
    forward: float  # object's held point ahead of the wrist, metres, for a hand of the reference length
    palmar: float  # ... and away from the palm; for side grasps the object's half thickness is added
    thin_axis: str  # a box turns its thin side along the hand's "forward" or its "palmar" direction


STYLES = {
    "side": GraspStyle("power_cylinder", (38, 8, 78), False, 0.098, 0.017, "palmar"),
    "side_box": GraspStyle("box", (34, 10, 72), False, 0.122, 0.020, "palmar"),
    "top": GraspStyle("power_sphere", (22, 38, 10), True, 0.118, 0.052, "forward"),
    "top_box": GraspStyle("box", (20, 42, 10), True, 0.118, 0.058, "forward"),
    "pinch_box": GraspStyle("tripod", (24, 52, 16), True, 0.125, 0.062, "forward"),
}


def closure_angles(grasp: str, closure: np.ndarray) -> np.ndarray:
    """The 21 anatomical angles, radians, with ``closure`` (5,) of thumb, index, middle, ring, little.

    0 is the grasp's pre-shape, 1 its end; up to `MAX_CLOSURE` the fingers go on the same way.
    """
    opened, closed = grasp_angles(grasp, 0.0), grasp_angles(grasp, 1.0)
    return clip_angles(opened + closure[_FINGER_OF_ANGLE] * (closed - opened))


def finger_pose(angles: np.ndarray) -> np.ndarray:
    """Axis-angles (F, 45), radians, MANO order, right hand, of anatomical angles (F, 21), radians."""
    return np.stack([angles_to_pose(row) for row in clip_angles(angles)])


def heading_rotation(heading: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3), MANO frame to table frame, of headings (..., 3) in degrees."""
    heading = np.asarray(heading, dtype=np.float64)
    angles = np.stack([heading[..., 0], -heading[..., 1], heading[..., 2]], axis=-1)
    turn = Rotation.from_euler("ZXY", angles.reshape(-1, 3), degrees=True).as_matrix()
    return (turn @ _PALM_DOWN).reshape(*heading.shape[:-1], 3, 3)


class Grip(NamedTuple):
    """A fitted grasp, in the table frame; the object stands upright."""

    object_rotation: np.ndarray  # (3, 3) object -> table
    wrist_to_object: np.ndarray  # (3,) metres, to the object's centre
    closures: np.ndarray  # (5,) of thumb, index, middle, ring, little


def fit_grip(
    hand: HandModel,
    betas: np.ndarray,
    style: GraspStyle,
    item: CatalogueObject,
    heading: np.ndarray,
    height_share: float,
) -> Grip:
    """Put the object into the pre-shaped hand and close every finger until it touches.

    Args:
        hand: the right hand, float64.
        betas: (10,).
        heading: (3,) of the hand, degrees.
        height_share: -1 (bottom) to 1 (top) of the object's height that a side grasp holds.
    """
    rotation = heading_rotation(heading)
    # Of the closing hand, about the wrist: (levels, 778, 3); and the length from wrist to middle knuckle.
    fingers = finger_pose(np.stack([closure_angles(style.fingers, np.full(5, level)) for level in _LEVELS]))
    axis_angle = torch.as_tensor(np.hstack([np.zeros((len(_LEVELS), 3)), fingers]))
    output = hand(axis_angle_to_pose(axis_angle), torch.as_tensor(betas).expand(len(_LEVELS), 10))
    length = float((output.rest_joints[0, 4] - output.rest_joints[0, 0]).norm())
    vertices = (output.vertices - output.joints[:, :1]).numpy() @ rotation.T
    object_rotation, wrist_to_object = _place_object(style, item, rotation, length, height_share)
    wrist_to_object = wrist_to_object + _clearance(vertices[0], rotation, item, object_rotation, wrist_to_object)
    depth = item.inside_depth((vertices - wrist_to_object) @ object_rotation)
    finger_of_vertex = FINGER_OF_JOINT[hand.assets.weights.argmax(axis=1)]
    closures = np.ones(5)
    for finger in range(5):  # to the level before its vertices sink in
        sinks = depth[:, finger_of_vertex == finger].max(axis=1) > _ALLOWED_DEPTH
        if sinks.any():
            closures[finger] = _LEVELS[max(int(np.argmax(sinks)) - 1, 0)]
    return Grip(object_rotation, wrist_to_object, closures)


def _place_object(
    style: GraspStyle, item: CatalogueObject, rotation: np.ndarray, length: float, height_share: float
) -> tuple[np.ndarray, np.ndarray]:
    scale = length / _REFERENCE_LENGTH
    extents = np.array(item.half_extents)
    palmar, lift = style.palmar * scale, np.array([0.0, 0.0, height_share * extents[2]])
    if style.from_above:
        lift = np.array([0.0, 0.0, extents[2] - 0.012])
    else:
        palmar += extents[1]
    held = rotation @ np.array([-style.forward * scale, -palmar, 0.006])
    thin = rotation[:, 1] if style.thin_axis == "palmar" else -rotation[:, 0]
    turn = np.arctan2(-thin[0], thin[1])  # the object's y axis along the thin direction
    return Rotation.from_euler("z", turn).as_matrix(), held - lift


def _clearance(
    open_hand: np.ndarray,
    rotation: np.ndarray,
    item: CatalogueObject,
    object_rotation: np.ndarray,
    wrist_to_object: np.ndarray,
) -> np.ndarray:
    """The smallest push (3,), forward and away from the palm, that gets the object out of the open hand."""
    forward, palmar = np.meshgrid(np.linspace(0, 0.035, 8), np.linspace(0, 0.035, 8), indexing="ij")
    pushes = -forward.reshape(-1, 1) * rotation[:, 0] - palmar.reshape(-1, 1) * rotation[:, 1]
    local = (open_hand - wrist_to_object - pushes[:, None]) @ object_rotation
    depth = item.inside_depth(local).max(axis=1)
    cost = np.maximum(depth - _ALLOWED_DEPTH, 0) * 100 + (forward + palmar).ravel()
    return pushes[int(np.argmin(cost))]
