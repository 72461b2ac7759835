"""Hands followed through videos against the same hands in their true boxes; `benchmarks/video.py` prints it.

The shipped identity-aware network is told the person's true shape, in both cases; the keypoint network reads both.
With label boxes each hand's true box and side are given in every frame; the tracker is given the pictures alone.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from benchmarks.scenes.two_hand_scenes import TrackingClip, make_tracking_clip
from benchmarks.scenes.video_scenes import FPS
from src.photos.api import PhotoEstimator, open_estimator
from src.photos.boxes import Region
from src.photos.camera import Camera
from src.photos.image import Photo, UnusableImage
from src.photos.result import Result
from src.photos.video.glimpses import without_glimpses
from src.photos.video.look_back import LookBack
from src.photos.video.smoothing import FrameHands
from src.photos.video.tracker import HandTracker
from template import load_hand_assets
from utils.artifact_checks import model_hash
from utils.artifacts import Identity
from utils.camera import project_numpy, square_box

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"


def open_network() -> PhotoEstimator:
    """The shipped identity-aware network."""
    assets = load_hand_assets()
    path = WEIGHTS / "mano_identity.safetensors"
    return open_estimator(path, assets, torch.device("cpu"), "mano_identity", folder=WEIGHTS)


def in_label_boxes(tools: PhotoEstimator, clip: TrackingClip, images: list[np.ndarray]) -> list[list[Reported]]:
    """Each hand in its true box in each frame."""
    shape, before = tools.shape(), [None] * len(clip.hands)
    frames = []
    for frame, image in enumerate(images):
        photo, found = Photo("clip", None, image), []
        for number, hand in enumerate(clip.hands):
            box = square_box(project_numpy(hand.joints[frame], clip.K), 1.0)
            region = Region(box, "label", hand.is_left, "label")
            try:
                before[number] = tools.estimate(photo, tools.camera(photo), region, shape, before[number])
            except UnusableImage:
                before[number] = None
                continue
            found.append(_reported(number + 1, before[number]))
        frames.append(found)
    return frames


def followed(tools: PhotoEstimator, images: list[np.ndarray], looks_back: bool = True) -> list[list[Reported]]:
    """What the tracker reports of pictures; hands that were never confirmed are not reported.

    Args:
        looks_back: as for a recorded video; else as live.
    """
    height, width = images[0].shape[:2]
    tracker, confirmed, frames = HandTracker(tools, Path("clip"), (width, height)), set(), []
    back = LookBack(tracker)
    for number, image in enumerate(images):
        photo = tracker.photo(image)
        frames.append(FrameHands(number, number / FPS, tracker(photo, number / FPS)).light())
        confirmed |= {hand.track for hand in frames[-1].hands if hand.is_confirmed}
        if looks_back:
            for earlier, hand in back.add(number, photo, number / FPS, frames[-1].hands):
                frames[earlier] = frames[earlier].with_hand(hand)
    frames = without_glimpses(frames) if looks_back else frames
    seen = [[hand for hand in frame.hands if hand.result is not None] for frame in frames]
    return [[_reported(one.track, one.result) for one in hands if one.track in confirmed] for hands in seen]


def _reported(track: int, result: Result) -> Reported:
    return Reported(track, result.side == "left", result.joints.astype(np.float64))


def measure_tracking(seed: int, numbers: range, cache: Path | None) -> dict[str, object]:
    """Scores of both over the clips of people ``numbers``; clips and each one's scores come from ``cache`` if there."""
    tools, tracked, labelled = open_network(), [], []
    weights = f"{tools.digest}_{model_hash(tools.estimator.reader.network.state_dict())}"
    for number in tqdm(numbers, unit="clip", disable=None):
        clip = make_tracking_clip(seed, number, cache)
        hand = tools.assets
        identity = Identity(clip.betas, hand.name, hand.hash, 180.0, side="both", method="true")
        ours = replace(tools, identity=identity, K=Camera(clip.K, "true"))
        truth = (
            [bool(hand.is_left) for hand in clip.hands],
            np.stack([hand.joints for hand in clip.hands]),
            np.stack([hand.visible for hand in clip.hands]),
            clip.K,
        )
        path = None if cache is None else cache / f"labels_{seed}_{number}_{weights}.json"
        images = clip.images
        if path is not None and path.is_file():
            labelled.append(ClipScores(**json.loads(path.read_text())))
        else:
            labelled.append(score_clip(in_label_boxes(ours, clip, images), *truth))
            if path is not None:
                path.write_text(json.dumps(asdict(labelled[-1])))
        tracked.append(score_clip(followed(ours, images), *truth))
        logger.info("clip %d: %s", number, summary(tracked[-1:], labelled[-1:]))
    return summary(tracked, labelled)


