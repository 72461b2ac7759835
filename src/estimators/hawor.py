"""HaWoR: two hands (left, right) over T frames in a world frame: pose and betas, no points and no camera."""

from __future__ import annotations

from typing import Any

import numpy as np

from src.estimators.records import Hand, Options, entries, image_name, mirror_rotations, root_and_fingers
from src.estimators.wilor_mini import to_matrices, vectors_of

SIGNS = ("pred_trans", "pred_rot", "pred_valid")
HAND_NAME = "MANO"


def read(content: Any, name: str, where: str, options: Options) -> list[Hand]:
    """Every valid hand of every frame, pictures named by the frame's number; the wrist's rotation is the world's."""
    hands = []
    for entry in entries(content, name, where):
        entry.need("pred_valid", "pred_rot", "pred_hand_pose", "pred_betas")
        valid = entry.array("pred_valid", 2, -1) > 0.5
        frames = valid.shape[1]
        fingers = entry.array("pred_hand_pose", 2, frames, 15, 3)
        pose = to_matrices(np.concatenate([entry.array("pred_rot", 2, frames, 1, 3), fingers], axis=2))
        pose[0] = mirror_rotations(pose[0])
        betas = entry.array("pred_betas", 2, frames, 10)
        for frame in range(frames):
            for side in np.flatnonzero(valid[:, frame]).tolist():
                hand = Hand(entry, (side, frame), side == 0, f"{image_name(entry)}_{frame:06d}", options.size)
                hand.pose, hand.betas, hand.hand_name = pose[side, frame], betas[side, frame], HAND_NAME
                hands.append(hand)
    return hands


def update(hand: Hand, new: Hand) -> list[str]:
    """Put what is not None in ``new`` into the file."""
    root, fingers = root_and_fingers(vectors_of(hand, new.pose))
    frames = hand.entry.array("pred_valid", 2, -1).shape[1]
    return hand.entry.put_each(
        hand.index,
        ("pred_betas", new.betas, (2, frames, 10)),
        ("pred_rot", root, (2, frames, 3)),
        ("pred_hand_pose", fingers, (2, frames, 15, 3)),
    )
