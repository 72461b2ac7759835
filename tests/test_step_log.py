"""What a training's steps said: sums, and the first loss that is not finite."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from src.engine.step_log import GPU_STEPS, StepLog


def step(loss: float) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(loss), "mesh": torch.tensor(2.0)}


def test_means_are_over_steps() -> None:
    log = StepLog(torch.device("cpu"))
    for loss in (1.0, 2.0, 6.0):
        log.add(step(loss), 0, torch.arange(3))
    assert log.means() == pytest.approx({"loss": 3.0, "mesh": 2.0})
    assert StepLog(torch.device("cpu")).means() == {}


def test_first_step_that_is_not_finite_is_named() -> None:
    log = StepLog(torch.device("cpu"))
    assert log.first_bad() is None
    for batch, loss in enumerate((1.0, math.inf, math.nan)):
        log.add(step(loss), batch, torch.arange(10) + 10 * batch)
    assert log.is_due
    loss, batch, images = log.first_bad()
    assert loss == math.inf and batch == 1 and images == list(range(10, 18))
    assert not log.is_due and log.first_bad() is None  # checked once


def test_a_gpu_is_asked_now_and_then() -> None:
    log = StepLog(SimpleNamespace(type="cuda"))
    for number in range(GPU_STEPS):
        assert not log.is_due
        log.add(step(1.0), number, torch.arange(3))
    assert log.is_due


def test_a_process_that_holds_no_sums_still_joins_the_others() -> None:
    """Resumed before a validation: the saved sums are of all processes and go to the first one."""
    log = StepLog(torch.device("cpu"))
    log.add(step(2.0), 0, torch.arange(3))
    saved = log.state()
    empty = StepLog(torch.device("cpu"), saved | {"sums": [[0.0] * len(row) for row in saved["sums"]]})
    total = empty.state(lambda sums: sums + torch.tensor(saved["sums"]))
    assert log.means(total) == {"loss": 2.0, "mesh": 2.0}
