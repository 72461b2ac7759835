"""Networks by name, which all speak alike.

They are called with an image (B, 3, S, S) in [-1, 1] and, by name, the person's ``betas`` (B, 10) and the crop's
intrinsics ``K`` (B, 3, 3), px; each reads what it knows of, and raises ValueError where that is missing. They return a
dict that holds of these what the network has, and what its ``forward`` says besides:

* ``pose`` (B, 16, 3, 3) rotation matrices, camera frame; ``pose_6d`` (B, 96); ``betas`` (B, 10), predicted or handed
  through; ``confidence`` (B,), higher: trust the shape more; ``feature`` (B, F), what the heads read;
* ``vertices`` (B, 778, 3), metres, relative to the wrist, camera axes; ``vertices_levels``, four (B, V_l, 3) likewise,
  finest first;
* ``keypoints_2d`` (B, 21, 2) px of the input; ``keypoint_confidence`` (B, 21) in [0, 1]; ``heatmap_logits``
  (B, 21, S/4, S/4).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import nn

from options.recipes import RECIPES

Builder = Callable[..., nn.Module]


def _class(module: str, name: str, **fixed: object) -> Builder:
    """A builder that imports its module on use, so that listing the names costs nothing."""

    def build(**options: object) -> nn.Module:
        return getattr(importlib.import_module(module), name)(**fixed, **options)

    return build


def _mesh_family(cascade: str, **one_stage: object) -> Builder:
    """The released cascade of ResNets by default; with another backbone its mesh decoder on the shared body."""

    def build(backbone: str = "resnet18", **options: object) -> nn.Module:
        if backbone.lower().startswith("resnet"):
            return _class(_CMR, cascade)(backbone=backbone, **options)
        return _class("src.models.cmr.one_stage", "OneStageMesh", **one_stage)(backbone=backbone, **options)

    return build


_FAIR, _PAPER, _CMR = "src.models.mano_networks", "src.models.paper_mano", "src.models.cmr.networks"
_METRO = "src.models.metro.networks"

#: name -> recipe -> builder.
MODELS: dict[str, dict[str, Builder]] = {
    "mano_baseline": {"fair": _class(_FAIR, "ManoNetwork"), "paper": _class(_PAPER, "PaperMano")},
    "mano_baseline_conf": {
        "fair": _class(_FAIR, "ManoNetwork", has_confidence=True),
        "paper": _class(_PAPER, "PaperMano", has_confidence=True),
    },
    "mano_identity": {
        "fair": _class(_FAIR, "ManoNetwork", sees_shape=True),
        "paper": _class(_PAPER, "PaperMano", sees_shape=True),
    },
    "pose_2d": {"fair": _class(_FAIR, "Pose2D"), "paper": _class(_CMR, "CmrPose2D")},
    "cmr_sg": {"paper": _class(_CMR, "CmrSG")},
    "cmr_pg": {"paper": _mesh_family("CmrPG")},
    "cmr_identity": {"paper": _mesh_family("CmrIdentity", sees_shape=True)},
    "hand_detector": {"fair": _class("src.models.hand_detector", "HandDetector")},
    "boukhayma": {"paper": _class("src.models.cmr.boukhayma", "Boukhayma")},
    "metro": {"fair": _class(_METRO, "OneStageMetro"), "paper": _class(_METRO, "Metro")},
    "metro_identity": {
        "fair": _class(_METRO, "OneStageMetro", sees_shape=True),
        "paper": _class(_METRO, "Metro", sees_shape=True),
    },
}


def build_model(name: str, recipe: str = "fair", **options: object) -> nn.Module:
    """Build a network by name.

    Args:
        name: a key of `MODELS`.
        recipe: ``fair`` (default) or ``paper`` (the released code's architecture).
        options: handed to the network: ``backbone``, ``weights`` (file of the user's ImageNet weights of it),
            ``crop_geometry`` and so on.

    Raises:
        ValueError: unknown name, or no such recipe for it; says what there is.
    """
    if name not in MODELS:
        raise ValueError(f"model {name!r} is unknown; choose one of {sorted(MODELS)}")
    if recipe not in RECIPES:
        raise ValueError(f"recipe {recipe!r} is unknown; choose one of {sorted(RECIPES)}")
    if recipe not in MODELS[name] and len(MODELS[name]) == 1:
        recipe = next(iter(MODELS[name]))  # the CMR family has one form only
    if recipe not in MODELS[name]:
        raise ValueError(f"model {name!r} has no recipe {recipe!r}; it has {sorted(MODELS[name])}")
    return MODELS[name][recipe](**options)


def told_betas(network: str, betas: torch.Tensor | None) -> torch.Tensor:
    """The person's betas (B, 10) that ``network`` cannot do without; raises ValueError for None."""
    if betas is None:
        raise ValueError(f"{network} needs the subject's betas (B,10): pass --shape gt or --identity FILE")
    return betas
