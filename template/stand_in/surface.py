"""The implicit surface: tapered capsules on the bones, joined by smooth unions.

Each primitive is carried by one joint, so the same field can be asked for a posed hand: the query
points are taken back into the joint's rest frame first. That is what the pose correctives are fitted
to (implicit skinning, Vaillant et al., SIGGRAPH 2013).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import ArrayLike

from template.stand_in.skeleton import (
    MANO_FINGERS,
    RADII_MM,
    bone_frame,
    finger_joints,
    joint_positions,
    tip_positions,
    unit,
)

#: Width of the smooth unions in metres: inside a finger, inside the palm, and between the parts.
_BLEND_FINGER, _BLEND_PALM, _BLEND_PARTS = 0.0016, 0.0045, 0.0026


#: A scalar field: points (N, 3) -> values (N,).
Field = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Capsule:
    """A cone with round ends; flattened by `depth_ratio` along `depth_axis`. Metres."""

    joint: int
    part: str  # "palm" or a finger
    start: np.ndarray
    end: np.ndarray
    start_radius: float
    end_radius: float
    depth_axis: np.ndarray
    depth_ratio: float = 1.0

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Approximate signed distance (N,) of points (N, 3), metres, given in the rest frame."""
        stretch = 1.0 / self.depth_ratio - 1.0
        relative = points - self.start
        relative = relative + stretch * (relative @ self.depth_axis)[:, None] * self.depth_axis
        bone = self.end - self.start
        bone = bone + stretch * (bone @ self.depth_axis) * self.depth_axis
        t = np.clip(relative @ bone / max(bone @ bone, 1e-12), 0.0, 1.0)
        radius = self.start_radius + t * (self.end_radius - self.start_radius)
        # The smaller of the two ways to undo the stretch keeps the value close to a distance.
        return (np.linalg.norm(relative - t[:, None] * bone, axis=1) - radius) * min(1.0, self.depth_ratio)


def _finger_capsules(finger: str) -> list[Capsule]:
    joints, tips = joint_positions(), tip_positions()
    numbers = finger_joints(finger)
    ends = [joints[numbers[1]], joints[numbers[2]], tips[MANO_FINGERS.index(finger)]]
    radii = np.array(RADII_MM[finger]) * 1e-3
    thumb = finger == "thumb"
    capsules: list[Capsule] = []
    for part, (number, end) in enumerate(zip(numbers, ends)):
        along, dorsal, _ = bone_frame(finger, part)
        capsule = partial(Capsule, number, finger, depth_axis=dorsal)
        start = joints[number]
        first, second = radii[part], radii[part + 1]
        length = np.linalg.norm(end - start)
        if part == 2:
            end = end - along * (second * 0.93)  # the round end reaches the tip
        waist = 0.955 if not (thumb and part == 0) else 1.0
        ratio = (0.93, 0.91, 0.84)[part]
        at_middle = waist * (first + second) / 2
        middle = (start + end) / 2 - dorsal * (0.0 if part == 0 else 0.0004)
        capsules.append(capsule(start, middle, first * 0.97, at_middle, depth_ratio=ratio))
        capsules.append(capsule(middle, end, at_middle, second * 0.97, depth_ratio=ratio))
        if thumb and part == 0:
            continue
        # Flesh on the palmar side; on the last link the pulp.
        flesh = start + along * length * (0.50 if part < 2 else 0.46)
        size, depth = at_middle * 0.80, at_middle * 0.26
        reach = along * length * (0.17 if part < 2 else 0.12)
        flesh = flesh - dorsal * depth
        capsules.append(capsule(flesh - reach, flesh + reach, size, size, depth_ratio=0.9))
        # The knuckle at the link's near end.
        knuckle = start + dorsal * (first * (0.22 if part == 0 else 0.14))
        capsules.append(capsule(knuckle, knuckle + along * 0.001, first * 0.80, first * 0.78))
    return capsules


