"""Pose correctives: what linear blend skinning loses at bent joints, given back.

For many sampled poses each skinned vertex is moved along the gradient of the posed implicit surface
to the level it has at rest (implicit skinning, Vaillant et al., SIGGRAPH 2013): the outside of a bent
joint keeps its radius, the inside bulges instead of collapsing. The move, turned back into the rest
frame, is then regressed linearly on MANO's features R - I (SMPL, Loper et al. 2015, eq. 9), with ridge
regularisation, and only on the joints that carry the vertex or lie next to it in the finger.
"""

from __future__ import annotations

import numpy as np

from template.stand_in.grasps import ANGLE_LIMITS, angles_to_rotations, clip_angles, sample_angles
from template.stand_in.remesh import neighbour_mean
from template.stand_in.skeleton import MANO_FINGERS, finger_joints
from template.stand_in.skinning import joint_transforms, skin
from template.stand_in.surface import field, hand_capsules, project

#: No vertex is moved further than this, metres.
_LONGEST = 0.006


def corrective_moves(
    vertices: np.ndarray, weights: np.ndarray, joints: np.ndarray, rotations: np.ndarray
) -> np.ndarray:
    """Moves (V, 3), metres, in the rest frame, that bring one skinned pose back to the implicit surface."""
    capsules = hand_capsules()
    transforms = joint_transforms(rotations, joints)
    posed = skin(vertices, weights, transforms)
    moves = np.zeros_like(vertices)
    for finger in MANO_FINGERS:
        numbers = list(finger_joints(finger))
        share = weights[:, numbers].sum(axis=1)
        near = np.flatnonzero(share > 0.02)
        parts = ("palm", finger)
        level = field(vertices[near], capsules, parts)
        target = project(posed[near], lambda p, parts=parts: field(p, capsules, parts, transforms), level, steps=3)
        # Where another finger's web or the palm forms the surface, this field is not the skin.
        trust = np.exp(-((level / 0.002) ** 2)) * np.clip(share[near] / 0.3, 0, 1)
        moves[near] += trust[:, None] * (target - posed[near])
    length = np.linalg.norm(moves, axis=1, keepdims=True)
    moves *= np.minimum(1.0, _LONGEST / np.maximum(length, 1e-12))
    blended = np.einsum("vj,jab->vab", weights, transforms[:, :3, :3])
    # A blend of rotations shrinks; its own inverse would overshoot where the bend is sharp.
    left, _, right = np.linalg.svd(blended)
    return np.einsum("vba,vb->va", left @ right, moves)


def fit_correctives(vertices: np.ndarray, faces: np.ndarray, weights: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """posedirs (778, 3, 135), metres per unit of R - I."""
    count, rng, poses = 500, np.random.default_rng(2), []
    low, high = np.radians(ANGLE_LIMITS)
    for number in range(count):  # grasps, and joints bent independently over their range
        angles = sample_angles(rng)
        if number % 2:
            free = clip_angles(low + (high - low) * rng.random(21))
            angles = np.where(rng.random(21) < 0.6, free, 0.3 * angles)
        poses.append(angles_to_rotations(angles))
    rotations = np.array(poses)
    moves = np.array([corrective_moves(vertices, weights, joints, pose) for pose in rotations])
    near, by_vertex = neighbour_mean(faces, len(vertices)), moves.swapaxes(0, 1).reshape(len(vertices), -1)
    for _ in range(2):  # the skin stays smooth
        by_vertex = 0.6 * by_vertex + 0.4 * (near @ by_vertex)
    moves = by_vertex.reshape(len(vertices), count, 3).swapaxes(0, 1)
    features = (rotations - np.eye(3)).reshape(count, 15, 9)
    posedirs = np.zeros((len(vertices), 3, 15, 9))
    carried = np.array([weights[:, list(finger_joints(finger))].max(axis=1) for finger in MANO_FINGERS])
    owner = np.argmax(carried, axis=0)
    for number, finger in enumerate(MANO_FINGERS):
        used = [joint - 1 for joint in finger_joints(finger)]
        mine = np.flatnonzero((owner == number) & (carried[number] > 0.005))
        rows = features[:, used].reshape(count, -1)
        ridge = rows.T @ rows + 0.004 * count * np.eye(rows.shape[1])
        fitted = np.linalg.solve(ridge, rows.T @ moves[:, mine].reshape(count, -1))
        posedirs[np.ix_(mine, range(3), used)] = fitted.reshape(3, 9, len(mine), 3).transpose(2, 3, 0, 1)
    return posedirs.reshape(len(vertices), 3, 135)
