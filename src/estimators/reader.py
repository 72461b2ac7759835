"""Files of estimates one by one: what is kept of a file is a row a hand, and of a few small files their content."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.estimators.files import list_files, load
from src.estimators.formats import module_of, read_hands
from src.estimators.pictures import find_picture, picture_name, picture_parts, picture_size, same_picture
from src.estimators.records import (
    EstimateFormatError,
    Hand,
    Options,
    check_centre,
    check_hand,
    flip_x,
    is_seen,
    pinhole,
)
from utils.artifacts import Predictions
from utils.camera import mirror_intrinsics, mirror_points
from utils.cameras.intrinsics import checked_fov, checked_intrinsics

logger = logging.getLogger(__name__)

#: Options that one format reads: which, what they are where nobody gives them, and what else they can be.
_READ_BY: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
    "side": ("mmpose", None, ("left", "right")),
    "sides": ("mediapipe", None, ("mirror", "subject")),
    "unit": ("joints", "m", ("mm",)),
}

#: Bytes of contents that a reader keeps: files are looked at up to three times, and most are small.
ROOM = 16 * 2**20
#: How many times larger numbers are as Python's objects than as text.
_TEXT = 8
#: Formats whose people are numbered by their place in a picture's list.
_BY_PLACE = ("sam3d_body", "mmpose", "frankmocap")
#: Formats whose points are in pixels, and whose boxes say nothing of the picture's size.
_BY_POINTS = ("sam3d_body", "mmpose", "frankmocap", "joints")
#: Hands of SAM 3D Body, whose people may show none, of which most outside their pictures tell another size.
_ENOUGH = 10
#: People of one picture, above which they may be frames that name no picture.
_MANY = 3
#: Subjects that a log line names.
_NAMED = 20


class SubjectTable:
    """CSV with the columns image (the picture's name, with or without its suffix and its folders) and subject (a
    number), and side (left, right) where two people are in one picture.

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
        self._known: dict[str, dict[tuple[tuple[str, ...], str], int]] = {}  # by the name without its folders
        for number, row in enumerate(rows, start=2):
            image, subject, side = (str(row.get(name) or "").strip() for name in ("image", "subject", "side"))
            if not image or not subject.isdecimal() or len(subject) > 9 or side.lower() not in ("", "left", "right"):
                raise EstimateFormatError(
                    f"{table}, line {number}: image {image!r}, subject {subject!r}, side {side!r}; a picture's name, a "
                    "whole number, and left, right or nothing are meant"
                )
            parts = picture_parts(picture_name(image))
            before = self._known.setdefault(parts[0], {}).setdefault((parts, side.lower()), int(subject))
            if before != int(subject):
                raise EstimateFormatError(
                    f"{table}, line {number}: {image} is of subject {subject} and of {before}; of two people in a "
                    "picture the column side says whose hand is which"
                )

    def subject_of(self, hand: Hand) -> int:
        """Number of the person whose hand it is.

        Raises:
            EstimateFormatError: the table does not name its picture, or several that may be it, of several people.
        """
        parts, side = picture_parts(hand.image), "left" if hand.is_left else "right"
        known = self._known.get(parts[0], {})
        for own in (side, ""):
            found = {who for (names, of), who in known.items() if of == own and same_picture(names, parts)}
            found = {known[parts, own]} if (parts, own) in known else found
            if len(found) > 1:
                raise EstimateFormatError(
                    f"{self._table} has several pictures that may be {hand.name}, of the subjects {sorted(found)}; "
                    "give their folders as the results do"
                )
            if found:
                return found.pop()
        other = next(("/".join(names[::-1]) for names, _ in known if not same_picture(names, parts)), None)
        advice = (
            f"it has {other}: leave out folders that are named otherwise there"
            if other
            else "add it, or leave its result out"
        )
        raise EstimateFormatError(f"{self._table} does not say who is in {hand.name}; {advice}")


