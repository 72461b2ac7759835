"""Which values an option may have, for all three commands: others are refused before anything is read or written."""

from __future__ import annotations

import argparse
import math
import os

#: Pixels below which a picture shows no hand.
_SMALLEST_PICTURE = 8


_POSITIVE, _NOT_NEGATIVE, _COUNT = (0, math.inf, True), (0, math.inf, False), (1, math.inf, False)
#: Option -> lowest and highest value, and whether the lowest itself is out. Those of one name mean the same everywhere.
LIMITS = {
    **dict.fromkeys(
        "batch_size epochs top_k num_images draws max_steps chunk cameras "
        "calibration_images demo_sequences demo_frames".split(),
        _COUNT,
    ),
    **dict.fromkeys("num_workers max_images val_images pictures weight_decay save_minutes".split(), _NOT_NEGATIVE),
    **dict.fromkeys(
        "lr body_lr temperature root_std finger_std keypoint_std hand_length_mm "
        "hand_length_std_mm wrist_depth_std_mm calibrate_until_mm fps".split(),
        _POSITIVE,
    ),
    # Metres to a hand, as far as one is believed: 850 is meant in millimetres.
    **dict.fromkeys(("depth_mean", "depth_std"), (0, 10, True)),
    **dict.fromkeys(("crop_size", "input_size"), (_SMALLEST_PICTURE, 4096, False)),
    "keypoint_views": (1, 5, False),
    "crop_scale": (0, 2, True),
    "rotation_deg": (0, 180, False),
    **dict.fromkeys(("min_confidence", "error_correlation"), (0, 1, False)),
    "port": (0, 65535, False),
    "seed": (0, 2**62, False),
    "lag": (0, 300, False),
    "threads": (1, max(os.cpu_count() or 1, 1), False),  # more than cores only wait for each other
}


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
