"""Loss of the CMR family (docs/architectures.md): meshes at four levels, joint maps and masks at each stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from conv.hierarchy import MeshHierarchy
from src.models.cmr.joint_maps import joint_map_targets
from src.models.losses import MESH_UNIT, edge_length_loss, normal_loss

#: Weight of each term; the released code's.
WEIGHTS = {"mesh": 1.0, "heatmap": 10.0, "mask": 0.5, "normal": 0.1, "edge": 1.0}


def map_cross_entropy(maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy of probabilities (after the sigmoid), in float32 also under autocast."""
    with torch.autocast(maps.device.type, enabled=False):
        return F.binary_cross_entropy(maps.float(), target.float())


class CmrLoss(nn.Module):
    """Weighted sum and its terms.

    Args:
        hierarchy: the network's; None for a network without a mesh (`pose_2d`).
    """

    def __init__(self, hierarchy: MeshHierarchy | None) -> None:
        super().__init__()
        if hierarchy is not None:
            self.register_buffer("faces", torch.as_tensor(hierarchy.faces[0]), persistent=False)
            for level, ids in enumerate(hierarchy.kept):
                self.register_buffer(f"kept_{level}", torch.as_tensor(ids), persistent=False)

    def forward(
        self,
        output: dict[str, torch.Tensor | list[torch.Tensor]],
        input_size: int,
        keypoints_2d: torch.Tensor,
        vertices: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of a batch.

        Args:
            output: of a network of `src.models.cmr`.
            input_size: side of the network input, px.
            keypoints_2d: (B, 21, 2) true joints, px of the network input.
            vertices: (B, 778, 3) true mesh, as `mesh`; needed if the network predicts meshes.
            mask: (B, 1, H, W) true silhouette in [0, 1], any size. Without it the mask maps are not trained.

        Returns:
            scalar loss, and the unweighted terms of `WEIGHTS` that apply. Meshes are compared in units of 0.2 m; the
            terms of the stages and levels are summed.
        """
        terms = {}
        if "vertices_levels" in output:
            if vertices is None:
                raise ValueError("this network predicts meshes: the loss needs `vertices` (B,778,3)")
            terms = self.mesh(output["vertices_levels"], vertices)[1]
        maps = output["heatmaps"]
        with torch.no_grad():
            target = joint_map_targets(keypoints_2d, input_size, maps[0].shape[-1])
        terms["heatmap"] = torch.stack([map_cross_entropy(stage, target) for stage in maps]).sum()
        if mask is not None and output["masks"]:
            true_mask = F.interpolate(mask.float(), size=output["masks"][0].shape[-2:], mode="area").clamp(0, 1)
            terms["mask"] = torch.stack([map_cross_entropy(stage, true_mask) for stage in output["masks"]]).sum()
        return sum(WEIGHTS[name] * term for name, term in terms.items()), terms

    def mesh(self, levels: list[torch.Tensor], vertices: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The mesh terms alone: their weighted sum, and each.

        Args:
            levels: four (B, V_l, 3), finest first, metres.
            vertices: (B, 778, 3) true mesh, metres, relative to the same root and in the same axes.
        """
        levels, target = [level / MESH_UNIT for level in levels], vertices / MESH_UNIT
        errors = [(level - target[:, self.get_buffer(f"kept_{i}")]).abs().mean() for i, level in enumerate(levels)]
        terms = {
            "mesh": torch.stack(errors).sum(),
            "normal": normal_loss(levels[0], target, self.faces),
            "edge": edge_length_loss(levels[0], target, self.faces),
        }
        return sum(WEIGHTS[name] * term for name, term in terms.items()), terms
