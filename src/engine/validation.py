"""Scores of a network over a data set: means over samples, shared among the processes of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from datasets.augment import prepare_batch
from datasets.loading import BatchLoader
from src.engine.distributed import Team
from src.models.objectives import Objective


@torch.no_grad()
def mean_scores(
    model: nn.Module,
    objective: Objective,
    loader: BatchLoader,
    view: dict[str, Any],
    team: Team,
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Mean of every score over the samples (not the batches), each measured in one process only.

    A score that no sample has (no two images to rank) is missing.

    Args:
        model: put into eval mode, and left there.
        objective: what is scored.
        loader: this process's share of the samples.
        view: arguments of `prepare_batch` after the batch, by name.
        team: the processes.
        before_batch: called before every batch; may raise to stop.
    """
    model.eval()
    sums: dict[str, float] = defaultdict(float)
    for raw in loader:
        before_batch()
        batch = prepare_batch(raw, **view)
        scores = objective.scores(objective.forward(model, batch), batch)
        for name, score in scores.items():
            values, weights = score if isinstance(score, tuple) else (score, torch.ones_like(score))
            sums[f"sum {name}"] += float((torch.where(weights > 0, values, 0) * weights).sum())
            sums[f"weight {name}"] += float(weights.sum())
    totals = team.total(dict(sums))
    names = sorted(name.removeprefix("sum ") for name in totals if name.startswith("sum "))
    return {name: totals[f"sum {name}"] / totals[f"weight {name}"] for name in names if totals[f"weight {name}"] > 0}
