"""Metric cues that DexYCB holds beside its images: where the cameras stand, and depth maps (docs/facts.md)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from datasets.bad_files import bad_file
from datasets.dex_ycb.files import read_extrinsics
from src.personalization.calibration.images import Images, ViewGroups
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.noise import KeypointNoise
from utils.artifacts import Predictions

logger = logging.getLogger(__name__)

#: The wrist joint lies about so far behind the skin that a depth map sees, m.
WRIST_BELOW_SKIN = 0.015
#: Millimetres; outside, a depth reading is no hand on a table.
DEPTH_RANGE = (200, 2000)


def with_evidence(
    predictions: Predictions, dataset: Any, rows: np.ndarray, cameras: int | None, wrist_depth: bool, seed: int = 0
) -> Images:
    """The images with what their data set tells of them: ``cameras`` views of each instant, and wrists' depths (m).

    Args:
        dataset: `datasets.dex_ycb.dataset.DexYCB` of the predictions' split; rows: (N,) theirs in it.
        cameras: keep only instants that so many see, and so many views of each (seeded); None: every row alone.

    Raises:
        CalibrationError: both. Others: see `view_groups`, `group_views` and `wrist_depths`.
    """
    if cameras is not None and wrist_depth:
        raise CalibrationError("--cameras and --wrist_depth: several cameras tell the size alone; give one of them")
    if cameras is not None:
        kept = group_views(instants(dataset, rows), cameras, seed)
        predictions, rows = predictions.select(kept), rows[kept]
    depth = wrist_depths(dataset, rows, predictions) if wrist_depth else None
    return Images(predictions, depth, None if cameras is None else view_groups(dataset, rows, predictions.is_left))


def instants(dataset: Any, rows: np.ndarray) -> np.ndarray:
    """Number (N,) of the instant that each of rows (N,) shows, one for the images of all cameras, in their order."""
    images = [Path(dataset.image_path(int(row))) for row in rows]
    numbers: dict[tuple[Path, str], int] = {}
    return np.array([numbers.setdefault((image.parent.parent, image.name), len(numbers)) for image in images])


def view_groups(dataset: Any, rows: np.ndarray, is_left: np.ndarray) -> ViewGroups:
    """Instants and camera poses, m, of rows (N,) of a data set, left hands' mirrored.

    Read from meta.yml and the extrinsics it names.

    Raises:
        FileNotFoundError: a missing calibration file. BadFileError: one that lacks a camera or is damaged.
    """
    sequences: dict[Path, dict[str, np.ndarray]] = {}
    instant, poses = instants(dataset, rows), []
    for row, left in zip(rows, is_left, strict=True):
        image = Path(dataset.image_path(int(row)))
        camera, sequence = image.parent.name, image.parent.parent
        if sequence not in sequences:
            sequences[sequence] = read_extrinsics(Path(dataset.root), sequence)
        if camera not in sequences[sequence]:
            raise bad_file(sequence / "meta.yml", f"its extrinsics lack camera {camera}", can_skip=False)
        pose = sequences[sequence][camera]
        poses.append(mirror_extrinsics(pose) if left else pose)
    return ViewGroups(instant, np.stack(poses))


def mirror_extrinsics(camera_to_world: np.ndarray) -> np.ndarray:
    """Extrinsics (...,4,4), m, of mirrored cameras in a mirrored world: M E M with M = diag(-1, 1, 1, 1)."""
    signs = np.array([-1.0, 1.0, 1.0, 1.0])
    return camera_to_world * signs[:, None] * signs


def group_views(instant: np.ndarray, cameras: int, seed: int = 0) -> np.ndarray:
    """Rows (M,) of instants (N,) seen by at least ``cameras`` cameras, that many (seeded) of each.

    Raises:
        CalibrationError: if no instant has so many views.
    """
    if cameras < 2:
        raise CalibrationError(f"--cameras is {cameras}; triangulation needs at least two")
    generator = np.random.default_rng(seed)
    order = np.argsort(instant, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(instant[order])) + 1)
    kept = [np.sort(generator.permutation(group)[:cameras]) for group in groups if len(group) >= cameras]
    if not kept:
        most = max(len(group) for group in groups)
        raise CalibrationError(
            f"no instant was seen by {cameras} cameras (at most {most}); predict all cameras' images"
        )
    return np.concatenate(kept)


def wrist_depths(dataset: Any, rows: np.ndarray, predictions: Predictions) -> np.ndarray:
    """Depth (N,) m of the wrist joint of each prediction, rows (N,) of a data set.

    It is the median of a small window of the depth map at the wrist keypoint, plus the flesh above the joint; NaN where
    the map has no plausible reading, or the wrist is not seen.

    Raises:
        CalibrationError: no keypoints, no depth map at all, or one that is none of its picture.
    """
    if predictions.keypoints_2d is None:
        raise CalibrationError("--wrist_depth needs 2D keypoints (--keypoints)")
    depths, trust = np.full(len(predictions), np.nan), predictions.keypoint_confidence
    found = 0
    for number, row in enumerate(rows):
        image = Path(dataset.image_path(int(row)))
        path = image.with_name(image.name.replace("color_", "aligned_depth_to_color_")).with_suffix(".png")
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
        if depth is None:
            continue
        found += 1
        if depth.dtype != np.uint16 or depth.ndim != 2:
            raise CalibrationError(f"{path}: {depth.dtype} of shape {depth.shape}; a depth map is 16-bit grey, mm")
        if image.is_file():
            with Image.open(image) as picture:
                (width, height), (rows_there, columns) = picture.size, depth.shape
            if (columns, rows_there) != (width, height):
                raise CalibrationError(f"{path}: {columns} x {rows_there} px, its picture is {width} x {height}")
        if trust is not None and trust[number, 0] <= KeypointNoise.min_confidence:
            continue  # not seen, it may lie on anything
        x, y = np.round(predictions.keypoints_2d[number, 0]).astype(int)
        x = depth.shape[1] - 1 - x if predictions.is_left[number] else x
        window = depth[max(y - 3, 0) : max(y + 4, 0), max(x - 3, 0) : max(x + 4, 0)]
        near = window[(window > DEPTH_RANGE[0]) & (window < DEPTH_RANGE[1])]
        if near.size >= 10:
            depths[number] = np.median(near) / 1000 + WRIST_BELOW_SKIN
    if not found:
        raise CalibrationError(
            f"{dataset.root} holds no depth maps (aligned_depth_to_color_*.png) for these images; "
            "leave out --wrist_depth (the synthetic set writes them with --depth)"
        )
    logger.info("depth at the wrist: %d of %d images", np.isfinite(depths).sum(), len(depths))
    return depths
