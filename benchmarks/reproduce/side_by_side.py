"""Trainings side by side, with the evaluation's data and each seed's scores made beside them."""

from __future__ import annotations

import logging
import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.reproduce.prior import make_prior, open_people
from benchmarks.reproduce.scoring import Scores, open_test_data
from benchmarks.reproduce.sizes import MEASURING, Size
from benchmarks.reproduce.training import (
    SHARED_SEED,
    make_test_data,
    start_trainings,
    stop,
    training_pool,
    trainings,
)
from datasets.crop_cache import usable_cores

logger = logging.getLogger(__name__)

Rows = list[dict[str, Any]]


def train_and_score(size: Size) -> Rows:
    """Rows of all seeds, seed after seed.

    Raises:
        Exception: what a training or a scoring raised.
    """
    workers = len(size.seeds) + 1
    context = multiprocessing.get_context("spawn")
    threads = max(1, usable_cores() // workers)
    with (
        training_pool(size) as trainers,
        ThreadPoolExecutor(workers + 1) as waiting,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(threads,)) as scorers,
    ):
        data = scorers.submit(_make_evaluation_data, size)
        started = start_trainings(size, trainers, waiting)
        networks = size.networks
        measuring = MEASURING & set(networks)
        trusted = [started[name, SHARED_SEED if name == "pose_2d" else size.seeds[0]] for name in measuring]
        prior = waiting.submit(_after, [data, *trusted], lambda: scorers.submit(make_prior, size).result())
        scores = [
            waiting.submit(
                _after,
                [prior, *(started[job] for job in trainings(size) if job[1] == seed or not networks[job[0]].per_seed)],
                lambda seed=seed: scorers.submit(_score_seed, size, seed, prior.result()).result(),
            )
            for seed in size.seeds
        ]
        try:
            return [row for rows in scores for row in rows.result()]
        except BaseException:
            stop(trainers, waiting)
            raise


def _after(needs: list[Future], work: Any) -> Any:
    for need in needs:
        need.result()
    return work()


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    os.nice(10)  # trainings must not wait for a core
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")


def _make_evaluation_data(size: Size) -> None:
    make_test_data(size)
    open_test_data(size)  # fills the crop cache, which all seeds read
    if size.prior is None:
        open_people(size)


def _score_seed(size: Size, seed: int, prior: Path) -> Rows:
    return Scores(size, seed, prior).all_rows()
