"""How each kind of grasp approaches and holds its object, and where the fingers stop.

Frames: the table frame of `datasets.synthetic.cameras`; the hand's is MANO's (right hand: fingers -x,
back +y, thumb +z). A hand's heading is three angles: yaw (0 = fingers away from the subject, positive
to the left), pitch (fingers down) and roll (0 = palm down, 90 degrees = thumb up).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from datasets.synthetic.fingers import FINGER_OF_JOINT, MAX_CLOSURE, closure_angles, finger_pose
from datasets.synthetic.objects import CatalogueObject
from template import HandModel, axis_angle_to_pose

# Columns: MANO's axes in the table frame for a palm-down hand that points away from the subject.
_PALM_DOWN = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_REFERENCE_LENGTH = 0.095  # wrist to middle knuckle that the offsets below were set with, metres
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


def heading_rotation(heading: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3), MANO frame to table frame, of headings (..., 3) in degrees."""
    heading = np.asarray(heading, dtype=np.float64)
    angles = np.stack([heading[..., 0], -heading[..., 1], heading[..., 2]], axis=-1)
    turn = Rotation.from_euler("ZXY", angles.reshape(-1, 3), degrees=True).as_matrix()
    return (turn @ _PALM_DOWN).reshape(*heading.shape[:-1], 3, 3)


def place_hand(
    style: GraspStyle, item: CatalogueObject, heading: np.ndarray, hand_length: float, height_share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where the object is relative to a hand that holds it upright.

    Args:
        heading: (3,) degrees.
        hand_length: wrist to middle knuckle, metres.
        height_share: -1 (bottom) to 1 (top) of the object's height that a side grasp holds.

    Returns:
        Rotation (3, 3) object -> table, and the vector (3,) from the wrist to the object's centre,
        both in the table frame, metres.
    """
    rotation = heading_rotation(heading)
    scale = hand_length / _REFERENCE_LENGTH
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


def closures_on_object(
    hand: HandModel, betas: np.ndarray, style: GraspStyle, item: CatalogueObject,
    hand_rotation: np.ndarray, object_rotation: np.ndarray, wrist_to_object: np.ndarray, levels: int = 16,
) -> np.ndarray:
    """How far each finger (thumb ... little) closes until it touches the object: (5,) in [0, MAX_CLOSURE].

    Every finger is tried on its own at ``levels`` closures; it stops at the last one before its
    vertices sink into the object's primitive.
    """
    tried = np.linspace(0.0, MAX_CLOSURE, levels)
    fingers = finger_pose(np.stack([closure_angles(style.fingers, np.full(5, level)) for level in tried]))
    axis_angle = torch.as_tensor(np.hstack([np.zeros((levels, 3)), fingers]))
    output = hand(axis_angle_to_pose(axis_angle), torch.as_tensor(betas).expand(levels, 10))
    vertices = (output.vertices - output.joints[:, :1]).numpy() @ hand_rotation.T
    depth = item.inside_depth((vertices - wrist_to_object) @ object_rotation)
    finger_of_vertex = FINGER_OF_JOINT[hand.assets.weights.argmax(axis=1)]
    closures = np.empty(5)
    for finger in range(5):
        sinks = depth[:, finger_of_vertex == finger].max(axis=1) > _ALLOWED_DEPTH
        first = int(np.argmax(sinks)) if sinks.any() else levels - 1
        closures[finger] = tried[max(first - 1, 0)] if sinks.any() else 1.0
    return closures
