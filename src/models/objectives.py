"""What each network is trained for: one loss and one validation score a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from src.models.heatmaps import heatmap_loss
from src.models.losses import MESH_UNIT, LossWeights, edge_length_loss, normal_loss, ranking_loss
from src.models.losses_cmr import CmrLoss
from template import HandModel
from utils.rotations import matrix_to_rotation_6d

Batch = dict[str, torch.Tensor]
#: Values by name. A value that is no mean over samples comes with its weight, such as the number of pairs.
Terms = dict[str, torch.Tensor | tuple[torch.Tensor, torch.Tensor]]


class Objective(ABC):
    """Loss of a batch, and per-sample scores (lower is better) under the name in ``score``."""

    score: str
    #: Images of a person that must follow each other in a training epoch, so that batches hold pairs of one person.
    images_of_person: int = 1
    #: Whether every batch launches the same work, so that a step may be recorded as a CUDA graph.
    is_static: bool = True

    def start_training(self, model: nn.Module) -> None:
        """Set training mode, and freeze what is not trained."""
        model.train()

    def forward(self, model: nn.Module, batch: Batch) -> Batch:
        """The network's output for a batch of `prepare_batch`."""
        return model(batch["image"], betas=batch["betas"], K=batch["K"])

    @abstractmethod
    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, Terms]:
        """The scalar to minimise, and its terms: scalar means."""

    @abstractmethod
    def scores(self, output: Batch, batch: Batch) -> Terms:
        """Scores (B,) of each sample, or scores with weights (B,)."""


class ManoObjective(Objective):
    """Mesh, pose, shape and 2D terms of docs/facts.md 7.1.

    Args:
        hand: the hand layer, in float32 on the training device.
        weights: of the terms.
        frame: ``wrist`` compares meshes relative to the wrist; ``mano`` with the translation
            removed, as the released code did.
    """

    score = "mpjpe_mm"

    def __init__(self, hand: HandModel, weights: LossWeights, frame: str = "wrist") -> None:
        self.hand, self.weights, self.frame = hand, weights, frame

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


class KeypointObjective(Objective):
    """2D keypoints alone."""

    score = "keypoints_px"

    def __init__(self, weights: LossWeights) -> None:
        self.weights = weights

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, Batch]:
        terms = keypoint_terms(output, batch)
        return sum(getattr(self.weights, name) * term for name, term in terms.items()), terms

    def scores(self, output: Batch, batch: Batch) -> Batch:
        """Mean distance (B,) in px of the network input."""
        return _keypoint_scores(output, batch)


class JointMapObjective(KeypointObjective):
    """The paper's 2D model: ten times the mean BCE of three stages of joint maps (docs/facts.md 7.4)."""

    def __init__(self) -> None:
        self.criterion = CmrLoss(None)

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, Batch]:
        return self.criterion(output, batch["image"].shape[-1], batch["keypoints_2d"])


class ConfidenceObjective(Objective):
    """Rank images by the error of their predicted shape (docs/facts.md 7.2); all but the branch is frozen."""

    score = "ranking_error"
    is_static = False  # the number of pairs differs

    def start_training(self, model: nn.Module) -> None:
        """Freeze all but the branch: no gradients, and BatchNorm statistics stand still.

        Raises:
            ValueError: the network has no confidence branch.
        """
        if getattr(model, "confidence", None) is None:
            raise ValueError("the confidence stage needs --model mano_baseline_conf with --init_from BASELINE")
        model.requires_grad_(False)
        model.eval()
        model.confidence.requires_grad_(True)

    def _error(self, output: Batch, batch: Batch) -> torch.Tensor:
        return (output["betas"] - batch["betas"]).abs().mean(1)

    def _person(self, batch: Batch) -> torch.Tensor | None:
        return None

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, Terms]:
        """`ranking_loss`, and the share ranked rightly."""
        ranked = output["confidence"], self._error(output, batch), self._person(batch)
        loss, accuracy = ranking_loss(*ranked)
        pairs = ranked_pairs(*ranked)[1].sum() / 2
        return loss, {"ranking": (loss.detach(), pairs), "accuracy": (accuracy, pairs)}

    def scores(self, output: Batch, batch: Batch) -> Terms:
        """Share (B,) of wrongly ranked pairs among those that each sample is in, and the number of those."""
        return {"ranking_error": ranked_pairs(output["confidence"], self._error(output, batch), self._person(batch))}


class WithinPersonConfidence(ConfidenceObjective):
    """Pairs of images of one person, by the zero-pose error of their predicted shapes (the fair recipe).

    Two images of different people differ in how unusual the people are, which no image tells; and the error of unusual
    people is larger, so pairs across people teach to prefer images whose guess is near the mean. Within a person it is
    the other way round: the guess that goes further saw more.

    Args:
        hand: hand layer, whose flat hands are compared.
    """

    images_of_person = 16

    def __init__(self, hand: HandModel) -> None:
        self.hand = hand

    def start_training(self, model: nn.Module) -> None:
        """Freeze all but the branch, whose own dropout and input statistics are in training mode."""
        super().start_training(model)
        model.confidence.train()

    @torch.no_grad()
    def shape_error_mm(self, betas: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Mean vertex distance (B,), mm, between the flat hands of betas (B,10) and (B,10)."""
        return 1000 * (self.hand.rest(betas) - self.hand.rest(truth)).norm(dim=-1).mean(1)

    def _error(self, output: Batch, batch: Batch) -> torch.Tensor:
        return self.shape_error_mm(output["betas"].float(), batch["betas"])

    def _person(self, batch: Batch) -> torch.Tensor:
        return batch["subject_id"]

    def scores(self, output: Batch, batch: Batch) -> Terms:
        """As of `ConfidenceObjective`; zero-pose error, mm, of weighted and plain mean of a person's images (B,)."""
        scores = super().scores(output, batch)
        confidence = output["confidence"]
        for name, said in (("weighted_mm", confidence), ("mean_mm", torch.zeros_like(confidence))):
            averaged = average_of_person(output["betas"].float(), said, batch["subject_id"])
            scores[name] = self.shape_error_mm(averaged, batch["betas"])
        return scores


def average_of_person(betas: torch.Tensor, confidence: torch.Tensor, person: torch.Tensor) -> torch.Tensor:
    """Softmax-weighted mean of the betas of each row's person, (B,10), as `averaging.average_weights` weighs."""
    same = person[:, None] == person[None]
    weights = torch.where(same, confidence[None], torch.full_like(confidence, -torch.inf)[None]).softmax(dim=1)
    return weights @ betas


def ranked_pairs(
    confidence: torch.Tensor, error: torch.Tensor, person: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Share of wrongly ranked pairs among the usable ones that each sample is in (B,), and the number of those (B,).

    Weighted with the numbers, the shares' mean is the share of all pairs. Ties of the error are not usable.

    Args:
        confidence: (B,) scores; error: (B,) any unit; person: (B,) numbers, for pairs of one person only.
    """
    order = torch.sign(error[None] - error[:, None])
    usable = order != 0
    if person is not None:
        usable &= person[:, None] == person[None]
    wrong = usable & ((confidence[:, None] - confidence[None]) * order <= 0)
    count = usable.sum(1)
    return wrong.sum(1) / count.clamp_min(1), count.to(error.dtype)
