"""WiLoR-mini: a list of dicts a picture; everything of a left hand is already a left hand's."""

from __future__ import annotations

from typing import Any

import numpy as np
import roma
import torch

from src.estimators.records import (
    Hand,
    Options,
    camera_of,
    check_box,
    entries,
    image_name,
    mirror_rotations,
    root_and_fingers,
)

SIGNS = ("hand_bbox", "wilor_preds", "is_right")
HAND_NAME = "MANO"


def read(content: Any, name: str, where: str, options: Options) -> list[Hand]:
    """Every hand; the picture's size is twice the principal point."""
    hands = []
    for entry in entries(content, name, where):
        entry.need("is_right", "hand_bbox", "pred_keypoints_3d", "pred_cam_t_full", "pred_keypoints_2d",
                   "scaled_focal_length", "global_orient", "hand_pose", "betas")  # fmt: skip
        left = bool(entry.array("is_right", 1)[0] < 0.5)
        points, shift = entry.array("pred_keypoints_3d", 21, 3), entry.array("pred_cam_t_full", 3)
        pixels = entry.array("pred_keypoints_2d", 21, 2)
        K = camera_of(points + shift, pixels, entry.where, float(entry.array("scaled_focal_length", 1)[0]))
        size = (round(2 * K[0, 2]), round(2 * K[1, 2]))
        box = entry.array("hand_bbox", 4)
        check_box(box[:2], box[2:], size, entry.where)
        rotations = np.concatenate([entry.array("global_orient", 1, 3), entry.array("hand_pose", 15, 3)])
        pose = to_matrices(rotations)
        hand = Hand(entry, None, left, image_name(entry), size, K, pixels)
        hand.joints_3d, hand.betas, hand.hand_name = points, entry.array("betas", 10), HAND_NAME
        hand.pose = mirror_rotations(pose) if left else pose
        hands.append(hand)
    return hands


def update(hand: Hand, new: Hand) -> list[str]:
    """Put what is not None in ``new`` into the file; its 2D points are its 3D points' projection."""
    root, fingers = root_and_fingers(vectors_of(hand, new.pose))
    _, shift, pixels = hand.seen_anew(new) or (None, None, None)
    return hand.entry.put_each(
        slice(None),
        ("betas", new.betas, (10,)),
        ("global_orient", root, (1, 3)),
        ("hand_pose", fingers, (15, 3)),
        ("pred_keypoints_3d", new.joints_3d, (21, 3)),
        ("pred_cam_t_full", shift, (3,)),
        ("pred_keypoints_2d", pixels, (21, 2)),
    )


def vectors_of(hand: Hand, pose: np.ndarray | None) -> np.ndarray | None:
    """A right hand's rotations (16,3,3) as axis-angle vectors (16,3) of the hand's own side; None of None."""
    if pose is None:
        return None
    own = mirror_rotations(pose) if hand.is_left else pose
    return roma.rotmat_to_rotvec(torch.as_tensor(own, dtype=torch.float64)).numpy()


def to_matrices(vectors: np.ndarray) -> np.ndarray:
    """Rotations (...,3,3) of axis-angle vectors (...,3)."""
    return roma.rotvec_to_rotmat(torch.as_tensor(vectors)).numpy()
