"""Skinning weights, and linear blend skinning in numpy for the builder and its checks."""

from __future__ import annotations

import numpy as np

from template.stand_in.remesh import neighbour_mean
from template.stand_in.skeleton import (
    MANO_FINGERS,
    RADII_MM,
    bone_frame,
    finger_joints,
    joint_positions,
    tip_positions,
    unit,
)
from utils.joints import MANO_PARENTS


def smoothstep(value: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, a cubic with flat ends between."""
    value = np.clip(value, 0.0, 1.0)
    return value * value * (3.0 - 2.0 * value)


def point_weights(points: np.ndarray) -> np.ndarray:
    """Smooth weights (N, 16), rows sum to 1, of rest-pose points (N, 3), m: a partition of unity.

    Along a finger a smooth step around each joint hands over from one bone to the next; across the
    hand the nearest finger takes over softly, which shares the webs between neighbours.
    """
    joints, tips = joint_positions(), tip_positions()
    affinity, onset = [], []
    for number, finger in enumerate(MANO_FINGERS):
        first, second, third = finger_joints(finger)
        base = joints[first] + (joints[0] - joints[first]) * (0.1 if finger == "thumb" else 0.75)
        chain = [base, joints[first], joints[second], joints[third], tips[number]]
        distance = np.full(len(points), np.inf)  # to the nearest bone
        for start, bone in zip(chain, np.diff(chain, axis=0)):
            t = np.clip((points - start) @ bone / (bone @ bone), 0.0, 1.0)
            distance = np.minimum(distance, np.linalg.norm(points - start - t[:, None] * bone, axis=1))
        affinity.append(-(distance - RADII_MM[finger][1] * 1e-3) / 0.0028)
        steps = []
        for part, joint in enumerate((first, second, third)):
            along = bone_frame(finger, part)[0]
            before = unit(along + (bone_frame(finger, part - 1)[0] if part else along))
            radius = RADII_MM[finger][part] * 1e-3
            if part == 0 and finger == "thumb":
                ahead = (points - joints[joint]) @ along
                near = 1.0 - smoothstep((distance - 0.011) / 0.019)
                steps.append(smoothstep((ahead + 0.004) / 0.030) * near)
                continue
            half = radius * (1.15 if part == 0 else 0.85)
            shift = 0.002 if part == 0 else 0.0
            steps.append(smoothstep(((points - joints[joint]) @ before - shift + half) / (2 * half)))
        onset.append(steps)
    affinity = np.exp(np.array(affinity) - np.max(affinity, axis=0))
    affinity /= affinity.sum(axis=0)
    weights = np.zeros((len(points), 16))
    for number, finger in enumerate(MANO_FINGERS):
        one, two, three = onset[number]
        for joint, value in zip(
            (0,) + finger_joints(finger), (1 - one, one * (1 - two), one * two * (1 - three), one * two * three)
        ):
            weights[:, joint] += affinity[number] * value
    return weights


def mesh_weights(vertices: np.ndarray, faces: np.ndarray, rounds: int = 2, most: int = 4) -> np.ndarray:
    """Weights (V, 16) of a mesh (m): `point_weights`, diffused a little, the `most` largest kept."""
    weights = point_weights(vertices)
    near = neighbour_mean(faces, len(vertices))
    for _ in range(rounds):
        weights = 0.6 * weights + 0.4 * (near @ weights)
    threshold = np.sort(weights, axis=1)[:, -most][:, None]
    weights = np.where((weights >= threshold) & (weights > 0.005), weights, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def joint_transforms(rotations: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Rest-to-posed transforms (16, 4, 4) of the joints (SMPL, Loper et al. 2015, eq. 3 and 4).

    Args:
        rotations: (15, 3, 3) of joints 1 to 15; the wrist stays.
        joints: (16, 3) rest joints, metres.
    """
    transforms = np.tile(np.eye(4), (16, 1, 1))
    for joint in range(1, 16):
        local = np.eye(4)
        local[:3, :3] = rotations[joint - 1]
        local[:3, 3] = joints[joint] - rotations[joint - 1] @ joints[joint]
        transforms[joint] = transforms[MANO_PARENTS[joint]] @ local
    return transforms


def skin(vertices: np.ndarray, weights: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Linear blend skinning: posed vertices (V, 3), metres."""
    blended = np.einsum("vj,jab->vab", weights, transforms)
    return np.einsum("vab,vb->va", blended[:, :3, :3], vertices) + blended[:, :3, 3]


def pose_hand(hand: dict[str, np.ndarray], rotations: np.ndarray, betas: np.ndarray | None = None) -> np.ndarray:
    """Vertices (778, 3), m, of a model dict in MANO's layout: shape, correctives, skinning; wrist unturned."""
    shaped = hand["v_template"].astype(np.float64)
    if betas is not None:
        shaped = shaped + hand["shapedirs"].astype(np.float64) @ betas
    joints = hand["J_regressor"].astype(np.float64) @ shaped
    feature = (rotations - np.eye(3)).reshape(-1)
    corrected = shaped + hand["posedirs"].astype(np.float64) @ feature
    return skin(corrected, hand["weights"].astype(np.float64), joint_transforms(rotations, joints))
