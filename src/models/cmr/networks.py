"""The family's networks: CMR-SG, CMR-PG, CMR-PG that knows the subject, and the 2D model."""

from __future__ import annotations

from pathlib import Path

import torch

from conv.hierarchy import MeshHierarchy
from src.models import told_betas
from src.models.cmr.cascade import PG, SG, Cascade, Cues, Layout
from src.models.cmr.joint_maps import joints_from_maps
from src.models.cmr.mesh_decoder import MeshDecoder
from src.models.cmr.rest_mesh import RestMesh, size_unit
from src.models.losses import MESH_UNIT
from template import HandModel
from template.cmr_assets import load_hierarchy

Output = dict[str, torch.Tensor | list[torch.Tensor]]


def _cue_output(cues: Cues, input_size: int) -> Output:
    """Keypoints of the last stage, the joint maps and the masks of all, as every network returns them."""
    keypoints, confidence = joints_from_maps(cues.joint_maps[-1].detach(), input_size)
    output: Output = {
        "heatmaps": cues.joint_maps,
        "masks": cues.masks,
        "keypoints_2d": keypoints,
        "keypoint_confidence": confidence,
    }
    if cues.masks:
        output["mask"] = cues.masks[-1]
    return output


class CmrPose2D(Cascade):
    """CMR-PG's 2D part: three stages of joint maps (`pose_2d` of the paper); arguments as `Cascade`."""

    def __init__(self, backbone: str = "resnet18", weights: str | Path | None = None) -> None:
        super().__init__(PG, backbone, weights, with_mask=False, uses_feature=False)

    def forward(self, image: torch.Tensor, **_: torch.Tensor | None) -> Output:
        """The keypoints, see `src.models`; ``heatmaps``, three of (B, 21, S/2, S/2), the last the prediction."""
        return _cue_output(self.encode(image), image.shape[-1])


class CmrNetwork(Cascade, MeshDecoder):
    """A cascade of 2D cues and the spiral mesh decoder.

    Args:
        backbone, weights: as `Cascade`.
        hierarchy: mesh levels; None for those of the hand that `load_hand_assets` finds. A trained network needs the
            ones it was trained with: their hash is ``hierarchy_hash``.
        with_mask: silhouette maps as well; the identity paper's comparison was without.
    """

    layout: Layout
    #: Per vertex, of the mesh decoder.
    extra_channels = 0

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str | Path | None = None,
        hierarchy: MeshHierarchy | None = None,
        with_mask: bool = True,
    ) -> None:
        levels = load_hierarchy() if hierarchy is None else hierarchy
        super().__init__(
            self.layout,
            backbone,
            weights,
            with_mask=with_mask,
            uses_feature=True,
            hierarchy=levels,
            extra_channels=self.extra_channels,
        )
        self.hierarchy, self.hierarchy_hash = levels, levels.hash

    def forward(self, image: torch.Tensor, betas: torch.Tensor | None = None, **_: torch.Tensor | None) -> Output:
        """Mesh and keypoints, see `src.models`, of an image whose side is a multiple of 32 (224 in the released
        checkpoints); ``heatmaps``, three (PG) or two (SG) of (B, 21, S/2, S/2); ``masks``, (B, 1, S/2, S/2) each,
        ``mask`` the last."""
        extra, unit = self._known(betas)
        cues = self.encode(image)
        feature = self.backbone3.feature(cues.maps)
        levels = [mesh * unit for mesh in self.decode_mesh(feature, extra)]
        output = {"vertices_levels": levels, "vertices": levels[0], "feature": feature}
        return _cue_output(cues, image.shape[-1]) | output

    def _known(self, betas: torch.Tensor | None) -> tuple[list[torch.Tensor] | None, float | torch.Tensor]:
        """What the mesh decoder sees besides the feature, and the unit of its meshes, metres."""
        return None, MESH_UNIT


class CmrSG(CmrNetwork):
    """CMR-SG: mask, then joints, then mesh."""

    layout = SG


class CmrPG(CmrNetwork):
    """CMR-PG: joints, again joints, then mesh."""

    layout = PG


class CmrIdentity(CmrPG):
    """CMR-PG whose mesh decoder knows the subject.

    At every level the decoder also sees the subject's rest mesh (flat hand, relative to the rest
    wrist, in units of 0.2 m). An image says little about a hand's size, the rest mesh all: so the
    decoder predicts a hand of the template's size, and its output is scaled by the subject's.

    Args:
        hand: hand layer that turns betas into rest meshes; None for the one `load_hand_assets` finds.
        others: as `CmrNetwork`.
    """

    extra_channels = 3

    def __init__(self, backbone: str = "resnet18", hand: HandModel | None = None, **others: object) -> None:
        super().__init__(backbone, **others)
        self.rest = RestMesh(self.hierarchy, hand)

    def _known(self, betas: torch.Tensor | None) -> tuple[list[torch.Tensor], torch.Tensor]:
        rest_mesh = self.rest.hand.rest(told_betas("cmr_identity", betas))
        return self.rest.levels(rest_mesh), size_unit(rest_mesh, self.rest.template_size)
