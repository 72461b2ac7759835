"""Trainings are handed out in order, each after what it starts from, and a failure ends them all."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from benchmarks.reproduce import training
from benchmarks.reproduce.sizes import WHOLE
from benchmarks.reproduce.training import start_trainings, trainings

SIZE = replace(WHOLE, name="nothing", parallel=3, seeds=(0, 1))


class Log:
    """Stands in for training: notes when each began and ended."""

    def __init__(self, fails: str = "") -> None:
        self.began, self.ended, self.fails, self.most = [], [], fails, 0
        self.lock = threading.Lock()

    def __call__(self, size: object, name: str, seed: int) -> None:
        start = size.networks[name].start
        with self.lock:
            assert start is None or (start, seed) in self.ended
            self.began.append((name, seed))
            self.most = max(self.most, len(self.began) - len(self.ended))
        time.sleep(0.03 if name != "body" else 0.3)  # long beside what a busy machine lets a thread wait
        if name == self.fails:
            raise RuntimeError(f"{name} broke")
        with self.lock:
            self.ended.append((name, seed))


def run(log: Log, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(training, "train_one", log)
    with ThreadPoolExecutor(8) as pool, ThreadPoolExecutor(1) as waiting:
        return start_trainings(SIZE, pool, waiting)


def test_everything_is_trained_after_what_it_starts_from(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    started = run(log, monkeypatch)
    assert sorted(log.ended) == sorted(trainings(SIZE)) and all(future.done() for future in started.values())
    assert log.most == 3
    place = {job: number for number, job in enumerate(log.began)}
    # What has to wait does not go to the end of the queue.
    assert place["fair_confidence", 0] < place["fair_baseline", 1] + 3 < place["blind", 0]


def test_a_training_that_fails_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(fails="fair_baseline")
    started = run(log, monkeypatch)
    with pytest.raises(RuntimeError, match="fair_baseline broke"):
        started["fair_baseline", 0].result()
    with pytest.raises(RuntimeError, match="fair_baseline broke"):
        started["blind", 1].result()
    assert ("fair_confidence", 0) not in log.began and ("blind", 1) not in log.began
