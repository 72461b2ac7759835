"""Lines about a video's frames: each whole or not at all, whatever ends the program."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from src.photos.result import corners
from src.photos.video.track import TrackedHand
from utils.files import no_room_error

logger = logging.getLogger(__name__)


def frame_record(index: int, seconds: float, hands: Sequence[TrackedHand], reason: str) -> str:
    """A frame as a line of JSON: its first hand, and ``other_hands``, each with the number of its track.

    Args:
        hands: that are followed, found or not; reason: why there is none, where there is none.

    Raises:
        ValueError: a number that JSON cannot hold.
    """
    order = sorted(hands, key=lambda hand: (hand.result is None, hand.track))
    found = [_hand_record(hand) for hand in order]
    if not found:
        found = [{"status": "no usable hand", "reason": reason}]
    head: dict[str, Any] = {"index": index, "seconds": round(seconds, 4)}
    others = {"other_hands": found[1:]} if len(found) > 1 else {}
    return json.dumps(head | found[0] | others, allow_nan=False)


def _hand_record(hand: TrackedHand) -> dict[str, Any]:
    track = {"track": hand.track, "person": hand.person}
    if hand.result is not None:
        return {"status": "ok"} | track | hand.result.record(with_vertices=False)
    if hand.failed is not None:
        reason = f"{type(hand.failed).__name__}: {hand.failed}"
        return {"status": "failed", **track, "reason": reason}
    expected = {"left_top_right_bottom": corners(hand.box), "source": "expected"}
    return {"status": "no usable hand", **track, "reason": hand.reason, "box": expected}


@contextlib.contextmanager
def frame_records(path: Path) -> Iterator[Callable[[str], None]]:
    """Gives a function that writes a line, whole or not at all, which outlives whatever happens afterwards.

    The lines are in a file beside ``path`` and take its place when the block ends; but where it ends with an error of
    the system, as on a full disk, they stay there, and what was at ``path`` before stays too.

    Raises:
        OSError: naming the file, and that of the lines that there are.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    with open(partial, "wb", buffering=0) as lines:

        def write_line(text: str) -> None:
            left, start = (text + "\n").encode(), lines.tell()
            try:
                while left:
                    left = left[lines.write(left) or 0 :]
            except OSError as error:
                lines.truncate(start)
                raise (no_room_error(path, error) or error) from error

        try:
            yield write_line
        except OSError:
            if lines.tell():
                logger.error("what was found until then is in %s", partial)
            else:
                partial.unlink()
            raise
        except BaseException:
            os.replace(partial, path)
            raise
        os.replace(partial, path)
