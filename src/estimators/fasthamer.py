"""fasthamer: a list of hands a picture, as dicts, beside focal, cx, cy and image_size; MANO's or SOMA's parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from src.estimators.records import (
    Entry,
    EstimateFormatError,
    Hand,
    MissingKeyError,
    Options,
    check_box,
    entries,
    image_name,
    pinhole,
    root_and_fingers,
)

SIGNS = ("hands", "focal", "image_size")


def read(content: Any, name: str, where: str, options: Options) -> list[Hand]:
    """Every hand: parameters are a right hand's, points are the picture's."""
    hands = []
    for whole in entries(content, name, where):
        whole.need("hands", "focal", "cx", "cy", "image_size")
        if not isinstance(whole.get("hands"), (list, tuple)):
            raise MissingKeyError(f"{whole.where}: the key 'hands' holds no list")
        width, height = whole.array("image_size", 2).round().astype(int).tolist()
        K = pinhole(*(float(whole.array(key, 1)[0]) for key in ("focal", "cx", "cy")))
        for number, item in enumerate(whole.get("hands")):
            if not isinstance(item, dict):
                raise EstimateFormatError(f"{whole.where}: hand {number} is a {type(item).__name__}; save vars(hand)")
            entry = Entry(item, whole.name, f"{whole.where}: hand {number}")
            left = not bool(entry.array("is_right", 1)[0])
            box = entry.array("bbox", 4)
            check_box(box[:2], box[2:], (width, height), entry.where)
            points = entry.array("keypoints_3d", 21, 3)
            hand = Hand(entry, None, left, image_name(whole), (width, height), K, entry.array("keypoints_2d", 21, 2))
            hand.joints_3d, hand.betas = points, entry.array("betas", 10)
            hand.pose = np.concatenate([entry.array("global_orient", 1, 3, 3), entry.array("hand_pose", 15, 3, 3)])
            hand.hand_name = str(entry.get("hand_model", "MANO")).upper()
            hands.append(hand)
    return hands


def update(hand: Hand, new: Hand) -> list[str]:
    """Put what is not None in ``new`` into the file."""
    root, fingers = root_and_fingers(new.pose)
    seen = hand.seen_anew(new)
    return hand.entry.put_each(
        slice(None),
        ("betas", new.betas, (10,)),
        ("global_orient", root, (1, 3, 3)),
        ("hand_pose", fingers, (15, 3, 3)),
        ("keypoints_3d", new.joints_3d, (21, 3)),
        ("keypoints_2d", new.keypoints_2d, (21, 2)),
        ("cam_t", None if seen is None else seen[1], (3,)),
    )
