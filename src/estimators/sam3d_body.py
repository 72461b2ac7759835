"""SAM 3D Body: a file a person, 70 points, both hands in them, neither mirrored; its hand model is MHR's."""

from __future__ import annotations

from typing import Any

import numpy as np

from src.estimators.records import Hand, Options, camera_of, check_box, entries, image_name, place

SIGNS = ("pred_keypoints_3d", "pred_cam_t", "lhand_bbox", "mhr_model_params")
#: Of the 70 points, in our standard order; each finger of theirs begins at its tip.
RIGHT = (41, 24, 23, 22, 21, 28, 27, 26, 25, 32, 31, 30, 29, 36, 35, 34, 33, 40, 39, 38, 37)
LEFT = (62, *(index + 21 for index in RIGHT[1:]))


def read(content: Any, name: str, where: str, options: Options) -> list[Hand]:
    """Both hands of every person; the camera is the one by which its 2D points are its 3D points' projection."""
    hands = []
    for subject, entry in enumerate(entries(content, name, where)):
        entry.need("pred_keypoints_3d", "pred_keypoints_2d", "pred_cam_t", "lhand_bbox", "rhand_bbox")
        points = entry.array("pred_keypoints_3d", 70, 3)
        pixels, shift = entry.array("pred_keypoints_2d", 70, 2), entry.array("pred_cam_t", 3)
        focal = float(entry.array("focal_length", 1)[0]) if entry.has("focal_length") else None
        K = camera_of(points + shift, pixels, entry.where, focal)
        size = options.size or (round(2 * K[0, 2]), round(2 * K[1, 2]))
        for left, order, box_key in ((False, RIGHT, "rhand_bbox"), (True, LEFT, "lhand_bbox")):
            box = entry.array(box_key, 4)
            check_box(box[:2], box[2:], size, f"{entry.where}: {box_key}")
            index = list(order)
            projected = (points[index] + shift) @ K.T
            hand = Hand(entry, index, left, image_name(entry), size, K, projected[:, :2] / projected[:, 2:])
            hand.joints_3d, hand.hand_name, hand.subject = points[index], "MHR", subject
            hands.append(hand)
    return hands


def update(hand: Hand, new: Hand) -> list[str]:
    """Put what is not None in ``new`` into the file.

    The body keeps its place, so a hand's 3D points are moved where their 2D points are, at their wrist's depth.
    """
    changed = []
    assert hand.joints_3d is not None and hand.keypoints_2d is not None and hand.K is not None
    pixels = hand.keypoints_2d if new.keypoints_2d is None else new.keypoints_2d
    if new.joints_3d is not None or new.keypoints_2d is not None:
        points = hand.joints_3d if new.joints_3d is None else new.joints_3d
        shift = hand.entry.array("pred_cam_t", 3)
        points = points + place(points, pixels, hand.K) - shift
        projected = (points + shift) @ hand.K.T
        changed += hand.entry.put("pred_keypoints_3d", hand.index, points, 70, 3)
        changed += hand.entry.put(
            "pred_keypoints_2d", hand.index, np.asarray(projected[:, :2] / projected[:, 2:]), 70, 2
        )
    return changed
