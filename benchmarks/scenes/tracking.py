"""Hands followed through videos against the same hands in their true boxes; `benchmarks/video.py` prints it.

The shipped identity-aware network is told the person's true shape, in both cases; the keypoint network reads both.
With label boxes each hand's true box and side are given in every frame; the tracker is given the pictures alone.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.scenes.tracking_scores import ClipScores, Reported, score_clip, summary
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


def with_person(tools: PhotoEstimator, clip: TrackingClip) -> PhotoEstimator:
    """Told who is seen, and with which camera."""
    hand = tools.assets
    identity = Identity(clip.betas, hand.name, hand.hash, 180.0, side="both", method="true")
    return replace(tools, identity=identity, K=Camera(clip.K, "true"))


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
        ours = with_person(tools, clip)
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
