"""The front door for networks: run.py --phase {train,eval,predict,demo} --model NAME --data_root DIR ..."""

from __future__ import annotations

import logging
import sys

from options.run_options import get_args_parser


def main() -> int:
    """Parse, call one function. Known errors are one line on stderr and exit status 2."""
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    from src.engine import phases

    try:
        phases.PHASES[args.phase](args)
    except (ValueError, OSError, RuntimeError) as error:
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
