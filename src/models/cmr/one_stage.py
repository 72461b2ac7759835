"""The mesh family on the shared body of the fair recipe: one backbone, heat maps, a slim spiral decoder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from conv.hierarchy import MeshHierarchy
from src.models import told_betas
from src.models.cmr.mesh_decoder import MeshDecoder
from src.models.cmr.rest_mesh import RestMesh, size_unit
from src.models.losses import MESH_UNIT
from src.models.mano_networks import ContextNetwork
from template import HandModel
from template.cmr_assets import load_hierarchy

#: Channels of the spiral decoder's levels, fine to coarse: a quarter of the cascade's.
WIDTHS = (16, 32, 64, 128)
MESH_FEATURES = 256


class OneStageMesh(ContextNetwork):
    """Image (and rest mesh) to mesh, with the body, the 2D head and the crop geometry of `ManoNetwork`.

    The cascade's three ResNets take a GPU to train. This is its mesh decoder behind the body that
    the MANO networks share, so that the two families are compared from one trained backbone.

    Args:
        hierarchy: mesh levels; None for those of the hand that `load_hand_assets` finds.
        sees_shape: the decoder also reads the proportions of the subject's rest mesh at every level, through
            weights that start at zero, and its output is scaled by the subject's size over the template's
            (`cmr_identity`).
        hand: hand layer that turns betas into rest meshes; None for the one `load_hand_assets` finds.
    """

    def __init__(
        self,
        backbone: str = "regnet_x_400mf",
        weights: str | Path | None = None,
        hierarchy: MeshHierarchy | None = None,
        sees_shape: bool = False,
        hand: HandModel | None = None,
        crop_geometry: bool = True,
    ) -> None:
        super().__init__(backbone, weights, crop_geometry)
        self.hierarchy = load_hierarchy() if hierarchy is None else hierarchy
        self.hierarchy_hash = self.hierarchy.hash
        self.to_mesh = nn.Sequential(nn.Linear(self.context_size, 512), nn.ReLU(), nn.Linear(512, MESH_FEATURES))
        self.rest = RestMesh(self.hierarchy, hand) if sees_shape else None
        self.mesh = MeshDecoder(self.hierarchy, 3 if sees_shape else 0, WIDTHS, MESH_FEATURES, blind_start=True)

    def forward(
        self, image: torch.Tensor, betas: torch.Tensor | None = None, K: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Mesh and keypoints, see `src.models`."""
        output, context, turn = self._read(image, K)
        # Small and precision-sensitive: bf16 would round a mesh to half a millimetre.
        with torch.autocast(image.device.type, enabled=False):
            unit, seen = MESH_UNIT, None
            if self.rest is not None:
                mesh = self.rest.hand.rest(told_betas("cmr_identity", betas))
                seen, unit = self.rest.proportions(mesh), size_unit(mesh, self.rest.template_size)
            levels = [unit * level for level in self.mesh.decode_mesh(self.to_mesh(context), seen)]
            if turn is not None:
                levels = [level @ turn.transpose(1, 2) for level in levels]
        return output | {"vertices_levels": levels, "vertices": levels[0]}