@dataclass(frozen=True)
class Row:
    """A hand as `Predictions` has it, without the file that it is from.

    Attributes:
        subject, is_left, image, hand_name: as of `Hand`.
        columns: K, keypoints_2d, keypoint_confidence, joints_3d, pose, betas, image_size, as far as there are.
    """

    subject: int
    is_left: bool
    image: str
    hand_name: str
    columns: dict[str, np.ndarray]


class Reader:
    """The files of a source, by number; see `src.estimators.read_estimates` for the arguments and what is raised.

    Attributes:
        files: by name.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        format: str,
        *,
        K: np.ndarray | None = None,
        image_size: tuple[int, int] | None = None,
        images: str | os.PathLike | None = None,
        side: str | None = None,
        sides: str | None = None,
        unit: str = "m",
        fov: float | None = None,
        subjects: str | os.PathLike = "column",
    ) -> None:
        module_of(format)
        self.source, self.format, self.images = str(path), format, images
        if K is not None and fov is not None:
            raise ValueError("K and fov both say what the lens is; give one")
        if images is not None and not Path(images).is_dir():
            raise FileNotFoundError(f"images {str(images)!r}: no such folder; the folder of the pictures is meant")
        self.K = checked_fov(fov, "fov") if K is None else checked_intrinsics(K, "K", one=True)
        self._options = Options(side, sides, unit, None if image_size is None else _size(image_size))
        for name, (reads, default, others) in _READ_BY.items():
            value = getattr(self._options, name)
            if value not in (default, *others):
                raise ValueError(f"{name} is {value!r}; it must be one of {(default, *others)}")
            if value != default and format != reads:
                raise ValueError(f"{name}={value!r} is of the format {reads!r}; {format!r} does not use it")
        self._subjects = str(subjects)
        self._table = None if self._subjects in ("column", "file", "one") else SubjectTable(Path(subjects))
        self.files = list_files(path)
        if self._subjects == "file":
            named = [f"{number} is {file.name}" for number, file in enumerate(self.files)]
            more = ", ..." if len(named) > _NAMED else ""
            logger.info("%s: of subjects %s%s", path, ", ".join(named[:_NAMED]), more)
        self._kept: dict[int, tuple[Any, list[Hand]]] = {}
        self._room, self._warned = ROOM, False
        self._named: dict[Path, str] = {}  # pictures in `images`, and what the files first called them
        self._told: set[Path] = set()  # pictures of which two names were told
        self._outside: dict[int, np.ndarray] = {}  # hands outside their picture, and all, by file
        self._beyond = np.zeros(2, dtype=int)  # their sum

    def open(self, number: int, last: bool = False) -> tuple[Any, list[Hand]]:
        """Content of a file and its hands, kept for the next time where there is room; ``last``: to be changed."""
        if number in self._kept:
            if last:
                self._room += self._size(number)
            return self._kept.pop(number) if last else self._kept[number]
        file, options = self.files[number], self._options
        content = load(file)
        options = replace(options, size_in=self._size_in_images)
        hands = self._inside(number, read_hands(content, self.format, file.stem, str(file), options))
        for hand in hands:
            if self._table is not None:
                hand.subject = self._table.subject_of(hand)
            else:
                hand.subject = {"file": number, "one": 0}.get(self._subjects, hand.subject)
        if not last and self._size(number) <= self._room:
            self._room -= self._size(number)
            self._kept[number] = content, hands
        return content, hands

    def _inside(self, number: int, hands: list[Hand]) -> list[Hand]:
        """Hands of a file, of SAM 3D Body without those outside the picture, where it guesses them.

        Raises:
            EstimateFormatError: most lie outside, of the file or, of SAM 3D Body, of all files: another size.
        """
        outside, guesses = [], self.format == "sam3d_body"
        others = self._beyond - self._outside.get(number, 0)
        for hand in hands if self.format in _BY_POINTS else ():
            size = hand.size or self._size_in_images(hand.image)
            if size is not None and min(size) > 0 and not is_seen(hand, size):
                outside.append(hand)
                beyond, every = np.array([len(outside), len(hands)]) + others * guesses
                if 2 * beyond > every and (every >= _ENOUGH or not guesses):
                    raise EstimateFormatError(
                        f"{self.files[number]}: {hand.name}: the middle of its points is outside the picture of "
                        f"{size[0]} x {size[1]} px, as of most hands of the {'files so far' if guesses else 'file'}; "
                        "the picture has another size than the one that was estimated on"
                    )
        if outside and number not in self._outside:
            logger.warning(
                "%s: %d of %d hands, such as %s, lie outside their picture%s", self.files[number], len(outside),
                len(hands), outside[0].name, " and are left out" if guesses else "",
            )  # fmt: skip
        self._outside[number] = np.array([len(outside), len(hands)])
        self._beyond = others + self._outside[number]
        if not guesses:
            return hands
        return [hand for hand in hands if not any(hand is one for one in outside)]

    def _size_in_images(self, name: str) -> tuple[int, int] | None:
        """Width, height px of the picture of that name, if it is there; warns of one that has two names."""
        file = None if self.images is None else find_picture(self.images, name)
        if file is None:
            return None
        first = self._named.setdefault(file, name)
        if not same_picture(picture_parts(first), picture_parts(name)) and file not in self._told:
            self._told.add(file)
            logger.warning(
                "%s is taken for %s and for %s: give the folder that has both with their folders (--images, images=)",
                file, first, name,
            )  # fmt: skip
        return picture_size(file)

    def _size(self, number: int) -> int:
        """Bytes of a file's content in memory, about."""
        file = self.files[number]
        return file.stat().st_size * (_TEXT if file.suffix in (".json", ".csv", ".pbtxt") else 1)

    def rows(self, hands: list[Hand]) -> list[Row]:
        """What is kept of hands of a file."""
        found = []
        for hand in hands:
            real = self._size_in_images(hand.image)
            for size, what in ((self._options.size, "image_size says"), (real, "the picture has")):
                if size is not None and hand.size is not None and tuple(size) != tuple(hand.size):
                    raise EstimateFormatError(
                        f"{self.source}: {hand.name} was estimated on {hand.size[0]} x {hand.size[1]} px, {what} "
                        f"{size[0]} x {size[1]}; give the pictures that were estimated on"
                    )
            hand.size = hand.size or real
            check_hand(hand, self.source)
            columns = _columns(hand, self.K, self.format == "joints", self.source) | {"image_size": hand.size}
            there = {name: np.asarray(value) for name, value in columns.items() if value is not None}
            found.append(Row(hand.subject, hand.is_left, hand.image, hand.hand_name, there))
        return found

    def predictions(
        self, rows: Sequence[Row], image_id: np.ndarray | None = None, columns: Collection[str] | None = None
    ) -> Predictions:
        """Rows as `Predictions`.

        Args:
            image_id: (N,), None: as they come. columns: that all hands of the source have, None: that these have.
        """
        if not rows:
            why = "all lie outside; have they another size?" if self._beyond[0] else "there is nothing to read"
            raise EstimateFormatError(f"{self.source}: no hand in any of its pictures; {why}")
        names = {row.hand_name for row in rows}
        if len(names) > 1:
            raise EstimateFormatError(f"{self.source}: hands of several hand models ({sorted(names)}); read them apart")
        if columns is None:  # those that no hand lacks
            columns = [name for name in rows[0].columns if all(name in row.columns for row in rows)]
            tell_partial(self.source, {name for row in rows for name in row.columns}, columns)
        arrays: dict[str, Any] = {name: np.stack([row.columns[name] for row in rows]) for name in columns}
        made_up = self.K is None and self.format != "joints"
        if self.format in _BY_PLACE and self._subjects == "column" and not self._warned:
            pictures = {row.image: row.subject for row in rows if row.subject > 0}
            crowd = max((row.subject + 1 for row in rows), default=0)
            self._warned = len(pictures) > 1 or crowd > _MANY
            if self._warned and len(pictures) == 1:
                logger.warning(
                    "%s: %d people in one picture, %s: if these are frames of fewer, name each one's picture "
                    "(a dict by name, or a file a picture)", self.source, crowd, next(iter(pictures)),
                )  # fmt: skip
            elif self._warned:
                logger.warning(
                    "%s: people are told apart by their order in each picture, which may not be the same in all: "
                    "--subjects (subjects=) a table of who is whose; the commands take --subjects tracks as well",
                    self.source,
                )
        return Predictions(
            image_id=np.arange(len(rows)) if image_id is None else image_id,
            subject_id=np.array([row.subject for row in rows]),
            sequence_id=np.zeros(len(rows), dtype=np.int64),
            is_left=np.array([row.is_left for row in rows]),
            image_name=np.array([row.image for row in rows]),
            **arrays,
            model_name=self.format,
            hand_name=names.pop(),
            camera=f"made up by {self.format}" if made_up else "given",
            source=self.source,
        )


