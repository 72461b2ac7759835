"""What each process of `test_torchrun.py` runs: lines of options for ``run.py``, one phase after the other."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from options.run_options import get_args_parser
from src.engine import distributed


def main(commands: Path) -> None:
    """Run the phases in one process group: run.py has a process for each, here torch is started only once."""
    destroy_distributed, distributed.destroy_distributed = distributed.destroy_distributed, lambda: None
    from src.engine import run_phase

    try:
        for line in commands.read_text(encoding="utf-8").splitlines():
            args = get_args_parser().parse_args(line.split())
            run_phase(args)
    finally:
        destroy_distributed()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
