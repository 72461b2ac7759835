"""The second look at a source of estimates: read, fit and write in batches that several processes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.engine.distributed import DistributedContext
from src.engine.estimates.survey import BATCH, Survey
from src.estimators import Reader, write_file
from src.personalization.estimates.personalise import Personalised
from utils.artifacts import ROW_ARRAYS, Predictions


def batches(counts: list[int], most: int) -> list[range]:
    """Ranges of files, in order, each of ``most`` hands or fewer (a file is never parted)."""
    found, start, hands = [], 0, 0
    for file, count in enumerate(counts):
        if file > start and hands + count > most:
            found.append(range(start, file))
            start, hands = file, 0
        hands += count
    return [*found, range(start, len(counts))]


def personalised_batches(
    reader: Reader,
    seen: Survey,
    fit: Callable[[Predictions], Personalised],
    target: Path,
    context: DistributedContext,
    most: int = BATCH,
) -> Iterator[tuple[Personalised, list[str]]]:
    """Every batch in order, for the leading process (nothing for the others): its hands, and what was changed in whose
    entry of their files, which are written again in ``target`` (a folder if the source is one).

    Processes take turns with the batches. Where there are fewer batches than processes (one file that holds everything)
    they read the same ones, and share the hands.

    Args:
        fit: what to do with rows as they were read; most: hands of a batch.
    """

    def write(numbers: range, found: Personalised | None) -> list[str]:
        lines = []
        for number in numbers:
            file = target if target.suffix else target / reader.files[number].name
            changed = None if found is None else found.released
            lines += write_file(reader, number, int(first[number]), file, changed)
        return lines

    first = seen.first
    most = min(most, -(-int(first[-1]) // context.world_size))
    files = batches([seen.counts[number] for number in range(len(reader.files))], most)
    by_hand = len(files) < context.world_size
    step = 1 if by_hand else context.world_size
    for turn in tqdm(range(0, len(files), step), desc="personalise", disable=None if context.is_main else True):
        number = turn if by_hand else turn + context.rank
        mine = files[number] if number < len(files) else range(0)
        rows = [row for file in mine for row in reader.rows(reader.open(file)[1])]
        found: Personalised | None = None
        lines: list[str] = []
        share = np.arange(len(rows))[context.rank :: context.world_size] if by_hand else np.arange(len(rows))
        if len(share):
            image_id = np.arange(first[mine.start], first[mine.stop])
            found = fit(reader.predictions([rows[row] for row in share], image_id[share], seen.columns))
        if not by_hand:
            lines = write(mine, found)
        parts = context.gather((found, lines))
        if parts is None:
            continue
        whole = joined([one for one, _ in parts if one is not None])
        if by_hand:
            lines = write(mine, whole)
        else:
            lines = [line for _, some in parts for line in some]
        if whole is not None:
            yield whole, lines


def joined(parts: list[Personalised]) -> Personalised | None:
    """The hands of all, by image_id."""
    if len(parts) < 2:
        return parts[0] if parts else None
    order = np.argsort(np.concatenate([one.rows.image_id for one in parts]))

    def whole(values: list[np.ndarray | None]) -> np.ndarray | None:
        return None if values[0] is None else np.concatenate(values)[order]

    def rows(some: list[Predictions]) -> Predictions:
        return replace(some[0], **{name: whole([getattr(one, name) for one in some]) for name in ROW_ARRAYS})

    return Personalised(
        identities=parts[0].identities,
        rows=rows([one.rows for one in parts]),
        joints=whole([one.joints for one in parts]),
        reprojection_px=whole([one.reprojection_px for one in parts]),
        released=rows([one.released for one in parts]),
    )
