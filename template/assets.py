"""The arrays of a parametric hand: found, read without executing anything, checked, mirrored."""

from __future__ import annotations

import filecmp
import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from template.safe_pickle import safe_load
from utils.files import READ_ERRORS, read_reason
from utils.joints import MANO_PARENTS, tip_vertices
from utils.short_repr import ShortRepr

logger = logging.getLogger(__name__)

REGISTER_URL = "https://mano.is.tue.mpg.de"
ENVIRONMENT_VARIABLE = "MANO_DIR"
TEMPLATE_DIR = Path(__file__).resolve().parent
STAND_IN_PATH = TEMPLATE_DIR / "stand_in.npz"
#: The licence-free right hands; the first is the default, a left one is its mirror image.
STAND_INS = {STAND_IN_PATH: "stand-in", TEMPLATE_DIR / "stand_in_2.npz": "stand-in-2"}
SIDES = ("right", "left")

#: Key in the file and shape of every array that is read (docs/facts.md 6; Romero et al. 2017).
SHAPES = {
    "v_template": (778, 3),
    "shapedirs": (778, 3, 10),
    "posedirs": (778, 3, 135),
    "J_regressor": (16, 778),
    "weights": (778, 16),
    "f": (1538, 3),
    "hands_components": (45, 45),
    "hands_mean": (45,),
}


@dataclass(frozen=True, eq=False, repr=False)
class HandAssets(ShortRepr):
    """A hand model's arrays, float64 (faces int64), metres, in MANO's joint and vertex order."""

    v_template: np.ndarray  # (778, 3) rest mesh of the mean shape
    shapedirs: np.ndarray  # (778, 3, 10) metres a unit of beta
    posedirs: np.ndarray  # (778, 3, 135) metres a unit of (R - I), 15 joints x 9 row-major
    J_regressor: np.ndarray  # (16, 778) rest joints from rest vertices; rows sum to 1
    weights: np.ndarray  # (778, 16) skinning weights; rows sum to 1
    faces: np.ndarray  # (1538, 3) int64
    hands_components: np.ndarray  # (45, 45) PCA rows, orthogonal, not of unit length, radians
    hands_mean: np.ndarray  # (45,) mean pose, axis-angle of the 15 finger joints, radians
    side: str  # "right" or "left"
    name: str  # "MANO" or one of `STAND_INS`

    def __str__(self) -> str:
        return f"{self.name}, {self.side} hand"

    @property
    def tips(self) -> tuple[int, ...]:
        """Vertices (5,) at the fingertips, thumb first (manopth's)."""
        return tip_vertices("manopth", self.side)

    @cached_property
    def hash(self) -> str:
        """Twelve hex digits that name these arrays and the side (sha256)."""
        digest = hashlib.sha256(self.side.encode())
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()[:12]


def load_hand_assets(
    path: str | os.PathLike | None = None, side: str = "right", fix_left_shapedirs: bool = False
) -> HandAssets:
    """Read a hand model: the given file or folder, or the first one found.

    Args:
        path: a file (.pkl or .npz), or a folder that holds MANO_RIGHT.pkl or .npz (MANO_LEFT for
            the left hand). None: the folder in the environment variable MANO_DIR, then
            ``template/``, then the licence-free stand-in hand (said in the log).
        side: "right" or "left".
        fix_left_shapedirs: negate the x part of MANO_LEFT's shape directions, whose sign is wrong in
            the released file, so that equal betas give mirrored hands. Default: as shipped, which is
            what DexYCB's labels were made with (docs/facts.md 1.6). The stand-in never needs it.

    Raises:
        FileNotFoundError: nothing at a path that was given (also by MANO_DIR); lists every path
            tried and where to register for the files.
        ValueError: an array is missing or has a wrong shape or non-finite values (named with the
            file, the key, and what was found and expected), or is transposed or in other units; the
            file is of the other hand, by its name or its mesh.
        UnsafePickleError: the pickle names code; nothing was run.
    """
    if side not in SIDES:
        raise ValueError(f"side is {side!r}; it must be 'right' or 'left'")
    given = path if path is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    if given is not None:
        file = _find(Path(given), side)
    elif any(path.is_file() for one in SIDES for path in _candidates(TEMPLATE_DIR, one)):
        file = _find(TEMPLATE_DIR, side)  # never one hand of MANO and the other of the stand-in
    else:
        file = STAND_IN_PATH
    stand_in = next((path for path in STAND_INS if filecmp.cmp(path, file, shallow=False)), None)
    if stand_in is not None:  # it, or a copy
        assets = _load_stand_in(stand_in, side)
    else:
        assets = _checked(_read(file), file, side, "MANO")
        _check_place(assets, file)
        assets = replace(assets, name=_stand_in_names(side).get(assets.hash, "MANO"))  # of other bytes, as a pickle
    if assets.name != "MANO":
        logger.info(
            "using the stand-in hand (%s); for MANO itself register at %s and set %s",
            stand_in or file,
            REGISTER_URL,
            ENVIRONMENT_VARIABLE,
        )
        return assets
    if fix_left_shapedirs and side == "left":
        assets = replace(assets, shapedirs=assets.shapedirs * np.array([-1.0, 1.0, 1.0])[:, None])
    return assets


