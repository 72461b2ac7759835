"""How far our own networks agree with mediapipe on real pictures: a yardstick, nothing is trained on it.

``python benchmarks/world_agreement.py --keypoints FILE --detector FILE --reference FILE.npz ...`` reads mediapipe's
answers from ``.npz`` files (``keypoints`` (N, 2, 21, 2) px of two slightly moved windows, ``is_left`` (N, 2), and
``names`` of pictures or ``frames`` of a video). Pictures count where its two readings agree. With its 3D points
(``world``) hands of its side are compared in space too: ``plain`` is our hand fitted to the keypoints alone, ``depth``
with the network's depths, beside the hand fitted to mediapipe's points (`scenes.labelled_hands`).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scenes.labelled_hands import in_metres, joints_of, measure_labelled  # noqa: E402
from options.image_options import DETECTOR  # noqa: E402
from src.engine.checkpoint import load_network  # noqa: E402
from src.personalization.calibration.population import shapes_of  # noqa: E402
from src.personalization.fitting.fit import PosePriorOptions  # noqa: E402
from src.personalization.fitting.from_keypoints import KeypointFitOptions  # noqa: E402
from src.personalization.landmarks.model import find_landmarks  # noqa: E402
from src.photos.camera import choose_camera  # noqa: E402
from src.photos.detector.detection import Detection, mirrored  # noqa: E402
from src.photos.detector.own_hands import DEPTH_STD, POSE_STD, OwnHands, RatedReader  # noqa: E402
from src.photos.detector.refusal import MIN_SIDE_OF_OWN  # noqa: E402
from src.photos.hands import PhotoHand, keypoint_hands  # noqa: E402
from src.photos.image import Photo  # noqa: E402
from template import load_hand_assets  # noqa: E402
from template.kinematics import joints_model  # noqa: E402
from utils.camera import mirror_intrinsics, square_box  # noqa: E402

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
    world: np.ndarray | None  # (N, 21, 3) m, mediapipe's 3D points
    numbers: np.ndarray  # (N,) of all pictures, whether mediapipe agrees with itself on those before or not


def read_reference(path: str | Path, data: Path = DATA) -> Reference:
    """Pictures in which both readings found a hand of one side."""
    with np.load(path, allow_pickle=False) as archive:
        both, left = archive["keypoints"], archive["is_left"]
        names = archive["names"] if "names" in archive else None
        frames = archive["frames"] if "frames" in archive else None
        world = archive["world"][:, 0] if "world" in archive else None
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
    world = None if world is None else world[kept]
    images = [np.ascontiguousarray(images[row]) for row in kept]
    return Reference(images, both[kept, 0], agrees, left[kept, 0], boxes, world, kept)


def part(reference: Reference, args: argparse.Namespace) -> Reference:
    """Without the pictures that thresholds were chosen on, every second one mirrored, as asked for."""
    first, step = args.part or (-1, 1)
    rows = np.flatnonzero(reference.numbers % step != first)
    numbers = reference.numbers[rows]
    images = [reference.images[row] for row in rows]
    keypoints, left = reference.keypoints[rows], reference.is_left[rows]
    world = None if reference.world is None else reference.world[rows]
    for row in np.flatnonzero(numbers // step % 2) if args.mirror else ():
        images[row] = np.ascontiguousarray(images[row][:, ::-1])
        keypoints[row, :, 0] = images[row].shape[1] - 1 - keypoints[row, :, 0]
        left[row] = not left[row]
        if world is not None:
            world[row, :, 0] *= -1
    boxes = np.stack([square_box(points, 1.0) for points in keypoints])
    return Reference(images, keypoints, reference.agrees[rows], left, boxes, world, numbers)


def agreement(found: np.ndarray, reference: Reference) -> float:
    """Share of keypoints, where mediapipe agrees with itself, within `WITHIN` of the box."""
    near = np.linalg.norm(found - reference.keypoints, axis=-1) < WITHIN * reference.boxes[:, 2:]
    return float(near[reference.agrees].mean())


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two squares (3,)."""
    low, high = (
        np.maximum(one[:2] - one[2] / 2, other[:2] - other[2] / 2),
        np.minimum(one[:2] + one[2] / 2, other[:2] + other[2] / 2),
    )
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / (one[2] ** 2 + other[2] ** 2 - shared)


