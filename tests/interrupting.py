"""Stops a training as a job's end does."""

from __future__ import annotations

import os
import signal

import pytest

from src.engine.distributed import Interrupted
from src.engine.train import Trainer


def interrupt(trainer: Trainer, batches: int) -> Interrupted:
    """Train until SIGTERM comes in the step of so many batches."""
    step, taken = trainer._step, []

    def count_and_kill(raw: dict) -> dict:
        taken.append(1)
        if len(taken) == batches:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(raw)

    trainer._step = count_and_kill
    with pytest.raises(Interrupted) as stop:
        trainer.run()
    return stop.value
