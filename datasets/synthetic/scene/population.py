"""Who is in the data set: subjects' names and shapes, sequences' names, sides and grasped objects.

The betas are unit-normal, as the hand model defines them. The ten subjects of the official layout
are a Latin hypercube of that normal: along every component one subject per decile, in random order,
so that ten people cover the range of sizes as ten thousand would, whatever the seed. Further
subjects (training people) are plain draws. Nothing is chosen by hand, the test subjects least of all.
"""

from __future__ import annotations

import datetime

import numpy as np
from scipy.stats import norm

from datasets.dex_ycb.splits import SUBJECTS

MASTER_SERIAL = "840412060917"

_FIRST_EXTRA_DAY = datetime.date(2020, 11, 1)
# Streams of random numbers that do not belong to a sequence. They follow subject numbers in the
# seed sequence, so they must not be sequence indices.
_BETAS, RIG, STYLE = 10**9, 10**9 + 1, 10**9 + 2


def subject_name(subject: int) -> str:
    """Folder of the 1-based ``subject``: official for 1..10, then one subject a day from 2020-11-01.

    Dates increase, so sorting the folders by name keeps the order of the numbers.

    Raises:
        ValueError: if ``subject`` is below 1.
    """
    if subject < 1:
        raise ValueError(f"subject is {subject}; subjects are numbered from 1")
    if subject <= len(SUBJECTS):
        return SUBJECTS[subject - 1]
    day = _FIRST_EXTRA_DAY + datetime.timedelta(days=subject - len(SUBJECTS) - 1)
    return f"{day:%Y%m%d}-subject-{subject:02d}"


def sequence_name(subject: int, sequence: int) -> str:
    """Folder YYYYMMDD_HHMMSS of the 0-based ``sequence``: every three minutes from nine o'clock.

    Raises:
        ValueError: if the sequences do not fit into the day (more than 300).
    """
    if not 0 <= sequence < 300:
        raise ValueError(f"sequence is {sequence}; a subject has at most 300 sequences")
    clock = datetime.datetime(2020, 1, 1, 9) + datetime.timedelta(minutes=3 * sequence, seconds=7 * subject % 60)
    return f"{subject_name(subject)[:8]}_{clock:%H%M%S}"


def subject_betas(seed: int, subject: int) -> np.ndarray:
    """(10,) float64 betas of the 1-based ``subject``; the same for both hands (docs/facts.md 1.3)."""
    if subject > len(SUBJECTS):
        return random_numbers(seed, subject, _BETAS).standard_normal(10)
    generator = random_numbers(seed, 0, _BETAS)
    count = len(SUBJECTS)
    strata = np.stack([generator.permutation(count) for _ in range(10)], axis=1)
    return norm.ppf((strata + generator.random((count, 10))) / count)[subject - 1].clip(-3, 3)


def sequence_side(sequence: int, left_fraction: float) -> str:
    """'right' or 'left' of the 0-based ``sequence``: left hands spread evenly, the first one right."""
    is_left = int((sequence + 1) * left_fraction) > int(sequence * left_fraction)
    return "left" if is_left else "right"


def sequence_object(seed: int, subject: int, sequence: int, n_objects: int) -> int:
    """Index of the grasped object: every object once in each block of ``n_objects`` sequences."""
    block, place = divmod(sequence, n_objects)
    return int(random_numbers(seed, subject, STYLE + 1 + block).permutation(n_objects)[place])


def random_numbers(seed: int, subject: int, stream: int) -> np.random.Generator:
    """A subject's random numbers of a stream: a sequence's index, whatever else is written in whichever order; `RIG`
    for the camera calibration (subject 0: what all share); `STYLE` for looks and habits (skin, resting fingers)."""
    return np.random.default_rng(np.random.SeedSequence([seed, subject, stream]))
