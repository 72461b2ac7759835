"""Hands of a stream smoothed as they come: each by what its keypoints and its motion so far say of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from src.personalization.fitting.fixed_lag import FixedLagSmoother
from src.personalization.solver.status import usable
from src.photos.camera import Camera
from src.photos.result import Result
from template import HandAssets, HandModel
from template.kinematics import JointsModel


class StreamSmoother:
    """One `FixedLagSmoother` without lag for each hand that is followed.

    Args:
        assets: right hand in use; camera: of all frames.
    """

    def __init__(self, assets: HandAssets, camera: Camera) -> None:
        self._model, self._hand = JointsModel(assets), HandModel(assets, dtype=torch.float64)
        self._camera = camera
        self._hands: dict[tuple[int, str], FixedLagSmoother] = {}

    def __call__(self, track: int, hand: Result, seconds: float) -> Result:
        """The hand, moved to where it is most likely; itself where it has no rotations, or nothing better is found.

        Args:
            track: which of the hands; hand: as estimated from this frame alone; seconds: its time, later than before.
        """
        if hand.pose is None or hand.betas is None or hand.transl is None:
            return hand
        model, straight = self._camera.model, hand
        if self._camera.lens is not None:  # the smoother sees a pinhole camera; what lies beside it counts as unseen
            points = model.undistort(hand.keypoints)
            seen = np.isfinite(points).all(axis=1)
            confidence = np.where(seen, hand.confidence, 0)
            straight = replace(hand, keypoints=np.where(seen[:, None], points, 0), confidence=confidence)
        is_left = hand.side == "left"
        right = straight.mirrored() if is_left else straight
        pose, K, keypoints, confidence, betas = (
            torch.as_tensor(np.asarray(value, np.float64))
            for value in (right.pose, right.K, right.keypoints, right.confidence, right.betas)
        )
        smoother = self._hands.get((track, hand.side))
        if smoother is None:
            smoother = self._hands[track, hand.side] = FixedLagSmoother(self._model, betas)
        smoother.betas = betas
        _, fit = smoother.update(pose, K, keypoints, seconds, confidence)[-1]
        if not bool(usable(fit.status)[0]):
            return hand
        posed = self._hand(fit.pose, fit.betas, fit.transl)
        values = (posed.vertices, posed.joints, fit.pose, fit.transl)
        vertices, joints, turned, transl = (value[0].numpy() for value in values)
        moved = replace(right, vertices=vertices, joints=joints, pose=turned, transl=transl)
        moved = moved.mirrored() if is_left else moved
        places = {name: getattr(moved, name) for name in ("vertices", "joints", "pose", "transl")}
        close = None
        if hand.close is not None:
            view, seen_close = hand.close
            there = moved.moved(view.rotation.T)
            close = (view, replace(seen_close, **{name: getattr(there, name) for name in places}))
        return replace(hand, **places, close=close, notes=hand.notes | {"smoothed": True})
