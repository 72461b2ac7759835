"""HaMeR and WiLoR: dicts of a batch of crops, of their network and of its batch; left hands were mirrored before it.

The camera is a focal length of 5000 px for a crop of 256 px, scaled to the picture's larger side (docs/estimators.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from src.estimators.records import (
    EstimateFormatError,
    Hand,
    Options,
    check_box,
    entries,
    flip_x,
    image_name,
    pinhole,
    root_and_fingers,
)
from utils.camera import project_numpy

SIGNS = ("pred_cam", "box_center", "pred_mano_params", "img_size")
#: Their training's focal length, px, of a crop of so many px.
FOCAL, CROP = 5000.0, 256.0
HAND_NAME = "MANO"


def read(content: Any, name: str, where: str, options: Options) -> list[Hand]:
    hands = []
    for entry in entries(content, name, where):
        entry.need("pred_cam", "box_center", "box_size", "img_size", "right", "pred_keypoints_3d", "global_orient",
                   "hand_pose", "betas")  # fmt: skip
        cam = entry.array("pred_cam", -1, 3)
        centre, side = entry.array("box_center", -1, 2), entry.array("box_size", -1)
        sizes, right = entry.array("img_size", -1, 2), entry.array("right", -1)
        joints = entry.array("pred_keypoints_3d", -1, 21, 3)
        pose = np.concatenate(
            [entry.array("global_orient", -1, 1, 3, 3), entry.array("hand_pose", -1, 15, 3, 3)], axis=1
        )
        betas = entry.array("betas", -1, 10)
        cam_t = entry.array("pred_cam_t", -1, 3) if entry.has("pred_cam_t") else None
        counts = {"pred_cam": len(cam), "box_center": len(centre), "box_size": len(side), "img_size": len(sizes),
                  "right": len(right), "pred_keypoints_3d": len(joints), "hand_pose": len(pose),
                  "betas": len(betas)}  # fmt: skip
        if cam_t is not None:
            counts["pred_cam_t"] = len(cam_t)
        if len(set(counts.values())) > 1:
            raise EstimateFormatError(f"{entry.where}: its arrays are of different numbers of hands: {counts}")
        for row in range(len(cam)):
            if not (cam[row, 0] > 0 and side[row] > 0):
                raise EstimateFormatError(
                    f"{entry.where}: hand {row}: pred_cam's scale {cam[row, 0]:g} and box_size {side[row]:g} must be "
                    "above 0: they put it behind the camera; remove this hand or estimate it again"
                )
            size = (round(sizes[row, 0]), round(sizes[row, 1]))
            check_box(centre[row] - side[row] / 2, centre[row] + side[row] / 2, size, f"{where}: hand {row}")
            left = right[row] < 0.5
            if left and cam_t is not None and _is_flipped(cam[row], cam_t[row]):
                raise EstimateFormatError(
                    f"{entry.where}: hand {row}: pred_cam is not the network's any more: the demo's next lines changed "
                    "its sign for left hands (pred_cam_t has the other). Keep a copy from before them"
                )
            K = pinhole(FOCAL / CROP * max(size), size[0] / 2, size[1] / 2)
            place_3d = _place(cam[row], centre[row], side[row], K, left)
            seen = flip_x(joints[row]) if left else joints[row]
            hand = Hand(entry, row, left, image_name(entry, row), size, K, project_numpy(seen + place_3d, K))
            hand.joints_3d, hand.pose, hand.betas, hand.hand_name = seen, pose[row], betas[row], HAND_NAME
            hands.append(hand)
    return hands


def _is_flipped(cam: np.ndarray, cam_t: np.ndarray) -> bool:
    """Whether tx of the crop's camera (s, tx, ty) has not the sign that its translation (3,) m has."""
    return bool(abs(cam[1] + cam_t[0]) < 1e-3 * abs(cam[1]) and abs(cam[1]) > 1e-6)


def _place(cam: np.ndarray, centre: np.ndarray, side: float, K: np.ndarray, left: bool) -> np.ndarray:
    """Translation (3,) m in the picture's camera from s, tx, ty of the crop."""
    scale = side * cam[0]
    shift = cam[1:] * [-1 if left else 1, 1] + 2 * (centre - K[:2, 2]) / scale
    return np.array([*shift, 2 * K[0, 0] / scale])


def update(hand: Hand, new: Hand) -> list[str]:
    """Put what is not None in ``new`` into the file; their camera is solved anew where 3D or 2D points changed."""
    entry, row, (root, fingers) = hand.entry, hand.index, root_and_fingers(new.pose)
    joints = None if new.joints_3d is None else _in_crop(hand, new.joints_3d)
    changed = entry.put_each(
        row,
        ("betas", new.betas, (-1, 10)),
        ("global_orient", root, (-1, 1, 3, 3)),
        ("hand_pose", fingers, (-1, 15, 3, 3)),
        ("pred_keypoints_3d", joints, (-1, 21, 3)),
    )
    seen = hand.seen_anew(new)
    if seen is None:
        return changed
    points, put, _ = seen
    assert hand.K is not None
    centre, side = entry.array("box_center", -1, 2)[row], entry.array("box_size", -1)[row]
    scale = 2 * hand.K[0, 0] / put[2]
    cam = np.array([scale / side, *((put[:2] - 2 * (centre - hand.K[:2, 2]) / scale) * [-1 if hand.is_left else 1, 1])])
    crop = np.array([cam[1], cam[2], 2 * FOCAL / (CROP * cam[0])])
    there = _in_crop(hand, points) + crop
    pixels = FOCAL / CROP * there[:, :2] / there[:, 2:]
    return changed + entry.put_each(
        row, ("pred_cam", cam, (-1, 3)), ("pred_cam_t", crop, (-1, 3)), ("pred_keypoints_2d", pixels, (-1, 21, 2))
    )


def _in_crop(hand: Hand, points: np.ndarray) -> np.ndarray:
    """Points (21,3) m as the network saw them: of a left hand mirrored."""
    return flip_x(points) if hand.is_left else points
