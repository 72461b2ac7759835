"""Identities as the file that the shape track of hand_tracking_toolkit takes: one object a sequence, MANO's betas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from src.evaluation.submission_checks import SubmissionError
from src.personalization.estimates.personalise import Personalised
from template import HandAssets
from utils.files import write_text


class ShapeTrack:
    """``[{"sequence_name", "mano_beta": [10], "hand_side"}, ...]``, one a sequence and side.

    A sequence is named by what its picture's name holds before the last underscore or hyphen, or else by the subject.

    Args:
        path: of the file, for messages too. assets: the hand in use.

    Raises:
        SubmissionError: a hand that is not MANO's.
    """

    def __init__(self, path: Path, assets: HandAssets) -> None:
        if assets.name != "MANO":
            raise SubmissionError(
                f"the shape track scores MANO's betas, the hand in use is {assets.name}; give --mano_dir with "
                "MANO's files"
            )
        self._path = path
        self._entries: dict[tuple[str, str], dict] = {}

    def add(self, found: Personalised) -> None:
        """The sequences of these hands.

        Raises:
            SubmissionError: two people in one sequence, or betas beyond 20.
        """
        rows = found.rows
        for row in range(len(rows)):
            side = "left" if rows.is_left[row] else "right"
            subject = int(rows.subject_id[row])
            identity = found.identities.get(subject) or next(iter(found.identities.values()))
            betas = [round(float(value), 6) for value in identity.betas]
            name = sequence_name(rows.image_name[row] if rows.image_name is not None else "", subject)
            if not all(abs(beta) < 20 for beta in betas):
                raise SubmissionError(f"{self._path}: mano_beta of {name} is {betas}; betas lie within 20")
            entry = {"sequence_name": name, "mano_beta": betas, "hand_side": side}
            if self._entries.setdefault((name, side), entry) != entry:
                raise SubmissionError(
                    f"{self._path}: the pictures of sequence {name!r} show several people (one is subject {subject}), "
                    "and it takes one shape; name the pictures after their sequence, or choose one person's"
                )

    def write(self) -> None:
        write_text(self._path, json.dumps(list(self._entries.values()), indent=1) + "\n", private=True)  # as identities


def sequence_name(image: str | np.str_, subject: int) -> str:
    """Of a picture's name such as ``P0001-cam2_000123.jpg``: what is before its number."""
    stem = Path(str(image)).stem
    head = stem.rstrip("0123456789").rstrip("_-.")
    return head if head and head != stem else f"subject-{subject:02d}"
