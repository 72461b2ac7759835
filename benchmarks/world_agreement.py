"""How far our own networks agree with mediapipe on real pictures: a yardstick, nothing is trained on it.

``python benchmarks/world_agreement.py --keypoints FILE --detector FILE --reference FILE.npz ...`` reads mediapipe's
answers from ``.npz`` files (``keypoints`` (N, 2, 21, 2) px of two slightly moved windows, ``is_left`` (N, 2), and
``names`` of pictures or ``frames`` of a video). Pictures count where its two readings agree.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.image_crop import crop_image  # noqa: E402
from src.engine.checkpoint import load_network  # noqa: E402
from src.models.hand_detector import decode  # noqa: E402
from src.photos.search import network_input  # noqa: E402
from utils.camera import crop_affine, invert_affine, square_box, transform_points  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WITHIN = 0.1  # of the side of the square around mediapipe's keypoints


@dataclass(frozen=True)
class Reference:
    """Pictures, and what mediapipe says of their one hand."""

    images: list[np.ndarray]  # (H, W, 3) uint8 RGB
    keypoints: np.ndarray  # (N, 21, 2) px
    agrees: np.ndarray  # (N, 21) bool: two readings lie within `WITHIN` of the box
    is_left: np.ndarray  # (N,) bool
    boxes: np.ndarray  # (N, 3) centre, side


def read_reference(path: str | Path, data: Path = DATA) -> Reference:
    """Pictures in which both readings found a hand of one side."""
    with np.load(path, allow_pickle=False) as archive:
        both, left = archive["keypoints"], archive["is_left"]
        names = archive["names"] if "names" in archive else None
        frames = archive["frames"] if "frames" in archive else None
    if names is not None:
        images = [cv2.imread(str(data / "pictures" / "signs" / name))[..., ::-1] for name in names]
    else:
        capture, wanted, images = cv2.VideoCapture(str(data / "video" / "hand.mp4")), set(frames.tolist()), []
        for number in range(int(frames.max()) + 1):
            image = capture.read()[1]
            if number in wanted:
                images.append(image[..., ::-1])
    kept = np.flatnonzero(np.isfinite(both).all(axis=(1, 2, 3)) & (left[:, 0] == left[:, 1]))
    boxes = np.stack([square_box(both[row, 0], 1.0) for row in kept])
    agrees = np.linalg.norm(both[kept, 0] - both[kept, 1], axis=-1) < WITHIN * boxes[:, 2:]
    return Reference([np.ascontiguousarray(images[row]) for row in kept], both[kept, 0], agrees, left[kept, 0], boxes)


@torch.no_grad()
def read_keypoints(network: torch.nn.Module, card: object, images: list, boxes: np.ndarray, left: np.ndarray) -> tuple:
    """Keypoints (N, 21, 2) px, confidence (N, 21) and probability of a left hand (N,) in boxes (N, 3); as is_left says,
    pictures are mirrored before."""
    points, confidence, is_left = [], [], []
    for image, box, mirror in zip(images, boxes, left, strict=True):
        width = image.shape[1]
        if mirror:
            image, box = np.ascontiguousarray(image[:, ::-1]), np.array([width - 1 - box[0], *box[1:]])
        window = box * [1, 1, card.crop_scale]
        output = network(network_input([crop_image(image, window, card.input_size)], "cpu"))
        found = transform_points(
            output["keypoints_2d"][0].double().numpy(), invert_affine(crop_affine(window, card.input_size))
        )
        if mirror:
            found[:, 0] = width - 1 - found[:, 0]
        points.append(found)
        confidence.append(output["keypoint_confidence"][0].numpy())
        seen = float(output["is_left"][0]) if "is_left" in output else 0.0
        is_left.append(1 - seen if mirror else seen)
    return np.stack(points), np.stack(confidence), np.array(is_left)


def agreement(found: np.ndarray, reference: Reference) -> float:
    """Share of keypoints, where mediapipe agrees with itself, within `WITHIN` of the box."""
    near = np.linalg.norm(found - reference.keypoints, axis=-1) < WITHIN * reference.boxes[:, 2:]
    return float(near[reference.agrees].mean())


@torch.no_grad()
def detect(detector: torch.nn.Module, size: int, image: np.ndarray, threshold: float | None = None) -> list[tuple]:
    """Hands of a picture, surest first: box (3,) px, is_left, score."""
    height, width = image.shape[:2]
    whole = np.array([(width - 1) / 2, (height - 1) / 2, max(width, height)])
    hands = decode(detector(network_input([crop_image(image, whole, size)], "cpu")), detector, threshold)[0]
    back = invert_affine(crop_affine(whole, size))
    corners = hands["boxes"].double().numpy().reshape(-1, 2, 2)
    corners = transform_points(corners, np.broadcast_to(back, (len(corners), 2, 3))) if len(corners) else corners
    boxes = [np.array([*box.mean(axis=0), (box[1] - box[0]).max()]) for box in corners]
    return list(zip(boxes, hands["is_left"].tolist(), hands["scores"].tolist(), strict=True))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two squares (3,)."""
    low, high = (
        np.maximum(one[:2] - one[2] / 2, other[:2] - other[2] / 2),
        np.minimum(one[:2] + one[2] / 2, other[:2] + other[2] / 2),
    )
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / (one[2] ** 2 + other[2] ** 2 - shared)


