"""The mean adult skeleton of the stand-in hand, in MANO's rest frame.

Frame (right hand, zero pose, metres): fingers towards -x, back of the hand +y, palm -y, thumb +z,
wrist where MANO has it. Finger flexion is a positive rotation about z.

Lengths of the phalanges and of the thumb's metacarpal are the means of Buryanov and Kotiuk, "Proportions
of hand segments", Int. J. Morphol. 28(3), 755-758, 2010 (adults' radiographs), as commonly quoted (the
paper was not at hand), the soft tissue in front of the last bone added to it. Directions, the places of the
joints across the palm and the soft-tissue radii are ours, chosen by eye so that the hand's length,
breadth and thickness come out at the adult means of `template.stand_in.population`.
"""

from __future__ import annotations

import numpy as np

#: Fingers in the order of MANO's joints; joint numbers are 1 + 3 * finger + part.
MANO_FINGERS = ("index", "middle", "little", "ring", "thumb")

WRIST = np.array([0.0957, 0.0064, 0.0062])

#: First joint of each finger (MCP; CMC of the thumb), metres.
_BASES = {
    "index": (0.0075, 0.0055, 0.0265),
    "middle": (0.0010, 0.0075, 0.0045),
    "ring": (0.0085, 0.0055, -0.0160),
    "little": (0.0200, 0.0015, -0.0340),
    "thumb": (0.0735, -0.0030, 0.0255),
}

#: Lengths of the three links in millimetres: phalanges, the last one with its soft tissue (3.7 to 4.0);
#: for the thumb metacarpal, proximal, distal.
LINK_LENGTHS_MM = {
    "index": (39.78, 22.38, 15.82 + 3.84),
    "middle": (44.63, 26.33, 17.40 + 3.95),
    "ring": (41.37, 25.65, 17.30 + 3.95),
    "little": (32.74, 18.11, 15.96 + 3.73),
    "thumb": (46.22, 31.57, 21.67 + 3.84),
}

#: Directions of the three links in the flat hand (normalised on use).
_DIRECTIONS = {
    "index": ((-1, 0.00, 0.085), (-1, -0.04, 0.06), (-1, -0.09, 0.04)),
    "middle": ((-1, 0.00, -0.005), (-1, -0.04, -0.01), (-1, -0.09, -0.01)),
    "ring": ((-1, 0.00, -0.105), (-1, -0.04, -0.09), (-1, -0.09, -0.07)),
    "little": ((-1, 0.00, -0.225), (-1, -0.04, -0.20), (-1, -0.09, -0.16)),
    "thumb": ((-0.70, -0.30, 0.62), (-0.83, -0.14, 0.52), (-0.93, -0.10, 0.36)),
}

#: Half breadths in millimetres at the three joints and in the middle of the last pad.
RADII_MM = {
    "index": (10.6, 9.3, 8.3, 7.4),
    "middle": (10.8, 9.5, 8.5, 7.6),
    "ring": (10.2, 8.9, 7.9, 7.1),
    "little": (9.3, 7.9, 7.0, 6.3),
    "thumb": (13.5, 11.0, 10.2, 8.9),
}


def joint_positions() -> np.ndarray:
    """Rest joints (16, 3) in MANO order, metres."""
    return _chains()[0]


def tip_positions() -> np.ndarray:
    """Fingertips (5, 3) in the order of `MANO_FINGERS`, metres: the very end of the flesh."""
    return _chains()[1]


def _chains() -> tuple[np.ndarray, np.ndarray]:
    joints, tips = [WRIST], []
    for finger in MANO_FINGERS:
        point = np.array(_BASES[finger])
        for direction, length in zip(_DIRECTIONS[finger], LINK_LENGTHS_MM[finger]):
            joints.append(point)
            point = point + unit(direction) * length * 1e-3
        tips.append(point)
    return np.array(joints), np.array(tips)


def unit(vector: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """The vector (..., 3), m, scaled to length one."""
    vector = np.asarray(vector, dtype=np.float64)
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def bone_frame(finger: str, part: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of a link at rest: along it to the tip, dorsal, and the flexion axis.

    A positive turn about the flexion axis moves the link towards its palmar side. For the four
    fingers it is nearly +z; the thumb's nail looks up and outwards, so its axis is oblique.
    """
    along = unit(_DIRECTIONS[finger][part])
    dorsal = np.array([0.0, 0.62, 0.78]) if finger == "thumb" else np.array([0.0, 1.0, 0.0])
    dorsal = unit(dorsal - along * (dorsal @ along))
    return along, dorsal, np.cross(along, -dorsal)


def finger_joints(finger: str) -> tuple[int, int, int]:
    """Numbers of the finger's three joints in MANO order."""
    first = 1 + 3 * MANO_FINGERS.index(finger)
    return first, first + 1, first + 2
