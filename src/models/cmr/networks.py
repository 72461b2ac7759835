"""The family's networks: CMR-SG, CMR-PG, CMR-PG that knows the subject, and the 2D model."""

from __future__ import annotations

from pathlib import Path

import torch

from conv.hierarchy import MeshHierarchy
from src.models.cmr.cascade import PG, SG, Cascade, Cues, Layout
from src.models.cmr.joint_maps import joints_from_maps
from src.models.cmr.mesh_decoder import MeshDecoder
from src.models.cmr.rest_mesh import RestMesh, hand_size, known_rest_mesh
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
    """CMR-PG's 2D part: three stages of joint maps (`pose_2d` of the paper).

    Args:
        backbone: resnet18, resnet34 or resnet50.
        weights: the user's ImageNet weights of it, or None.
    """

    def __init__(self, backbone: str = "resnet18", weights: str | Path | None = None) -> None:
        super().__init__(PG, backbone, weights, with_mask=False, uses_feature=False)

    def forward(self, image: torch.Tensor, **_: torch.Tensor | None) -> Output:
        """image (B, 3, S, S) in [-1, 1] -> ``heatmaps``, three of (B, 21, S/2, S/2), the last the prediction;
        ``keypoints_2d`` (B, 21, 2) px of the input; ``keypoint_confidence`` (B, 21) in [0, 1]."""
        return _cue_output(self.encode(image), image.shape[-1])


class CmrNetwork(Cascade, MeshDecoder):
    """A cascade of 2D cues and the spiral mesh decoder.

    Args:
        layout: `SG` or `PG`.
        backbone: resnet18, resnet34 or resnet50.
        weights: the user's ImageNet weights of it, or None.
        hierarchy: mesh levels, or a path for `template.cmr_assets.load_hierarchy`; None for the
            hierarchy of the hand that `load_hand_assets` finds. A trained network needs the one it
            was trained with: its hash is ``hierarchy_hash``.
        with_mask: silhouette maps as well; the identity paper's comparison was without.
        extra_channels: of the mesh decoder.
    """

    def __init__(
        self,
        layout: Layout,
        backbone: str = "resnet18",
        weights: str | Path | None = None,
        hierarchy: MeshHierarchy | str | Path | None = None,
        with_mask: bool = True,
        extra_channels: int = 0,
    ) -> None:
        levels = hierarchy if isinstance(hierarchy, MeshHierarchy) else load_hierarchy(path=hierarchy)
        super().__init__(
            layout,
            backbone,
            weights,
            with_mask=with_mask,
            uses_feature=True,
            hierarchy=levels,
            extra_channels=extra_channels,
        )
        self.hierarchy, self.hierarchy_hash = levels, levels.hash

    def forward(self, image: torch.Tensor, **_: torch.Tensor | None) -> Output:
        """Predict.

        Args:
            image: (B, 3, S, S) in [-1, 1], S a multiple of 32 (224 in the released checkpoints).

        Returns:
            dict: ``vertices_levels``, four (B, V_l, 3), finest first, metres, root-relative, camera
            axes; ``vertices`` the finest; ``heatmaps``, three (PG) or two (SG) of (B, 21, S/2, S/2);
            ``masks``, (B, 1, S/2, S/2) each, ``mask`` the last; ``keypoints_2d`` (B, 21, 2) px of
            the input and ``keypoint_confidence`` (B, 21); ``feature`` (B, 1000).
        """
        cues = self.encode(image)
        feature = self.backbone3.feature(cues.maps)
        return self._output(cues, feature, self.decode_mesh(feature), MESH_UNIT, image.shape[-1])

    @staticmethod
    def _output(
        cues: Cues, feature: torch.Tensor, meshes: list[torch.Tensor], unit: float | torch.Tensor, input_size: int
    ) -> Output:
        levels = [mesh * unit for mesh in meshes]
        return _cue_output(cues, input_size) | {"vertices_levels": levels, "vertices": levels[0], "feature": feature}


class CmrSG(CmrNetwork):
    """CMR-SG: mask, then joints, then mesh. Arguments as `CmrNetwork`."""

    def __init__(self, backbone: str = "resnet18", **options: object) -> None:
        super().__init__(SG, backbone, **options)


class CmrPG(CmrNetwork):
    """CMR-PG: joints, again joints, then mesh. Arguments as `CmrNetwork`."""

    def __init__(self, backbone: str = "resnet18", **options: object) -> None:
        super().__init__(PG, backbone, **options)


class CmrIdentity(CmrNetwork):
    """CMR-PG whose mesh decoder knows the subject.

    At every level the decoder also sees the subject's rest mesh (flat hand, relative to the rest
    wrist, in units of 0.2 m). An image says little about a hand's size, the rest mesh all: so the
    decoder predicts a hand of the template's size, and its output is scaled by the subject's.

    Args:
        backbone, weights, hierarchy, with_mask: as `CmrNetwork`.
        hand: hand layer that turns betas into rest meshes; None for the one `load_hand_assets` finds.
        scale_output: multiply by the subject's size over the template's.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str | Path | None = None,
        hierarchy: MeshHierarchy | str | Path | None = None,
        with_mask: bool = True,
        hand: HandModel | None = None,
        scale_output: bool = True,
    ) -> None:
        super().__init__(PG, backbone, weights, hierarchy, with_mask, extra_channels=3)
        self.rest = RestMesh(self.hierarchy, hand)
        self.scale_output = scale_output

    def forward(
        self,
        image: torch.Tensor,
        betas: torch.Tensor | None = None,
        rest_mesh: torch.Tensor | None = None,
        **_: torch.Tensor | None,
    ) -> Output:
        """As `CmrNetwork.forward`, for a known subject.

        Args:
            image: (B, 3, S, S) in [-1, 1].
            betas: (B, 10) the subject's shape; not needed with ``rest_mesh``.
            rest_mesh: (B, 778, 3) flat hand, metres, anywhere.

        Raises:
            ValueError: neither betas nor rest_mesh is given.
        """
        rest_mesh = known_rest_mesh("cmr_identity", self.rest.hand, betas, rest_mesh)
        cues = self.encode(image)
        feature = self.backbone3.feature(cues.maps)
        meshes = self.decode_mesh(feature, self.rest.levels(rest_mesh))
        unit: float | torch.Tensor = MESH_UNIT
        if self.scale_output:
            unit = MESH_UNIT * (hand_size(rest_mesh) / self.rest.template_size)[:, None, None]
        return self._output(cues, feature, meshes, unit, image.shape[-1])
