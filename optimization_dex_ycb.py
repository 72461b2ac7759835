"""Test-time fitting of pose and translation to 2D keypoints: python optimization_dex_ycb.py --help."""

from __future__ import annotations

import logging
import sys

from options.fit import get_args_parser


def main() -> int:
    """Parse, call one function. Known errors are one line on stderr and exit status 2."""
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    from src.personalization.fitting.command import fit

    try:
        fit(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
