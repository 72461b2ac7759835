"""The mesh family on the shared body of the fair recipe: one backbone, heat maps, a slim spiral decoder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from conv.hierarchy import MeshHierarchy
from src.models.cmr.mesh_decoder import MeshDecoder
from src.models.cmr.rest_mesh import RestMesh, hand_size
from src.models.losses import MESH_UNIT
from src.models.mano_networks import FEATURES, Pose2D
from template import HandModel
from template.cmr_assets import load_hierarchy
from utils.camera import crop_geometry, ray_rotation

#: Channels of the spiral decoder's levels, fine to coarse: a quarter of the cascade's.
WIDTHS = (16, 32, 64, 128)
MESH_FEATURES = 256


class OneStageMesh(Pose2D):
    """Image (and rest mesh) to mesh, with the body, the 2D head and the crop geometry of `ManoNetwork`.

    The cascade's three ResNets take a GPU to train. This is its mesh decoder behind the body that
    the MANO networks share, so that the two families are compared from one trained backbone.

    Args:
        backbone, weights: as `Pose2D`.
        hierarchy: mesh levels, or a path for `template.cmr_assets.load_hierarchy`; None for the
            hierarchy of the hand that `load_hand_assets` finds.
        sees_shape: the decoder also reads the proportions of the subject's rest mesh at every level, through
            weights that start at zero, and its output is scaled by the subject's size over the template's
            (`cmr_identity`).
        hand: hand layer that turns betas into rest meshes; None for the one `load_hand_assets` finds.
        crop_geometry: as `ManoNetwork`; the mesh is then predicted relative to the ray through the crop's centre.
    """

    def __init__(
        self,
        backbone: str = "regnet_x_400mf",
        weights: str | Path | None = None,
        hierarchy: MeshHierarchy | str | Path | None = None,
        sees_shape: bool = False,
        hand: HandModel | None = None,
        crop_geometry: bool = True,
    ) -> None:
        super().__init__(backbone, weights)
        self.hierarchy = hierarchy if isinstance(hierarchy, MeshHierarchy) else load_hierarchy(path=hierarchy)
        self.hierarchy_hash = self.hierarchy.hash
        self.uses_crop_geometry = crop_geometry
        self.feature = nn.Linear(self.backbone.channels[-1], FEATURES)
        context = FEATURES + 3 * 21 + (3 if crop_geometry else 0)
        self.to_mesh = nn.Sequential(nn.Linear(context, 512), nn.ReLU(), nn.Linear(512, MESH_FEATURES))
        self.rest = RestMesh(self.hierarchy, hand) if sees_shape else None
        self.mesh = MeshDecoder(self.hierarchy, 3 if sees_shape else 0, WIDTHS, MESH_FEATURES, blind_start=True)

    def forward(
        self,
        image: torch.Tensor,
        betas: torch.Tensor | None = None,
        K: torch.Tensor | None = None,
        rest_mesh: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Predict.

        Args:
            image: (B, 3, S, S) in [-1, 1].
            betas: (B, 10) the subject's shape; or
            rest_mesh: (B, 778, 3) the subject's flat hand, metres, anywhere. One of them with ``sees_shape``.
            K: (B, 3, 3) intrinsics of the crop in px; needed with crop geometry.

        Returns:
            dict: ``vertices_levels``, four (B, V_l, 3), finest first, metres, relative to the wrist, camera
            axes; ``vertices`` the finest; and what `Pose2D` returns.

        Raises:
            ValueError: the shape or K is missing.
        """
        if self.uses_crop_geometry and K is None:
            raise ValueError("this network was trained with crop geometry: pass the crop's K (B,3,3)")
        features, size = self.backbone(image), image.shape[-1]
        output = self._decode(features, size)
        # Small and precision-sensitive: bf16 would round a mesh to half a millimetre.
        with torch.autocast(image.device.type, enabled=False):
            position = output["keypoints_2d"] * (2 / size) - 1
            parts = [torch.relu(self.feature(features[-1].float().mean((2, 3)))), position.flatten(1)]
            parts.append(output["keypoint_confidence"])
            if self.uses_crop_geometry:
                parts.append(crop_geometry(K.float(), size))
            unit, seen = MESH_UNIT, None
            if self.rest is not None:
                mesh = self.rest.of(betas, rest_mesh)
                seen = self.rest.proportions(mesh)
                unit = MESH_UNIT * (hand_size(mesh) / self.rest.template_size)[:, None, None]
            levels = [unit * level for level in self.mesh.decode_mesh(self.to_mesh(torch.cat(parts, dim=1)), seen)]
            if self.uses_crop_geometry:
                turn = ray_rotation(K.float(), size).transpose(1, 2)
                levels = [level @ turn for level in levels]
        return output | {"vertices_levels": levels, "vertices": levels[0]}
