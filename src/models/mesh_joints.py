"""Joints of networks that predict meshes: by the hand's regressor from the posed vertices, and tip vertices.

A mesh without a pose has no kinematic joints. So these networks are compared with *regressed* joints of the true
mesh, with the tip vertices of the data set's own labels (docs/facts.md 6); both choices are named in the predictions.
"""

from __future__ import annotations

import torch

from template import HandAssets, HandModel

#: Tip set (`utils.joints.TIP_VERTICES`) of each data set's labels.
LABEL_TIPS = {"dex_ycb": "manopth", "freihand": "freihand", "humbi": "freihand", "ho3d": "ho3d"}


def is_mesh_model(name: str) -> bool:
    """Whether a network of that name predicts vertices, not pose and shape."""
    return name.startswith(("cmr_", "metro"))


def is_cascade(name: str, backbone: str) -> bool:
    """Whether it is the released cascade of ResNets; with other backbones it is the one-stage form."""
    return name.startswith("cmr_") and backbone.lower().startswith("resnet")


def mesh_hand(assets: HandAssets, dataset: str, device: torch.device | str = "cpu") -> HandModel:
    """Hand layer with regressed joints and the tips of a data set's labels."""
    return HandModel(assets, tips=LABEL_TIPS.get(dataset, "manopth"), joint_type="regressed").to(device)


def mesh_joints(vertices: torch.Tensor, hand: HandModel) -> torch.Tensor:
    """Joints (B, 21, 3), standard order, of meshes (B, 778, 3), in their unit and frame, by ``hand.regressor``."""
    return (vertices.transpose(1, 2) @ hand.regressor.to(vertices.dtype)).transpose(1, 2)