#: A reported hand further from the true one, over the true box's side, is not that hand.
NEAR = 0.5


@dataclass
class Reported:
    """A hand that was reported in a frame: number of its track, side, and joints (21,3) m in the camera frame."""

    track: int
    is_left: bool
    joints: np.ndarray


@dataclass
class ClipScores:
    """Of one clip, over frames and hands that are visible.

    Attributes:
        errors: wrist-relative mean joint errors, mm, one a visible hand and frame, NaN where it was lost.
        swaps: how often a hand's track changed from one frame in which it was found to the next.
        wrong_sides: hands reported as the other side; false: hands reported where none is.
    """

    errors: list[float] = field(default_factory=list)
    swaps: int = 0
    wrong_sides: int = 0
    false: int = 0


def score_clip(
    frames: list[list[Reported]], is_left: list[bool], joints: np.ndarray, visible: np.ndarray, K: np.ndarray
) -> ClipScores:
    """Compare F frames' reports with H hands.

    Args:
        is_left: (H,); joints: (H,F,21,3) m; visible: (H,F); K: (3,3) px.
    """
    scores, last = ClipScores(), [0] * len(is_left)
    for frame, reports in enumerate(frames):
        owner = _assign(reports, joints[:, frame], K)
        scores.false += sum(one not in owner.values() for one in range(len(reports)))
        for hand, left in enumerate(is_left):
            if not visible[hand, frame]:
                continue
            if hand not in owner:
                scores.errors.append(np.nan)
                continue
            report, truth = reports[owner[hand]], joints[hand, frame]
            off = (report.joints - report.joints[0]) - (truth - truth[0])
            scores.errors.append(1000 * float(np.linalg.norm(off, axis=1).mean()))
            scores.swaps += int(last[hand] not in (0, report.track))
            scores.wrong_sides += int(report.is_left != left)
            last[hand] = report.track
    return scores


def _assign(reports: list[Reported], joints: np.ndarray, K: np.ndarray) -> dict[int, int]:
    """Hand -> place in ``reports``, by the distance of projected joints."""
    if not reports:
        return {}
    truth = [project_numpy(hand, K) for hand in joints]
    sides = [np.ptp(points, axis=0).max() for points in truth]
    costs = np.array([
        [np.linalg.norm(project_numpy(one.joints, K) - points, axis=1).mean() / side for one in reports]
        for points, side in zip(truth, sides, strict=True)
    ])  # fmt: skip
    rows, columns = linear_sum_assignment(np.minimum(costs, 1e3))
    return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if costs[r, c] <= NEAR}


def summary(tracked: list[ClipScores], labelled: list[ClipScores]) -> dict[str, float | int]:
    """Over clips; errors are compared where both the tracker and the label boxes gave a hand."""
    means, lost, seen = [], 0, 0
    for ours, labels in zip(tracked, labelled, strict=True):
        both = np.isfinite(ours.errors) & np.isfinite(labels.errors)
        lost, seen = lost + int(np.isnan(ours.errors).sum()), seen + len(ours.errors)
        means.append((np.mean(np.array(ours.errors)[both]), np.mean(np.array(labels.errors)[both])))
    ours, theirs = np.mean(means, axis=0)
    return {
        "tracked_mm": round(float(ours), 2),
        "label_boxes_mm": round(float(theirs), 2),
        "lost": round(lost / max(seen, 1), 4),
        "worst_ratio": round(float(max(one / other for one, other in means)), 3),
        "swaps": sum(one.swaps for one in tracked),
        "wrong_sides": sum(one.wrong_sides for one in tracked),
        "false_hands": sum(one.false for one in tracked),
    }
