"""What networks need besides numbers: the hand in use, and the mesh levels that belong to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from src.models.mesh_joints import is_mesh_model
from template import HandAssets, HandModel, load_hand_assets
from template.cmr_assets import load_hierarchy


def mesh_parts(model: str, assets: HandAssets | None = None, hierarchy: str | Path | None = None) -> dict[str, Any]:
    """Options of `build_model` that are objects; none for networks that need none.

    Args:
        model: name of the network.
        assets: right hand in use; None for the one that `load_hand_assets` finds.
        hierarchy: ``transform.pkl`` or template folder of a CMR checkout, an .npz of mesh levels, or None for
            the levels that belong to the hand.

    Raises:
        FileNotFoundError, ValueError: as `load_hierarchy`.
    """
    if model == "boukhayma":
        return {"hand": assets}
    if not is_mesh_model(model):
        return {}
    assets = load_hand_assets() if assets is None else assets
    parts: dict[str, Any] = {"hierarchy": load_hierarchy(assets, hierarchy)}
    if model == "cmr_identity":
        parts["hand"] = HandModel(assets)
    return parts
