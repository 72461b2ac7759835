"""What networks of meshes are trained for: the mesh-convolution family, METRO and the comparison method."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from src.models.losses import MESH_UNIT, LossWeights, edge_length_loss, normal_loss
from src.models.losses_cmr import CmrLoss
from src.models.mesh_joints import mesh_joints
from src.models.metro.networks import see
from src.models.metro.template_tokens import VERTICES_195
from src.models.objectives import Batch, ManoObjective, Objective, keypoint_terms
from template import HandModel
from utils.camera import project

#: Pixels of the marked picture to one of the map, along each axis.
_FINE = 2
#: Places (P, 3) in each triangle that are marked: a lattice with a quarter of an edge between neighbours.
_LATTICE = torch.tensor([(a / 4, b / 4, (4 - a - b) / 4) for a in range(5) for b in range(5 - a)])


class MeshObjective(Objective):
    """Meshes at four levels, joint maps and masks at each stage (`CmrLoss`).

    Meshes are compared relative to the regressed wrist. The joint maps are trained on the projections of the
    mesh's own (regressed) joints, so that a mesh and its 2D cues agree about where a joint is. Masks are the
    data set's where it has some (batch key ``mask``), else silhouettes of the true mesh.

    Args:
        hand: hand layer with regressed joints (`mesh_joints.mesh_hand`), on the training device.
        criterion: the loss, for the network's hierarchy, on the same device.
    """

    score = "mpjpe_mm"

    def __init__(self, hand: HandModel, criterion: CmrLoss) -> None:
        self.hand, self.criterion, self.cues = hand, criterion, LossWeights()

    @torch.no_grad()
    def truth(self, batch: Batch) -> Batch:
        """``vertices`` (B, 778, 3) and ``joints`` (B, 21, 3), metres, camera frame; ``keypoints`` (B, 21, 2) px."""
        posed = self.hand(batch["pose"], batch["betas"], batch["transl"])
        keypoints = project(posed.joints, batch["K"])
        return {"vertices": posed.vertices, "joints": posed.joints, "keypoints": keypoints}

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, Batch]:
        """Weighted sum and its terms; see `CmrLoss`."""
        truth, size = self.truth(batch), batch["image"].shape[-1]
        relative = truth["vertices"] - truth["joints"][:, :1]
        if "heatmap_logits" in output:  # the one-stage form has the fair networks' heat maps, and no masks
            loss, terms = self.criterion.mesh(output["vertices_levels"], relative)
            seen = keypoint_terms(output, batch | {"keypoints_2d": truth["keypoints"]})
            return loss + sum(getattr(self.cues, name) * term for name, term in seen.items()), terms | seen
        mask = batch.get("mask")
        if mask is None and output["masks"]:
            map_size = output["masks"][0].shape[-1]
            mask = silhouette(truth["vertices"], self.hand.faces, batch["K"], size, map_size)
        return self.criterion(output, size, truth["keypoints"], relative, mask)

    def scores(self, output: Batch, batch: Batch) -> Batch:
        """Root-relative MPJPE and MPVPE (B,), mm, and the 2D error (B,), px of the network input."""
        truth, vertices = self.truth(batch), output["vertices"].float()
        joints, wrist = mesh_joints(vertices, self.hand), truth["joints"][:, :1]
        root = joints[:, :1]
        return {
            "mpjpe_mm": 1000 * ((joints - root) - (truth["joints"] - wrist)).norm(dim=-1).mean(1),
            "mpvpe_mm": 1000 * ((vertices - root) - (truth["vertices"] - wrist)).norm(dim=-1).mean(1),
            "keypoints_px": (output["keypoints_2d"] - truth["keypoints"]).norm(dim=-1).mean(1),
        }


class MetroObjective(MeshObjective):
    """Meshes relative to the true wrist, at 195 and 778 vertices; joints predicted and regressed from the mesh.

    Args:
        hand: as `MeshObjective`.
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
        both = (output["joints"], mesh_joints(output["vertices"], self.hand))
        if self.as_released:
            true_2d = (truth["keypoints"] + 0.5) * (2 / batch["image"].shape[-1]) - 1
            coarse = F.l1_loss(output["vertices_coarse"], true_coarse)
            terms = {
                "joints": sum(F.mse_loss(joints - joints[:, :1], true_joints) for joints in both),
                "mesh": coarse / 2 + F.l1_loss(output["vertices"], true_vertices) / 2,
                "keypoints": sum(F.mse_loss(see(joints, output["camera"]), true_2d) for joints in both),
            }
            return sum(terms.values()), terms
        vertices, target, faces = output["vertices"] / MESH_UNIT, true_vertices / MESH_UNIT, self.hand.faces
        coarse = output["vertices_coarse"] / MESH_UNIT
        terms = {
            "mesh": (vertices - target).abs().mean() + (coarse - target[:, self.selection]).abs().mean(),
            "joints": torch.stack([(points - true_joints).abs().mean() / MESH_UNIT for points in both]).mean(),
            "normal": normal_loss(vertices, target, faces),
            "edge": edge_length_loss(vertices, target, faces),
        } | keypoint_terms(output, batch | {"keypoints_2d": truth["keypoints"]})
        return sum(getattr(self.weights, name) * term for name, term in terms.items()), terms


