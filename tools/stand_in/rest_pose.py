"""Brings MakeHuman's right hand into the rest pose and onto the mean skeleton of the first stand-in.

One affine map a bone (its own frame to the frame of `template.stand_in.skeleton.bone_frame`, each length to the
adult mean), blended with the rig's painted weights; the palm follows a thin-plate spline through wrist and
knuckles. Afterwards every pose, joint limit and grasp made for the first hand fits this one.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RBFInterpolator

from template.stand_in.skeleton import (
    LINK_LENGTHS_MM,
    MANO_FINGERS,
    bone_frame,
    finger_joints,
    joint_positions,
    tip_positions,
    unit,
)

#: MakeHuman's number of each finger.
RIG_FINGERS = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "little": 5}

_PALM_BONES = ("wrist.R", "metacarpal1.R", "metacarpal2.R", "metacarpal3.R", "metacarpal4.R")
_ARM_BONES = ("lowerarm01.R", "lowerarm02.R")
#: Length of MakeHuman's hand to ours, for what has no length of its own: the arm, and the girth of the fingers.
_SIZE = 1.04
#: Girth of our fingers over MakeHuman's slender ones, besides `_SIZE`.
_GIRTH = {"index": 1.09, "middle": 1.09, "ring": 1.09, "little": 1.13, "thumb": 1.08}
#: What subdivision takes off a fingertip, metres.
_SHRINKAGE = 0.001
#: From the outer knuckles' joints to the skin beside them, metres, so that the hand is as broad as adults' hands.
_FLANK = {"index": 0.0120, "little": 0.0095}
#: Where the metacarpals begin, metres from the wrist towards the thumb (and `_CARPUS` towards the fingers).
_METACARPALS = {"index": 0.010, "middle": 0.0, "ring": -0.009, "little": -0.017}
_CARPUS = 0.018
#: Columns of the blend before the fifteen finger joints.
ARM, PALM = 0, 1


def blend_weights(rig: dict[str, dict[int, float]], count: int) -> np.ndarray:
    """Weights (count, 17), rows sum to 1 on the hand and forearm: arm, palm, then MANO's joints 1 to 15."""
    columns = [_ARM_BONES, _PALM_BONES]
    columns += [(f"finger{RIG_FINGERS[finger]}-{part}.R",) for finger in MANO_FINGERS for part in (1, 2, 3)]
    weights = np.zeros((count, len(columns)))
    for number, bones in enumerate(columns):
        for bone in bones:
            for vertex, weight in rig[bone].items():
                weights[vertex, number] += weight
    total = weights.sum(axis=1, keepdims=True)
    return np.where(total > 0.5, weights / np.maximum(total, 1e-9), 0.0)


