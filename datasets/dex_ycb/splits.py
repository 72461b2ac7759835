"""DexYCB's splits as tables: who, seen by which cameras, in which sequences (docs/facts.md 1.7, 1.8).

Subjects and cameras are 0-based indices into `SUBJECTS` and `SERIALS`; a sequence's index is its
place among the sorted folders of its subject. The order of a split's subjects matters: samples are
numbered subject by subject (in the split's order), sequence by sequence, camera by camera, frame by
frame, and that number is the official image id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: The official folders of the ten subjects (docs/facts.md 1.1).
SUBJECTS = (
    "20200709-subject-01", "20200813-subject-02", "20200820-subject-03", "20200903-subject-04",
    "20200908-subject-05", "20200918-subject-06", "20200928-subject-07", "20201002-subject-08",
    "20201015-subject-09", "20201022-subject-10",
)  # fmt: skip

#: The eight cameras in index order (docs/facts.md 1.1).
SERIALS = (
    "836212060125", "839512060362", "840412060917", "841412060263",
    "932122060857", "932122060861", "932122061900", "932122062010",
)  # fmt: skip

OFFICIAL_SEQUENCES_PER_SUBJECT = 100

ALL = tuple(range(10))
CAMERAS = tuple(range(8))

#: Setups that keep people apart: subjects of train, val, test. s1 is official, the others the paper's.
SUBJECT_SETUPS = {
    "s1": {"train": (0, 1, 2, 3, 4, 5, 9), "val": (6,), "test": (7, 8)},
    "s5": {"train": (2, 4, 5, 6, 7, 8, 9), "val": (3,), "test": (0, 1)},
    "s6": {"train": (0, 1, 2, 3, 6, 7, 8), "val": (9,), "test": (4, 5)},
    "s7": {"train": (0, 1, 3, 4, 6, 7, 8), "val": (5,), "test": (2, 9)},
    "s9": {"train": (0, 1, 2, 3, 6, 7, 8), "val": (5,), "test": (4, 9)},
    "s10": {"train": (1, 4, 5, 6, 7, 8, 9), "val": (0,), "test": (2, 3)},
    "s11": {"train": (1, 4, 5, 6, 7, 8, 9), "val": (3,), "test": (0, 2)},
}

#: s2 keeps cameras apart.
CAMERA_SETUP = {"train": (0, 1, 2, 3, 4, 5), "val": (6,), "test": (7,)}

#: s3 keeps grasped objects apart; every object has five sequences in a row, so i // 5 is the object.
HELD_OUT_OBJECTS = {"val": (3, 19), "test": (7, 11, 15)}

#: s4 of the paper's code: all images at random, by share. Its permutation was not published; ours is `S4_SEED`'s.
S4_SHARES = {"train": (0.0, 0.8), "val": (0.8, 0.85), "test": (0.85, 1.0)}
S4_SEED = 0


@dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
        name: such as "s1_train"; "all" is everybody, for a root whose people no network has seen.
        subjects: 0-based subject indices, in the order of the official numbering.
        cameras: indices into `SERIALS`.
        keeps_sequence: rule on a sequence's 0-based index within its subject.
        takes_extra_subjects: whether subjects beyond the official ten (synthetic sets only) join, behind them.
        image_share: for s4 only, the interval [low, high) of the shuffled images that belongs to the split.
    """

    name: str
    subjects: tuple[int, ...]
    cameras: tuple[int, ...] = CAMERAS
    keeps_sequence: Callable[[int], bool] = lambda index: True
    takes_extra_subjects: bool = False
    image_share: tuple[float, float] | None = None

    @property
    def serials(self) -> tuple[str, ...]:
        """Camera serials in the order in which the official numbering visits them."""
        return tuple(SERIALS[camera] for camera in self.cameras)


def _all_splits() -> dict[str, Split]:
    splits = [
        Split("all", ALL, takes_extra_subjects=True),
        Split("s0_train", ALL, keeps_sequence=lambda index: index % 5 != 4, takes_extra_subjects=True),
        Split("s0_val", (0, 1), keeps_sequence=lambda index: index % 5 == 4),
        Split("s0_test", ALL[2:], keeps_sequence=lambda index: index % 5 == 4),
    ]
    for setup, parts in SUBJECT_SETUPS.items():
        for part, subjects in parts.items():
            splits.append(Split(f"{setup}_{part}", subjects, takes_extra_subjects=part == "train"))
    for part, cameras in CAMERA_SETUP.items():
        splits.append(Split(f"s2_{part}", ALL, cameras=cameras))
    held_out = {*HELD_OUT_OBJECTS["val"], *HELD_OUT_OBJECTS["test"]}
    splits.append(Split("s3_train", ALL, keeps_sequence=lambda index: index // 5 not in held_out))
    for part, objects in HELD_OUT_OBJECTS.items():
        splits.append(Split(f"s3_{part}", ALL, keeps_sequence=lambda index, kept=objects: index // 5 in kept))
    for part, share in S4_SHARES.items():
        splits.append(Split(f"s4_{part}", ALL, image_share=share))
    return {split.name: split for split in splits}


#: Every split by name.
SPLITS = _all_splits()


def get_split(name: str) -> Split:
    """The split of that name, such as "s1_test".

    Raises:
        ValueError: if there is none; the message lists the names.
    """
    if name not in SPLITS:
        raise ValueError(f"DexYCB split {name!r} is unknown; choose one of {', '.join(sorted(SPLITS))}")
    return SPLITS[name]
