"""Where in a picture a hand is, found with the keypoint network alone: look everywhere, keep what it is surest of.

No detector is needed for pictures like those that the network was trained on. Its confidence in its own
keypoints falls off quickly when the window misses the hand or has the wrong size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from datasets.image_crop import crop_image
from src.engine.checkpoint import ModelCard, load_network
from src.engine.networks import for_inference
from src.photos.image import MIN_SIDE, UnusableImage
from utils.camera import square_box

#: Sides of the windows over the image's shorter side, and their step over their side.
WINDOW_SIDES = (1.0, 0.7, 0.5, 0.35, 0.25)
WINDOW_STEP = 0.3
#: `FoundHand.score` below which a search found no hand. On pictures of the validation subject
#: (`benchmarks.studies.hand_search`) 3% of the hands lie below; 16% of the pictures without one, mostly of the object
#: that it held, reach it.
MIN_SCORE = 0.5
#: Score of a hand found in large windows (of at least this side over the largest) from which no more are looked into.
SURE_SCORE, _LARGE = 0.7, 0.5
#: Windows that are moved to their own keypoints, and how often.
_CANDIDATES, _MOVES = 8, 3
#: Shifts and factors, in sides of the box, of the boxes that a found one is read again with: a hand is still
#: one when the window moves a little.
_JITTER = np.array([(0, 0, 1), (0, 0, 0.85), (0, 0, 1.2), (0.12, 0, 1), (-0.12, 0, 1), (0, 0.12, 1), (0, -0.12, 1)])
_SEARCH_SIDE = 640  # pixels of the shorter side beyond which a picture is searched at a reduced size
_BATCH = 64
_MOST_WINDOWS = 20_000  # pictures from cameras have some 300 to 800


@dataclass
class FoundHand:
    """One hand in an image.

    Attributes:
        box: (3,) centre x, centre y, side, pixels: the tight square box of the hand.
        keypoints: (21,2) pixels, standard order; confidence: (21,) in [0,1].
        score: mean confidence in this box and in boxes a little beside it; above `MIN_SCORE` there is a hand.
    """

    box: np.ndarray
    keypoints: np.ndarray
    confidence: np.ndarray
    score: float = 1.0


class WindowReader:
    """A keypoint network that looks into windows of pictures.

    Args:
        network, card: of `load_network`; it returns ``keypoints_2d`` and needs nothing but the image.
    """

    def __init__(self, network: nn.Module, card: ModelCard, device: torch.device | str = "cpu") -> None:
        self.network, self.card, self.device = for_inference(network), card, device

    @torch.inference_mode()
    def look(
        self, image: np.ndarray, boxes: np.ndarray, is_left: bool | np.ndarray
    ) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        """What it sees in tight squares of an image, all at once.

        Args:
            image: (H,W,3) uint8 RGB; boxes: (N,3) px of it; is_left: (N,) or one for all: mirror before, as the
                network knows right hands.

        Returns:
            keypoints (N,21,2), px of the image as it is, and the network's outputs.
        """
        is_left = np.full(len(boxes), is_left)
        width, size = image.shape[1], self.card.input_size
        windows = np.array(boxes, dtype=np.float64) * [1, 1, self.card.crop_scale]
        windows[is_left, 0] = width - 1 - windows[is_left, 0]
        sides = image, cv2.flip(image, 1) if is_left.any() else image
        crops = [crop_image(sides[int(left)], window, size) for left, window in zip(is_left, windows, strict=True)]
        output = self.network(network_input(crops, self.device))
        about_middle = output["keypoints_2d"].cpu().numpy().astype(np.float64) - (size - 1) / 2
        keypoints = windows[:, None, :2] + windows[:, None, 2:] / size * about_middle  # `crop_affine`, inverted
        keypoints[is_left, :, 0] = width - 1 - keypoints[is_left, :, 0]
        return keypoints, output


class KeypointReader(WindowReader):
    """The 2D keypoints of hands in boxes."""

    def read(
        self, image: np.ndarray, boxes: np.ndarray, is_left: bool | np.ndarray = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (N,21,2), pixels of the image, and confidences (N,21) for tight boxes (N,3); see `look`."""
        is_left, found = np.broadcast_to(is_left, len(boxes)), []
        for start in range(0, len(boxes), _BATCH):
            rows = slice(start, start + _BATCH)
            found.append(self.look(image, boxes[rows], is_left[rows]))
        confidence = [output["keypoint_confidence"].float().cpu().numpy() for _, output in found]
        return np.concatenate([points for points, _ in found]), np.concatenate(confidence)

    def follow(self, image: np.ndarray, box: np.ndarray, moves: int = 1) -> FoundHand:
        """Read the box (3,), move it to the keypoints found and read again, ``moves`` times; then score it."""
        return self.follow_all(image, box[None], moves)[0]

    def follow_all(self, image: np.ndarray, boxes: np.ndarray, moves: int) -> list[FoundHand]:
        """`follow` for boxes (N,3), all at once."""
        for _ in range(moves):
            boxes = np.stack([limited(square_box(one, 1.0), image) for one in self.read(image, boxes)[0]])
        beside = np.concatenate([boxes[:, None, :2] + _JITTER[:, :2] * boxes[:, None, 2:],
                                 _JITTER[:, 2:] * boxes[:, None, 2:]], axis=2)  # fmt: skip
        keypoints, confidence = (part.reshape(len(boxes), len(_JITTER), *part.shape[1:])
                                 for part in self.read(image, beside.reshape(-1, 3)))  # fmt: skip
        return [FoundHand(box, points[0], sure[0], float(sure.mean()))
                for box, points, sure in zip(boxes, keypoints, confidence, strict=True)]  # fmt: skip

    def search(self, image: np.ndarray) -> FoundHand:
        """The place in an image (H,W,3) that the network is surest of; its `score` says whether it is a hand."""
        height, width = image.shape[:2]
        step = max(1, round(min(width, height) / _SEARCH_SIDE))
        small = image if step == 1 else crop_blocks(image, step)
        windows = window_boxes(small.shape[1], small.shape[0])
        if len(windows) > _MOST_WINDOWS:
            raise UnusableImage(
                f"a picture of {width} x {height} pixels is too long and narrow to search ({len(windows)} places); say "
                "where the hand is with --bbox"
            )
        windows[:, 2] /= self.card.crop_scale
        # Large windows are few: the many small ones are looked into only where no large one surely holds a hand.
        split = int((windows[:, 2] >= windows[0, 2] * (_LARGE - 1e-9)).sum())
        keypoints, confidence, hand = np.zeros((0, 21, 2)), np.zeros((0, 21)), None
        for part in (windows[:split], windows[split:]):
            if len(part) == 0 or (hand is not None and hand.score >= SURE_SCORE):
                continue
            read = self.read(small, part)
            keypoints, confidence = np.concatenate([keypoints, read[0]]), np.concatenate([confidence, read[1]])
            best = np.argsort(-confidence.mean(axis=1), kind="stable")[:_CANDIDATES]
            starts = np.stack([limited(square_box(keypoints[row], 1.0), small) for row in best])
            hand = max(self.follow_all(small, starts, _MOVES), key=lambda one: one.score)
        if step == 1:
            return hand
        offset = np.array([(step - 1) / 2, (step - 1) / 2, 0])
        return self.follow(image, hand.box * step + offset, 1)


