"""Hands and their 2D keypoints in any picture, by our own detector and keypoint network: no weights but our own."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import roma
import torch
from numpy.typing import ArrayLike
from torch import nn
from torchvision.ops import nms

from datasets.image_crop import crop_image
from src.engine.checkpoint import ModelCard, load_network
from src.engine.networks import for_inference
from src.personalization.fitting.fit import PosePriorOptions
from src.photos.detector.detection import Detection
from src.photos.detector.mediapipe_hands import SAME_HAND, overlap
from src.photos.detector.search import WindowReader, limited, network_input, several_looks
from src.photos.image import check_rgb
from utils.camera import crop_affine, invert_affine, square_box, transform_points

DETECTOR_WEIGHTS, KEYPOINT_WEIGHTS = "hand_detector.safetensors", "world_keypoints.safetensors"
#: Sides of the squares that the detector looks at, over the picture's longer side: in the larger one a hand that fills
#: the picture has a size it was trained on.
VIEWS = (1.0, 2.0)
#: The same of the squares that cover the picture, overlapping by half, when it is searched more closely: hands smaller
#: than a fifth of it, as videos show them, are often missed in the whole.
TILE = 0.5
#: Probability of the detector from which the keypoint network is asked, and how many places at most.
PROPOSAL, _PLACES = 0.05, 4
#: The latter of a closer search.
_PLACES_CLOSELY = 6
#: Proposals that share more of their union are one.
_SAME_PROPOSAL = 0.6
#: Logits of the detector's probability, of the least probability of a hand over the looks, and of the keypoints' mean
#: confidence; then the offset: logistic regression on held-back renders of what is found there being a hand.
EVIDENCE = (0.52, 0.09, 1.03, -0.36)
#: Probability of the side from the evidence for it, a logistic regression's slope: of 376 real signs 92% have the right
#: one; of those with evidence below 4 half, from 4 to 10 three of four, from 10 to 20 94%, above 99%.
SIDE_SLOPE = 0.15
#: m, of a keypoint's depth, standard order: twice its root mean square error on held-back renders. Of half of the real
#: signs once, twice and three times as much turned 6, 9 and 10% of the palms wrong, 14 without depths; the median hand
#: was the worse the more they were believed.
DEPTH_STD = (
    *(0.041, 0.034, 0.031, 0.036, 0.042, 0.018, 0.022, 0.029, 0.039, 0.015, 0.019),
    *(0.030, 0.043, 0.018, 0.020, 0.029, 0.040, 0.024, 0.025, 0.029, 0.038),
)
#: rad, of the wrist's rotation and of finger joints, as the keypoint network says them: their root mean square errors
#: a coordinate on held-back renders.
POSE_STD = (0.29, 0.17)
#: Least score of a hand: under 2% of pictures without one reach it, renders and parts of photographs (docs/world.md).
MIN_SCORE = 0.7


class OwnHands:
    """Callable: image (H,W,3) uint8 RGB -> hands, surest first; the score is the probability of a hand.

    The detector proposes boxes. The keypoint network looks at each, again in the box around what it found there (both
    mirror images, which says the side), and a third time. Keypoints are means over the three looks by their squared
    confidence, which is a mean as well: where the looks differ, it is lower than each of them says.

    Args:
        detector, keypoints: weights of a ``hand_detector`` and of a ``pose_2d`` network with a rating.
        threshold: least score; device: where to compute.

    Attributes:
        closely: search in tiles as well, at three times the time.
        world_std: (21,) m, of `Detection.world`'s depths, and prediction: of `Detection.pose`, of the hand model
            ``hand_hash``; None: the network gives none.

    Raises:
        FileNotFoundError, CheckpointError: as `load_network`. ValueError: the keypoint network has no rating.
    """

    def __init__(
        self,
        detector: str | Path,
        keypoints: str | Path,
        threshold: float = MIN_SCORE,
        device: torch.device | str = "cpu",
    ) -> None:
        network, self.card, _ = load_network(detector, device, expect="hand_detector")
        self.detector = for_inference(network)
        self.reader = RatedReader(*load_network(keypoints, device, expect="pose_2d")[:2], device)
        self.threshold, self.device, self.name, self.closely = threshold, device, "own detector", False
        says = self.reader.card.options
        self.world_std = DEPTH_STD if says.get("lifts") else None
        self.prediction = PosePriorOptions(*POSE_STD) if says.get("poses") else None
        self.hand_hash = self.reader.card.hand_hash

    def searching_closely(self) -> OwnHands:
        """The same networks, for videos."""
        other = copy.copy(self)
        other.closely = True
        return other

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """All hands in an image (H,W,3) uint8 RGB.

        Raises:
            ValueError: not such an image.
        """
        check_rgb(image)
        squares, probability = self.proposals(image)
        if not len(squares):
            return []
        return one_each([look for look in self._look(image, squares, probability) if look.hand.score >= self.threshold])

    @torch.inference_mode()
    def proposals(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squares (N,3) centre and side px that may hold a hand, likeliest first, and probabilities (N,)."""
        height, width = image.shape[:2]
        size = self.card.input_size
        views = views_of(width, height, self.closely)
        output = self.detector(network_input([crop_image(image, view, size) for view in views], self.device))
        scores = self.detector.probability(output["class_logits"]).flatten().double().cpu()
        boxes = []
        for corners, view in zip(output["boxes"].double().cpu().numpy(), views, strict=True):
            back = invert_affine(crop_affine(view, size))
            boxes.append(transform_points(corners.reshape(-1, 2), back))
        asked = scores > PROPOSAL
        corners, scores = torch.as_tensor(np.concatenate(boxes)).view(-1, 4)[asked], scores[asked]
        kept = nms(corners, scores, _SAME_PROPOSAL)[: _PLACES_CLOSELY if self.closely else _PLACES]
        corners = corners[kept].view(-1, 2, 2).numpy()
        sides = (corners[:, 1] - corners[:, 0]).max(axis=1, keepdims=True)
        return np.concatenate([corners.mean(axis=1), sides], axis=1), scores[kept].numpy()

    def _look(self, image: np.ndarray, squares: np.ndarray, probability: np.ndarray) -> list[Look]:
        """What the keypoint network makes of N squares, each of ``probability``, in three batches."""
        count = len(squares)

        def around(keypoints: np.ndarray) -> np.ndarray:
            return np.stack([limited(square_box(points, 1.0), image) for points in keypoints])

        first = self.reader.read(image, squares, False)
        pair = self.reader.read(image, around(first.keypoints).repeat(2, axis=0), np.tile([False, True], count))
        keypoints, confidence = pair.keypoints.reshape(count, 2, 21, 2), pair.confidence.reshape(count, 2, 21)
        # Each says how far its image is a left hand. Had the one a bias, the difference has none.
        left = -np.diff(logit(pair.is_left).reshape(count, 2))[:, 0]
        is_left = left > 0
        last = self.reader.read(image, around(keypoints[np.arange(count), is_left.astype(int)]), is_left)
        left += np.where(is_left, -1, 1) * logit(last.is_left)
        chosen = pair.rows(2 * np.arange(count) + is_left)
        confidence = np.concatenate([confidence, last.confidence[:, None]], axis=1)
        keypoints = np.concatenate([keypoints, last.keypoints[:, None]], axis=1)
        keypoints = several_looks(keypoints.swapaxes(0, 1), confidence.swapaxes(0, 1))
        least = np.minimum(np.minimum(first.is_hand, last.is_hand), pair.is_hand.reshape(count, 2).min(axis=1))
        evidence = np.stack([probability, least, last.confidence.mean(axis=1)], axis=1)
        score = 1 / (1 + np.exp(-logit(evidence) @ EVIDENCE[:3] - EVIDENCE[3]))
        space = in_space(keypoints, chosen, last), mean_pose(chosen, last)
        rows = zip(keypoints, confidence.mean(axis=1), is_left, score, *space, left, strict=True)
        return [
            Look(Detection(p, c, bool(side), float(s), world, only_depths=True, pose=pose), float(d))
            for p, c, side, s, world, pose, d in rows
        ]


