"""Several processes under ``torchrun``: plain DistributedDataParallel, gloo on CPU and NCCL on GPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


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
        return DistributedDataParallel(model) if self.size > 1 else model

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether ``flag`` is set in any process, so that all leave a loop together."""
        if self.size == 1:
            return flag
        value = torch.tensor(float(flag), device=device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            dist.barrier()


def join_team(device: torch.device) -> Team:
    """The team that torchrun's environment variables describe; alone without them.

    Each process of a machine takes the GPU of its local rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Team()
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Team(dist.get_rank(), dist.get_world_size())


def leave_team() -> None:
    """Close the process group if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