def _palm_capsules() -> list[Capsule]:
    joints = joint_positions()
    up = np.array([0.0, 1.0, 0.0])

    def capsule(start: ArrayLike, end: ArrayLike, start_mm: float, end_mm: float, ratio: float = 1.0) -> Capsule:
        start, end = np.array(start, float) * 1e-3, np.array(end, float) * 1e-3
        return Capsule(0, "palm", start, end, start_mm * 1e-3, end_mm * 1e-3, up, ratio)

    mm = joints * 1e3
    thumb = finger_joints("thumb")
    capsules = [
        capsule((150, 4.5, 4), (98, 4.5, 4), 26.5, 24.5, 0.69),  # forearm and wrist
        capsule((92, 4, 4), (74, 3, 3), 23.0, 22.5, 0.52),  # carpus
    ]
    bases = {"index": (78, 4, 16), "middle": (78, 5, 6), "ring": (78, 4, -3), "little": (79, 2, -11)}
    for finger, base in bases.items():
        head = mm[finger_joints(finger)[0]]
        radius = RADII_MM[finger][0]
        capsules.append(capsule(base, head - (0, 1.6, 0), 11.0, radius - 0.9, 0.98))
        # Flesh under the metacarpal head and on towards the web.
        along = bone_frame(finger, 0)[0]
        pad = head + along * 4 - (0, 4.0, 0)
        capsules.append(capsule(pad, pad + along * 9 + (0, 1.5, 0), radius * 0.80, radius * 0.66, 0.85))
    for one, other, reach in (("index", "middle", 17), ("middle", "ring", 17), ("ring", "little", 14)):
        first, second = mm[finger_joints(one)[0]], mm[finger_joints(other)[0]]
        middle, along = (first + second) / 2, unit(bone_frame(one, 0)[0] + bone_frame(other, 0)[0])
        capsules.append(capsule(middle - (0, 3, 0), middle + along * reach - (0, 3.0, 0), 9.0, 4.2, 0.85))
    cmc, mcp = mm[thumb[0]], mm[thumb[1]]
    along = unit(mcp - cmc)
    capsules += [
        capsule((80, -2.5, -11), (34, -3.5, -29.5), 11.0, 10.6, 0.95),  # hypothenar
        capsule((80, -3, 12), cmc + along * 14 + (0, -2.5, -7), 10.5, 11.5, 0.95),  # thenar, root
        capsule((46, 0, 6), (26, 0.5, -8), 14.0, 13.5, 0.70),  # hollow of the palm, filled halfway
        capsule((58, 1, 27), (33, 0, 34), 9.0, 6.5, 0.80),  # first web
    ]
    start, end = (cmc + along * 10 + (3, -4, -6)) * 1e-3, (mcp - along * 9 + (2, -1, -4)) * 1e-3
    return [*capsules, Capsule(thumb[0], "thumb", start, end, 0.0135, 0.0105, up)]  # the thenar, moving


def hand_capsules() -> list[Capsule]:
    """All primitives of the mean hand at rest, metres."""
    capsules = _palm_capsules()
    for finger in MANO_FINGERS:
        capsules += _finger_capsules(finger)
    return capsules


def _soft_minimum(values: np.ndarray, width: float) -> np.ndarray:
    lowest = values.min(axis=0)
    return lowest - width * np.log(np.exp((lowest - values) / width).sum(axis=0))


def field(
    points: np.ndarray,
    capsules: list[Capsule],
    parts: tuple[str, ...] = ("palm",) + MANO_FINGERS,
    transforms: np.ndarray | None = None,
) -> np.ndarray:
    """Signed field (N,), metres, negative inside, at points (N, 3) of the posed space.

    Args:
        transforms: (16, 4, 4) rest-to-posed transforms of the joints; None for the rest pose.
    """

    @cache
    def at_rest(joint: int) -> np.ndarray:
        if transforms is None:
            return points
        return (points - transforms[joint, :3, 3]) @ transforms[joint, :3, :3]

    values = []
    for part in parts:
        inside = [capsule.distance(at_rest(capsule.joint)) for capsule in capsules if capsule.part == part]
        values.append(_soft_minimum(np.array(inside), _BLEND_PALM if part == "palm" else _BLEND_FINGER))
    return _soft_minimum(np.array(values), _BLEND_PARTS)


def gradient(points: np.ndarray, function: Field, step: float = 2e-4) -> np.ndarray:
    """Central differences (N, 3) of a scalar field, points (N,3), m -> (N,)."""
    columns = [(function(points + step * axis) - function(points - step * axis)) / (2 * step) for axis in np.eye(3)]
    return np.stack(columns, axis=1)


def project(points: np.ndarray, function: Field, level: np.ndarray | float = 0.0, steps: int = 4) -> np.ndarray:
    """Move points (N, 3), metres, along the field's gradient to where it has the value `level` (Newton)."""
    for _ in range(steps):
        slope = gradient(points, function)
        residual = function(points) - level
        move = residual[:, None] * slope / np.maximum((slope**2).sum(axis=1), 0.05)[:, None]
        length = np.linalg.norm(move, axis=1, keepdims=True)
        points = points - move * np.minimum(1.0, 0.003 / np.maximum(length, 1e-12))
    return points
