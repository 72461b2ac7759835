"""What breaks during a training: it stops with a message that names what broke, and what was written stays."""

from __future__ import annotations

import csv
import errno
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from datasets import loading
from datasets.crop_cache import CropCache
from datasets.loading import BatchLoader
from options.recipes import apply_recipe
from options.run_options import get_args_parser
from src.engine.distributed import Interrupted
from src.engine.train import Trainer, train
from utils.files import atomic_path, write_json

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


def words(root: Path, out: Path, *extra: str) -> list[str]:
    run = f"--phase train --data_root {root} --out_dir {out} --device cpu --cache {root}/cache".split()
    network = "--backbone mobilenet_v3_small --input_size 64 --crop_size 64 --crop_scale 2 --batch_size 8".split()
    return [*run, *network, "--epochs", "1", "--val_images", "4", *extra]


def options(root: Path, out: Path, *extra: str) -> object:
    return get_args_parser().parse_args(words(root, out, *extra))


def two_processes(fault: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A training of two, the second of which has a fault."""
    launcher = [sys.executable, *"-m torch.distributed.run --standalone --nproc_per_node 2".split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [*launcher, "tests/fault_member.py", "1", fault, *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


# --- a full disk ---------------------------------------------------------------------------------


def test_full_disk_keeps_the_checkpoint_and_names_it(root: Path, tmp_path: Path, small_files: object) -> None:
    train(options(root, tmp_path))
    folder = tmp_path / "dex_ycb/mano_baseline"
    again = ("--resume", "--override")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name != "board")
    before = {path: path.read_bytes() for path in files}
    assert len(before[folder / "checkpoints/last.pt"]) > 2_000_000
    trainer = Trainer(apply_recipe(options(root, tmp_path, "--save_minutes", "0", "--epochs", "2", *again)))
    small_files()
    with pytest.raises(OSError, match=r"last\.pt: not written, .*MB free in .*as it was.*another folder") as full:
        trainer.run()
    assert full.value.errno == errno.EFBIG
    after = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name != "board")
    assert after == sorted([*files, folder / "args.1.json"])
    assert all(path.read_bytes() == content for path, content in before.items() if path.name != "args.json")


def test_every_writer_s_words_for_a_full_disk_are_understood(tmp_path: Path, small_files: object) -> None:
    path = tmp_path / "numbers.npy"
    path.write_bytes(b"before")
    small_files()
    with pytest.raises(OSError, match=r"numbers\.npy: not written.*as it was"), atomic_path(path) as temporary:
        np.save(temporary, np.zeros(1_000_000))
    with pytest.raises(OSError, match=r"new\.json: not written, (?!.*as it was)"):
        write_json(tmp_path / "new.json", list(range(1_000_000)))
    with pytest.raises(OSError, match=r"weights\.safetensors: not written, larger"):
        with atomic_path(tmp_path / "weights.safetensors") as temporary:
            save_file({"w": torch.zeros(1_000_000)}, temporary)
    with pytest.raises(OSError, match="another trouble"), atomic_path(path) as temporary:
        raise OSError(errno.EIO, "another trouble")
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_two_containers_with_one_pid_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    """Their processes have the same number, and the same folder."""
    with atomic_path(tmp_path / "a.txt") as one, atomic_path(tmp_path / "a.txt") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a.txt").read_text() == "one"


def test_leftovers_of_a_kill_while_saving_go(root: Path, tmp_path: Path) -> None:
    leftover = tmp_path / "dex_ycb/mano_baseline/checkpoints/.last.123.tmp.pt"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    train(options(root, tmp_path, "--max_images", "8"))
    assert sorted(path.name for path in leftover.parent.iterdir()) == ["best.pt", "last.pt"]


# --- the process itself is killed ----------------------------------------------------------------


def test_killed_without_warning_and_resumed_is_the_same_to_the_bit(root: Path, tmp_path: Path) -> None:
    """SIGKILL: nothing is saved on the way out, so what was last saved must be enough."""
    save_each = ("--save_minutes", "0", "--threads", "1")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "tests/fault_member.py", "0", "kill", *words(root, tmp_path / "killed", *save_each)]
    assert subprocess.run(command, env=environment, timeout=600).returncode == -signal.SIGKILL
    state = {name: tmp_path / name / "dex_ycb/mano_baseline/checkpoints/last.pt" for name in ("killed", "whole")}
    assert torch.load(state["killed"], weights_only=True)["position"]["batch"] == 2
    train(options(root, tmp_path / "killed", "--threads", "1", "--resume"))
    train(options(root, tmp_path / "whole", "--threads", "1"))
    killed, whole = (torch.load(state[name], weights_only=True)["model"] for name in ("killed", "whole"))
    assert all(torch.equal(killed[name], whole[name]) for name in whole)


# --- signals -------------------------------------------------------------------------------------


def terminated(command: list[str], last: Path, environment: dict[str, str]) -> tuple[int, str, int]:
    """Exit status, what was said, and the first saved batch of a training that SIGTERM ends with its whole group."""
    running = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 300
    while not last.is_file() and running.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    first = torch.load(last, weights_only=True)["position"]["batch"] if last.is_file() else 0
    os.killpg(running.pid, signal.SIGTERM)
    return running.wait(timeout=300), running.stderr.read(), first


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_to_the_whole_group_saves_and_blames_nobody(root: Path, tmp_path: Path, processes: int) -> None:
    """As SLURM and Ctrl-C send it: to loader processes too, and under torchrun also by torchrun."""
    last = tmp_path / "dex_ycb/mano_baseline/checkpoints/last.pt"
    given = words(root, tmp_path, "--epochs", "100", "--save_minutes", "0", "--num_workers", "1", "--threads", "1")
    launcher = "-m torch.distributed.run --standalone --nproc_per_node 2".split() if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    status, said, _ = terminated([sys.executable, *launcher, "run.py", *given], last, environment)
    state = torch.load(last, weights_only=True)
    assert status == (128 + signal.SIGTERM if processes == 1 else 1), said[-3000:]
    assert "memory" not in said and "loader process" not in said and "Connection closed" not in said
    assert state["position"]["epoch"] < 100 and "optimizer" in state and not list(last.parents[1].glob("*.lock"))


def test_sigterm_in_a_long_validation_loses_nothing(root: Path, tmp_path: Path) -> None:
    small = ("--val_images", "0", "--batch_size", "4")
    trainer = Trainer(apply_recipe(options(root, tmp_path / "told", *small)))
    scores = trainer.objective.scores
    trainer.objective.scores = lambda *given: os.kill(os.getpid(), signal.SIGTERM) or scores(*given)
    with pytest.raises(Interrupted):
        trainer.run()
    last = tmp_path / "told/dex_ycb/mano_baseline/checkpoints/last.pt"
    assert torch.load(last, weights_only=True)["position"] == {"epoch": 0, "batch": 14, "best": math.inf}
    train(options(root, tmp_path / "told", *small, "--resume"))
    train(options(root, tmp_path / "whole", *small))
    rows = []
    for out in ("told", "whole"):
        with open(tmp_path / out / "dex_ycb/mano_baseline/log.csv", newline="") as handle:
            rows.append({name: float(value) for name, value in next(csv.DictReader(handle)).items()})
    rows[0]["seconds"] = rows[1]["seconds"]
    assert rows[0] == pytest.approx(rows[1])


def test_processes_leave_a_validation_together(root: Path, tmp_path: Path) -> None:
    """SIGTERM reaches one of two processes first: the other is told, and meets no closed connection."""
    done = two_processes("tell", *words(root, tmp_path, "--threads", "1"))
    assert done.returncode == 1 and "Connection closed" not in done.stderr, done.stderr[-3000:]
    # torchrun sends the other one SIGTERM as well; on its way out of Python that ends it at once (-15).
    assert re.search(r"exitcode\s*: 143", done.stderr)
    assert not re.search(r"exitcode\s*: (?!143|-15)-?\d+", done.stderr)
    last = torch.load(tmp_path / "dex_ycb/mano_baseline/checkpoints/last.pt", weights_only=True)
    assert last["position"]["epoch"] == 0 and last["position"]["batch"] > 0


def test_too_little_shared_memory_takes_fewer_loader_processes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = [batch["image_id"].tolist() for batch in BatchLoader(Images(), 4)]
    batch_bytes = 4 * (8 * 8 * 3 + 8)
    for room, used in ((100 * batch_bytes, 3), (9 * batch_bytes, 2), (1000, 0)):
        loader = BatchLoader(Images(), 4, num_workers=3)
        monkeypatch.setattr(loading, "shared_memory_free", lambda room=room: room)
        caplog.clear()
        assert [batch["image_id"].tolist() for batch in loader] == expected
        assert (f"not 3: using {used} (docker run --shm-size" in caplog.text) == (used < 3)


class Images(torch.utils.data.Dataset):
    """Twelve small pictures."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image": np.zeros((8, 8, 3), np.uint8), "image_id": np.int64(index)}