def several_looks(keypoints: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Keypoints (...,21,2) px of K looks at the same hands, (K,...,21,2) of confidence (K,...,21), by its square: where
    two windows err is not the same."""
    weight = confidence[..., None] ** 2
    return (weight * keypoints).sum(axis=0) / weight.sum(axis=0)


def network_input(crops: list[np.ndarray], device: torch.device | str) -> torch.Tensor:
    """Crops (S,S,3) uint8 as (N,3,S,S) float32 in [-1,1]."""
    batch = torch.as_tensor(np.stack(crops), device=device).permute(0, 3, 1, 2).float()  # channels stay last in memory
    return batch.div_(255).sub_(0.5).div_(0.5)


def window_boxes(width: int, height: int) -> np.ndarray:
    """Overlapping square windows (N,3) of all sizes down to `MIN_SIDE`: centre x, centre y, side, pixels."""
    boxes = []
    for fraction in WINDOW_SIDES:
        side = fraction * min(width, height)
        if boxes and side < MIN_SIDE:
            break
        columns, rows = (_centres(length, side) for length in (width, height))
        boxes.append(
            np.stack(
                [*(grid.ravel() for grid in np.meshgrid(columns, rows)), np.full(len(columns) * len(rows), side)],
                axis=1,
            )
        )
    return np.concatenate(boxes)


def _centres(length: int, side: float) -> np.ndarray:
    """Evenly from a third of a window inside one edge to the same at the other: hands may be cut off."""
    count = 1 + int(np.ceil(max(length - side * 2 / 3, 0) / (WINDOW_STEP * side)))
    return np.linspace(side / 3, length - 1 - side / 3, count) if count > 1 else np.array([(length - 1) / 2])


def crop_blocks(image: np.ndarray, step: int) -> np.ndarray:
    """The image averaged over blocks of ``step`` x ``step`` pixels; an incomplete last block is dropped."""
    height, width = (extent // step * step for extent in image.shape[:2])
    whole = image[:height, :width]  # of an integer factor OpenCV's area average is just the blocks' mean
    return cv2.resize(whole, (width // step, height // step), interpolation=cv2.INTER_AREA)


def limited(box: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The box with its centre inside the image and its side between 8 pixels and the image's longer side."""
    height, width = image.shape[:2]
    return np.array(
        [np.clip(box[0], 0, width - 1), np.clip(box[1], 0, height - 1), np.clip(box[2], 8, max(width, height))]
    )


def open_reader(path: str | Path, device: torch.device) -> KeypointReader | None:
    """The keypoint network of a file, if it is there."""
    return KeypointReader(*load_network(path, device)[:2], device) if Path(path).is_file() else None