def tell_partial(source: str, every: Collection[str], shared: Collection[str]) -> None:
    """Warn of columns that only some hands of a source have."""
    if partial := sorted(set(every) - set(shared)):
        logger.warning("%s: only some of its hands have %s, which is not used", source, ", ".join(partial))


def _size(image_size: Sequence[int]) -> tuple[int, int]:
    size = np.asarray(image_size)
    if size.shape != (2,) or size.dtype.kind not in "iu" or size.min() < 1:
        raise ValueError(f"image_size is {image_size!r}; it must be width, height in pixels")
    return int(size[0]), int(size[1])


def _columns(hand: Hand, K: np.ndarray | float | None, is_real: bool, source: str) -> dict[str, Any]:
    """A hand's arrays in the right-hand convention: left ones mirrored with their K and keypoints.

    Args:
        K: given; is_real: the file's own camera, if it has one, is that of its pictures, not the estimator's.
    """
    if isinstance(K, float | int):
        if hand.size is None:
            raise EstimateFormatError(f"{source}: {hand.name}: fov needs the picture's size; give image_size or images")
        K = pinhole(max(hand.size) / (2 * np.tan(np.radians(K) / 2)), *((side - 1) / 2 for side in hand.size))
    camera = hand.K if K is None else K
    if camera is None:
        raise EstimateFormatError(
            f"{source}: K is needed, this format has no camera and without one no hand has a place; give K=(3,3) px"
        )
    if K is not None and hand.size is not None:
        check_centre(camera, hand.size, source, hand.name)
    if hand.K is not None and is_real and not np.allclose(hand.K, camera, rtol=0.01, atol=1):
        raise EstimateFormatError(
            f"{source}: {hand.name}: the file says that K is {hand.K.tolist()}, which contradicts {camera.tolist()}; "
            "leave out the K or fov that is given, or mend the file"
        )
    pixels, joints, confidence = hand.keypoints_2d, hand.joints_3d, hand.confidence
    if pixels is not None and confidence is None:  # another file's hands may have one
        confidence = np.ones(21)
    joints = None if joints is None else joints - joints[0]
    if hand.is_left:
        if hand.size is None:
            raise EstimateFormatError(
                f"{source}: {hand.name}: its picture's width is needed to mirror it; give image_size=(width, height) "
                "(--image_size)"
            )
        camera = mirror_intrinsics(camera, hand.size[0])
        pixels = None if pixels is None else mirror_points(pixels, hand.size[0])
        joints = None if joints is None else flip_x(joints)
    return {
        "K": camera, "keypoints_2d": pixels, "keypoint_confidence": confidence, "joints_3d": joints,
        "pose": hand.pose, "betas": hand.betas,
    }  # fmt: skip
