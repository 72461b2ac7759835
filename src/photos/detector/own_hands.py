"""Hands and their 2D keypoints in any picture, by our own detector and keypoint network."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torchvision.ops import nms

from datasets.image_crop import crop_image
from src.engine.checkpoint import ModelCard, load_network
from src.photos.detector.detection import Detection
from src.photos.detector.mediapipe_hands import without_repeats
from src.photos.image import check_rgb
from src.photos.search import limited, network_input
from utils.camera import crop_affine, invert_affine, square_box, transform_points

#: Sides of the squares that the detector looks at, over the picture's longer side: in the larger one a hand that fills
#: the picture has a size it was trained on.
VIEWS = (1.0, 2.0)
#: Score of the detector from which the keypoint network is asked. The detector only proposes: the score is what one
#: cell says of both sides together, which the shipped one, unable to tell them apart, never lifts much over 0.77.
PROPOSAL = 0.25
_PROPOSALS, _READ_CLOSELY = 8, 3
#: Proposals that share more of their union are one.
_SAME_PROPOSAL = 0.6
#: A hand that fills a picture, over the picture's shorter side: looked at whatever the detector says.
_FILLS = 0.72
#: Least probability of a hand over all looks; on held-back renders without a hand 2% of the pictures reach it.
MIN_IS_HAND = 0.925


class OwnHands:
    """Callable: image (H,W,3) uint8 RGB -> hands, surest first.

    The detector proposes boxes, the keypoint network decides: it looks at each, again in the box around what it found
    there (both mirror images, which says the side), and a third time. A hand is one if every look says so.

    Args:
        detector, keypoints: weights of a ``hand_detector`` and of a ``pose_2d`` network with a rating.
        threshold: least probability of a hand over the looks; device: where to compute.

    Raises:
        FileNotFoundError, CheckpointError: as `load_network`. ValueError: the keypoint network has no rating.
    """

    def __init__(
        self,
        detector: str | Path,
        keypoints: str | Path,
        threshold: float = MIN_IS_HAND,
        device: torch.device | str = "cpu",
    ) -> None:
        self.detector, self.card, _ = load_network(detector, device, expect="hand_detector")
        self.reader = RatedReader(*load_network(keypoints, device, expect="pose_2d")[:2], device)
        self.threshold, self.device = threshold, device

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """All hands in an image (H,W,3) uint8 RGB.

        Raises:
            ValueError: not such an image.
        """
        check_rgb(image)
        first = self.reader.read(image, self.proposals(image), False)
        best = np.argsort(-first.is_hand * first.confidence.mean(axis=1), kind="stable")[:_READ_CLOSELY]
        hands = [self._closer(image, first.keypoints[row], float(first.is_hand[row])) for row in best]
        return without_repeats([hand for hand in hands if hand is not None])

    @torch.no_grad()
    def proposals(self, image: np.ndarray) -> np.ndarray:
        """Squares (N,3) centre and side px that may hold a hand; the last is the picture's own middle."""
        height, width = image.shape[:2]
        middle, size = np.array([(width - 1) / 2, (height - 1) / 2]), self.card.input_size
        views = np.array([[*middle, max(width, height) * share] for share in VIEWS])
        output = self.detector(network_input([crop_image(image, view, size) for view in views], self.device))
        scores = output["class_logits"].sigmoid().sum(-1).cpu()
        boxes = []
        for corners, view in zip(output["boxes"].double().cpu().numpy(), views, strict=True):
            back = invert_affine(crop_affine(view, size))
            boxes.append(transform_points(corners.reshape(-1, 2), back))
        asked = scores.flatten() > PROPOSAL
        corners, scores = torch.as_tensor(np.concatenate(boxes)).view(-1, 4)[asked], scores.flatten()[asked].double()
        corners = corners[nms(corners, scores, _SAME_PROPOSAL)[:_PROPOSALS]].view(-1, 2, 2).numpy()
        squares = np.concatenate([corners.mean(axis=1), (corners[:, 1] - corners[:, 0]).max(axis=1, keepdims=True)], 1)
        return np.concatenate([squares, [[*middle, _FILLS * min(width, height)]]])

    def _closer(self, image: np.ndarray, keypoints: np.ndarray, is_hand: float) -> Detection | None:
        box = limited(square_box(keypoints, 1.0), image)[None]
        looks = [self.reader.read(image, box, is_left) for is_left in (False, True)]
        is_left = float(looks[0].is_left[0]) > float(looks[1].is_left[0])  # each says how far its image is a left hand
        box = limited(square_box(looks[is_left].keypoints[0], 1.0), image)[None]
        last = self.reader.read(image, box, is_left)
        score = min(is_hand, *(float(look.is_hand[0]) for look in (*looks, last)))
        return Detection(last.keypoints[0], last.confidence[0], is_left, score) if score >= self.threshold else None


class Readings(NamedTuple):
    """What the keypoint network says of N boxes."""

    keypoints: np.ndarray  # (N,21,2) px of the image
    confidence: np.ndarray  # (N,21) probability that each is within a tenth of the box
    is_hand: np.ndarray  # (N,) probability
    is_left: np.ndarray  # (N,) probability of a left hand in the crop as the network saw it, mirrored or not


class RatedReader:
    """The keypoints of one hand in a box, with what the rating says.

    Args:
        network, card: of `load_network`; a ``pose_2d`` with a rating. device: where it is.

    Raises:
        ValueError: it has no rating.
    """

    def __init__(self, network: nn.Module, card: ModelCard, device: torch.device | str = "cpu") -> None:
        if getattr(network, "rating", None) is None:
            raise ValueError(f"{card.model} {card.options} has no rating; train one with src.engine.world.train")
        self.network, self.card, self.device = network, card, device

    @torch.no_grad()
    def read(self, image: np.ndarray, boxes: np.ndarray, is_left: bool) -> Readings:
        """Look into tight squares.

        Args:
            image: (H,W,3) uint8 RGB; boxes: (N,3) px of it; is_left: mirror before, as the network knows right hands.
        """
        width, size = image.shape[1], self.card.input_size
        windows = np.array(boxes, dtype=np.float64) * [1, 1, self.card.crop_scale]
        if is_left:
            image = np.ascontiguousarray(image[:, ::-1])
            windows[:, 0] = width - 1 - windows[:, 0]
        output = self.network(network_input([crop_image(image, window, size) for window in windows], self.device))
        back = invert_affine(crop_affine(windows, size))
        keypoints = transform_points(output["keypoints_2d"].double().cpu().numpy(), back)
        if is_left:
            keypoints[..., 0] = width - 1 - keypoints[..., 0]
        names = ("keypoint_confidence", "is_hand", "is_left")
        return Readings(keypoints, *(output[name].float().cpu().numpy() for name in names))
