"""Command line of the synthetic data set: ``python -m datasets.synthetic --root data/synthetic ...``."""

from __future__ import annotations

import argparse
import sys

from options.command_line import numbers_between, run_command, values_of, writer_parser


def get_args_parser() -> argparse.ArgumentParser:
    about = "Write a synthetic data set in DexYCB's layout. An interrupted run goes on where it stopped."
    parser = writer_parser("synthetic", about)
    parser.add_argument("--num_sequences", type=int, default=100, help="sequences a subject (official: 100)")
    parser.add_argument("--num_frames", type=int, default=72, help="frames a sequence")
    parser.add_argument("--num_subjects", type=int, default=10, help="above 10: further people to train on")
    numbers = numbers_between(",")
    parser.add_argument("--subjects", type=numbers, default=None, help="write only these subjects' sequences, e.g. 8,9")
    parser.add_argument("--left_fraction", type=float, default=0.5, help="share of left-handed sequences")
    parser.add_argument("--render_scale", type=float, default=1.0, help="1, 0.5 or 0.25: rays per pixel side")
    parser.add_argument("--quality", type=int, default=92, help="of the JPEG files")
    parser.add_argument("--depth", action="store_true", help="write aligned_depth_to_color_*.png too")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    return parser


def write(args: argparse.Namespace) -> None:
    from datasets.synthetic.data_set import SynthesisOptions, write_data_set

    arguments = values_of(args)
    root, workers, subjects = (arguments.pop(name) for name in ("root", "workers", "subjects"))
    write_data_set(root, SynthesisOptions(**arguments), subjects, workers)


if __name__ == "__main__":
    sys.exit(run_command(get_args_parser(), write))
