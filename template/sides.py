"""Left hands in the right-hand convention: MANO_LEFT's betas as the right hand's, and labelled meshes by side.

A left hand is mirrored (x -> -x) on entry and is a right hand from then on. For its pose that is exact. For its shape
it is exact only if the left model's shape directions are the right one's mirror image. Those of the released
MANO_LEFT are not: their x components have the right hand's sign (docs/facts.md 1.6), so the same betas widen one hand
where they narrow the other, and some of its shapes have no right hand that matches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from template.assets import HandAssets, mirror_assets
from template.layer import HandModel
from template.pose import mirror_pose
from utils.joints import TIP_JOINTS, tip_vertices

MIRROR = np.array([-1.0, 1.0, 1.0])
_SAME = 1e-9  # metres, and metres a unit of beta
_BATCH = 256  # hands posed at once


class ConvertedBetas(NamedTuple):
    """Betas of another hand model, and how far its rest meshes are from those that were to be matched."""

    betas: np.ndarray  # (N, 10) float64
    residual: np.ndarray  # (N,) metres, mean vertex distance of the rest meshes, wrist on wrist


class LeftHandShape:
    """The shape space of a left hand, mirrored, beside the right hand's.

    Args:
        left, right: hand models of the two sides.

    Attributes:
        is_mirror: the left hand is the right one's mirror image (the stand-in; MANO with the sign repaired), so
            betas mean the same in both and are never changed.
    """

    def __init__(self, left: HandAssets, right: HandAssets) -> None:
        mirrored = mirror_assets(left)
        self.is_mirror = all(
            np.abs(getattr(mirrored, name) - getattr(right, name)).max() < _SAME
            for name in ("v_template", "shapedirs", "J_regressor")
        )
        self._left, self._right = (_rest_from_wrist(hand) for hand in (mirrored, right))

    def to_right(self, betas: np.ndarray) -> ConvertedBetas:
        """Betas (N, 10) of the left hand as the right hand's that come closest in the mirror; the miss in m.

        Least squares over the rest mesh: right[:, 1:] b' ~ left[:, 0] + left[:, 1:] b - right[:, 0].
        """
        betas = np.asarray(betas, dtype=np.float64)
        if self.is_mirror:
            return ConvertedBetas(betas.copy(), np.zeros(len(betas)))
        left, right = self._left, self._right
        wanted = (left[:, :1] - right[:, :1]) + left[:, 1:] @ betas.T  # (2334, N)
        converted = np.linalg.lstsq(right[:, 1:], wanted, rcond=None)[0]
        missed = (right[:, 1:] @ converted - wanted).reshape(778, 3, -1)
        return ConvertedBetas(converted.T, np.linalg.norm(missed, axis=1).mean(axis=0))


def rest_wrist(assets: HandAssets, betas: np.ndarray) -> np.ndarray:
    """Wrist J0 (N, 3), metres, of the rest pose for betas (N, 10): MANO turns the hand about it."""
    regressor = assets.J_regressor[0]
    return regressor @ assets.v_template + betas @ np.einsum("v,vck->kc", regressor, assets.shapedirs)


def _rest_from_wrist(assets: HandAssets) -> np.ndarray:
    """(2334, 11) metres: rest vertices relative to the rest wrist, of the mean shape and a unit of each beta."""
    basis = np.concatenate([assets.v_template[..., None], assets.shapedirs], axis=-1)
    return (basis - np.einsum("v,vcs->cs", assets.J_regressor[0], basis)).reshape(-1, 11)


def put_tips(
    joints: np.ndarray | torch.Tensor, vertices: np.ndarray | torch.Tensor, is_left: np.ndarray, tips: str
) -> None:
    """Give left hands their own fingertips, in place: sets such as manopth's name another vertex on that side.

    Args:
        joints: (N, 21, 3), changed where ``is_left``; vertices: (N, 778, 3), same frame, metres, mirrored or not.
        is_left: (N,) bool.
        tips: name of a set in `utils.joints.TIP_VERTICES`.
    """
    left_tips = tip_vertices(tips, "left")
    if left_tips == tip_vertices(tips, "right"):
        return
    rows = np.flatnonzero(is_left)
    joints[rows[:, None], list(TIP_JOINTS)] = vertices[rows[:, None], list(left_tips)]


@torch.no_grad()
def hand_points(
    hand: HandModel,
    pose: np.ndarray,
    betas: np.ndarray,
    transl: np.ndarray | None,
    is_left: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Joints (N,21,3) and vertices (N,778,3), metres, of poses (N,16,3,3), betas (N,10), transl (N,3) or None.

    Rows with ``is_left`` (N,) get the tip vertices that the left hand has in the hand's set.
    """
    device = hand.faces.device

    def part(array: np.ndarray | None, rows: slice) -> torch.Tensor | None:
        return None if array is None else torch.as_tensor(array[rows], dtype=torch.float32, device=device)

    outputs = [
        hand(*(part(array, slice(start, start + _BATCH)) for array in (pose, betas, transl)))
        for start in range(0, len(pose), _BATCH)
    ]
    joints = torch.cat([output.joints for output in outputs]).cpu().numpy()
    vertices = torch.cat([output.vertices for output in outputs]).cpu().numpy()
    if is_left is not None:
        put_tips(joints, vertices, is_left, hand.tips)
    return joints, vertices


@torch.no_grad()
def labelled_hands(
    models: Mapping[str, HandModel],
    pose: np.ndarray,
    betas: np.ndarray,
    transl: np.ndarray,
    is_left: np.ndarray,
    label_betas: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Joints (N, 21, 3) and vertices (N, 778, 3), m, of annotated samples, as their own side's hand model makes them.

    A left hand is posed by the left model with the betas of its label, mirrored, and put where the sample has its
    wrist, which is J0(betas) + transl of the right model. Joints have their side's tips.

    Args:
        models: "right", and "left" if a left hand occurs; they decide the joints (type and tips).
        pose, betas, transl: (N, 16, 3, 3), (N, 10), (N, 3) as in the sample (`datasets.sample`).
        is_left: (N,) bool.
        label_betas: (N, 10) of the sample's own side; None: ``betas``.
    """
    joints = np.empty((len(pose), 21, 3), dtype=np.float32)
    vertices = np.empty((len(pose), 778, 3), dtype=np.float32)
    label_betas = betas if label_betas is None else label_betas
    for left in (False, True):
        rows = np.flatnonzero(np.asarray(is_left, dtype=bool) == left)
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            shown, labelled, right_betas, place = (
                torch.as_tensor(np.asarray(values)[part], dtype=torch.float32, device=models["right"].faces.device)
                for values in (pose, label_betas, betas, transl)
            )
            if left:
                output = models["left"](mirror_pose(shown), labelled)
                mirror = output.vertices.new_tensor(MIRROR)
                wrist = models["right"].rest_joints(right_betas)[:, 0] + place
                move = (wrist - output.rest_joints[:, 0] * mirror)[:, None]
                points = output.joints * mirror + move, output.vertices * mirror + move
            else:
                points = models["right"](shown, right_betas, place)[:2][::-1]
            joints[part], vertices[part] = (value.cpu().numpy() for value in points)
    return joints, vertices
