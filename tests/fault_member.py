"""What the processes of `test_faults.py` run: ``fault_member.py RANK kill|raise|tell WORDS...`` trains; RANK's fails.

``tell``: that process alone gets SIGTERM, in its first validation.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time

import torch

from options.run_options import get_args_parser
from run import run
from src.engine import distributed
from src.engine import train as engine


def tell_in_validation(doomed: int) -> None:
    """SIGTERM to one process while all validate."""
    measure = engine.mean_scores

    def told(model: torch.nn.Module, objective: object, loader: object, view: dict, context: object, *rest: object):
        if context.rank == doomed:
            os.kill(os.getpid(), signal.SIGTERM)
        return measure(model, objective, loader, view, context, *rest)

    engine.mean_scores = told


def main(doomed: int, fault: str, words: list[str]) -> None:
    """Train as run.py does, but for the third step of a process."""
    torch.set_num_threads(1)
    step, taken, collect = engine.Trainer._step, [], gc.collect

    def failing(trainer: engine.Trainer, raw: dict) -> dict:
        taken.append(1)
        if len(taken) == 3 and trainer.context.rank == doomed:
            if fault == "raise":
                distributed.gc.collect = lambda: (collect(), time.sleep(1.5))  # it leaves the group, and tells late
                raise ValueError("picture 7 is broken")
            os.kill(os.getpid(), signal.SIGKILL)
        return step(trainer, raw)

    if fault == "tell":
        tell_in_validation(doomed)
    else:
        engine.Trainer._step = failing
    run(get_args_parser().parse_args(words))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