def measure(reference: Reference, reader: RatedReader | None, hands: OwnHands | None) -> dict[str, Any]:
    """All numbers of one set: keypoints in mediapipe's boxes, and the whole route with the detector."""
    result: dict[str, Any] = {"hands": len(reference.images)}
    if reader is not None:
        rows = zip(reference.images, reference.boxes, reference.is_left, strict=True)
        read = [reader.read(image, box[None], bool(is_left)) for image, box, is_left in rows]
        found, confidence, other = (
            np.concatenate([getattr(one, name) for one in read]) for name in ("keypoints", "confidence", "is_left")
        )
        error = np.linalg.norm(found - reference.keypoints, axis=-1) / reference.boxes[:, 2:]
        said = (confidence > 0.7) & (confidence < 0.8) & reference.agrees
        result |= {
            "at_reference_box": agreement(found, reference),
            "median_error": float(np.median(error[reference.agrees])),
            "side_right_keypoints": float((other < 0.5).mean()),
            "near_where_0.7_to_0.8": float((error[said] < WITHIN).mean()) if said.any() else None,
            "mean_confidence": float(confidence.mean()),
        }
    if hands is not None:
        first = [
            next((hand for hand in hands(image) if overlap(square_box(hand.keypoints_2d, 1.0), box) > 0.3), None)
            for image, box in zip(reference.images, reference.boxes, strict=True)
        ]
        seen = np.flatnonzero([hand is not None for hand in first])
        sure = [row for row in seen if first[row].side_score >= MIN_SIDE_OF_OWN]
        found, confidence = np.full_like(reference.keypoints, np.inf), np.zeros(reference.agrees.shape)
        for row in seen:
            found[row], confidence[row] = first[row].keypoints_2d, first[row].keypoint_confidence
        near = np.linalg.norm(found - reference.keypoints, axis=-1) < WITHIN * reference.boxes[:, 2:]
        said = (confidence > 0.7) & (confidence < 0.8) & reference.agrees
        result |= {
            "found": len(seen) / len(first),
            "side_right": float(np.mean([first[row].is_left == reference.is_left[row] for row in seen])),
            "sure_of_side": len(sure) / len(first),
            "side_right_where_sure": float(np.mean([first[row].is_left == reference.is_left[row] for row in sure])),
            "agreement_0.1": float(near[seen][reference.agrees[seen]].mean()),
            "agreement_0.1_of_all": float(near[reference.agrees].mean()),
            "agreement_where_0.7_to_0.8": float(near[said].mean()) if said.any() else None,
        }
        if reference.world is not None:
            same = [row for row in seen if first[row].is_left == reference.is_left[row]]
            result |= in_space(reference, same, [first[row] for row in same])
    return result


def in_space(reference: Reference, rows: list[int], ours: list[Detection]) -> dict[str, dict[str, float]]:
    """Our hands of some rows beside mediapipe's, each fitted as pictures are that say nothing of their lens."""
    theirs = [Detection(reference.keypoints[row], np.ones(21), bool(reference.is_left[row]), 1.0) for row in rows]
    theirs = [replace(hand, world=reference.world[row]) for hand, row in zip(theirs, rows, strict=True)]
    assets = load_hand_assets()
    people = shapes_of(assets)
    marks, model = find_landmarks(DETECTOR, assets), joints_model(assets, None)
    plain = KeypointFitOptions(people=people)

    def joints(hands: list[Detection], options: KeypointFitOptions) -> np.ndarray:
        photos = []
        for row, hand in zip(rows, hands, strict=True):
            width = reference.images[row].shape[1]
            camera = choose_camera(Photo("", None, reference.images[row]))
            K = mirror_intrinsics(camera.K, width) if hand.is_left else camera.K
            photos.append(PhotoHand("", row, mirrored(hand, width) if hand.is_left else hand, K, hand.is_left, camera))
        return joints_of(keypoint_hands(photos).fit(assets, options), model)

    wanted = joints(theirs, KeypointFitOptions.of_source(marks, people=people))
    without = [replace(hand, world=None) for hand in ours]
    found = {"plain": joints(without, plain)}
    if all(hand.world is not None for hand in ours):
        found["depth"] = joints(ours, replace(plain, world_std=DEPTH_STD))
    if all(hand.pose is not None for hand in ours):
        believed = {"world_std": DEPTH_STD, "prediction": PosePriorOptions(*POSE_STD)}
        found["pose"] = joints(ours, replace(plain, **believed))
    raw = np.stack([(mirrored(hand, 1) if hand.is_left else hand).world for hand in theirs])
    told = {name: in_metres(one, wanted) for name, one in found.items()}
    return told | {f"{name}_beside_its_3d_points": in_metres(one, raw) for name, one in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keypoints", help="weights of the keypoint network")
    parser.add_argument("--detector", help="weights of the detector")
    parser.add_argument("--reference", nargs="*", default=[], help="mediapipe's answers (.npz)")
    parser.add_argument("--labelled", type=Path, help="a set in FreiHAND's layout: the shipped networks at its hands")
    parser.add_argument("--without", type=Path, help="folder of pictures without a hand: in how many is one found")
    parser.add_argument("--part", type=int, nargs=2, metavar=("K", "N"), help="leave out pictures K, K + N, ...")
    parser.add_argument("--mirror", action="store_true", help="mirror every second picture: as many left hands")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with pictures/signs and video/hand.mp4")
    args = parser.parse_args()
    if (args.detector or args.without) and not (args.detector and args.keypoints):
        parser.error("--detector and --without need both --keypoints and --detector")
    if not (args.reference or args.labelled or args.without):
        parser.error("nothing to measure: give --reference, --labelled or --without")
    reader = RatedReader(*load_network(args.keypoints)[:2]) if args.keypoints else None
    hands = OwnHands(args.detector, args.keypoints) if args.detector and args.keypoints else None
    sets = {Path(path).stem: part(read_reference(path, args.data), args) for path in args.reference}
    results = {name: measure(reference, reader, hands) for name, reference in sets.items()}
    if hands is not None and args.without:
        empty = [cv2.imread(str(path))[..., ::-1] for path in sorted(args.without.iterdir())]
        alarms = [bool(hands(np.ascontiguousarray(image))) for image in empty]
        results["without"] = {"pictures": len(empty), "false_alarms": float(np.mean(alarms))}
    if args.labelled:
        results["labelled"] = measure_labelled(args.labelled)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
