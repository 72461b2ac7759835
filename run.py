"""The front door: run.py --phase {train,eval,predict,demo,export,personalise} --model NAME --data_root DIR ..."""

from __future__ import annotations

import argparse
import sys

from options.command_line import run_command
from options.run_options import get_args_parser


def run(args: argparse.Namespace) -> None:
    """Do what ``--phase`` says; under torchrun, which names the process that failed, with the error noted for it."""
    from torch.distributed.elastic.multiprocessing.errors import record

    from src.engine import run_phase

    record(run_phase)(args)


def main() -> int:
    return run_command(get_args_parser(), run)


if __name__ == "__main__":
    sys.exit(main())
