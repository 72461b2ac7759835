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

from datasets.loading import make_loader
from src.engine.distributed import Team, join_team, leave_team


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
    team, cpu = Team(rank, 2), torch.device("cpu")
    loader = make_loader(Numbers(), team.share(8), shuffle=True, seed=3, drop_last=True, rank=rank, world_size=2)
    batches = [batch["image_id"] for batch in loader]
    model = network()
    wrapped = team.wrap(model)  # kept: its hooks average the gradients
    loss_of(wrapped, batches[1]).backward()
    result = {
        "threads": group_threads(),
        "batches": batches,
        "gradient": torch.cat([p.grad.flatten() for p in model.parameters()]),
        "sum": team.sum(torch.tensor([rank + 1.0])),
        "any": team.any_of(rank == 1, False, device=cpu),
        "leads": team.leads,
    }
    leave_team()
    result["threads_left"] = group_threads()  # with `wrapped` alive, as in an error's frames
    torch.save(result, f"{folder}/{rank}.pt")


def group_threads() -> int:
    """Threads of this process that belong to a process group of gloo (Linux)."""
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo" in name for name in names)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("team")
    mp.spawn(member, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_are_one(results: list[dict]) -> None:
    first, second = results
    alone = [b["image_id"] for b in make_loader(Numbers(), 8, shuffle=True, seed=3, drop_last=True)]
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
    assert first["leads"] and not second["leads"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux lists them")
def test_no_thread_outlives_the_team(results: list[dict]) -> None:
    """One that did would abort the process now and then: it may drop a tensor while the interpreter ends."""
    assert all(result["threads"] > 0 and result["threads_left"] == 0 for result in results)


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team = join_team(torch.device("cpu"))
    model = network()
    assert team == Team() and team.leads and team.share(7) == 7 and team.wrap(model) is model
    with pytest.raises(ValueError, match="--batch_size 7 does not divide among 2"):
        Team(0, 2).share(7)


def opener(rank: int, folder: str) -> None:
    """Opens a "cache" as the processes of a training do, the second one without waiting of its own."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    team = join_team(torch.device("cpu"))
    cache = Path(folder) / "cache"
    for fails in (False, True):
        try:
            with team.one_first():
                if rank == 0:
                    time.sleep(0.5)  # long enough for the other to come first, if it did not wait
                    if fails:
                        raise OSError("the disk is full")
                Path(f"{folder}/{rank}-{fails}").write_text(str(cache.is_file()))
                cache.touch()
        except OSError:
            Path(f"{folder}/failed").touch()
    leave_team()


def test_one_process_builds_caches_before_the_others_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    mp.spawn(opener, (str(tmp_path),), nprocs=2)
    assert (tmp_path / "0-False").read_text() == "False" and (tmp_path / "1-False").read_text() == "True"
    assert (tmp_path / "failed").exists() and (tmp_path / "1-True").exists()  # an error keeps nobody waiting
