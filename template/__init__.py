"""The parametric hand: differentiable layer, safe asset reader, pose converters, stand-in hand."""

from __future__ import annotations

from template.assets import HandAssets, load_hand_assets, mirror_assets, right_hand
from template.layer import HandModel, HandOutput
from template.pose import axis_angle_to_pose, mirror_pose, pca_to_pose, pose_to_axis_angle, pose_to_pca

__all__ = [
    "HandAssets",
    "HandModel",
    "HandOutput",
    "axis_angle_to_pose",
    "load_hand_assets",
    "mirror_assets",
    "mirror_pose",
    "pca_to_pose",
    "pose_to_axis_angle",
    "pose_to_pca",
    "right_hand",
]
