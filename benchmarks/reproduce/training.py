"""Data and trainings of a run; each step is left out when its result is there, and goes on where it stopped."""

from __future__ import annotations

import csv
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.reproduce.sizes import NETWORKS, Network, Size
from src.engine.checkpoint import read_checkpoint

logger = logging.getLogger(__name__)

#: Of networks that are trained once.
SHARED_SEED = 0


def make_data(size: Size) -> None:
    """Write the synthetic sets of a run that are not there yet.

    Raises:
        FileNotFoundError: a root that no option makes is missing.
    """
    for root, options in ((size.train_root, size.train_data), (size.test_root, size.test_data)):
        if options is not None:
            from datasets.synthetic.data_set import write_data_set
            from datasets.synthetic.sequence import SynthesisOptions

            write_data_set(root, SynthesisOptions(**options))
        elif not root.is_dir():
            raise FileNotFoundError(f"{root} is missing; scripts/make_training_set.sh writes data/training_dex_ycb")
    if not size.body.is_file():
        raise FileNotFoundError(f"{size.body} is missing; scripts/train_body.sh trains the shared body (an hour)")


def checkpoint_of(size: Size, network: str, seed: int) -> Path:
    """The last state of a network's training."""
    known = NETWORKS[network]
    seed = seed if known.per_seed else SHARED_SEED
    return Path("out/dex_ycb") / size.experiment(network, seed) / "checkpoints" / "last.pt"


def is_trained(path: Path) -> bool:
    """Whether a checkpoint is the end of its training."""
    if not path.is_file():
        return False
    state = read_checkpoint(path)
    return state["position"]["epoch"] >= state["epochs"]


def train_all(size: Size) -> None:
    """Train every network for every seed, seed by seed."""
    for seed in size.seeds:
        for name, network in NETWORKS.items():
            if (network.per_seed or seed == size.seeds[0]) and not is_trained(checkpoint_of(size, name, seed)):
                logger.info("training %s, seed %d", name, seed)
                _train(size, training_options(size, name, network, seed if network.per_seed else SHARED_SEED))


def training_hours(size: Size) -> float:
    """Hours that the trainings of a run took, by their logs; without the shared body."""
    seconds = 0.0
    for seed in size.seeds:
        for name, network in NETWORKS.items():
            if network.per_seed or seed == size.seeds[0]:
                log = checkpoint_of(size, name, seed).parents[1] / "log.csv"
                if log.is_file():
                    with log.open(encoding="utf-8", newline="") as lines:
                        seconds += sum(float(row["seconds"]) for row in csv.DictReader(lines))
    return seconds / 3600


def training_options(size: Size, name: str, network: Network, seed: int) -> list[str]:
    """Options of ``run.py`` for one training."""
    start = size.body if network.start is None else checkpoint_of(size, network.start, seed)
    fixed: dict[str, Any] = {
        "phase": "train",
        "model": network.model,
        "recipe": network.recipe,
        "data_root": size.train_root,
        "cache": size.cache,
        "exp_name": size.experiment(name, seed),
        "init_from": start,
        "epochs": 1,
        "max_images": size.images[network.budget],
        "seed": seed,
        "rotation_deg": 30,
        "batch_size": 128 if network.budget == "confidence" else 64,
        "val_images": size.val_images,
    }
    words = [word for option, value in fixed.items() for word in (f"--{option}", str(value))]
    return [*words, "--resume", *network.options]


def _train(size: Size, options: list[str]) -> None:
    if size.workers == 0:
        from options.run_options import get_args_parser
        from src.engine.train import train

        train(get_args_parser().parse_args(options))
        return
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(size.workers)]
    # One thread a process: more of them wait for each other at every operation.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "run.py", *options, "--threads", "1"], env=environment, check=True)
