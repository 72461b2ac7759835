"""Predictions of a person's images, or own photos, to an identity file; --help lists the options."""

from __future__ import annotations

import argparse
import sys

from options.calibrate import get_args_parser
from options.command_line import run_command


def run(args: argparse.Namespace) -> None:
    """Calibrate from ``--estimates``, from ``--images`` or from ``--predictions``."""
    if args.estimates:
        from src.engine.estimates.command import calibrate
    elif args.images:
        from src.photos.calibrate import calibrate_photos as calibrate
    else:
        from src.personalization.calibration.command import run as calibrate

    calibrate(args)


def main() -> int:
    return run_command(get_args_parser(), run)


if __name__ == "__main__":
    sys.exit(main())
