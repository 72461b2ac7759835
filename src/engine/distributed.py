"""Several processes under ``torchrun``: DistributedDataParallel, gloo on CPU, NCCL on GPUs; how signals end them."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

# Its functions take the group there is at their import as a default argument, and with it would keep it alive.
import torch.distributed.nn.functional
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

#: s, by which an error of the group is told later: torchrun names the earliest error, in whole seconds, as the cause,
#: and the process that failed tells its own only when it has left the group, which the others notice first.
AFTER_ANOTHER = 5

_store: dist.Store | None = None
_turns = itertools.count()


@dataclass(frozen=True)
class DistributedContext:
    """The processes of a run. Alone, rank is 0 and world_size 1, and every method does nothing."""

    rank: int = 0
    world_size: int = 1
    store: dist.Store | None = field(default=None, compare=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def local_batch_size(self, batch_size: int) -> int:
        """Samples a process takes of a batch of the whole run.

        Raises:
            ValueError: the batch does not divide evenly.
        """
        if batch_size % self.world_size:
            raise ValueError(f"--batch_size {batch_size} does not divide among {self.world_size} processes")
        return batch_size // self.world_size

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over the processes."""
        return model if self.world_size == 1 else DistributedDataParallel(model)

    def any_of(self, *flags: bool, device: torch.device) -> list[bool]:
        """Which of the flags are set in any process: one exchange for all of them."""
        if self.world_size == 1:
            return list(flags)
        values = torch.tensor([float(flag) for flag in flags], device=device)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return (values > 0).tolist()

    @contextlib.contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Around work that leaves files for others, such as caches: one process of each machine does it alone first.

        It may take hours, so the others wait at the store, not in an operation of the group, which would time out.
        """
        if self.store is None:
            yield
            return
        key = f"first/{os.environ.get('GROUP_RANK', '0')}/{next(_turns)}"
        is_first = os.environ.get("LOCAL_RANK", "0") == "0"
        if not is_first:
            self.store.wait([key], timedelta(days=2))
        try:
            yield
        finally:  # also after an error: the others meet it themselves
            if is_first:
                self.store.set(key, "")

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over the processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def gather_all(self, value: Any) -> list[Any]:
        """Every process's ``value``, in the order of ranks, for all of them."""
        if self.world_size == 1:
            return [value]
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, value)
        return parts

    def gather(self, value: Any) -> list[Any] | None:
        """Every process's ``value``, in the order of ranks, for the main process; None for the others."""
        if self.world_size == 1:
            return [value]
        parts = [None] * self.world_size if self.is_main else None
        dist.gather_object(value, parts)
        return parts

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give every process the main one's buffers (BatchNorm statistics, which each has of its own samples)."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world_size > 1:
            dist.barrier()


def init_distributed(device: torch.device) -> DistributedContext:
    """The processes that torchrun's environment variables describe; alone without them.

    Each process of a machine takes the GPU of its local rank. Call it within `process_group`.
    """
    global _store
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return DistributedContext()
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        store, rank, world_size = next(rendezvous("env://"))
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=rank, world_size=world_size)
        _store = dist.PrefixStore("work", store)
    return DistributedContext(dist.get_rank(), dist.get_world_size(), _store)


def destroy_distributed() -> None:
    """Close the process group, if there is one. Networks of `DistributedContext.wrap` must be gone: they hold it."""
    global _store
    _store = None
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()
        gc.collect()


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Around all that a process does with others: closes the group on every way out.

    Threads of a group that is still alive at the end of the interpreter can abort the process.
    """
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # whose variables hold networks, and those the group
        if isinstance(error, dist.DistError) or "gloo" in str(error):  # another process is gone
            time.sleep(AFTER_ANOTHER)
        raise
    finally:
        destroy_distributed()


class Interrupted(SystemExit):
    """SIGTERM or SIGINT arrived; the state was saved. Exit status 143 or 130."""


class Interruption:
    """Notes a signal, for the training to end at its next good place.

    Attributes:
        signal: that came to this process, or of which it was told; None: none.
    """

    def __init__(self, context: DistributedContext) -> None:
        self.signal: int | None = None
        self._context = context

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are noted within.

        Raises:
            Interrupted: an exchange broke after a signal, since a process that it reached first has gone.
        """
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        except RuntimeError as error:
            words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
            is_peer_lost = isinstance(error, dist.DistError) or any(text in str(error) for text in words)
            if self.signal is None or not is_peer_lost:
                raise
            raise Interrupted(128 + self.signal) from error
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def is_noted(self) -> bool:
        """Whether this process knows of a signal."""
        return self.signal is not None

    def ended(self) -> Interrupted:
        """The error to raise. All processes call it: none leaves while another exchanges or saves."""
        self.signal = self.signal or signal.SIGTERM
        self._context.barrier()
        return Interrupted(128 + self.signal)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
