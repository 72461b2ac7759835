"""Data and trainings of a run; each step is left out when its result is there, and goes on where it stopped."""

from __future__ import annotations

import csv
import gc
import hashlib
import logging
import os
import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.reproduce.networks import Network
from benchmarks.reproduce.sizes import Size
from datasets.bad_files import read_json
from src.engine.checkpoint import read_checkpoint
from src.engine.run_folder import records
from utils.files import write_json

logger = logging.getLogger(__name__)

#: Of networks that are trained once.
SHARED_SEED = 0


#: Trainings under way, by network and seed.
Trainings = dict[tuple[str, int], Future]


def make_data(size: Size) -> None:
    """Write the synthetic training set of a run if it is not there yet.

    Raises:
        FileNotFoundError: a training set that no option makes, or the shared body, is missing.
    """
    _write(size.train_root, size.train_data)
    if size.body is not None and not size.body.is_file():
        raise FileNotFoundError(f"{size.body} is missing; scripts/train_body.sh trains the shared body (an hour)")


def note_run(size: Size) -> None:
    """Keep in a run's folder what its trainings and numbers are of; a folder without that is an older run's.

    Raises:
        ValueError: the folder is of a run on other data, from another body or of other lengths; names them.
    """
    body = size.body if size.body is not None and size.body.is_file() else None
    noted = {
        "train_root": str(size.train_root),
        "test_root": str(size.test_root),
        "test_split": size.test_split,
        "body": body and hashlib.sha256(body.read_bytes()).hexdigest()[:12],
        "weights": {network: str(path) for network, path in (size.weights or {}).items()},
        "budgets": {name: list(budget) for name, budget in size.budgets.items()},
    }
    path = size.folder / "run.json"
    before = read_json(path, can_skip=False) if path.is_file() else noted
    if differ := [f"{name} was {before.get(name)}, is {now}" for name, now in noted.items() if before.get(name) != now]:
        raise ValueError(
            f"{path}: what lies there is of another run: {'; '.join(differ)}. Give what that run had, or move "
            f"{size.folder} and out/dex_ycb/{size.name}_* away"
        )
    write_json(path, noted)


def make_test_data(size: Size) -> None:
    """Write the synthetic set of people to evaluate if it is not there yet."""
    _write(size.test_root, size.test_data)


def _write(root: Path, options: dict[str, int | float] | None) -> None:
    if options is not None:
        from datasets.synthetic.data_set import SynthesisOptions, write_data_set

        write_data_set(root, SynthesisOptions(**options))
    elif not root.is_dir():
        raise FileNotFoundError(f"{root} is missing; scripts/make_training_set.sh writes data/training_dex_ycb")


def checkpoint_of(size: Size, network: str, seed: int) -> Path:
    """The last state of a network's training, or its weights; of the body, what all networks start from."""
    if size.weights is not None and network in size.weights:
        return size.weights[network]
    if network == "body" and size.body is not None:
        return size.body
    seed = seed if size.networks[network].per_seed else SHARED_SEED
    return Path("out/dex_ycb") / size.experiment(network, seed) / "checkpoints" / "last.pt"


def is_trained(path: Path) -> bool:
    """Whether a checkpoint is the end of its training."""
    if not path.is_file():
        return False
    if path.suffix == ".safetensors":
        return True
    state = read_checkpoint(path)
    return state["position"]["epoch"] >= state["epochs"]


def trainings(size: Size) -> list[tuple[str, int]]:
    """Networks and seeds to train, each after what it starts from: from nothing, then seed by seed, late ones last."""
    found: list[tuple[str, int]] = []
    for stage in (0, 1, 2):
        # What is trained once starts from the shared seed's body, whichever seeds are asked for.
        for seed in size.seeds if stage else sorted({*size.seeds, SHARED_SEED}):
            for name, network in size.networks.items():
                job = name, seed if network.per_seed else SHARED_SEED
                if job not in found and stage == (0 if network.start is None else 2 if network.is_late else 1):
                    found.append(job)
    return found


def train_all(size: Size) -> None:
    """Train every network for every seed, `Size.parallel` at a time.

    Raises:
        subprocess.CalledProcessError, or what a training raised: no further one is started then.
    """
    if size.parallel == 1:
        for name, seed in trainings(size):
            train_one(size, name, seed)
        return
    with training_pool(size) as pool, ThreadPoolExecutor(1) as waiting:
        started = start_trainings(size, pool, waiting)
        try:
            for training in as_completed(started.values()):
                training.result()
        except BaseException:
            stop(pool, waiting)
            raise