def _load_stand_in(path: Path, side: str) -> HandAssets:
    right = _checked(_read(path), path, "right", STAND_INS[path])
    return right if side == "right" else mirror_assets(right)


@cache
def _stand_in_names(side: str) -> dict[str, str]:
    """Hash -> name."""
    return {_load_stand_in(path, side).hash: name for path, name in STAND_INS.items()}


def _check_place(assets: HandAssets, file: Path) -> None:
    """Raise ValueError for arrays of other units or transposed, and for the other hand: MANO's right one points along
    -x, the left along x; a warning where the mesh is inside out."""
    joints = assets.J_regressor @ assets.v_template
    along = float(joints[0, 0] - joints[4, 0]) * (1 if assets.side == "right" else -1)  # wrist to middle knuckle
    if abs(along) > 1:
        raise ValueError(f"{file}: the palm is {along:.0f} m long; v_template, shapedirs and posedirs are in metres")
    if along < -0.05:  # of the other hand -0.09
        other = next(side for side in SIDES if side != assets.side)
        raise ValueError(f"{file}: is the {other} hand by its mesh, but the {assets.side} hand is asked for")
    for key in ("shapedirs", "posedirs"):
        if (largest := np.abs(getattr(assets, key)).max()) > 0.5:
            raise ValueError(f"{file}: {key} moves a vertex by {largest:.3g} m; give metres (of mm a thousandth)")
    if (largest := np.abs(assets.hands_mean).max()) >= np.pi:
        raise ValueError(f"{file}: hands_mean holds {largest:.3g}; give radians, axis-angles shorter than pi")
    products = assets.hands_components @ assets.hands_components.T
    lengths = np.sqrt(np.diag(products))
    if (np.abs(products - np.diag(np.diag(products))) > 0.1 * np.outer(lengths, lengths)).any():
        raise ValueError(f"{file}: the rows of hands_components are not orthogonal; is it transposed?")
    if np.linalg.det((assets.v_template - assets.v_template.mean(axis=0))[assets.faces]).sum() < 0:
        logger.warning("%s: f turns the mesh inside out, as mirrored hands are; reverse each face's vertices", file)


def right_hand(hand: HandAssets | None) -> HandAssets:
    """The hand model of what mirrors left hands; None: `load_hand_assets` of the right one.

    Raises:
        TypeError: it is no `HandAssets`. ValueError: it is of the left hand.
    """
    if hand is not None and not isinstance(hand, HandAssets):
        raise TypeError(f"hand is a {type(hand).__name__}; HandAssets are meant, of load_hand_assets(folder or file)")
    if hand is not None and hand.side != "right":
        raise ValueError("the hand model is a left one; give the right one also for left hands, which are mirrored")
    return load_hand_assets(side="right") if hand is None else hand


