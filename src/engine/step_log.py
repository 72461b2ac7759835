"""What the steps of an epoch said, kept on the device: a GPU's host must not wait for every step's numbers."""

from __future__ import annotations

import torch

#: Steps after which a GPU is asked whether all losses were finite; a CPU is asked at once.
GPU_STEPS = 25


class StepLog:
    """Sums of the loss terms, and which steps are yet to be checked.

    Args:
        device: where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self._every = GPU_STEPS if device.type == "cuda" else 1
        self._names: list[str] = []
        self._sums: torch.Tensor | None = None
        self._unchecked: list[tuple[torch.Tensor, int, torch.Tensor]] = []
        self.steps = 0

    def add(self, terms: dict[str, torch.Tensor], batch: int, image_ids: torch.Tensor) -> None:
        """Note one step: scalar ``terms``, first the loss; the batch's number; and what it was made of."""
        values = torch.stack([value.detach() for value in terms.values()]).double()
        self._names = list(terms)
        self._sums = values if self._sums is None else self._sums + values
        self._unchecked.append((values[0], batch, image_ids))
        self.steps += 1

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

    def means(self) -> dict[str, float]:
        """Mean of each term over the steps."""
        if self._sums is None:
            return {}
        return {name: total / self.steps for name, total in zip(self._names, self._sums.tolist(), strict=True)}
