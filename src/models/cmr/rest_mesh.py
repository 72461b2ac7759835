"""The subject's flat hand at every level of a mesh hierarchy: how the spiral decoder knows whose hand it is."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from conv.hierarchy import MeshHierarchy
from src.models.losses import MESH_UNIT
from template import HandModel, load_hand_assets


def hand_size(mesh: torch.Tensor) -> torch.Tensor:
    """Root mean square distance (B,) of the vertices (B, V, 3) from their centre, in their unit."""
    return (mesh - mesh.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt()


def size_unit(rest_mesh: torch.Tensor, template_size: torch.Tensor) -> torch.Tensor:
    """Unit (B, 1, 1), metres, of what is found for the template's size: 0.2 m, scaled by the subject's size."""
    return MESH_UNIT * (hand_size(rest_mesh) / template_size)[:, None, None]


class RestMesh(nn.Module):
    """Betas to rest meshes, and rest meshes to levels. Holds nothing that enters a checkpoint.

    Args:
        hierarchy: mesh levels.
        hand: hand layer that turns betas into rest meshes; None for the one `load_hand_assets` finds.

    Raises:
        ValueError: the hierarchy is of another hand.
    """

    def __init__(self, hierarchy: MeshHierarchy, hand: HandModel | None = None) -> None:
        super().__init__()
        self.hand = HandModel(load_hand_assets()) if hand is None else hand
        assets = self.hand.assets
        if not np.array_equal(assets.faces, hierarchy.faces[0]):
            raise ValueError(
                f"the hierarchy is not of the hand {assets.name!r}: give `hierarchy=load_hierarchy(assets)` "
                "of the same hand"
            )
        self.register_buffer("wrist_regressor", torch.tensor(assets.J_regressor[0], dtype=torch.float32), False)
        template = torch.tensor(assets.v_template, dtype=torch.float32)[None]
        self.register_buffer("template_size", hand_size(template), False)
        for level, ids in enumerate(hierarchy.kept):
            self.register_buffer(f"kept_{level}", torch.tensor(ids, dtype=torch.int64), False)
        self.n_levels = len(hierarchy.kept)
        for level, points in enumerate(self.levels(template)):
            self.register_buffer(f"template_{level}", points, False)

    def levels(self, rest_mesh: torch.Tensor) -> list[torch.Tensor]:
        """Rest mesh (B, 778, 3), metres, at every level: (B, V_l, 3) relative to the wrist, in units of 0.2 m."""
        wrist = (self.wrist_regressor[:, None] * rest_mesh).sum(1)  # a matrix product would be rounded under autocast
        relative = (rest_mesh - wrist[:, None]) / MESH_UNIT
        return [relative[:, self.get_buffer(f"kept_{level}")] for level in range(self.n_levels)]

    def proportions(self, rest_mesh: torch.Tensor) -> list[torch.Tensor]:
        """How a hand differs from the template besides its size, at every level.

        Args:
            rest_mesh: (B, 778, 3), metres.

        Returns:
            (B, V_l, 3): the hand brought to the template's size, minus the template, in centimetres
            at the template's size; of the order of one, and zero for a hand that is only larger.
        """
        ratio = (self.template_size / hand_size(rest_mesh))[:, None, None]
        return [
            (ratio * level - self.get_buffer(f"template_{number}")) * (100 * MESH_UNIT)
            for number, level in enumerate(self.levels(rest_mesh))
        ]
