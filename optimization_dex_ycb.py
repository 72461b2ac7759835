"""Test-time fitting of pose and translation to 2D keypoints: python optimization_dex_ycb.py --help."""

from __future__ import annotations

import argparse
import sys

from options.command_line import run_command
from options.fit import get_args_parser


def run(args: argparse.Namespace) -> None:
    """Fit every image of ``--predictions``."""
    from src.personalization.fitting.command import fit

    fit(args)


def main() -> int:
    return run_command(get_args_parser(), run)


if __name__ == "__main__":
    sys.exit(main())