def views_of(width: int, height: int, closely: bool = False) -> np.ndarray:
    """Squares (N,3), centre and side px, that the detector looks at in a picture; ``closely``: tiles as well."""
    longer = max(width, height)
    views = [[(width - 1) / 2, (height - 1) / 2, longer * share] for share in VIEWS]
    if closely:
        side = longer * TILE
        columns, rows = (
            np.linspace(min(side, extent) / 2, extent - min(side, extent) / 2, math.ceil(2 * extent / side - 1 - 1e-9))
            if extent > side
            else [extent / 2]
            for extent in (width, height)
        )
        views += [[x - 0.5, y - 0.5, side] for y in rows for x in columns]
    return np.array(views)


class Look(NamedTuple):
    """What was found at one place."""

    hand: Detection
    left: float  # evidence (log-odds) of a left hand


def one_each(looks: list[Look]) -> list[Detection]:
    """The hands, surest first, each once; several looks at one decide together which hand it is."""
    groups: list[list[Look]] = []
    for look in sorted(looks, key=lambda one: -one.hand.score):
        same = next((group for group in groups if overlap(group[0].hand, look.hand) > SAME_HAND), None)
        groups.append([look]) if same is None else same.append(look)
    found = []
    for group in groups:
        left = sum(look.left for look in group)
        sure = 1 / (1 + np.exp(-SIDE_SLOPE * abs(left)))
        # The surest may be of the other side, and its pose of the other mirror image.
        same = next((look.hand for look in group if look.hand.is_left == (left > 0)), group[0].hand)
        side = {"is_left": bool(left > 0), "side_score": float(sure), "pose": same.pose}
        found.append(replace(group[0].hand, **side))
    return found