def stop(pool: ProcessPoolExecutor, waiting: ThreadPoolExecutor) -> None:
    """Start nothing more; trainings under way save their state and end."""
    waiting.shutdown(wait=False, cancel_futures=True)
    pool.shutdown(wait=False, cancel_futures=True)
    for child in active_children():
        child.terminate()


def training_pool(size: Size) -> ProcessPoolExecutor:
    """Processes that take one training after the other."""
    return ProcessPoolExecutor(size.parallel, mp_context=get_context("spawn"), initializer=_start_trainer)


def start_trainings(size: Size, pool: ProcessPoolExecutor, waiting: ThreadPoolExecutor) -> Trainings:
    """Have the pool train everything, `Size.parallel` at a time.

    Args:
        pool: of `training_pool`.
        waiting: gives the thread that hands out the trainings.
    """
    started: Trainings = {job: Future() for job in trainings(size)}
    waiting.submit(_hand_out, size, pool, started)
    return started


def _hand_out(size: Size, pool: ProcessPoolExecutor, started: Trainings) -> None:
    """Start, whenever there is room, the first training in order whose start is trained."""
    left, running = list(started), {}
    try:
        while left or running:
            for job in left.copy():
                start = started.get((size.networks[job[0]].start, job[1]))
                if is_trained(checkpoint_of(size, *job)):
                    started[job].set_result(None)
                    left.remove(job)
                elif len(running) < size.parallel and (start is None or start.done()):
                    running[pool.submit(train_one, size, *job)] = job
                    left.remove(job)
            for training in wait(running, return_when=FIRST_COMPLETED).done:
                training.result()
                started[running.pop(training)].set_result(None)
    except BaseException as error:
        for future in started.values():
            if not future.done():
                future.set_exception(error)


def train_one(size: Size, name: str, seed: int) -> None:
    """Train a network, if its training is not complete."""
    if is_trained(checkpoint_of(size, name, seed)):
        return
    logger.info("training %s, seed %d", name, seed)
    options = training_options(size, name, size.networks[name], seed)
    if size.workers > 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(size.workers)]
        # One thread a process: more of them wait for each other at every operation.
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*command, "run.py", *options, "--threads", "1"], env=environment, check=True)
        return
    from options.run_options import get_args_parser
    from src.engine.train import train

    train(get_args_parser().parse_args(options), ["run.py", *options])
    gc.collect()  # a trainer and its steps refer to each other
    if size.device == "cuda":
        torch.cuda.empty_cache()  # the next training of this process may be larger


def _start_trainer() -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")


def training_hours(size: Size) -> float:
    """Hours that the trainings of a run took, by their logs, added up; without a shared body."""
    seconds = 0.0
    for name, seed in trainings(size):
        log = checkpoint_of(size, name, seed).parents[1] / "log.csv"
        if log.is_file():
            with log.open(encoding="utf-8", newline="") as lines:
                seconds += sum(float(row["seconds"]) for row in csv.DictReader(lines))
    return seconds / 3600


def computed_on(size: Size) -> dict[str, list[str]]:
    """Networks by what trained them, by the notes of their runs."""
    found: dict[str, list[str]] = {}
    for name, seed in trainings(size):
        for record in records(checkpoint_of(size, name, seed).parents[1]):  # a run may go on elsewhere
            found.setdefault(record.get("computed_on", "CPU"), []).append(name)
    return {device: list(dict.fromkeys(names)) for device, names in found.items()}


def training_options(size: Size, name: str, network: Network, seed: int) -> list[str]:
    """Options of ``run.py`` for one training."""
    budget = size.budgets[network.budget]
    fixed: dict[str, Any] = {
        "phase": "train",
        "model": network.model,
        "recipe": network.recipe,
        "data_root": size.train_root,
        "cache": size.cache,
        "exp_name": size.experiment(name, seed),
        "init_from": None if network.start is None else checkpoint_of(size, network.start, seed),
        "epochs": budget.epochs,
        "max_images": budget.images,
        "seed": seed,
        "rotation_deg": 30,
        "batch_size": budget.batch_size,
        "lr": f"{network.lr * (budget.batch_size / 64) ** 0.5:.3g}",
        "val_images": size.val_images,
        "device": size.device,
    }
    words = [word for option, value in fixed.items() if value is not None for word in (f"--{option}", str(value))]
    return [*words, "--resume", *network.options]