class RestPose:
    """The map from one MakeHuman body to the rest pose.

    Args:
        vertices: (V, 3) of the body, metres.
        joints: name of a joint cube -> its centre (3,).
        nails: finger -> vertex numbers of its nail, which tell where the finger's back is.
        tips: finger -> vertex number of the fingertip.
    """

    def __init__(
        self, vertices: np.ndarray, joints: dict[str, np.ndarray], nails: dict[str, np.ndarray], tips: dict[str, int]
    ) -> None:
        self.wrist, elbow = joints["joint-r-hand"], joints["joint-r-elbow"]
        index, middle, little = (
            joints[f"joint-r-finger-{RIG_FINGERS[finger]}-1"] for finger in ("index", "middle", "little")
        )
        self.along = unit(self.wrist - middle)
        self.across = unit(index - little - self.along * ((index - little) @ self.along))
        self.dorsal = np.cross(self.across, self.along)
        self.chains, self.webs = {}, {}
        for finger, number in RIG_FINGERS.items():
            chain = [joints[f"joint-r-finger-{number}-{part}"] for part in (1, 2, 3)] + [vertices[tips[finger]]]
            if finger == "thumb":  # the rig's bone begins in the middle of the metacarpal
                length = LINK_LENGTHS_MM["thumb"][0] * 1e-3 / _SIZE
                chain[0] = chain[1] + unit(chain[0] - chain[1]) * length
                chain[3] = chain[3] - _SHRINKAGE * unit(chain[3] - chain[2])
            else:
                # The last bone runs below the nail, not to the highest point of the tip.
                last = unit(joints[f"joint-r-finger-{number}-4"] - chain[2])
                chain[3] = chain[2] + last * ((chain[3] - chain[2]) @ last - _SHRINKAGE)
                # The rig bends fingers near the web; the knuckle lies further back, on the metacarpal.
                self.webs[finger] = chain[0]
                base = self.wrist - _CARPUS * self.along + _METACARPALS[finger] * self.across
                line = chain[0] + np.linspace(0, 1, 200)[:, None] * (base - chain[0])
                away = np.abs(np.linalg.norm(line - chain[1], axis=1) - LINK_LENGTHS_MM[finger][0] * 1e-3 / _SIZE)
                chain[0] = line[np.argmin(away)]
            self.chains[finger] = np.array(chain)
        self.arm = unit(elbow - self.wrist)
        self.backs = {
            finger: unit(vertices[nails[finger]].mean(axis=0) - self.chains[finger][2:].mean(axis=0))
            for finger in MANO_FINGERS
        }
        self.palm = self._palm_map(vertices)

    def _palm_map(self, vertices: np.ndarray) -> RBFInterpolator:
        """Thin-plate spline through wrist, knuckles and thumb root, and the same points lifted and lowered."""
        goal = joint_positions()
        source, target, ends = [self.wrist], [goal[0]], {}
        for finger in MANO_FINGERS:
            source.append(self.chains[finger][0])
            target.append(goal[finger_joints(finger)[0]])
        for finger in MANO_FINGERS[:4]:
            source.append(self.wrist + 0.45 * (self.chains[finger][0] - self.wrist))
            target.append(goal[0] + 0.45 * (goal[finger_joints(finger)[0]] - goal[0]))
        for finger, web in self.webs.items():  # where palm and finger meet in the rig, both maps must agree
            first, second, _ = finger_joints(finger)
            start, end = self.chains[finger][:2]
            share = np.linalg.norm(web - start) / np.linalg.norm(end - start)
            source.append(web)
            target.append(goal[first] + share * (goal[second] - goal[first]))
            ends[finger, True], ends[finger, False] = goal[first], target[-1]
        for finger, side in (("index", 1.0), ("little", -1.0)):  # the skin beside the outer knuckles and webs
            for place, knuckle in ((self.chains[finger][0], True), (self.webs[finger], False)):
                local = vertices - place
                near = (np.abs(local @ self.along) < 0.006) & (np.abs(local @ self.dorsal) < 0.012)
                flank = (local[near] @ self.across * side).max()
                source.append(place + side * flank * self.across)
                wished = _FLANK[finger] if knuckle else flank * _SIZE * _GIRTH[finger]
                target.append(ends[finger, knuckle] + side * wished * np.array([0.0, 0.0, 1.0]))
        source, target = np.array(source), np.array(target)
        height = 0.012
        return RBFInterpolator(
            np.concatenate([source + lift * self.dorsal for lift in (-height, 0, height)]),
            np.concatenate([target + lift * _SIZE * np.array([0.0, 1.0, 0.0]) for lift in (-height, 0, height)]),
            kernel="thin_plate_spline",
            smoothing=1e-6,
        )

    def __call__(self, vertices: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Rest-pose vertices (N, 3), metres, of body vertices (N, 3) with `blend_weights` (N, 17)."""
        goal, ends = joint_positions(), tip_positions()
        moved = weights[:, PALM, None] * self.palm(vertices)
        side = unit(self.across - self.arm * (self.across @ self.arm))
        frame = np.stack([self.arm, np.cross(side, self.arm), side])
        moved += weights[:, ARM, None] * (goal[0] + (vertices - self.wrist) @ frame.T * _SIZE)
        for number, finger in enumerate(MANO_FINGERS):
            joints = finger_joints(finger)
            last = [*goal[list(joints[1:])], ends[number]]
            for part, joint in enumerate(joints):
                start, end = self.chains[finger][part : part + 2]
                along = unit(end - start)
                back = unit(self.backs[finger] - along * (self.backs[finger] @ along))
                source = np.stack([along, back, np.cross(along, -back)])
                stretch = np.linalg.norm(last[part] - goal[joint]) / np.linalg.norm(end - start)
                girth = _SIZE * _GIRTH[finger]
                local = (vertices - start) @ source.T * np.array([stretch, girth, girth])
                moved += weights[:, 1 + joint, None] * (goal[joint] + local @ np.array(bone_frame(finger, part)))
        return moved