# --- a loader process dies -----------------------------------------------------------------------


DEADLY = """
import os, signal, numpy, torch
from datasets.loading import BatchLoader

class Deadly(torch.utils.data.Dataset):
    def __len__(self): return 40
    def __getitem__(self, index):
        if index == 9: os.kill(os.getpid(), signal.SIGKILL)
        return {"image_id": numpy.int64(index)}

for batch in BatchLoader(Deadly(), 4, num_workers=1): print(batch["image_id"].tolist(), flush=True)
"""


def test_a_dead_loader_process_is_named_by_its_number() -> None:
    """In a process of its own: PyTorch raises the error in whatever that is doing, again and again."""
    done = subprocess.run([sys.executable, "-c", DEADLY], capture_output=True, text=True, timeout=300)
    # the latter if it was just handing over a batch
    said = r"RuntimeError: (DataLoader worker \(pid(\(s\))? \d+\)|a loader process died)"
    assert done.returncode == 1 and re.search(said, done.stderr)
    assert "[[0, 1, 2, 3], [4, 5, 6, 7]]".startswith("[" + done.stdout.strip().replace("\n", ", "))


@pytest.mark.parametrize("error", [ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), EOFError()])
def test_a_loader_process_that_dies_with_a_batch_in_its_hands_is_blamed(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """PyTorch's own words then are those of the broken pipe."""

    def broken(*given: object, **options: object) -> object:
        yield {"image_id": torch.arange(4)}
        raise error

    monkeypatch.setattr(loading, "DataLoader", broken)
    with pytest.raises(RuntimeError, match="a loader process died .*--num_workers"):
        list(BatchLoader(Images(), 4, num_workers=1))


# --- one process of several fails ----------------------------------------------------------------


@pytest.mark.parametrize(("fault", "said"), [("kill", r"Signal 9 \(SIGKILL\)"), ("raise", "picture 7 is broken")])
def test_torchrun_names_the_process_that_failed(root: Path, tmp_path: Path, fault: str, said: str) -> None:
    """Two processes train; the second fails in its third step. All end, and the first failure is told as the cause."""
    done = two_processes(fault, *words(root, tmp_path, "--threads", "1"))
    cause = done.stderr.split("Root Cause")[-1]
    assert done.returncode == 1, done.stderr[-3000:]
    assert re.search(rf"rank\s*: 1 \(local_rank: 1\)[\s\S]*{said}", cause), done.stderr[-3000:]
    assert "terminate called" not in done.stderr


# --- while a cache is built ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_cache_that_was_not_finished_leaves_no_gigabytes(root: Path, tmp_path: Path, number: int) -> None:
    """A half-built one goes with the process that built it, and if that was killed, with the next that builds it."""
    cache = tmp_path / "cache"
    weights = Path(__file__).parents[1] / "weights/mano_baseline_conf.safetensors"
    given = f"--phase predict --data_root {root} --split all --device cpu --threads 1 --cache {cache} --crop_size 600"
    command = [sys.executable, "run.py", *given.split(), "--checkpoint", str(weights)]
    running = subprocess.Popen(
        [*command, "--predictions", str(tmp_path / "p.npz")],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored by jobs in a shell's background
    )
    end = time.monotonic() + 200
    while not list(cache.glob(".crops*.tmp.npy")) and running.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    running.send_signal(number)
    status = running.wait(timeout=200)
    assert status == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    half = list(cache.glob(".crops*.tmp.npy"))
    assert len(half) == (number == signal.SIGKILL) and not list(cache.glob("crops*")) and not list(tmp_path.glob("p*"))
    if half:
        name = half[0].name[1:].split(".")[0]
        key, pixels = name.rpartition("_")[2], 600
        unfinished = CropCache(cache, "all", key, 2, pixels)
        unfinished.build(lambda row: (np.zeros((pixels, pixels, 3), np.uint8), True), workers=1)
        assert unfinished.array_path.stem == name and not list(cache.glob(".crops*.tmp.npy"))
