"""How images of a person repeat each other: those of one view are averaged, and views of one video share errors.

Neighbouring frames share their errors, so thirty of them tell hardly more than one; and so do frames an hour apart in
which the hand is held the same way. Measured on unseen synthetic people (benchmarks/studies/video_errors.py): what a
frame's error has in common with another's falls off with the distance of the hand's joints, not with time, and a third
of it stays however different the frames are: camera, light and person are the same.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)

#: m, mean distance of joints within which an image shows a view again; part of their errors that all views of a video
#: share. Both were measured on the people of seed 1000 (benchmarks/studies/video_errors.py).
SAME_VIEW, SHARED = 0.010, 0.3
#: m, the same of images that are of no video: of a burst; nine tenths of their errors are in common there.
SAME_PICTURE = 0.004
#: Part of the hand's box; 1.5 px of noise stay below half of it, in rigs as DexYCB's.
OFF_LINES = 0.1
#: Images are taken for frames of a video if half of them have another one nearer than this, m (root mean square of the
#: joints); of how many images that can be told, and how many of them are looked at.
NEIGHBOURS, LEAST_IMAGES, LOOKED_AT = 0.020, 5, 1000


@dataclass(frozen=True)
class Repeats:
    """Which of N images of a person repeat each other.

    Attributes:
        view: (N,) number of the view that each shows; video: (N,) number of the video it is of.
    """

    view: np.ndarray
    video: np.ndarray

    def weights(self, shared: float, used: np.ndarray | None = None) -> np.ndarray:
        """(N,) how many independent images each one counts for: those of a view together for one, and V views of a
        video, ``shared`` of their errors being common, for V over their `design_effect`. Images that are
        not ``used`` (N,) make others count for no less."""
        rows = np.arange(len(self.view)) if used is None else np.flatnonzero(used)
        weight = np.ones(len(self.view))
        _, first, view, count = np.unique(self.view[rows], return_index=True, return_inverse=True, return_counts=True)
        _, video, views = np.unique(self.video[rows][first], return_inverse=True, return_counts=True)
        weight[rows] = (1 / count / design_effect(views[video], shared))[view]
        return weight

    def describe(self, subject: int, everywhere: float, in_video: float, stated: bool) -> dict[str, Any]:
        """What is assumed of images that repeat each other; said in the log where some do.

        Args:
            everywhere, in_video: see `CalibrationOptions.in_common`; stated: that all are of one video.
        """
        images, views = len(self.view), len(np.unique(self.view))
        videos = int((np.unique(self.video, return_counts=True)[1] > 1).sum())
        alone = self.weights(in_video).sum()
        worth = float(alone / design_effect(alone, everywhere))
        if views < images or videos:
            said = "as stated" if stated else "told from how the hand is held"
            logger.info(
                "subject %d: %d images show %d views, of %d videos (%s), which tell as much as %.1f independent "
                "images; where that is wrong, calibrate with --no-same_video (same_video=False)",
                subject, images, views, videos, said, worth,
            )  # fmt: skip
        shared = round(everywhere + in_video - everywhere * in_video, 3)
        return {"views": views, "videos": videos, "in_common": [everywhere, shared], "worth": round(worth, 2)}


def design_effect(count: Any, shared: Any) -> Any:
    """How many times as many images ``count`` ones are as independent ones that tell as much, if ``shared`` of their
    errors is common: 1 + shared (count - 1) (Kish 1965, section 5.4)."""
    return 1 + shared * (count - 1)


def contradicting(keypoints: np.ndarray, K: np.ndarray, instant: np.ndarray, camera_to_world: np.ndarray) -> np.ndarray:
    """Of every two views of an instant: whether they contradict each other: a camera stands elsewhere than said.

    The keypoints of one view then lie off the epipolar lines of the other's, by their median more than `OFF_LINES` of
    the hand (Hartley and Zisserman 2004, section 9.2). Lines know no distance, so cameras too near to each other pass.

    Args:
        keypoints: (N,21,2) px, NaN where unseen; K: (N,3,3) px; instant: (N,) and camera_to_world: (N,4,4) m.

    Returns:
        (pairs,) bool.
    """
    order = np.argsort(instant, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(instant[order])) + 1)
    one, other = np.array([(a, b) for rows in groups for a, b in itertools.combinations(rows, 2)], int).reshape(-1, 2).T
    relative = np.linalg.solve(camera_to_world[other], camera_to_world[one])
    homogeneous = np.concatenate([keypoints, np.ones_like(keypoints[..., :1])], axis=-1)
    rays = homogeneous[one] @ np.linalg.inv(K[one]).mT @ relative[:, :3, :3].mT
    lines = np.cross(relative[:, None, :3, 3], rays) @ np.linalg.inv(K[other])
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of views without a point
        off = np.abs((lines * homogeneous[other]).sum(axis=-1)) / np.linalg.norm(lines[..., :2], axis=-1)
        size = (np.nanmax(keypoints[other], axis=1) - np.nanmin(keypoints[other], axis=1)).max(axis=1)
        return np.nanmedian(off, axis=1) > OFF_LINES * size


def views_of(points: torch.Tensor, same: float | np.ndarray = SAME_VIEW) -> np.ndarray:
    """(N,) number of the view that each image shows: the nearest one before it, by the mean distance of joints (N,21,3)
    m, if that is less than ``same`` (of each, or one for all), else one of its own."""
    least = np.broadcast_to(same, len(points))
    opened: list[int] = []
    view = np.zeros(len(points), dtype=np.int64)
    for row, own in enumerate(points):
        view[row] = len(opened)
        if opened:
            away = torch.nan_to_num((points[opened] - own).norm(dim=-1).mean(dim=-1), nan=torch.inf)
            nearest = int(away.argmin())
            if float(away[nearest]) < least[row]:
                view[row] = nearest
                continue
        opened.append(row)
    return view


def videos_of(points: torch.Tensor, capture: np.ndarray) -> np.ndarray:
    """(N,) number of the video that each image is a frame of; one that is of none has a number of its own.

    Args:
        points: (N,21,3) m, see `images.mean_hand_points`. capture: (N,), different for images that are of no one video.
    """
    video = np.arange(len(points))
    for number in np.unique(capture):
        rows = np.flatnonzero(capture == number)
        if len(rows) < LEAST_IMAGES:
            continue
        some = torch.nan_to_num(points[rows[:LOOKED_AT]].flatten(1), nan=torch.inf)
        apart = torch.cdist(some, some, compute_mode="donot_use_mm_for_euclid_dist") / points.shape[1] ** 0.5
        apart.fill_diagonal_(torch.inf)
        if 2 * int((apart.min(dim=1).values < NEIGHBOURS).sum()) >= len(some):
            video[rows] = rows[0]
    return video
