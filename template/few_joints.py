"""`template.kinematics` for a few hands on a CPU, in NumPy, as `few_hands` is for the layer; hands come first.

One product a level, and dense derivatives: of so small arrays the number of calls is the time. Points are relative to
the wrist and in MANO's order, the tips last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from utils.joints import MANO_PARENTS, MANO_TO_STANDARD, TIP_JOINTS

if TYPE_CHECKING:
    from template.kinematics import JointsModel

_PARENTS = list(MANO_PARENTS[1:])
#: Joint whose rotation carries the bone that ends at each of the 21 points, in MANO's order, tips last.
LANDMARK_FRAMES = [0, *MANO_PARENTS[1:], *(MANO_TO_STANDARD[tip - 1] for tip in TIP_JOINTS)]
#: The other bone that it lies between: the joint's own; of a tip, the one before its own.
OTHER_FRAMES = [*range(16), *(MANO_PARENTS[frame] for frame in LANDMARK_FRAMES[16:])]
#: (16, 16): joint row moves when joint column turns (the column is an ancestor of the row, or the row itself).
SUBTREE = np.zeros((16, 16))
for _joint in range(16):
    _ancestor = _joint
    while _ancestor >= 0:
        SUBTREE[_joint, _ancestor] = 1.0
        _ancestor = MANO_PARENTS[_ancestor]
#: (3,9): ``(v @ _CROSS)`` as (3,3), times w, is w x v.
_CROSS = np.zeros((3, 9))
for _axis, _row, _column in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
    _CROSS[_axis, 3 * _row + _column], _CROSS[_axis, 3 * _column + _row] = 1, -1


@dataclass
class FewPosed:
    """B posed hands.

    points: (B,21,3) m; local, world: (B,16,3,3) rotations relative to the parent and to the camera.
    levers: (B,16,21,3) m, from a joint to what it moves of a point: turning it by a small w moves the point by w x it.
    """

    points: NDArray
    local: NDArray
    world: NDArray
    levers: NDArray


class FewJoints:
    """Constants of a `JointsModel`, and what is made with them."""

    def __init__(self, model: JointsModel) -> None:
        directions, weights = model.directions.cpu().numpy(), model.tip_weights.cpu().numpy()
        self.tip_pose = model.tip_pose.cpu().numpy()  # (15,15,9), (joint, coordinate and tip, entry of R)
        dtype = weights.dtype
        self.blend = self.tip_pose.transpose(0, 2, 1).reshape(135, 15)
        self.cross, self.eye = _CROSS.astype(dtype), np.eye(3, dtype=dtype)
        self.weights, self.by_joint = weights, weights.T[:, None].copy()  # (5,16), (16,1,5)
        subtree = SUBTREE.astype(dtype)
        self.turned_by = subtree.T.copy()
        # What turns a joint's place: those before it; the wrist's own place only if it is another point's.
        self.places_turned_by = (self.turned_by - np.diag([0] + [1] * 15).astype(dtype))[..., None].copy()
        self.below = (weights @ subtree).T[..., None].copy()  # (16,5,1)
        # Landmarks beside the joints: (P*21,3,1) m, of none, one or both of the bones whose joints `frames` names, and
        # (P,16,5,1), which joints turn the tips'.
        parts = [
            part for part in ((LANDMARK_FRAMES, model.offsets), (OTHER_FRAMES, model.bends)) if part[1] is not None
        ]
        self.frames = [frame for frames, _ in parts for frame in frames]
        self.turn_tips = np.array([subtree[frames[16:]].T[..., None] for frames, _ in parts])
        shifts = [shift.cpu().numpy()[..., 0].T[..., None] for _, shift in parts if shift is not None]
        self.shift = np.concatenate(shifts) if shifts else None
        joints, tips = directions[:, :16].transpose(1, 2, 0), directions[:, 16:].transpose(1, 2, 0)  # (.,3,10)
        self.bones = joints[1:] - joints[_PARENTS]
        self.arms = (tips - joints[:, None]).transpose(0, 2, 1, 3).reshape(16, 3, 50)

    def pose(self, pose: NDArray, rest: NDArray) -> FewPosed:
        """Arguments as of `kinematics.posed_points`, in the model's dtype; m."""
        n = len(pose)
        fingers, world, centres = pose[:, 1:].reshape(n, 5, 3, 3, 3), np.empty_like(pose), np.zeros_like(rest[:, :16])
        bones = (rest[:, 1:16] - rest[:, _PARENTS]).reshape(n, 5, 3, 3, 1)
        turned, places = world[:, 1:].reshape(n, 5, 3, 3, 3), centres[:, 1:].reshape(n, 5, 3, 3, 1)
        before, place = pose[:, :1], 0
        world[:, :1] = before
        for level in range(3):
            place = places[:, :, level] = place + before @ bones[:, :, level]
            before = turned[:, :, level] = before @ fingers[:, :, level]
        bent = (pose[:, 1:] - self.eye).reshape(n, 135) @ self.blend
        corrected = rest[:, 16:] + bent.reshape(n, 3, 5).swapaxes(1, 2)
        carried = world @ (corrected[:, None] - rest[:, :16, None]).swapaxes(2, 3)  # (B,16,3,5)
        carried += centres[..., None]
        carried *= self.by_joint
        points = np.concatenate([centres, carried.sum(axis=1).swapaxes(1, 2)], axis=1)
        levers = np.empty((n, 16, 21, 3), pose.dtype)
        beyond = (self.turned_by @ carried.reshape(n, 16, 15)).reshape(n, 16, 3, 5).swapaxes(2, 3)
        levers[:, :, 16:] = beyond - self.below * centres[:, :, None]
        if self.shift is not None:
            parts = (world[:, self.frames] @ self.shift).reshape(n, -1, 21, 3)
            for part, turn_tips in zip(parts.swapaxes(0, 1), self.turn_tips, strict=True):
                points += part
                levers[:, :, 16:] += turn_tips * part[:, None, 16:]
        levers[:, :, :16] = (points[:, None, :16] - centres[:, :, None]) * self.places_turned_by
        if len(self.turn_tips) == 2:
            levers[:, range(1, 16), range(1, 16)] = parts[:, 1, 1:16]  # a joint's own landmark, by itself
        return FewPosed(points, pose, world, levers)

    def jacobian(self, posed: FewPosed, chart: NDArray | None) -> NDArray:
        """(B,21,3,48) derivative of the points in the pose, m per rad; chart (B,16,3,3): see `row_jacobian`."""
        n, local = len(posed.points), posed.local[:, 1:]
        turns = posed.world if chart is None else posed.world @ chart
        moved = (posed.levers.reshape(-1, 3) @ self.cross).reshape(n, 16, 63, 3) @ turns
        out = moved.reshape(n, 16, 21, 3, 3).transpose(0, 2, 3, 1, 4).reshape(n, 21, 3, 48)
        # d(R exp[L y]) has the rows R_i x L y.
        change = (local.reshape(-1, 3) @ -self.cross).reshape(n, 15, 9, 3)
        bent = self.tip_pose @ (change if chart is None else change @ chart[:, 1:])  # (B,15,15,3)
        bent = bent.reshape(n, 15, 3, 5, 3).transpose(0, 3, 2, 1, 4).reshape(n, 5, 3, 45)
        blended = (self.weights @ posed.world.reshape(n, 16, 9)).reshape(n, 5, 3, 3)
        out[:, 16:, :, 3:] += blended @ bent
        return out

    def shape_jacobian(self, posed: FewPosed) -> NDArray:
        """(B,21,3,10) derivative of the points in the betas, m per unit."""
        n = len(posed.points)
        joints = np.zeros((n, 16, 3, 10), posed.points.dtype)
        bones = (posed.world[:, _PARENTS] @ self.bones).reshape(n, 5, 3, 3, 10)
        joints[:, 1:] = bones.cumsum(axis=2).reshape(n, 15, 3, 10)
        carried = (posed.world @ self.arms).reshape(n, 16, 3, 5, 10) + joints[:, :, :, None]
        tips = (carried * self.by_joint[..., None]).sum(axis=1).swapaxes(1, 2)
        return np.concatenate([joints, tips], axis=1)
