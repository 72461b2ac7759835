"""Means of an epoch: of the loss terms of its steps, and of the scores of a validation, over samples or pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from datasets.augment import prepare_batch
from datasets.loading import BatchLoader
from src.engine.distributed import DistributedContext
from src.models.objectives import Objective

#: Steps after which a GPU is asked whether all losses were finite; a CPU is asked at once.
GPU_STEPS = 25
#: A scalar mean over a batch's samples, or one with the number of things (such as pairs) that it is a mean of.
Term = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


class StepLog:
    """Sums of the loss terms, and which steps are yet to be checked.

    Both stay on the device: a GPU's host must not wait for every step's numbers.

    Args:
        device: where the losses are.
        state: of an earlier log of the same epoch, to go on from (`state`).
    """

    def __init__(self, device: torch.device, state: dict[str, Any] | None = None) -> None:
        self._every = GPU_STEPS if device.type == "cuda" else 1
        self._names: list[str] = state["names"] if state else []
        self._sums = torch.tensor(state["sums"], dtype=torch.float64, device=device) if state else None
        self._unchecked: list[tuple[torch.Tensor, int, torch.Tensor]] = []

    def add(self, terms: dict[str, Term], batch: int, image_ids: torch.Tensor) -> None:
        """Note one step: ``terms``, first the loss; the batch's number; and what it was made of."""
        count = torch.tensor(float(len(image_ids)))
        pairs = [term if isinstance(term, tuple) else (term, count.to(term.device)) for term in terms.values()]
        values = torch.stack([value.detach().double() for value, _ in pairs])
        weights = torch.stack([weight.double() for _, weight in pairs])
        sums = torch.stack([torch.where(weights > 0, values, 0.0) * weights, weights])
        self._names = list(terms)
        self._sums = sums if self._sums is None else self._sums + sums
        self._unchecked.append((values[0], batch, image_ids))

    @property
    def is_due(self) -> bool:
        """Whether it is time to look for losses that are not finite."""
        return len(self._unchecked) >= self._every

    def first_bad(self) -> tuple[float, int, list[int]] | None:
        """Loss, batch and first image ids of the earliest unchecked step whose loss is not finite, or None."""
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return None
        finite = torch.stack([loss for loss, _, _ in unchecked]).isfinite()
        if bool(finite.all()):
            return None
        loss, batch, image_ids = unchecked[int((~finite).int().argmax())]
        return float(loss), batch, image_ids[:8].tolist()

    def state(self, total: Any = None) -> dict[str, Any]:
        """Names and sums as plain numbers, for a checkpoint.

        Args:
            total: sums a tensor over processes, if there are several.
        """
        if self._sums is None:
            return {}
        sums = self._sums if total is None else total(self._sums.clone())
        return {"names": self._names, "sums": sums.tolist()}

    def means(self, state: dict[str, Any] | None = None) -> dict[str, float]:
        """Mean of each term over the samples (or pairs) of all steps; without the terms that had none."""
        state = state or self.state()
        if not state:
            return {}
        rows = zip(state["names"], *state["sums"], strict=True)
        return {name: value / weight for name, value, weight in rows if weight > 0}


@torch.no_grad()
def mean_scores(
    model: nn.Module,
    objective: Objective,
    loader: BatchLoader,
    view: dict[str, Any],
    context: DistributedContext,
    is_told_to_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Mean of every score over the samples (not the batches), each measured in one process only.

    A score that no sample has (no two images to rank) is missing.

    Args:
        model: put into eval mode, and left there.
        loader: this process's share of the samples.
        view: arguments of `prepare_batch` after the batch, by name.
        is_told_to_stop: asked before every batch; True: leave out this process's other samples.
    """
    model.eval()
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for raw in loader:
        if is_told_to_stop():
            break
        batch = prepare_batch(raw, **view)
        scores = objective.scores(objective.forward(model, batch), batch)
        for name, score in scores.items():
            values, weights = score if isinstance(score, tuple) else (score, torch.ones_like(score))
            sums[name][0] += float((torch.where(weights > 0, values, 0) * weights).sum())
            sums[name][1] += float(weights.sum())
    parts = context.gather_all(dict(sums))  # one that had no sample lacks the names
    rows = {name: [part[name] for part in parts if name in part] for name in sorted(set().union(*parts))}
    totals = {name: (sum(value for value, _ in row), sum(weight for _, weight in row)) for name, row in rows.items()}
    return {name: value / weight for name, (value, weight) in totals.items() if weight > 0}