def mirror_assets(assets: HandAssets) -> HandAssets:
    """The same hand seen in the mirror x -> -x: equal betas and mirrored poses give mirrored meshes (m).

    Pose features mirror as M (R - I) M with M = diag(-1, 1, 1), axis-angles by negated y and z.
    """
    flip = np.array([-1.0, 1.0, 1.0])
    feature_signs = np.tile(np.outer(flip, flip).ravel(), 15)
    axis_angle_signs = np.tile([1.0, -1.0, -1.0], 15)
    return replace(
        assets,
        v_template=assets.v_template * flip,
        shapedirs=assets.shapedirs * flip[:, None],
        posedirs=assets.posedirs * flip[:, None] * feature_signs,
        faces=assets.faces[:, ::-1].copy(),
        hands_components=assets.hands_components * axis_angle_signs,
        hands_mean=assets.hands_mean * axis_angle_signs,
        side="left" if assets.side == "right" else "right",
    )


def _candidates(folder: Path, side: str) -> list[Path]:
    return [folder / f"MANO_{side.upper()}{suffix}" for suffix in (".pkl", ".npz")]


def _find(given: Path, side: str) -> Path:
    other = "left" if side == "right" else "right"
    if given.is_file() and given.stem.upper() == f"MANO_{other.upper()}":
        raise ValueError(f"{given}: is the {other} hand by its name, but the {side} hand is asked for")
    tried = [given] if not given.is_dir() else _candidates(given, side)
    for candidate in tried:
        if candidate.is_file():
            return candidate
    present = [path.name for path in _candidates(given, other) if path.is_file()] if given.is_dir() else []
    hint = f" (the folder holds {', '.join(present)}, the {other} hand only)" if present else ""
    raise FileNotFoundError(
        f"no {side} hand model{hint}; tried: {', '.join(map(str, tried))}. Register at {REGISTER_URL}, download "
        f"'Models & Code', and put MANO_{side.upper()}.pkl there, or name its folder in {ENVIRONMENT_VARIABLE}."
    )


def _read(file: Path) -> Mapping[str, Any]:
    if file.suffix == ".npz":
        try:
            with np.load(file, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files if key in SHAPES or key == "kintree_table"}
        except READ_ERRORS as error:
            raise ValueError(f"{file}: not a readable .npz of plain arrays ({read_reason(error)})") from error
    content = safe_load(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds a {type(content).__name__}, not the dictionary of a hand model")
    return content


def _checked(content: Mapping[str, Any], file: Path, side: str, name: str) -> HandAssets:
    arrays = {key: _checked_array(content, key, shape, file) for key, shape in SHAPES.items()}
    faces = arrays.pop("f")
    if not np.array_equal(faces, np.round(faces)) or faces.min() < 0 or faces.max() >= SHAPES["v_template"][0]:
        raise ValueError(f"{file}: f holds {faces.min()} to {faces.max()}, not vertex numbers 0 to 777")
    for key, axis_name in (("weights", "vertex"), ("J_regressor", "joint")):
        error = np.abs(arrays[key].sum(axis=1) - 1).max()
        if error > 1e-3:
            raise ValueError(f"{file}: the rows of {key} (one a {axis_name}) must sum to 1; one is off by {error:.3g}")
    if "kintree_table" in content:
        parents = _checked_array(content, "kintree_table", (2, 16), file)[0, 1:].astype(np.int64)
        if not np.array_equal(parents, MANO_PARENTS[1:]):
            raise ValueError(f"{file}: kintree_table has the parents {parents.tolist()}, not MANO's {MANO_PARENTS[1:]}")
    return HandAssets(**arrays, faces=faces.astype(np.int64), side=side, name=name)


def _checked_array(content: Mapping[str, Any], key: str, shape: tuple[int, ...], file: Path) -> np.ndarray:
    if key not in content:
        raise ValueError(f"{file}: no array {key!r} (expected shape {shape}); is it a MANO model file?")
    value = content[key]
    actual = getattr(value, "shape", None)
    if actual != shape:  # before a sparse matrix is made dense: its size is only a claim
        raise ValueError(f"{file}: {key} has shape {actual}, expected {shape}")
    dense = value.toarray() if scipy.sparse.issparse(value) else np.asarray(value)
    if dense.dtype.kind not in "fiu":
        raise ValueError(f"{file}: {key} has dtype {dense.dtype}, expected numbers")
    dense = dense.astype(np.float64)
    if not np.isfinite(dense).all():
        raise ValueError(f"{file}: {key} holds {np.count_nonzero(~np.isfinite(dense))} values that are not finite")
    return dense
