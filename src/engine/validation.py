"""Scores of a network over a data set: means over samples, shared among the processes of a run."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from datasets.augment import prepare_batch
from datasets.loading import BatchLoader
from src.engine.distributed import Team
from src.models.objectives import Objective


@torch.no_grad()
def mean_scores(
    model: nn.Module, objective: Objective, loader: BatchLoader, view: tuple[Any, ...], team: Team
) -> dict[str, float]:
    """Mean of every score over the samples (not the batches), each measured in one process only.

    Args:
        model: put into eval mode, and left there.
        objective: what is scored.
        loader: this process's share of the samples.
        view: arguments of `prepare_batch` after the batch.
        team: the processes.
    """
    model.eval()
    sums: dict[str, float] = defaultdict(float)
    count = 0
    for raw in loader:
        batch = prepare_batch(raw, *view)
        scores = objective.scores(objective.forward(model, batch), batch)
        for name, value in scores.items():
            sums[name] += float(value.sum())
        count += len(raw["image_id"])
    totals = team.total({**sums, "images": count})
    images = totals.pop("images")
    return {name: totals[name] / max(1, images) for name in sorted(totals)}
