"""A mesh at several resolutions, the matrices between them, and the spirals on each.

``python -m conv.hierarchy --build`` makes the committed hierarchy of the stand-in hand.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse

from conv.closest_point import barycentric_projection
from conv.decimation import decimate
from conv.spiral import spiral_indices
from options.command_line import CommandParser, run_command
from utils.files import READ_ERRORS, atomic_path, read_reason, writable_file

#: Vertices of the coarse levels below MANO's 778.
COARSE_LEVELS = (389, 195, 98, 49)
SPIRAL_LENGTH = 27


@dataclass(frozen=True, eq=False)
class MeshHierarchy:
    """Levels of one mesh, finest first.

    Raises:
        ValueError: the matrices and faces do not fit each other; says which level.
    """

    vertices: np.ndarray  # (V0, 3) float64, metres: the pose the levels were made in
    faces: tuple[np.ndarray, ...]  # per level (F_l, 3) int64
    down: tuple[scipy.sparse.csr_matrix, ...]  # (V_l+1, V_l): selects the vertices that stay
    up: tuple[scipy.sparse.csr_matrix, ...]  # (V_l, V_l+1): barycentric weights in a coarse face

    def __post_init__(self) -> None:
        if not len(self.faces) - 1 == len(self.down) == len(self.up):
            raise ValueError(
                f"{len(self.faces)} levels need one down and one up matrix fewer, "
                f"got {len(self.down)} and {len(self.up)}"
            )
        if not all(np.isfinite(numbers).all() for numbers in (self.vertices, *(up.data for up in self.up))):
            raise ValueError("vertices, or weights between levels, are not finite; build the levels again")
        fine = len(self.vertices)
        for level, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            if down.shape[1] != fine or up.shape != down.shape[::-1]:
                raise ValueError(f"level {level} has {fine} vertices but down is {down.shape} and up {up.shape}")
            if not (np.all(np.diff(down.indptr) == 1) and np.all(down.data == 1)):
                raise ValueError(f"down of level {level} does not select vertices (one entry of 1 a row)")
            fine = down.shape[0]
        for level, (faces, size) in enumerate(zip(self.faces, self.sizes, strict=True)):
            if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= size:
                raise ValueError(f"faces of level {level} are not (F,3) numbers below {size}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of vertices of each level."""
        return (len(self.vertices), *(matrix.shape[0] for matrix in self.down))

    @cached_property
    def kept(self) -> tuple[np.ndarray, ...]:
        """Per level (V_l,) the finest level's number of each vertex, int64."""
        ids = [np.arange(len(self.vertices))]
        for down in self.down:
            ids.append(ids[-1][down.indices])
        return tuple(ids)

    @cached_property
    def spirals(self) -> tuple[np.ndarray, ...]:
        """Per level (V_l, 27) spirals, int64."""
        return tuple(
            spiral_indices(faces, len(ids), SPIRAL_LENGTH, self.vertices[ids])
            for faces, ids in zip(self.faces, self.kept, strict=True)
        )

    @cached_property
    def hash(self) -> str:
        """Twelve hex digits that name the topology: faces, matrices, and with them the spirals."""
        digest = hashlib.sha256()
        for faces in self.faces:
            digest.update(np.ascontiguousarray(faces, dtype=np.int64).tobytes())
        for matrix in (*self.down, *self.up):
            digest.update(np.ascontiguousarray(matrix.indices, dtype=np.int64).tobytes())
            digest.update(np.ascontiguousarray(matrix.data, dtype=np.float64).tobytes())
        return digest.hexdigest()[:12]

    def save(self, path: str | os.PathLike) -> None:
        """Write as .npz of plain arrays, atomically."""
        arrays: dict[str, np.ndarray] = {"vertices": self.vertices}
        arrays |= {f"faces_{level}": faces.astype(np.int32) for level, faces in enumerate(self.faces)}
        for name, matrices in (("down", self.down), ("up", self.up)):
            for level, matrix in enumerate(matrices):
                for part in ("data", "indices", "indptr"):
                    arrays[f"{name}_{level}_{part}"] = getattr(matrix, part)
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> MeshHierarchy:
        """Read what `save` wrote.

        Raises:
            OSError: the file cannot be read.
            ValueError: an array is missing or the parts do not fit; names the file.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
            faces = [
                arrays[f"faces_{level}"].astype(np.int64)
                for level in range(sum(key.startswith("faces_") for key in arrays))
            ]
            sizes = [len(arrays["vertices"])]
            matrices: dict[str, list[scipy.sparse.csr_matrix]] = {"down": [], "up": []}
            for level in range(len(faces) - 1):
                sizes.append(len(arrays[f"down_{level}_indptr"]) - 1)
                for name, shape in (("down", (sizes[-1], sizes[-2])), ("up", (sizes[-2], sizes[-1]))):
                    parts = tuple(arrays[f"{name}_{level}_{part}"] for part in ("data", "indices", "indptr"))
                    matrices[name].append(scipy.sparse.csr_matrix(parts, shape=shape))
            return cls(arrays["vertices"], tuple(faces), tuple(matrices["down"]), tuple(matrices["up"]))
        except FileNotFoundError:
            raise
        except READ_ERRORS as error:
            raise ValueError(
                f"{path}: not a mesh hierarchy ({error}); rebuild it with `python -m conv.hierarchy --build`"
            ) from error


def build_hierarchy(vertices: np.ndarray, faces: np.ndarray, levels: tuple[int, ...] = COARSE_LEVELS) -> MeshHierarchy:
    """Decimate a mesh level by level (some seconds for 778 vertices).

    Args:
        vertices: (V, 3), metres, in a pose where nothing touches (the nearest coarse face decides).
        faces: (F, 3) vertex ids of a manifold.
        levels: vertices to keep on each coarser level.

    Raises:
        ValueError: the mesh is no manifold or cannot be made that coarse, or its numbers are none of a mesh.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    if not np.isfinite(vertices).all() or np.min(faces) < 0 or np.max(faces) >= len(vertices):
        raise ValueError(f"vertices are not finite, or faces name others than the {len(vertices)} vertices of the mesh")
    fine_vertices, all_faces, down, up = vertices, [np.asarray(faces, dtype=np.int64)], [], []
    for target in levels:
        kept, coarse_faces = decimate(fine_vertices, all_faces[-1], target)
        fine, coarse_vertices = len(fine_vertices), fine_vertices[kept]
        down.append(scipy.sparse.csr_matrix((np.ones(target), kept, np.arange(target + 1)), shape=(target, fine)))
        face, weights = barycentric_projection(fine_vertices, coarse_vertices, coarse_faces)
        columns = coarse_faces[face]
        weights[kept] = columns[kept] == np.arange(target)[:, None]  # exactly itself, without rounding
        order = np.argsort(columns, axis=1)
        parts = [np.take_along_axis(values, order, axis=1).ravel() for values in (weights, columns)]
        up.append(scipy.sparse.csr_matrix((*parts, np.arange(fine + 1) * 3), shape=(fine, target)))
        all_faces.append(coarse_faces)
        fine_vertices = coarse_vertices
    return MeshHierarchy(vertices, tuple(all_faces), tuple(down), tuple(up))


def get_args_parser() -> CommandParser:
    parser = CommandParser("Build a hand's mesh hierarchy.", "python -m conv.hierarchy")
    parser.add_argument("--build", action="store_true", required=True, help="build and write the hierarchy")
    parser.add_argument("--template", default="template/stand_in.npz", help=".npz with v_template (V,3) and f (F,3)")
    parser.add_argument("--out", default="template/stand_in_hierarchy.npz", help="file to write")
    return parser


def main(args: argparse.Namespace) -> None:
    """Build the hierarchy of ``args.template`` and write it to ``args.out``."""
    writable_file(args.out, "--out")  # before the work, not after it
    try:
        with np.load(Path(args.template), allow_pickle=False) as archive:
            vertices, faces = archive["v_template"], archive["f"].astype(np.int64)
    except READ_ERRORS as error:
        raise ValueError(f"{args.template}: no .npz with v_template and f ({read_reason(error)})") from error
    hierarchy = build_hierarchy(vertices, faces)
    hierarchy.save(args.out)
    print(f"{args.out}: levels {hierarchy.sizes}, faces {tuple(map(len, hierarchy.faces))}, hash {hierarchy.hash}")


if __name__ == "__main__":
    sys.exit(run_command(get_args_parser(), main))
