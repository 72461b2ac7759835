"""Forward, loss and backward as one recorded CUDA graph: a small network's thousands of kernels cost one launch.

A step of RegNetX-400MF with 256 images of 96 px took 62 ms on an H100 with its kernels launched one by one, and
15 ms recorded; `benchmarks/train_throughput.py` compares the two.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

logger = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]
#: Batches that are computed as usual before one is recorded, so that libraries have chosen their kernels.
EAGER_BATCHES = 3


class GraphedStep:
    """Calls ``compute``, and after some batches replays what it launched.

    ``compute`` must set the gradients to None itself, must not read a number back to the host, and has to do the same
    for every batch. If it cannot be recorded, or if a batch has another shape, everything goes on as usual.

    Args:
        compute: batch -> named scalars; leaves gradients in the parameters. Not to be called by others any more.
    """

    def __init__(self, compute: Callable[[Batch], Batch]) -> None:
        self._compute = compute
        self._eager_left = EAGER_BATCHES
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: Batch = {}
        self._terms: Batch = {}
        self._is_usable = True

    @property
    def is_recorded(self) -> bool:
        """Whether batches are replayed now."""
        return self._graph is not None

    def __call__(self, batch: Batch) -> Batch:
        """Named scalars of a batch on a GPU. They are overwritten by the next batch."""
        if not self._is_usable:
            return self._compute(batch)
        if self._graph is None:
            if self._eager_left > 0:
                self._eager_left -= 1
                return self._compute(batch)
            self._record(batch)
        elif _shapes(batch) != _shapes(self._inputs):
            logger.warning("a batch has another shape than the recorded one: going on without the recording")
            self._give_up()
        if self._graph is None:
            return self._compute(batch)
        torch._foreach_copy_(list(self._inputs.values()), [batch[name] for name in self._inputs])
        self._graph.replay()
        return self._terms

    def _record(self, batch: Batch) -> None:
        self._inputs = {name: value.clone() for name, value in batch.items()}
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(graph):
                self._terms = self._compute(self._inputs)
        except RuntimeError as error:
            logger.warning("this step cannot be recorded as a CUDA graph (%s): going on without", error)
            self._give_up()
            return
        self._graph = graph

    def _give_up(self) -> None:
        """From now on as usual; gradients of the recording are left to the next step, which drops them."""
        self._graph, self._inputs, self._terms, self._is_usable = None, {}, {}, False
        torch.cuda.synchronize()


def _shapes(batch: Batch) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in batch.items()}
