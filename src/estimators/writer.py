"""A file of estimates again, with what was changed of its hands, in its own keys, types and conventions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from src.estimators.files import save
from src.estimators.formats import module_of
from src.estimators.reader import Reader, Row
from src.estimators.records import Hand, flip_x
from src.personalization.solver.status import usable
from utils.artifacts import Predictions
from utils.camera import mirror_points

#: Meshes, cameras of the crop, places, and poses and shapes of a hand model that is not in use: of the hand as it was.
STALE = (
    *("pred_vertices", "vertices", "pred_vertices_smpl", "soma_joints", "pred_cam", "pred_camera", "pred_trans"),
    *("mhr_model_params", "hand_pose_params", "scale_params", "shape_params", "pred_pose_raw", "pred_joint_coords"),
    *("betas", "global_orient", "hand_pose", "pred_hand_betas", "pred_hand_pose"),
)


def write_file(reader: Reader, number: int, first: int, target: Path, changed: Predictions | None) -> list[str]:
    """Write file ``number`` of a source to ``target``; byte for byte if nothing of its hands changed.

    Args:
        first: image_id of its first hand. changed: rows by image_id; those that it lacks, or whose status
            says that no hand was found, stay as they are (None: all).

    Returns:
        A line for each changed hand: picture, side, keys.

    Raises:
        ValueError: a hand's side was changed.
    """
    content, hands = reader.open(number, last=True)
    released, lines = reader.rows(hands), []
    place = np.zeros(0) if changed is None else changed.image_id - first
    here = (place >= 0) & (place < len(hands))
    if changed is not None and changed.status is not None:
        here &= usable(torch.as_tensor(changed.status)).numpy()
    for row in np.flatnonzero(here).tolist():
        assert changed is not None
        hand, old = hands[int(place[row])], released[int(place[row])]
        if keys := _update(reader.format, hand, old, changed, row):
            lines.append(f"{hand.name}: {', '.join(keys)}")
    if lines:
        save(target, content)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(reader.files[number], target)
    return lines


def _update(format: str, hand: Hand, released: Row, changed: Predictions, row: int) -> list[str]:
    """Write what differs of one hand into its entry; the keys that changed."""
    if bool(changed.is_left[row]) != hand.is_left:
        raise ValueError(
            f"{hand.name}: is_left of image_id {changed.image_id[row]} was changed; rows must be those that were read"
        )
    new = Hand(hand.entry, hand.index, hand.is_left, hand.image, hand.size)
    for key in ("keypoints_2d", "joints_3d", "pose", "betas"):
        before, every = released.columns.get(key), getattr(changed, key)
        if before is None or every is None or np.array_equal(before.astype(every.dtype), every[row]):
            continue
        if key in ("pose", "betas") and changed.hand_name != hand.hand_name:
            continue
        value = every[row].astype(np.float64)
        if key == "keypoints_2d" and hand.is_left:
            assert hand.size is not None
            value = mirror_points(value, hand.size[0])
        elif key == "joints_3d":
            assert hand.joints_3d is not None
            value = (flip_x(value) if hand.is_left else value) + hand.joints_3d[0]
        setattr(new, key, value)
    keys = list(dict.fromkeys(module_of(format).update(hand, new)))
    stale = [key for key in STALE if key not in keys and hand.entry.has(key)]
    return [*keys, *(f"{key} as it was" for key in stale)] if keys else []
