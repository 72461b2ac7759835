"""Two gloo processes agree with one: gradients, sums, leaving together; batches are shares of the same batch."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from datasets.loading import BatchLoader
from src.engine.distributed import DistributedContext, destroy_distributed, init_distributed


class Numbers(torch.utils.data.Dataset):
    """Samples whose image id is their index."""

    def __len__(self) -> int:
        return 22

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image_id": np.int64(index)}


def loss_of(network: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    x = torch.sin(ids.double()[:, None] * torch.arange(1.0, 4.0, dtype=torch.float64))
    return network(x).square().mean()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def member(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    context, cpu = DistributedContext(rank, 2), torch.device("cpu")
    size = context.local_batch_size(8)
    loader = BatchLoader(Numbers(), size, shuffle=True, seed=3, drop_last=True, rank=rank, world_size=2)
    batches = [batch["image_id"] for batch in loader]
    model = network()
    wrapped = context.wrap(model)  # kept: its hooks average the gradients
    loss_of(wrapped, batches[1]).backward()
    result = {
        "threads": group_threads(),
        "batches": batches,
        "gradient": torch.cat([p.grad.flatten() for p in model.parameters()]),
        "sum": context.all_reduce(torch.tensor([rank + 1.0])),
        "any": context.any_of(rank == 1, False, device=cpu),
        "is_main": context.is_main,
    }
    del wrapped
    destroy_distributed()
    result["threads_left"] = group_threads()
    torch.save(result, f"{folder}/{rank}.pt")


def group_threads() -> int:
    """Threads of this process that belong to a process group of gloo (Linux)."""
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo" in name for name in names)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("context")
    mp.spawn(member, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_are_one(results: list[dict]) -> None:
    first, second = results
    alone = [b["image_id"] for b in BatchLoader(Numbers(), 8, shuffle=True, seed=3, drop_last=True)]
    assert len(first["batches"]) == len(second["batches"]) == len(alone)
    for mine, theirs, whole in zip(first["batches"], second["batches"], alone, strict=True):
        assert sorted([*mine.tolist(), *theirs.tolist()]) == sorted(whole.tolist())
    model = network()
    loss_of(model, alone[1]).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.allclose(first["gradient"], gradient, atol=1e-12)
    assert torch.equal(first["gradient"], second["gradient"])
    assert float(first["sum"]) == float(second["sum"]) == 3.0
    assert first["any"] == second["any"] == [True, False]
    assert first["is_main"] and not second["is_main"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux lists them")
def test_no_thread_outlives_the_team(results: list[dict]) -> None:
    """One that did would abort the process now and then: it may drop a tensor while the interpreter ends."""
    assert all(result["threads"] > 0 and result["threads_left"] == 0 for result in results)


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    context = init_distributed(torch.device("cpu"))
    model = network()
    assert context == DistributedContext() and context.is_main and context.local_batch_size(7) == 7
    assert context.wrap(model) is model
    with pytest.raises(ValueError, match="--batch_size 7 does not divide among 2"):
        DistributedContext(0, 2).local_batch_size(7)


def opener(rank: int, folder: str) -> None:
    """Opens a "cache" as the processes of a training do, the second one without waiting of its own."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    context = init_distributed(torch.device("cpu"))
    cache = Path(folder) / "cache"
    for fails in (False, True):
        try:
            with context.local_main_first():
                if rank == 0:
                    time.sleep(0.5)  # long enough for the other to come first, if it did not wait
                    if fails:
                        raise OSError("the disk is full")
                Path(f"{folder}/{rank}-{fails}").write_text(str(cache.is_file()))
                cache.touch()
        except OSError:
            Path(f"{folder}/failed").touch()
    destroy_distributed()


def test_one_process_builds_caches_before_the_others_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    mp.spawn(opener, (str(tmp_path),), nprocs=2)
    assert (tmp_path / "0-False").read_text() == "False" and (tmp_path / "1-False").read_text() == "True"
    assert (tmp_path / "failed").exists() and (tmp_path / "1-True").exists()  # an error keeps nobody waiting
