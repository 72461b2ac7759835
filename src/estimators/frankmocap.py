"""FrankMocap: a pickle with a dict of left_hand and right_hand a person; a left hand's numbers are a left hand's."""

from __future__ import annotations

from typing import Any

import numpy as np

from src.estimators.records import Entry, Hand, MissingKeyError, Options, entries, image_name, mirror_rotations
from src.estimators.wilor_mini import to_matrices, vectors_of

SIGNS = ("pred_output_list", "right_hand", "left_hand", "pred_joints_img")
#: Its hand model's file is MANO's; whether its pose has the mean pose in it is not confirmed.
HAND_NAME = "MANO"


def read(content: Any, name: str, where: str, options: Options) -> list[Hand]:
    """Every hand of every person; its camera is a scale and a shift, so K is the user's."""
    hands = []
    for whole in entries(content, name, where):
        people = whole.get("pred_output_list", [whole.content])
        if not any(isinstance(one, dict) and ("left_hand" in one or "right_hand" in one) for one in people):
            if people:
                have = sorted(map(str, whole.content))
                raise MissingKeyError(
                    f"{whole.where}: the keys 'left_hand' and 'right_hand' are missing (it has {have})"
                )
        for subject, person in enumerate(people):
            for key in ("right_hand", "left_hand"):
                if not isinstance(person, dict) or not person.get(key):
                    continue
                entry = Entry(person[key], whole.name, f"{whole.where}: person {subject}, {key}")
                left = key == "left_hand"
                pose = to_matrices(entry.array("pred_hand_pose", 16, 3))
                pixels = entry.array("pred_joints_img", 21, 3)[:, :2]
                hand = Hand(entry, None, left, image_name(whole), options.size, None, pixels)
                hand.pose, hand.betas = mirror_rotations(pose) if left else pose, entry.array("pred_hand_betas", 10)
                hand.joints_3d, hand.hand_name = entry.array("pred_joints_smpl", 21, 3), HAND_NAME
                hand.subject = subject
                hands.append(hand)
    return hands


def update(hand: Hand, new: Hand) -> list[str]:
    """Put what is not None in ``new`` into the file; ``pred_camera`` stays, it is for the crop's old points."""
    changed = hand.entry.put_each(
        slice(None),
        ("pred_hand_betas", new.betas, (10,)),
        ("pred_hand_pose", vectors_of(hand, new.pose), (16, 3)),
        ("pred_joints_smpl", new.joints_3d, (21, 3)),
    )
    points = hand.entry.put_each(np.s_[:, :2], ("pred_joints_img", new.keypoints_2d, (21, 3)))
    return changed + points + [f"{key}.z as it was" for key in points]
