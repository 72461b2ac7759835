"""The mesh hierarchy that belongs to a hand: the committed one, a CMR checkout's, or a new one."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy.sparse
import trimesh

from conv.hierarchy import MeshHierarchy, build_hierarchy
from template.assets import TEMPLATE_DIR, HandAssets, load_hand_assets
from template.safe_pickle import safe_load

logger = logging.getLogger(__name__)

STAND_IN_HIERARCHY = TEMPLATE_DIR / "stand_in_hierarchy.npz"


def load_hierarchy(assets: HandAssets | None = None, path: str | os.PathLike | None = None) -> MeshHierarchy:
    """Hierarchy for a hand's mesh.

    Args:
        assets: the hand; None for the one that `load_hand_assets` finds.
        path: a hierarchy of the user's: ``transform.pkl`` or the ``template`` folder of a CMR
            checkout (needed for checkpoints trained with it), or an .npz of `MeshHierarchy.save`.
            None: the committed one if it is of this mesh, else one built from the rest mesh
            (about a second; the same for the same mesh).

    Raises:
        FileNotFoundError: nothing at ``path``.
        ValueError: the file is damaged, or its finest level is not the hand's mesh; names the file.
    """
    assets = load_hand_assets() if assets is None else assets
    faces = assets.faces if assets.side == "right" else assets.faces[:, ::-1]
    if path is not None:
        path = Path(path)
        hierarchy = MeshHierarchy.load(path) if path.suffix == ".npz" else read_cmr_template(path)
        if not np.array_equal(hierarchy.faces[0], faces):
            raise ValueError(
                f"{path}: its {len(hierarchy.faces[0])} finest faces are not those of the hand "
                f"{assets.name!r} ({len(faces)} faces); use the hand model it was made for (--mano_dir)"
            )
        return hierarchy
    if STAND_IN_HIERARCHY.is_file():
        committed = _read(STAND_IN_HIERARCHY)
        if np.array_equal(committed.faces[0], faces):
            return committed
    logger.info("building the mesh hierarchy of the hand %r (%s)", assets.name, assets.hash)
    return _build(assets.v_template.tobytes(), faces.astype(np.int64).tobytes())


@lru_cache(maxsize=4)
def _read(path: Path) -> MeshHierarchy:
    return MeshHierarchy.load(path)


@lru_cache(maxsize=4)
def _build(vertices: bytes, faces: bytes) -> MeshHierarchy:
    positions, corners = np.frombuffer(vertices).copy(), np.frombuffer(faces, dtype=np.int64).copy()
    return build_hierarchy(positions.reshape(-1, 3), corners.reshape(-1, 3))


def read_cmr_template(path: str | os.PathLike) -> MeshHierarchy:
    """Hierarchy of a CMR checkout (docs/facts.md 6), read without executing the pickle.

    Args:
        path: ``transform.pkl``; or the folder that holds it. A folder with only ``template.ply``
            gives a hierarchy built from that mesh.

    Raises:
        FileNotFoundError: no such file; lists what was tried.
        ValueError: a key is missing or the levels do not fit each other; names the file.
        UnsafePickleError: the pickle names code; nothing was run.
    """
    path = Path(path)
    transform, ply = (path / "transform.pkl", path / "template.ply") if path.is_dir() else (path, None)
    if not transform.is_file():
        if ply is not None and ply.is_file():
            mesh = trimesh.load_mesh(ply, process=False)
            logger.info("%s: no transform.pkl beside it, building a hierarchy", ply)
            return build_hierarchy(np.asarray(mesh.vertices), np.asarray(mesh.faces))
        raise FileNotFoundError(
            f"no CMR template; tried: {transform}"
            + (f", {ply}" if ply else "")
            + ". Give transform.pkl of a CMR checkout, or its template folder"
        )
    content = safe_load(transform)
    if not isinstance(content, dict):
        raise ValueError(f"{transform}: holds a {type(content).__name__}; it is no transform.pkl of CMR")
    missing = [key for key in ("vertices", "face", "down_transform", "up_transform") if key not in content]
    if missing:
        what = f"no {', '.join(missing)}; it is no transform.pkl of CMR (it holds {sorted(content)})"
        raise ValueError(f"{transform}: {what}")
    try:
        down, up = (
            tuple(scipy.sparse.csr_matrix(matrix, dtype=np.float64) for matrix in content[key])
            for key in ("down_transform", "up_transform")
        )
        faces = tuple(np.asarray(faces).astype(np.int64) for faces in content["face"])
        return MeshHierarchy(np.asarray(content["vertices"][0], dtype=np.float64), faces, down, up)
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{transform}: {error}") from error
