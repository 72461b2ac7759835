"""SAM 3D Body: a file a person, 70 points, both hands in them, neither mirrored; its hand model is MHR's."""

from __future__ import annotations

from typing import Any

from src.estimators.records import Hand, Options, camera_of, entries, image_name
from utils.camera import project_numpy

SIGNS = ("pred_keypoints_3d", "pred_cam_t", "lhand_bbox", "mhr_model_params")
#: Of the 70 points, in our standard order; each finger of theirs begins at its tip.
RIGHT = (41, 24, 23, 22, 21, 28, 27, 26, 25, 32, 31, 30, 29, 36, 35, 34, 33, 40, 39, 38, 37)
LEFT = (62, *(index + 21 for index in RIGHT[1:]))


def read(content: Any, name: str, where: str, options: Options) -> list[Hand]:
    """Both hands of every person; the camera is the one by which its 2D points are its 3D points' projection."""
    hands = []
    for entry in entries(content, name, where):
        entry.need("pred_keypoints_3d", "pred_keypoints_2d", "pred_cam_t", "lhand_bbox", "rhand_bbox")
        points = entry.array("pred_keypoints_3d", 70, 3)
        pixels, shift = entry.array("pred_keypoints_2d", 70, 2), entry.array("pred_cam_t", 3)
        focal = float(entry.array("focal_length", 1)[0]) if entry.has("focal_length") else None
        K = camera_of(points + shift, pixels, entry.where, focal)
        size = options.size_of(entry) or (round(2 * K[0, 2]), round(2 * K[1, 2]))
        for left, order in ((False, RIGHT), (True, LEFT)):
            index = list(order)
            hand = Hand(entry, index, left, image_name(entry), size, K, project_numpy(points[index] + shift, K))
            hand.joints_3d, hand.hand_name, hand.subject = points[index], "MHR", entry.number
            hands.append(hand)
    return hands


def update(hand: Hand, new: Hand) -> list[str]:
    """Put what is not None in ``new`` into the file.

    The body keeps its place, so a hand's 3D points are moved where their 2D points are, at their wrist's depth.
    """
    seen = hand.seen_anew(new)
    if seen is None:
        return []
    points, put, pixels = seen
    return hand.entry.put_each(
        hand.index,
        ("pred_keypoints_3d", points + put - hand.entry.array("pred_cam_t", 3), (70, 3)),
        ("pred_keypoints_2d", pixels, (70, 2)),
    )
