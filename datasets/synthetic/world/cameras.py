"""Where cameras of the world stand: every side of the hand, near and far, upright more often than not."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from datasets.synthetic.scene.appearance import unit
from datasets.synthetic.world.cutout import SIZE, View

#: Share of the cut-out's side that the hand's box takes.
HAND_SHARE = (0.36, 0.64)
_ARM_CLEARANCE = 0.07  # a camera is at least so far from the forearm's axis, metres


def random_view(
    generator: np.random.Generator,
    joints: np.ndarray,
    arm: np.ndarray,
    size: int = SIZE,
    share: tuple[float, float] = HAND_SHARE,
    aside: float = 0.03,
) -> View:
    """A camera for a hand in its own frame.

    Args:
        joints: (21, 3) metres; arm: (3,) unit direction of the forearm, away from the hand.
        size: side of the picture, px; share: lowest and highest part of it that the hand's box takes (log-uniform).
        aside: spread of the box's centre about the picture's, in sides of the picture.

    The distance runs from a close-up (0.16 m) to across a room; the hand may be off the optical axis as far as
    the corner of a wide picture is.
    """
    centre = joints.mean(axis=0)
    while True:
        outward = unit(generator.normal(size=3))
        if generator.random() < 0.65:  # at palm or back, else from anywhere
            side = -1.0 if generator.random() < 0.6 else 1.0
            outward = unit(np.array([0.0, side, 0.0]) + 0.5 * generator.normal(size=3))
        distance = float(np.exp(generator.uniform(np.log(0.18), np.log(1.6))))
        position = centre + outward * distance
        along = np.clip((position - joints[0]) @ arm, 0, 0.5)
        if np.linalg.norm(position - joints[0] - along * arm) < _ARM_CLEARANCE:
            continue
        rotation = _look(outward, arm, generator)
        off_axis = np.radians(generator.uniform(0, 33) * generator.random())
        axis = Rotation.from_rotvec(off_axis * unit(np.append(generator.normal(size=2), 0)))
        rotation = axis.as_matrix() @ rotation
        view = View(np.eye(3), rotation, -rotation @ position)
        if (view.to_camera(joints)[:, 2] < 0.05).any():
            continue
        seen = view.project(joints)  # for a focal length of 1
        focal = np.exp(generator.uniform(*np.log(share))) * size / np.ptp(seen, axis=0).max()
        box_centre = (seen.min(axis=0) + seen.max(axis=0)) / 2
        middle = (size - 1) / 2 + generator.normal(0, aside, 2).clip(-0.45, 0.45) * size - focal * box_centre
        K = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1.0]])
        return View(K, rotation, view.translation, size)


def _look(outward: np.ndarray, arm: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(3, 3) hand -> camera that looks along -outward, rolled: fingers up, or any way."""
    forward = -outward
    down = arm - (arm @ forward) * forward
    if np.linalg.norm(down) < 0.1:
        down = np.cross(forward, generator.normal(size=3))
    down = unit(down)
    rotation = np.stack([np.cross(down, forward), down, forward])
    roll = generator.normal(0, 35) if generator.random() < 0.5 else generator.uniform(-180, 180)
    return Rotation.from_euler("z", roll, degrees=True).as_matrix() @ rotation