def measure(reference: Reference, keypoints: tuple | None, detector: tuple | None) -> dict[str, float]:
    """All numbers of one set; keypoints and detector are (network, card)."""
    result: dict[str, float] = {"hands": len(reference.images)}
    if keypoints is not None:
        found, confidence, left = read_keypoints(*keypoints, reference.images, reference.boxes, reference.is_left)
        near = np.linalg.norm(found - reference.keypoints, axis=-1) < WITHIN * reference.boxes[:, 2:]
        result["at_reference_box"] = agreement(found, reference)
        error = np.linalg.norm(found - reference.keypoints, axis=-1) / reference.boxes[:, 2:]
        result["median_error"] = float(np.median(error[reference.agrees]))
        result["side_right_keypoints"] = float(((left > 0.5) == reference.is_left).mean())
        said = (confidence > 0.7) & (confidence < 0.8) & reference.agrees
        result["near_where_0.7_to_0.8"] = float(near[said].mean()) if said.any() else float("nan")
        result["mean_confidence"] = float(confidence.mean())
    if detector is not None:
        network, card = detector
        hands = [detect(network, card.input_size, image) for image in reference.images]
        first = [
            next((h for h in one if overlap(h[0], box) > 0.3), None)
            for one, box in zip(hands, reference.boxes, strict=True)
        ]
        seen = np.array([one is not None for one in first])
        result["found"] = float(seen.mean())
        sides = [one[1] == left for one, left in zip(first, reference.is_left, strict=True) if one is not None]
        result["side_right"] = float(np.mean(sides)) if sides else float("nan")
        overlaps = [overlap(one[0], box) for one, box in zip(first, reference.boxes, strict=True) if one is not None]
        result["median_overlap"] = float(np.median(overlaps)) if overlaps else float("nan")
        if keypoints is not None and seen.any():
            rows = np.flatnonzero(seen)
            boxes, left = np.stack([first[r][0] for r in rows]), np.array([first[r][1] for r in rows])
            found = np.full_like(reference.keypoints, np.inf)
            found[rows] = read_keypoints(*keypoints, [reference.images[r] for r in rows], boxes, left)[0]
            result["agreement_0.1"] = agreement(
                found[rows],
                Reference([], reference.keypoints[rows], reference.agrees[rows], left, reference.boxes[rows]),
            )
            result["agreement_0.1_of_all"] = agreement(found, reference)
    return result


def main() -> None:
    """Parse, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keypoints", help="weights of the keypoint network")
    parser.add_argument("--detector", help="weights of the detector")
    parser.add_argument("--reference", nargs="+", required=True, help="mediapipe's answers (.npz)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with pictures/signs and video/hand.mp4")
    args = parser.parse_args()
    keypoints, detector = (load_network(path)[:2] if path else None for path in (args.keypoints, args.detector))
    results = {
        Path(path).stem: measure(read_reference(path, args.data), keypoints, detector) for path in args.reference
    }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
