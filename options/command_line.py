"""What the commands share: a parser that refuses options without effect, writers' options, how errors are told."""

from __future__ import annotations

import argparse
import linecache
import logging
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
_NOT_GIVEN = object()
#: Pixels below which a picture shows no hand.
_SMALLEST_PICTURE = 8
_POSITIVE, _NOT_NEGATIVE, _COUNT = (0, math.inf, True), (0, math.inf, False), (1, math.inf, False)
#: Option -> lowest and highest value, and whether the lowest itself is out. Those of one name mean the same everywhere.
LIMITS = {
    **dict.fromkeys(
        "batch_size epochs top_k num_images draws max_steps chunk cameras "
        "calibration_images demo_sequences demo_frames shard_size workers processes people count num_frames "
        "max_cutouts validation_cutouts validation_pictures".split(),
        _COUNT,
    ),
    **dict.fromkeys(
        "num_workers max_images val_images pictures weight_decay save_minutes first wait_minutes".split(), _NOT_NEGATIVE
    ),
    **dict.fromkeys(
        "lr body_lr temperature root_std finger_std keypoint_std hand_length_mm "
        "hand_length_std_mm wrist_depth_std_mm calibrate_until_mm fps minutes stop_after world_std_mm".split(),
        _POSITIVE,
    ),
    # Metres to a hand, as far as one is believed: 850 is meant in millimetres.
    **dict.fromkeys(("depth_mean", "depth_std"), (0, 10, True)),
    **dict.fromkeys(("crop_size", "input_size", "size"), (_SMALLEST_PICTURE, 4096, False)),
    "crop_scale": (0, 2, True),
    "rotation_deg": (0, 180, False),
    **dict.fromkeys(("min_confidence", "error_correlation", "left"), (0, 1, False)),
    "quality": (1, 100, False),
    "port": (0, 65535, False),
    "seed": (0, 2**62, False),
    "lag": (0, 300, False),
    "threads": (1, max(os.cpu_count() or 1, 1), False),  # more than cores only wait for each other
}


class CommandParser(argparse.ArgumentParser):
    """Knows which options were given, writes no abbreviation for granted, and has ``--debug``.

    The parsed options carry ``given_options``: the flags on the command line, e.g. ``{"--phase", "--lr"}``.
    """

    def __init__(self, description: str, prog: str | None = None, **options: Any) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, **options)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        actions = {action.dest: action for action in self._actions if action.default is not argparse.SUPPRESS}
        lists = {name for name, action in actions.items() if isinstance(action.default, list)}
        unknown = {name: [] if name in lists else _NOT_GIVEN for name in actions}
        parsed, rest = super().parse_known_args(args, argparse.Namespace(**unknown))
        given = {name for name in actions if getattr(parsed, name) is not _NOT_GIVEN and getattr(parsed, name) != []}
        for name in actions.keys() - given:
            setattr(parsed, name, actions[name].default)
        parsed.given_options = {(actions[name].option_strings or [name])[0] for name in given}
        wrong = bad_value(parsed)
        if wrong:
            self.error(wrong)
        self.check(parsed)
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """One line, not the usage of seventy options before it."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")

    def check(self, args: argparse.Namespace) -> None:
        """Fill in what depends on other options, and refuse what has no effect; for subclasses."""

    def refuse_without(self, args: argparse.Namespace, needs: Mapping[str, tuple[str, ...]]) -> None:
        """Exit with status 2 if an option was given without any of those that give it a meaning."""
        for option in sorted(args.given_options & needs.keys()):
            if not args.given_options.intersection(needs[option]):
                self.error(f"{option} has no effect without {' or '.join(needs[option])}")

    def refuse_unused(self, args: argparse.Namespace, used: Container[str], what: str) -> None:
        """Exit with status 2 if an option was given that ``what`` (e.g. "--phase eval") does not use."""
        unused = sorted(option for option in args.given_options if option not in used)
        if unused:
            self.error(f"{what} does not use {', '.join(unused)}; leave {'it' if len(unused) == 1 else 'them'} out")


def bad_value(args: argparse.Namespace) -> str | None:
    """What is wrong with the first given value that is empty, not finite or outside its limits, or None."""
    for option in sorted(args.given_options):
        name = option.removeprefix("--")
        value = getattr(args, name, None)
        if isinstance(value, str) and not value:
            return f"{option} is empty; give what it needs, or leave it out"
        low, high, is_open = LIMITS.get(name, (-math.inf, math.inf, False))
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            if isinstance(number, float) and not math.isfinite(number):
                return f"{option} is {number}; it must be a finite number"
            if not low <= number <= high or (is_open and number == low):
                at_most = "" if math.isinf(high) else f" and at most {high:g}"
                return f"{option} is {number}; it must be {'more than' if is_open else 'at least'} {low:g}{at_most}"
    return None


def writer_parser(name: str, description: str) -> CommandParser:
    """Parser of the writer ``python -m datasets.NAME``, with what all have: ``--root``, ``--seed``, ``--mano_dir``."""
    how = argparse.ArgumentDefaultsHelpFormatter
    parser = CommandParser(description, f"python -m datasets.{name}", formatter_class=how)
    parser.add_argument("--root", required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--mano_dir", default=None, help="folder of the hand model's files")
    return parser


def numbers_between(mark: str, count: int | None = None) -> Callable[[str], list[int]]:
    """Type of an option of whole numbers, ``count`` of them (None: any), with a mark between them, such as 8,9."""

    def numbers(text: str) -> list[int]:
        found = [int(part) for part in text.split(mark)]
        if count not in (None, len(found)):
            raise ValueError(text)
        return found

    numbers.__name__ = f"numbers with {mark!r} between"  # as argparse names it in its error
    return numbers


def values_of(args: argparse.Namespace) -> dict[str, Any]:
    """What a `CommandParser` parsed, to be handed on as keyword arguments."""
    return {name: value for name, value in vars(args).items() if name not in ("debug", "given_options")}


def run_command(
    parser: CommandParser, work: Callable[[argparse.Namespace], object], words: Sequence[str] | None = None
) -> int:
    """Parse the command line (None: this process's) and do ``work``; the exit status, which is 0 unless ``work``
    returns another integer.

    An error is one line on stderr and status 2. One that no part of this code raised on purpose may be a fault of
    the program, so its type is named. ``--debug`` shows the traceback of either.
    """
    args = parser.parse_args(words)
    debug = args.debug
    # Before torch is imported: on a busy machine threads that wait spinning take ten times as long as those that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files; a notebook's backend (Colab's) may not be installed here
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        status = work(args)
        return status if isinstance(status, int) else 0
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        print(f"error: {describe_error(error)}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """On SIGTERM: as on any error, half-written files go on the way out."""
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    sys.exit(128 + number)


def describe_error(error: Exception) -> str:
    """The message of an error raised on purpose or by the system; of any other also its type and where to look."""
    if isinstance(error, OSError) or _is_deliberate(error):
        return str(error)
    return f"{type(error).__name__}: {error} (perhaps a fault of the program; --debug shows the traceback)"


def _is_deliberate(error: Exception) -> bool:
    """Whether a ``raise`` statement of this code, not a library or a slip, raised the error."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not Path(frames[-1].filename).resolve().is_relative_to(ROOT):
        return False
    if ".venv" in Path(frames[-1].filename).resolve().relative_to(ROOT).parts:
        return False
    return linecache.getline(frames[-1].filename, frames[-1].lineno or 0).lstrip().startswith("raise ")
