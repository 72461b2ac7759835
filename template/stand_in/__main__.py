"""``python -m template.stand_in --build | --check | --sheet``: make, verify and draw the stand-in hand."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m template.stand_in", description=__doc__)
    parser.add_argument("--build", action="store_true", help="build the hand, write template/stand_in.npz (a minute)")
    parser.add_argument("--check", action="store_true", help="verify the file and draw it; exits 1 if a check fails")
    parser.add_argument("--sheet", action="store_true", help="only draw 12 poses and shapes")
    parser.add_argument("--sheet_path", type=Path, default=Path("out/stand_in_sheet.png"), help="where the sheet goes")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen actions; 0 if all went well."""
    parser = get_args_parser()
    args = parser.parse_args(arguments)
    if not (args.build or args.check or args.sheet):
        parser.error("choose at least one of --build, --check, --sheet")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from template.stand_in.build import build_hand, read_hand, write_hand

    if args.build:
        write_hand(build_hand())
    failed = 0
    if args.check:
        from template.stand_in.check import check_hand, report

        failed = report(check_hand(read_hand()))
    if args.check or args.sheet:
        from template.stand_in.sheet import write_sheet

        write_sheet(read_hand(), args.sheet_path)
        print(f"wrote {args.sheet_path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
