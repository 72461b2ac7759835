"""Who is who in files that show several people: a table of pictures and subjects."""

from __future__ import annotations

import csv
from pathlib import Path

from src.estimators.records import EstimateFormatError, Hand


class SubjectTable:
    """CSV with the columns image (the picture's name, with or without its suffix) and subject (a number), and side
    (left, right) where two people are in one picture.

    Raises:
        FileNotFoundError, EstimateFormatError: no such table, or not one.
    """

    def __init__(self, table: Path) -> None:
        if not table.is_file():
            raise FileNotFoundError(f"subjects {str(table)!r}: neither column, file or one, nor a CSV that exists")
        with open(table, newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        if not rows or not {"image", "subject"} <= set(rows[0]):
            raise EstimateFormatError(
                f"{table}: the columns image and subject are needed; it has {list(rows[0] if rows else [])}"
            )
        self._table = table
        try:
            self._known = {
                (Path(row["image"]).stem, (row.get("side") or "").lower()): int(row["subject"]) for row in rows
            }
        except ValueError as error:
            raise EstimateFormatError(f"{table}: subjects are whole numbers ({error})") from error

    def subject_of(self, hand: Hand) -> int:
        """Number of the person whose hand it is.

        Raises:
            EstimateFormatError: the table does not name its picture.
        """
        name, side = Path(hand.image).stem, "left" if hand.is_left else "right"
        found = self._known.get((name, side), self._known.get((name, "")))
        if found is None:
            raise EstimateFormatError(
                f"{self._table} does not say who is in {hand.name}; add it, or leave its result out"
            )
        return found
