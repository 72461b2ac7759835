"""Joint orders, kinematic trees and tip vertices, each in exactly one place.

The *standard order* (21 joints: wrist, then thumb, index, middle, ring, little, each from palm
to tip) is MPII/OpenPose's, manopth's, DexYCB's and FreiHAND's. The *MANO order* is the 16
kinematic joints of the MANO file (wrist, index, middle, little, ring, thumb), tips appended
behind them as thumb, index, middle, ring, little. HO-3D publishes in the latter.
"""

from __future__ import annotations

FINGERS = ("thumb", "index", "middle", "ring", "little")

JOINT_NAMES = ("wrist",) + tuple(f"{finger}_{part}" for finger in FINGERS for part in ("mcp", "pip", "dip", "tip"))

#: Parent of each joint of the standard order; -1 for the wrist.
PARENTS = (-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)

#: (parent, child) of the 20 bones of the standard order.
BONES = tuple((parent, child) for child, parent in enumerate(PARENTS) if parent >= 0)

#: The fingertips in the standard order: thumb, index, middle, ring, little.
TIP_JOINTS = (4, 8, 12, 16, 20)

#: Finger of each joint of the standard order, as an index into FINGERS; -1 for the wrist.
FINGER_OF_JOINT = (-1,) + tuple(finger for finger in range(5) for _ in range(4))

#: Parent of each of MANO's 16 kinematic joints; -1 for the wrist.
MANO_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)

#: standard = mano_with_tips[MANO_TO_STANDARD]; also HO-3D -> standard.
MANO_TO_STANDARD = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)

#: mano_with_tips = standard[STANDARD_TO_MANO]; also standard -> HO-3D.
STANDARD_TO_MANO = (0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3, 4, 8, 12, 16, 20)

#: Fingertip vertices (thumb, index, middle, ring, little) by the source that uses them. They lie
#: up to 6 mm apart, so a metric must use the set its ground truth was made with.
TIP_VERTICES = {
    "manopth": (745, 317, 444, 556, 673),  # manopth, manotorch, DexYCB labels
    "freihand": (744, 320, 443, 555, 672),  # FreiHAND; HUMBI in the paper's code
    "ho3d": (744, 333, 444, 555, 672),  # HO-3D, original CMR
    "smplx": (744, 320, 443, 554, 671),  # smplx, otaheri/MANO, HaMeR
}

#: Vertices outermost across the knuckles, of the index and of the little finger's side: a hand's breadth without thumb.
KNUCKLE_FLANKS = (103, 535)

#: Sets that differ on the left hand.
TIP_VERTICES_LEFT = {"manopth": (745, 317, 445, 556, 673)}


def tip_vertices(name: str, side: str = "right") -> tuple[int, ...]:
    """Vertex ids of the five fingertips (thumb, index, middle, ring, little) of a named set.

    Raises:
        ValueError: if the set or the side is unknown.
    """
    if side not in ("right", "left"):
        raise ValueError(f"side is {side!r}; it must be 'right' or 'left'")
    if name not in TIP_VERTICES:
        raise ValueError(f"tip set {name!r} is unknown; choose one of {sorted(TIP_VERTICES)}")
    if side == "left" and name in TIP_VERTICES_LEFT:
        return TIP_VERTICES_LEFT[name]
    return TIP_VERTICES[name]
