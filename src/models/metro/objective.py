"""What METRO is trained for: joints, vertices and 2D as released, or the fair networks' terms."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from src.models.losses import MESH_UNIT, LossWeights, edge_length_loss, normal_loss
from src.models.mesh_joints import mesh_joints
from src.models.mesh_objectives import MeshObjective
from src.models.metro.networks import see
from src.models.metro.template_tokens import VERTICES_195
from src.models.objectives import Batch, keypoint_terms
from template import HandModel


class MetroObjective(MeshObjective):
    """Meshes relative to the true wrist, at 195 and 778 vertices; joints predicted and regressed from the mesh.

    Args:
        hand: hand layer with regressed joints (`mesh_joints.mesh_hand`), on the training device.
        as_released: squared joint errors and L1 vertices in metres and squared 2D errors in half sides of the input,
            through the network's camera, all with weight one; else the terms and weights of the fair networks.
    """

    def __init__(self, hand: HandModel, as_released: bool) -> None:
        self.hand, self.as_released, self.weights = hand, as_released, LossWeights()
        self.selection = torch.tensor(VERTICES_195, device=hand.faces.device)

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, Batch]:
        """Weighted sum and its terms."""
        truth = self.truth(batch)
        wrist = truth["joints"][:, :1]
        true_joints, true_vertices = truth["joints"] - wrist, truth["vertices"] - wrist
        true_coarse = true_vertices[:, self.selection]
        regressed = mesh_joints(output["vertices"], self.hand)
        if not self.as_released:
            return self._fair(output, batch | {"keypoints_2d": truth["keypoints"]}, regressed, true_joints, true_vertices)
        size = batch["image"].shape[-1]
        true_2d = (truth["keypoints"] + 0.5) * (2 / size) - 1
        both = (output["joints"], regressed)
        terms = {
            "joints": sum(F.mse_loss(joints - joints[:, :1], true_joints) for joints in both),
            "mesh": F.l1_loss(output["vertices_coarse"], true_coarse) / 2
            + F.l1_loss(output["vertices"], true_vertices) / 2,
            "keypoints": sum(F.mse_loss(see(joints, output["camera"]), true_2d) for joints in both),
        }
        return sum(terms.values()), terms

    def _fair(
        self,
        output: Batch,
        batch: Batch,
        regressed: torch.Tensor,
        true_joints: torch.Tensor,
        true_vertices: torch.Tensor,
    ) -> tuple[torch.Tensor, Batch]:
        vertices, target, faces = output["vertices"] / MESH_UNIT, true_vertices / MESH_UNIT, self.hand.faces
        coarse = output["vertices_coarse"] / MESH_UNIT
        joints = [(points - true_joints).abs().mean() / MESH_UNIT for points in (output["joints"], regressed)]
        terms = {
            "mesh": (vertices - target).abs().mean() + (coarse - target[:, self.selection]).abs().mean(),
            "joints": torch.stack(joints).mean(),
            "normal": normal_loss(vertices, target, faces),
            "edge": edge_length_loss(vertices, target, faces),
        } | keypoint_terms(output, batch)
        return sum(getattr(self.weights, name) * term for name, term in terms.items()), terms
