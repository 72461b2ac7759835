"""Networks by name. Every one takes an image (B, 3, S, S) in [-1, 1] and returns a dict of tensors."""

from __future__ import annotations

import importlib
from collections.abc import Callable

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
        options: handed to the network: ``backbone``, ``weights``, ``crop_geometry`` and so on.

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
