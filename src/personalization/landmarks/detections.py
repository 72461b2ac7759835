"""Files of detections: what a detector said of many pictures, for learning where its points lie on the hand."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

#: Hands whose side the detector is less sure of teach nothing: half of them are something else.
MIN_SIDE_SCORE = 0.8
#: Hands of a picture that are taken: of one person. Pictures of a person that are taken: nobody outweighs the others.
HANDS_OF_A_PICTURE, PICTURES_OF_A_PERSON = 2, 20


@dataclass(frozen=True)
class Detections:
    """N hands, left ones mirrored.

    Attributes:
        keypoints: (N,21,2) px, about their mean; inside: (N,21) bool, within the picture; box: (N,) px, larger side.
        world: (N,21,3) m about its mean, the detector's own 3D points.
        person: (N,) int; names: of the persons.
        px_per_m: (N,) of a flat hand in a plane parallel to the picture, or NaN where that is not so.
        in_space: (N,) bool, ``world`` is what two cameras triangulated, up to one scale; no point is then ``inside``.
    """

    keypoints: np.ndarray
    inside: np.ndarray
    box: np.ndarray
    world: np.ndarray
    person: np.ndarray
    names: list[str]
    px_per_m: np.ndarray
    in_space: np.ndarray

    def __len__(self) -> int:
        return len(self.person)

    def rows(self, index: np.ndarray) -> Detections:
        parts = (getattr(self, name)[index] for name in ("keypoints", "inside", "box", "world", "person"))
        return Detections(*parts, self.names, self.px_per_m[index], self.in_space[index])

    @classmethod
    def in_space_only(cls, points: np.ndarray, person: np.ndarray, names: list[str]) -> Detections:
        """Hands of which there are points (N,21,3) in space, m up to one scale, and nothing in 2D."""
        n, world = len(points), points - points.mean(axis=1, keepdims=True)
        nothing = np.zeros((n, 21, 2)), np.zeros((n, 21), dtype=bool), np.ones(n)
        return cls(*nothing, world, person, names, np.full(n, np.nan), np.ones(n, dtype=bool))

    def and_in_space(self, points: np.ndarray, name: str) -> Detections:
        """These, and one more person's hands, of which two cameras saw points (M,21,3) m about where they are."""
        some = np.stack(_spread(list(points)))
        more = Detections.in_space_only(some, np.full(len(some), len(self.names)), [*self.names, name])
        both = {key: np.concatenate([mine, vars(more)[key]]) for key, mine in vars(self).items() if key != "names"}
        return replace(more, **both)

    def halves(self, seed: int) -> tuple[Detections, Detections]:
        """The hands of half of the people, and those of the others."""
        people = np.unique(self.person)
        first = np.isin(self.person, np.random.default_rng(seed).permutation(people)[: len(people) // 2])
        return self.rows(np.flatnonzero(first)), self.rows(np.flatnonzero(~first))


def read_detections(
    files: Collection[str | os.PathLike], one_person: Collection[str] = (), flat_mm: Mapping[str, float] | None = None
) -> Detections:
    """Hands of JSON files ``{set: {"pictures": [{"picture", "person", "hands": [...]}]}}``.

    A hand has side ("left" or "right"), side_score, keypoints_2d (21,2) px, inside (21,), world_m (21,3).

    Args:
        one_person: sets whose pictures all show one person, though they do not name it.
        flat_mm: set -> millimetres a pixel of hands that lie flat, parallel to the picture (a scanner).

    Raises:
        ValueError: not such a file, a set in two files, or a named one in none.
    """
    flat_mm, found, seen = flat_mm or {}, [], {}
    for file in files:
        try:
            for name, group in json.loads(Path(file).read_text(encoding="utf-8")).items():
                if name in seen:  # people are told apart by set and name
                    raise ValueError(
                        f"the set {name} is in {seen[name]} and in {file}: give each once, by its own name"
                    )
                seen[name] = file
                found += _of_set(name, group["pictures"], name in one_person, flat_mm.get(name))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} is no file of detections ({error!r}); see read_detections") from error
    if missing := sorted({*one_person, *flat_mm} - seen.keys()):
        raise ValueError(f"no set {', '.join(missing)} in {', '.join(map(str, files))}; there is {sorted(seen)}")
    names = sorted({person for person, *_ in found})
    taken = [row for name in names for row in _spread([row for row in found if row[0] == name])]
    columns = [np.array(column) for column in list(zip(*taken, strict=True))[1:]]
    if not taken:
        raise ValueError(f"no hand in {', '.join(map(str, files))}")
    keypoints, inside, world, px_per_m = columns
    return Detections(
        keypoints - keypoints.mean(axis=1, keepdims=True),
        inside,
        np.ptp(keypoints, axis=1).max(axis=1),
        world - world.mean(axis=1, keepdims=True),
        np.array([names.index(row[0]) for row in taken]),
        names,
        px_per_m,
        np.zeros(len(taken), dtype=bool),
    )


def _of_set(name: str, pictures: list, single: bool, mm: float | None) -> list[tuple]:
    rows = []
    for picture in pictures:
        alone = name if single else f"{name} {picture['picture']}"
        person = alone if picture.get("person") is None else f"{name} {picture['person']}"
        for hand in picture["hands"][:HANDS_OF_A_PICTURE]:
            if hand["side_score"] < MIN_SIDE_SCORE:
                continue
            sign = -1.0 if hand["side"] == "left" else 1.0
            keypoints = np.array(hand["keypoints_2d"], dtype=np.float64) * [sign, 1.0]
            world = np.array(hand["world_m"], dtype=np.float64) * [sign, 1.0, 1.0]
            scale = np.nan if mm is None else 1000 / mm
            rows.append((person, keypoints, np.array(hand["inside"], dtype=bool), world, scale))
    return rows


def _spread(rows: list) -> list:
    """At most `PICTURES_OF_A_PERSON` of them, evenly."""
    return rows[:: -(-len(rows) // PICTURES_OF_A_PERSON)]
