"""Predictions of a person's images, or own photos, to an identity file; --help lists the options."""

from __future__ import annotations

import logging
import sys

from options.calibrate import get_args_parser


def main() -> int:
    """Parse, call one function. Known errors are one line on stderr and exit status 2."""
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    if args.images:
        from src.photos.calibrate import calibrate_photos as run
    else:
        from src.personalization.calibration.command import run

    try:
        run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
