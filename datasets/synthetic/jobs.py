"""Much of the same work, shared between processes of one thread each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import cv2
import torch
from tqdm import tqdm


def run_jobs(work: Callable[[Any], object], jobs: Sequence[Any], workers: int, unit: str, worth: int = 1) -> None:
    """Do ``work`` of every job, with one worker in this process; the first error ends it.

    Args:
        unit, worth: of the progress that is shown: what is counted, and how much of it a job is.
    """
    with tqdm(total=len(jobs) * worth, unit=unit, smoothing=0.05, disable=None) as progress:
        if workers == 1:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as in the worker processes: the same sums in the same order
            try:
                for job in jobs:
                    work(job)
                    progress.update(worth)
            finally:
                torch.set_num_threads(threads)
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
            futures = [pool.submit(work, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    future.result()
                    progress.update(worth)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _start_worker() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
