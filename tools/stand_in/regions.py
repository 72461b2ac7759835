"""Which part of the hand each vertex of the fine mesh belongs to."""

from __future__ import annotations

import numpy as np

from template.fine import REGIONS
from template.stand_in.skeleton import WRIST, bone_frame, finger_joints, joint_positions, unit
from template.stand_in.skinning import smoothstep
from tools.stand_in.rest_pose import ARM
from utils.drawing.ray_casting import vertex_normals
from utils.joints import FINGERS


def label(vertices: np.ndarray, faces: np.ndarray, blend: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Region (V,) uint8, a number into `REGIONS`, and palmar share (V,) in 0..1: 1 where the skin looks to the palm.

    Args:
        vertices: (V, 3) at rest, metres.
        faces: (F, 3).
        blend: (V, 17) of `blend_weights`.
    """
    facing = vertex_normals(vertices, faces)
    dorsal = blend[:, :2].sum(axis=1)[:, None] * np.array([0.0, 1.0, 0.0])
    region = np.where(facing[:, 1] < 0, REGIONS.index("palm"), REGIONS.index("back"))
    for finger in FINGERS:
        joints = finger_joints(finger)
        for part, joint in enumerate(joints):
            dorsal += blend[:, 1 + joint, None] * bone_frame(finger, part)[1]
        first = joints[1] if finger == "thumb" else joints[0]
        share = blend[:, [1 + joint for joint in joints if joint >= first]].sum(axis=1)
        ahead = (vertices - joint_positions()[first]) @ bone_frame(finger, 1 if finger == "thumb" else 0)[0]
        region = np.where((share > 0.5) & (ahead > 0), REGIONS.index(finger), region)
    region = np.where((blend[:, ARM] > 0.5) | (vertices[:, 0] > WRIST[0]), REGIONS.index("forearm"), region)
    palmar = smoothstep(0.5 - 0.8 * (facing * unit(dorsal)).sum(axis=1))
    return region.astype(np.uint8), palmar