def logit(probability: ArrayLike) -> np.ndarray:
    """Log-odds of probabilities, those of exactly 0 or 1 as of almost."""
    probability = np.clip(np.asarray(probability, dtype=np.float64), 1e-6, 1 - 1e-6)
    return np.log(probability / (1 - probability))


@functools.lru_cache(maxsize=2)
def open_own_hands(folder: Path, device: torch.device | str = "cpu") -> OwnHands:
    """Our own networks of a folder of weights, opened once.

    Raises:
        FileNotFoundError: they are not there.
    """
    return OwnHands(folder / DETECTOR_WEIGHTS, folder / KEYPOINT_WEIGHTS, device=device)


class Readings(NamedTuple):
    """What the keypoint network says of N boxes."""

    keypoints: np.ndarray  # (N,21,2) px of the image
    confidence: np.ndarray  # (N,21) probability that each is within a tenth of the box
    is_hand: np.ndarray  # (N,) probability
    is_left: np.ndarray  # (N,) probability of a left hand in the crop as the network saw it, mirrored or not
    depth: np.ndarray | None = None  # (N,21) m about their mean, see `DepthHead`; None: the network says none
    pixel: np.ndarray | None = None  # (N,) m of a pixel of the image, at a hand of that size
    pose: np.ndarray | None = None  # (N,16,3,3) see `PoseHead`; None: the network says none

    def rows(self, index: np.ndarray) -> Readings:
        """Some of them."""
        return Readings(*(None if part is None else part[index] for part in self))


def in_space(keypoints: np.ndarray, *looks: Readings) -> list[np.ndarray | None]:
    """`Detection.world` (21,3) m of each of N hands of keypoints (N,21,2) px: depths are the mean over the looks."""
    if any(look.depth is None for look in looks):
        return [None] * len(keypoints)
    pixel = np.mean([look.pixel for look in looks], axis=0)[:, None, None]
    across = pixel * (keypoints - keypoints.mean(axis=1, keepdims=True))
    return list(np.concatenate([across, np.mean([look.depth for look in looks], axis=0)[..., None]], axis=2))


def mean_pose(*looks: Readings) -> list[np.ndarray | None]:
    """`Detection.pose` (16,3,3), rotations without a unit, of each of N hands, the chordal mean over the looks."""
    if any(look.pose is None for look in looks):
        return [None] * len(looks[0].keypoints)
    together = torch.as_tensor(np.mean([look.pose for look in looks], axis=0))
    return list(roma.special_procrustes(together).double().numpy())


class RatedReader(WindowReader):
    """The keypoints of one hand in a box, with what the rating of the ``pose_2d`` network says.

    Raises:
        ValueError: it has no rating.
    """

    def __init__(self, network: nn.Module, card: ModelCard, device: torch.device | str = "cpu") -> None:
        super().__init__(network, card, device)
        if getattr(network, "rating", None) is None:
            raise ValueError(f"{card.model} {card.options} has no rating; train one with src.engine.world.train")

    def read(self, image: np.ndarray, boxes: np.ndarray, is_left: bool | np.ndarray) -> Readings:
        """Look into tight squares (N,3) px; see `look`."""
        keypoints, output = self.look(image, boxes, is_left)
        names = ("keypoint_confidence", "is_hand", "is_left", "depth", "extent", "pose")
        parts = [output[name].float().cpu().numpy() if name in output else None for name in names]
        read = Readings(keypoints, *parts)
        if read.pixel is None:
            return read
        return read._replace(pixel=read.pixel / (self.card.crop_scale * np.asarray(boxes)[:, 2]))
