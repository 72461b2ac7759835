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
        try:
            with open(table, newline="", encoding="utf-8-sig") as handle:  # Excel writes the mark of UTF-8 first
                rows = list(csv.DictReader(handle))
        except (UnicodeDecodeError, csv.Error) as error:
            raise EstimateFormatError(f"{table}: is no CSV in UTF-8 ({error})") from error
        if not rows or not {"image", "subject"} <= set(rows[0]):
            raise EstimateFormatError(
                f"{table}: the columns image and subject are needed, with commas between them; it has "
                f"{list(rows[0] if rows else [])}"
            )
        self._table = table
        self._known: dict[tuple[str, str], int] = {}
        for number, row in enumerate(rows, start=2):
            image, subject, side = (str(row.get(name) or "").strip() for name in ("image", "subject", "side"))
            if not image or not subject.isdecimal() or len(subject) > 9 or side.lower() not in ("", "left", "right"):
                raise EstimateFormatError(
                    f"{table}, line {number}: image {image!r}, subject {subject!r}, side {side!r}; a picture's name, a "
                    "whole number, and left, right or nothing are meant"
                )
            key = Path(image).stem, side.lower()
            if self._known.setdefault(key, int(subject)) != int(subject):
                raise EstimateFormatError(
                    f"{table}, line {number}: {image} is of subject {subject} and of {self._known[key]}; of two people "
                    "in a picture the column side says whose hand is which"
                )

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
