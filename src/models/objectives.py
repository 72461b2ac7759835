"""What each network is trained for: one loss and one validation score a network."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from src.models.heatmaps import heatmap_loss
from src.models.losses import MESH_UNIT, LossWeights, edge_length_loss, normal_loss, ranking_loss
from src.models.losses_cmr import CmrLoss
from template import HandModel
from utils.rotations import matrix_to_rotation_6d

Batch = dict[str, torch.Tensor]


class Objective(Protocol):
    """Loss of a batch, and per-sample scores (lower is better) under the name in ``score``."""

    score: str

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]: ...

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]: ...

    def scores(self, output: Batch, batch: Batch) -> dict[str, torch.Tensor]: ...


class ManoObjective:
    """Mesh, pose, shape and 2D terms of FACTS 7.1.

    Args:
        hand: the hand layer, in float32 on the training device.
        weights: of the terms.
        frame: ``wrist`` compares meshes relative to the wrist; ``mano`` with the translation
            removed, as the released code did.
    """

    score = "mpjpe_mm"

    def __init__(self, hand: HandModel, weights: LossWeights, frame: str = "wrist") -> None:
        self.hand, self.weights, self.frame = hand, weights, frame

    def forward(self, model: nn.Module, batch: Batch) -> Batch:
        return model(batch["image"], betas=batch["betas"], K=batch["K"])

    def _mesh(self, pose: torch.Tensor, betas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posed = self.hand(pose, betas, None)
        origin = posed.joints[:, :1] if self.frame == "wrist" else 0.0
        return (posed.vertices - origin) / MESH_UNIT, (posed.joints - posed.joints[:, :1]) / MESH_UNIT

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted sum and its terms; see `LossWeights`."""
        vertices, joints = self._mesh(output["pose"], output["betas"])
        with torch.no_grad():
            true_vertices, true_joints = self._mesh(batch["pose"], batch["betas"])
        faces, weights = self.hand.faces, self.weights
        true_6d = matrix_to_rotation_6d(batch["pose"]).flatten(1)
        terms = {
            "mesh": (vertices - true_vertices).abs().mean(),
            "normal": normal_loss(vertices, true_vertices, faces),
            "edge": edge_length_loss(vertices, true_vertices, faces),
            "pose": (output["pose_6d"] - true_6d).abs().mean(),
            "betas": (output["betas"] - batch["betas"]).abs().mean(),
        }
        if weights.joints:
            terms["joints"] = (joints - true_joints).abs().mean()
        if weights.heatmap and "heatmap_logits" in output:
            terms |= keypoint_terms(output, batch)
        return sum(getattr(weights, name) * term for name, term in terms.items()), terms

    def scores(self, output: Batch, batch: Batch) -> Batch:
        """Root-relative MPJPE (B,), mm, and what else tells how training goes."""
        joints = self.hand.joints(output["pose"], output["betas"], None)
        truth = self.hand.joints(batch["pose"], batch["betas"], None)
        error = (joints - joints[:, :1]) - (truth - truth[:, :1])
        scores = {"mpjpe_mm": 1000 * error.norm(dim=-1).mean(1)}
        scores["betas_l1"] = (output["betas"] - batch["betas"]).abs().mean(1)
        if "keypoints_2d" in output:
            scores |= _keypoint_scores(output, batch)
        return scores


def keypoint_terms(output: Batch, batch: Batch) -> Batch:
    """Heat-map cross-entropy and L1 of the decoded keypoints in units of the input's side."""
    size = batch["image"].shape[-1]
    return {
        "heatmap": heatmap_loss(output["heatmap_logits"], batch["keypoints_2d"], size),
        "keypoints": (output["keypoints_2d"] - batch["keypoints_2d"]).abs().mean() / size,
    }


def _keypoint_scores(output: Batch, batch: Batch) -> Batch:
    error = (output["keypoints_2d"] - batch["keypoints_2d"]).norm(dim=-1).mean(1)
    return {"keypoints_px": error}


class KeypointObjective:
    """2D keypoints alone."""

    score = "keypoints_px"

    def __init__(self, weights: LossWeights) -> None:
        self.weights = weights

    def forward(self, model: nn.Module, batch: Batch) -> Batch:
        return model(batch["image"])

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, Batch]:
        terms = keypoint_terms(output, batch)
        return sum(getattr(self.weights, name) * term for name, term in terms.items()), terms

    def scores(self, output: Batch, batch: Batch) -> Batch:
        """Mean distance (B,) in px of the network input."""
        return _keypoint_scores(output, batch)


class JointMapObjective(KeypointObjective):
    """The paper's 2D model: ten times the mean BCE of three stages of joint maps (FACTS 7.4)."""

    def __init__(self) -> None:
        self.criterion = CmrLoss(None)

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, Batch]:
        return self.criterion(output, batch["image"].shape[-1], batch["keypoints_2d"])


class ConfidenceObjective:
    """Rank images by the error of their predicted shape (FACTS 7.2); all but the branch is frozen."""

    score = "ranking_error"

    def forward(self, model: nn.Module, batch: Batch) -> Batch:
        return model(batch["image"], K=batch["K"])

    @staticmethod
    def _shape_error(output: Batch, batch: Batch) -> torch.Tensor:
        return (output["betas"] - batch["betas"]).abs().mean(1)

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, Batch]:
        loss, accuracy = ranking_loss(output["confidence"], self._shape_error(output, batch))
        return loss, {"ranking": loss, "accuracy": accuracy}

    def scores(self, output: Batch, batch: Batch) -> Batch:
        """Share of wrongly ranked pairs of the batch, repeated for each sample (B,)."""
        _, accuracy = ranking_loss(output["confidence"], self._shape_error(output, batch))
        return {"ranking_error": (1 - accuracy).expand(len(output["betas"]))}


def freeze_all_but_confidence(model: nn.Module) -> None:
    """Freeze a network for the confidence stage: no gradients, and BatchNorm statistics stand still.

    Raises:
        ValueError: the network has no confidence branch.
    """
    if getattr(model, "confidence", None) is None:
        raise ValueError("the confidence stage needs --model mano_baseline_conf with --init_from BASELINE")
    model.requires_grad_(False)
    model.eval()
    model.confidence.requires_grad_(True)
