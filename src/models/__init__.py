"""Networks by name. Every one takes an image (B, 3, S, S) in [-1, 1] and returns a dict of tensors."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

RECIPES = ("fair", "paper")


def _fair_mano(sees_shape: bool, has_confidence: bool) -> Callable[..., nn.Module]:
    def build(**options: object) -> nn.Module:
        from src.models.mano_networks import ManoNetwork

        return ManoNetwork(sees_shape=sees_shape, has_confidence=has_confidence, **options)

    return build


def _fair_pose_2d(**options: object) -> nn.Module:
    from src.models.mano_networks import Pose2D

    return Pose2D(**options)


#: (name, recipe) -> builder. Imports happen on use, so that listing the names costs nothing.
MODELS: dict[str, dict[str, Callable[..., nn.Module]]] = {
    "mano_baseline": {"fair": _fair_mano(False, False)},
    "mano_baseline_conf": {"fair": _fair_mano(False, True)},
    "mano_identity": {"fair": _fair_mano(True, False)},
    "pose_2d": {"fair": _fair_pose_2d},
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
    if recipe not in MODELS[name]:
        raise ValueError(f"model {name!r} has no recipe {recipe!r}; it has {sorted(MODELS[name])}")
    return MODELS[name][recipe](**options)
