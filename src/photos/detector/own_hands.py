"""Hands and their 2D keypoints in any picture, by our own detector and keypoint network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from datasets.image_crop import crop_image
from src.engine.checkpoint import ModelCard, load_network
from src.models.hand_detector import decode
from src.photos.detector.detection import Detection
from src.photos.search import limited, network_input
from utils.camera import crop_affine, invert_affine, square_box, transform_points

#: Below this probability the keypoint network sees no hand where the detector saw one.
MIN_IS_HAND = 0.3


class OwnHands:
    """Callable: image (H,W,3) uint8 RGB -> hands, surest first.

    Args:
        detector, keypoints: weights of a ``hand_detector`` and of a ``pose_2d`` network with a rating.
        threshold: score to ask for; None: that of 2% false alarms on renders, which the detector's weights carry.
        looks: how often keypoints are read; from the second time on in the box around those found before.
        device: where to compute.

    Raises:
        FileNotFoundError, CheckpointError: as `load_network`. ValueError: the keypoint network has no rating.
    """

    def __init__(
        self,
        detector: str | Path,
        keypoints: str | Path,
        threshold: float | None = None,
        looks: int = 2,
        device: torch.device | str = "cpu",
    ) -> None:
        self.detector, self.card, _ = load_network(detector, device, expect="hand_detector")
        self.reader = RatedReader(*load_network(keypoints, device, expect="pose_2d")[:2], device)
        self.threshold, self.looks, self.device = threshold, looks, device

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> list[Detection]:
        """All hands in an image (H,W,3) uint8 RGB.

        Raises:
            ValueError: not such an image.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image is {image.dtype} {image.shape}; it must be (H,W,3) uint8 RGB")
        found = [self._read(image, *hand) for hand in self.boxes(image)]
        return sorted((hand for hand in found if hand is not None), key=lambda hand: -hand.score)

    @torch.no_grad()
    def boxes(self, image: np.ndarray) -> list[tuple[np.ndarray, bool, float]]:
        """What the detector alone says, surest first: square (3,) centre and side px, left hand or not, score."""
        height, width = image.shape[:2]
        whole = np.array([(width - 1) / 2, (height - 1) / 2, max(width, height)], dtype=np.float64)
        size = self.card.input_size
        output = self.detector(network_input([crop_image(image, whole, size)], self.device))
        hands = decode(output, self.detector, self.threshold)[0]
        back = invert_affine(crop_affine(whole, size))
        squares = []
        for corners in hands["boxes"].double().cpu().numpy().reshape(-1, 2, 2):
            corners = transform_points(corners, back)
            squares.append(np.array([*corners.mean(axis=0), (corners[1] - corners[0]).max()]))
        return list(zip(squares, hands["is_left"].tolist(), hands["scores"].tolist(), strict=True))

    def _read(self, image: np.ndarray, box: np.ndarray, is_left: bool, score: float) -> Detection | None:
        keypoints, confidence, is_hand, other_side = self.reader.read(image, box, is_left)
        if is_hand < MIN_IS_HAND:
            return None
        if other_side > 0.5:  # the crop shows more than the detector saw; it has to agree with itself in the mirror
            again = self.reader.read(image, box, not is_left)
            if again[3] < other_side:
                is_left, (keypoints, confidence, _, _) = not is_left, again
        for _ in range(self.looks - 1):
            closer = limited(square_box(keypoints, 1.0), image)
            keypoints, confidence, _, _ = self.reader.read(image, closer, is_left)
        return Detection(keypoints, confidence, is_left, score)


class RatedReader:
    """The keypoints of one hand in a box, with what the rating says.

    Args:
        network, card: of `load_network`; a ``pose_2d`` with a rating. device: where it is.

    Raises:
        ValueError: it has no rating.
    """

    def __init__(self, network: nn.Module, card: ModelCard, device: torch.device | str = "cpu") -> None:
        if getattr(network, "rating", None) is None:
            raise ValueError(f"{card.model} {card.options} has no rating; train one with src.engine.train_world")
        self.network, self.card, self.device = network, card, device

    @torch.no_grad()
    def read(self, image: np.ndarray, box: np.ndarray, is_left: bool) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Look into a tight square.

        Args:
            image: (H,W,3) uint8 RGB; box: (3,) px of it; is_left: mirror before, as the network knows right hands.

        Returns:
            keypoints (21,2) px of the image; probabilities (21,) that each is within a tenth of the box; probability
            that there is a hand; and that it is of the other side.
        """
        width, size = image.shape[1], self.card.input_size
        if is_left:
            image, box = np.ascontiguousarray(image[:, ::-1]), np.array([width - 1 - box[0], *box[1:]])
        window = np.asarray(box) * [1, 1, self.card.crop_scale]
        output = self.network(network_input([crop_image(image, window, size)], self.device))
        keypoints = output["keypoints_2d"][0].double().cpu().numpy()
        keypoints = transform_points(keypoints, invert_affine(crop_affine(window, size)))
        if is_left:
            keypoints[:, 0] = width - 1 - keypoints[:, 0]
        confidence = output["keypoint_confidence"][0].float().cpu().numpy()
        return keypoints, confidence, float(output["is_hand"][0]), float(output["is_left"][0])
