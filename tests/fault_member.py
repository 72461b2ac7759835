"""What the processes of `test_faults.py` run: ``fault_member.py RANK WORDS...`` trains; that of RANK kills itself."""

from __future__ import annotations

import os
import signal
import sys

import torch

from options.recipes import apply_recipe
from options.run_options import get_args_parser
from src.engine import train as engine
from src.engine.distributed import process_group


def main(doomed: int, words: list[str]) -> int:
    """Train as run.py does, but for the third step of a process; the exit status."""
    torch.set_num_threads(1)
    try:
        with process_group():
            trainer = engine.Trainer(apply_recipe(get_args_parser().parse_args(words)))
            step, taken = trainer._step, []

            def failing(raw: dict) -> dict:
                taken.append(1)
                if len(taken) == 3 and trainer.context.rank == doomed:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(raw)

            trainer._step = failing
            trainer.run()
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
