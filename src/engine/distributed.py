"""Several processes under ``torchrun``: plain DistributedDataParallel, gloo on CPU and NCCL on GPUs."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import threading
import traceback
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# Its functions take the group there is at its import as default argument. Left to the first DistributedDataParallel to
# import, they would keep that group: its threads outlive destroy_process_group, and one that drops a tensor while the
# interpreter ends aborts the process ("terminate called without an active exception"). Imported here they keep None.
import torch.distributed.nn.functional
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from src.engine.roll_call import RollCall, is_lost_connection

_wrapped: weakref.WeakSet[DistributedDataParallel] = weakref.WeakSet()
_roll: RollCall | None = None
_store: dist.Store | None = None
_turns = itertools.count()


@dataclass(frozen=True)
class Team:
    """The processes of a run. Alone, rank is 0 and size 1, and every method does nothing."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """Samples a process takes of a batch of the whole run.

        Raises:
            ValueError: the batch does not divide evenly.
        """
        if batch_size % self.size:
            raise ValueError(f"--batch_size {batch_size} does not divide among {self.size} processes")
        return batch_size // self.size

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over the processes."""
        if self.size == 1:
            return model
        network = DistributedDataParallel(model)
        _wrapped.add(network)
        return network

    def any_of(self, *flags: bool, device: torch.device) -> list[bool]:
        """Which of the flags are set in any process: one exchange for all of them."""
        if self.size == 1:
            return list(flags)
        values = torch.tensor([float(flag) for flag in flags], device=device)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return (values > 0).tolist()

    @contextlib.contextmanager
    def one_first(self) -> Iterator[None]:
        """Around work that leaves files for others, such as caches: one process of each machine does it alone first.

        It may take hours, so the others wait at the store, not in an operation of the group, which would time out.
        """
        if self.size == 1 or _store is None:
            yield
            return
        turn = next(_turns)
        key, first = f"first/{os.environ.get('GROUP_RANK', '0')}/{turn}", os.environ.get("LOCAL_RANK", "0") == "0"
        if not first:
            _store.wait([key], timedelta(days=2))
        try:
            yield
        finally:  # also after an error: the others meet it themselves
            if first:
                _store.set(key, "")

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def total(self, sums: dict[str, float]) -> dict[str, float]:
        """Sum of each number over the processes; one that a process lacks (it had no sample) counts as zero there."""
        if self.size == 1:
            return sums
        parts: list[dict[str, float]] = [{} for _ in range(self.size)]
        dist.all_gather_object(parts, sums)
        names = sorted({name for part in parts for name in part})
        return {name: sum(part.get(name, 0.0) for part in parts) for name in names}

    def collect(self, value: Any) -> list[Any] | None:
        """Every process's ``value``, in the order of ranks, for the leading process; None for the others."""
        if self.size == 1:
            return [value]
        parts = [None] * self.size if self.leads else None
        dist.gather_object(value, parts)
        return parts

    def agree(self, model: nn.Module) -> None:
        """Give every process the leading one's buffers (BatchNorm statistics, which each has of its own samples)."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            dist.barrier()


def join_team(device: torch.device) -> Team:
    """The team that torchrun's environment variables describe; alone without them.

    Each process of a machine takes the GPU of its local rank. Join within `team_work`.
    """
    global _roll, _store
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Team()
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        store, rank, size = next(rendezvous("env://"))
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.PrefixStore("team", store), rank=rank, world_size=size)
        _roll, _store = RollCall(store, rank, size), dist.PrefixStore("work", store)
    return Team(dist.get_rank(), dist.get_world_size())


def leave_team() -> None:
    """Close the process group if there is one, and end its threads; networks of `Team.wrap` train no more.

    A group lives as long as anybody refers to it: networks do through their reducers, and may be alive themselves in
    the frames of an error on its way out. What is left at the end of the interpreter can abort the process.
    """
    global _roll, _store
    _roll = _store = None
    if not dist.is_initialized():
        return
    for network in list(_wrapped):
        network.reducer = network.logger = network.process_group = None
    _wrapped.clear()
    # Of all references to gloo's threads this is the one that may be the last: it joins them without the
    # interpreter's lock, which they may be waiting for.
    threads = dist.group.WORLD._get_backend(torch.device("cpu")) if dist.get_backend() == "gloo" else None
    dist.destroy_process_group()
    gc.collect()
    del threads


@contextlib.contextmanager
def team_work() -> Iterator[None]:
    """Around all that a process does in a team: leaves it on every way out, and names a process that was lost.

    Raises:
        LostProcessError: in place of the error that a broken connection raises.
    """
    try:
        yield
    except Exception as error:
        roll = _roll
        if roll is not None and is_lost_connection(error):
            with _deaf_to_sigterm():  # of torchrun, which has seen it too: this process is leaving anyway
                # First close the connections: others may wait for this process and not know yet. The frames of the
                # error hold operations, which hold connections.
                traceback.clear_frames(error.__traceback__)
                leave_team()
                named = roll.explain()
            raise named from error
        if roll is not None:
            roll.report(error)
        raise
    finally:
        leave_team()


@contextlib.contextmanager
def _deaf_to_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