class BoukhaymaObjective(ManoObjective):
    """Mesh, normals and edges of the comparison method (docs/facts.md 7.1): nothing on pose or shape themselves.

    Args:
        hand: the hand layer, on the training device.
        projected: also train the weak-perspective camera, by the 2D joints; the paper's comparison did not.
        frame: as of `ManoObjective`.
    """

    def __init__(self, hand: HandModel, projected: bool, frame: str) -> None:
        weights = LossWeights(joints=0.0, pose=0.0, betas=0.0, heatmap=0.0, keypoints=1.0 if projected else 0.0)
        super().__init__(hand, weights, frame)

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, Batch]:
        loss, terms = super().loss(output, batch)
        if self.weights.keypoints:
            size = batch["image"].shape[-1]
            keypoints = boukhayma_keypoints(output, size, self.hand)
            terms["keypoints"] = (keypoints - batch["keypoints_2d"]).abs().mean() / size
            loss = loss + self.weights.keypoints * terms["keypoints"]
        return loss, terms


def boukhayma_keypoints(output: Batch, size: int, hand: HandModel) -> torch.Tensor:
    """Kinematic joints (B, 21, 2), px of the input of side ``size``, through the network's own camera."""
    joints = hand.joints(output["pose"], output["betas"])
    return weak_perspective(joints - joints[:, :1], output["camera"], size)


def weak_perspective(points: torch.Tensor, camera: torch.Tensor, size: int) -> torch.Tensor:
    """Pixels (B, P, 2) of points (B, P, 3), metres, seen by weak-perspective cameras.

    Args:
        points: metres, relative to the wrist, camera axes.
        camera: (B, 3): scale, half input sides per 0.1 m; shift x, y in half input sides.
        size: side of the input, px.
    """
    scaled = points[..., :2] * 10 * camera[:, None, :1] + camera[:, None, 1:]
    return (scaled + 1) * (size / 2) - 0.5


@torch.no_grad()
def silhouette(
    vertices: torch.Tensor, faces: torch.Tensor, K: torch.Tensor, input_size: int, map_size: int
) -> torch.Tensor:
    """How much of each map pixel a hand's mesh covers, whatever may lie before it.

    Points all over the triangles are marked in a picture of twice the map's resolution, gaps of one pixel are
    closed, and the picture is averaged down. That is enough while the triangles' edges stay below some
    ten pixels of the map; a hand's have about two at 112 px.

    Args:
        vertices: (B, V, 3) metres, camera frame; faces: (F, 3).
        K: (B, 3, 3) px of the network input, whose side is ``input_size``.

    Returns:
        (B, 1, map_size, map_size) float32 in [0, 1].
    """
    side = _FINE * map_size
    points = torch.einsum("bfcx,pc->bfpx", vertices[:, faces], _LATTICE.to(vertices)).flatten(1, 2)
    pixels = ((project(points, K) + 0.5) * (side / input_size) - 0.5).round()
    inside = ((pixels >= 0) & (pixels < side)).all(-1) & (points[..., 2] > 0)
    pixels = pixels.nan_to_num().clamp(0, side - 1).long()
    marked = vertices.new_zeros(len(vertices), side * side)
    marked.scatter_reduce_(1, pixels[..., 1] * side + pixels[..., 0], inside.to(marked.dtype), "amax")
    grown = F.max_pool2d(F.pad(marked.view(-1, 1, side, side), (1, 1, 1, 1)), 3, stride=1)
    closed = -F.max_pool2d(-F.pad(grown, (1, 1, 1, 1), value=1.0), 3, stride=1)
    return F.avg_pool2d(closed, _FINE)
