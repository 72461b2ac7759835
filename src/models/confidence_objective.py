"""Confidence for calibration: rank the images of one person by the error of the hand they give.

Two images of different people differ in how unusual the people are, which no image tells; and the
error of unusual people is larger, so pairs across people teach to prefer images whose guess is near the
mean. Within a person it is the other way round: the guess that goes further saw more.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from src.models.objectives import Batch, ConfidenceObjective, Terms, ranked_pairs
from template import HandModel


class WithinPersonConfidence(ConfidenceObjective):
    """Pairs of images of one person, by the zero-pose error of their predicted shapes (the fair recipe).

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

    def loss(self, output: Batch, batch: Batch) -> tuple[torch.Tensor, Terms]:
        """Logistic ranking loss, each pair weighted by its difference in mm, and the share ranked rightly."""
        error = self.shape_error_mm(output["betas"].float(), batch["betas"])
        loss, accuracy = person_ranking_loss(output["confidence"], error, batch["subject_id"])
        pairs = ranked_pairs(output["confidence"], error, batch["subject_id"])[1].sum() / 2
        return loss, {"ranking": (loss.detach(), pairs), "accuracy": (accuracy, pairs)}

    def scores(self, output: Batch, batch: Batch) -> Terms:
        """As of `ConfidenceObjective`; zero-pose error, mm, of weighted and plain mean of a person's images (B,)."""
        error = self.shape_error_mm(output["betas"].float(), batch["betas"])
        scores: Terms = {"ranking_error": ranked_pairs(output["confidence"], error, batch["subject_id"])}
        for name, confidence in (("weighted_mm", output["confidence"]), ("mean_mm", torch.zeros_like(error))):
            averaged = average_of_person(output["betas"].float(), confidence, batch["subject_id"])
            scores[name] = self.shape_error_mm(averaged, batch["betas"])
        return scores


def person_ranking_loss(
    confidence: torch.Tensor, error: torch.Tensor, person: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """log(1 + exp(-gap)) of all pairs of one person, weighted by how much their errors differ (RankNet; Burges et
    al., ICML 2005, eq. 3, with a weight).

    Args:
        confidence: (B,) scores; error: (B,) any unit; person: (B,) numbers.

    Returns:
        scalar weighted mean and scalar share of pairs ranked rightly; 0 and NaN without a usable pair.
    """
    first, second = torch.triu_indices(len(error), len(error), offset=1, device=error.device)
    difference = error[second] - error[first]
    keep = (person[first] == person[second]) & (difference != 0)
    difference = difference[keep]
    gap = (confidence[first] - confidence[second])[keep] * difference.sign()
    if gap.numel() == 0:
        return confidence.sum() * 0.0, torch.full((), float("nan"), device=error.device)
    weight = difference.abs()
    return (F.softplus(-gap) * weight).mean(), (gap > 0).float().mean()


def average_of_person(betas: torch.Tensor, confidence: torch.Tensor, person: torch.Tensor) -> torch.Tensor:
    """Softmax-weighted mean of the betas of each row's person, (B,10), as `averaging.average_weights` weighs."""
    same = person[:, None] == person[None]
    weights = torch.where(same, confidence[None], torch.full_like(confidence, -torch.inf)[None]).softmax(dim=1)
    return weights @ betas
