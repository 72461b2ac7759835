"""The first look at a source of estimates: how many hands each file holds, and a few of each person to calibrate from.

What is kept does not grow with the number of images: at most so many rows a person, drawn at random.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from src.engine.distributed import DistributedContext
from src.estimators import EstimateFormatError, Reader
from src.estimators.reader import Row, tell_partial
from utils.artifacts import Predictions

#: Hands of a batch, if its files hold no more: a process keeps the numbers of so many, and of no more files' contents
#: than a few small ones'. So many are solved together.
BATCH = 256
#: A row that was drawn: its random number, negative so that the largest is on top, and its file and place there.
Drawn = tuple[int, int, int, Row]


@dataclass
class Survey:
    """What is known of all hands of a source.

    Attributes:
        most: rows of a person that are kept.
        counts: file -> hands in it; sides: subject -> is_left of its hands.
        columns: that no hand lacks (None: no hand yet); every: that any has; hand_names;
            name_length: letters of the longest image_name.
    """

    most: int
    counts: dict[int, int] = field(default_factory=dict)
    sides: dict[int, set[bool]] = field(default_factory=dict)
    columns: set[str] | None = None
    every: set[str] = field(default_factory=set)
    hand_names: set[str] = field(default_factory=set)
    name_length: int = 1
    _drawn: dict[int, list[Drawn]] = field(default_factory=dict)

    def add(self, file: int, rows: list[Row]) -> None:
        self.counts[file] = len(rows)
        before: Counter[tuple[int, bool, str]] = Counter()  # hands of this name, which then tells no pictures apart
        for place, row in enumerate(rows):
            self.sides.setdefault(row.subject, set()).add(row.is_left)
            self.columns = set(row.columns) if self.columns is None else self.columns & set(row.columns)
            self.every.update(row.columns)
            self.hand_names.add(row.hand_name)
            self.name_length = max(self.name_length, len(row.image))
            hand = row.subject, row.is_left, row.image
            name = f"{file}/{row.image}"  # a picture's hands are drawn together
            if before[hand]:
                name += f"/{before[hand]}"
            before[hand] += 1
            number = int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "little")
            self._draw((-number, file, place, row))

    def _draw(self, one: Drawn) -> None:
        """Bottom-k sampling: the rows with the smallest random numbers are a uniform sample, however they are shared
        out and in whatever order they come (Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches")."""
        kept = self._drawn.setdefault(one[3].subject, [])
        if len(kept) < self.most:
            heapq.heappush(kept, one)
        else:
            heapq.heappushpop(kept, one)

    def plus(self, other: Survey) -> Survey:
        """This one, of the other's files as well."""
        self.counts |= other.counts
        for subject, sides in other.sides.items():
            self.sides.setdefault(subject, set()).update(sides)
        both = [columns for columns in (self.columns, other.columns) if columns is not None]
        self.columns = set.intersection(*both) if both else None
        self.every |= other.every
        self.hand_names |= other.hand_names
        self.name_length = max(self.name_length, other.name_length)
        for kept in other._drawn.values():
            for one in kept:
                self._draw(one)
        return self

    @property
    def first(self) -> np.ndarray:
        """(files + 1,) image_id of the first hand of each file; the last is the number of all hands."""
        return np.cumsum([0, *(self.counts[file] for file in range(len(self.counts)))])

    def sample(self, reader: Reader) -> Predictions:
        """The rows that were drawn, in the order of the files.

        Raises:
            EstimateFormatError: no hand in any file, or hands of several hand models.
        """
        if len(self.hand_names) > 1:
            raise EstimateFormatError(
                f"{reader.source}: hands of several hand models ({sorted(self.hand_names)}); read them apart"
            )
        drawn = sorted((one for kept in self._drawn.values() for one in kept), key=lambda one: one[1:3])
        first = self.first
        image_id = np.array([first[file] + place for _, file, place, _ in drawn])
        return reader.predictions([row for *_, row in drawn], image_id, self.columns)

    def people(self) -> tuple[np.ndarray, np.ndarray]:
        """Subject and is_left of each side of each person."""
        pairs = [(subject, left) for subject, sides in sorted(self.sides.items()) for left in sorted(sides)]
        return np.array([subject for subject, _ in pairs]), np.array([left for _, left in pairs])


def survey(reader: Reader, most: int, context: DistributedContext) -> Survey:
    """Read every file once, shared by the processes; all of them get the whole."""
    mine, count = Survey(most), len(reader.files)
    block = min(BATCH, -(-count // context.world_size))  # of files with one hand each those that it will fit as well
    numbers = [number for number in range(count) if number // block % context.world_size == context.rank]
    for number in tqdm(numbers, desc="read", disable=None if context.is_main else True, mininterval=1):
        mine.add(number, reader.rows(reader.open(number)[1]))
    whole = Survey(most)
    for part in context.gather_all(mine):
        whole = whole.plus(part)
    if context.is_main:
        tell_partial(reader.source, whole.every, whole.columns or ())
    return whole
