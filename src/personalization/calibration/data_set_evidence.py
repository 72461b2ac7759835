"""The metric cue that DexYCB holds beside its images: where the cameras stand (docs/facts.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datasets.bad_files import bad_file
from datasets.dex_ycb.files import read_extrinsics
from src.personalization.calibration.images import Images, ViewGroups
from src.personalization.solver.status import CalibrationError
from utils.artifacts import Predictions


def seen_together(predictions: Predictions, dataset: Any, rows: np.ndarray, cameras: int, seed: int = 0) -> Images:
    """The images of instants that ``cameras`` cameras see, so many views of each (seeded), with where these stand.

    Args:
        dataset: `datasets.dex_ycb.dataset.DexYCB` of the predictions' split; rows: (N,) theirs in it.

    Raises:
        See `view_groups` and `group_views`.
    """
    views = view_groups(dataset, rows, predictions.is_left)
    kept = group_views(views, cameras, seed)
    return Images(predictions.select(kept), views.rows(kept))


def view_groups(dataset: Any, rows: np.ndarray, is_left: np.ndarray) -> ViewGroups:
    """Instants and camera poses, m, of rows (N,) of a data set, left hands' mirrored.

    Read from meta.yml and the extrinsics it names.

    Raises:
        FileNotFoundError: a missing calibration file. BadFileError: one that lacks a camera or is damaged.
    """
    sequences: dict[Path, dict[str, np.ndarray]] = {}
    names: dict[tuple[Path, str], int] = {}
    instant, poses = [], []
    for row, left in zip(rows, is_left, strict=True):
        image = Path(dataset.image_path(int(row)))
        camera, sequence = image.parent.name, image.parent.parent
        if sequence not in sequences:
            sequences[sequence] = read_extrinsics(Path(dataset.root), sequence)
        if camera not in sequences[sequence]:
            raise bad_file(sequence / "meta.yml", f"its extrinsics lack camera {camera}", can_skip=False)
        pose = sequences[sequence][camera]
        poses.append(mirror_extrinsics(pose) if left else pose)
        instant.append(names.setdefault((sequence, image.name), len(names)))
    return ViewGroups(np.array(instant), np.stack(poses))


def mirror_extrinsics(camera_to_world: np.ndarray) -> np.ndarray:
    """Extrinsics (...,4,4), m, of mirrored cameras in a mirrored world: M E M with M = diag(-1, 1, 1, 1)."""
    signs = np.array([-1.0, 1.0, 1.0, 1.0])
    return camera_to_world * signs[:, None] * signs


def group_views(views: ViewGroups, cameras: int, seed: int = 0) -> np.ndarray:
    """Rows (M,) of instants seen by at least ``cameras`` cameras, that many (seeded) of each.

    Raises:
        CalibrationError: if no instant has so many views.
    """
    if cameras < 2:
        raise CalibrationError(f"--cameras is {cameras}; triangulation needs at least two")
    generator = np.random.default_rng(seed)
    order = np.argsort(views.instant, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(views.instant[order])) + 1)
    kept = [np.sort(generator.permutation(group)[:cameras]) for group in groups if len(group) >= cameras]
    if not kept:
        most = max(len(group) for group in groups)
        raise CalibrationError(
            f"no instant was seen by {cameras} cameras (at most {most}); predict all cameras' images"
        )
    return np.concatenate(kept)
