"""Which values an option may have, for all three commands: others are refused before anything is read or written."""

from __future__ import annotations

import argparse
import math
import os
from typing import NamedTuple

#: Pixels below which a picture shows no hand.
_SMALLEST_PICTURE = 8


class Limits(NamedTuple):
    """A closed interval, or, with ``above``, one without its lower end."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies in it."""
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        low = f"more than {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if math.isinf(self.high) else f"{low} and at most {self.high:g}"


_POSITIVE, _NOT_NEGATIVE, _COUNT = Limits(0, above=True), Limits(0), Limits(1)
#: By option. Those of one name mean the same in every command.
LIMITS = {
    **dict.fromkeys(
        "batch_size epochs top_k num_images draws max_steps chunk cameras "
        "calibration_images demo_sequences demo_frames".split(),
        _COUNT,
    ),
    **dict.fromkeys("num_workers max_images val_images pictures weight_decay save_minutes".split(), _NOT_NEGATIVE),
    **dict.fromkeys(
        "lr body_lr temperature root_std finger_std keypoint_std depth_mean depth_std hand_length_mm "
        "hand_length_std_mm wrist_depth_std_mm calibrate_until_mm fps".split(),
        _POSITIVE,
    ),
    **dict.fromkeys(("crop_size", "input_size"), Limits(_SMALLEST_PICTURE, 4096)),
    "crop_scale": Limits(0, 2, above=True),
    "rotation_deg": Limits(0, 180),
    **dict.fromkeys(("min_confidence", "error_correlation"), Limits(0, 1)),
    "port": Limits(0, 65535),
    "seed": Limits(0, 2**62),
    "lag": Limits(0, 300),
    "threads": Limits(1, max(os.cpu_count() or 1, 1)),  # more than cores only wait for each other
}


def bad_value(args: argparse.Namespace) -> str | None:
    """What is wrong with the first given value that is empty, not finite or outside its limits, or None."""
    for option in sorted(args.given_options):
        name = option.removeprefix("--")
        value = getattr(args, name, None)
        if isinstance(value, str) and not value:
            return f"{option} is empty; give what it needs, or leave it out"
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            if isinstance(number, float) and not math.isfinite(number):
                return f"{option} is {number}; it must be a finite number"
            if name in LIMITS and not LIMITS[name].holds(number):
                return f"{option} is {number}; it must be {LIMITS[name]}"
    return None
