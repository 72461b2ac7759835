"""mediapipe's answers on real pictures, read twice in slightly moved windows, as ``world_agreement.py`` takes them.

``python benchmarks/studies/mediapipe_answers.py --output FILE.npz`` reads ``pictures/signs``, with ``--video`` every
fifth frame of ``video/hand.mp4``. A yardstick only: nothing is trained on it. Needs requirements-detect.txt.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks.world_agreement import DATA  # noqa: E402
from src.photos.detector.mediapipe_hands import find_hands  # noqa: E402
from utils.camera import invert_affine, transform_points  # noqa: E402

#: Scale, and shift in widths and heights of the picture, of each reading.
WINDOWS = ((1.0, 0.0, 0.0), (0.93, 0.03, -0.02))


def answers(images: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Keypoints (N,2,21,2) px and 3D points (N,2,21,3) m, NaN where no hand is found, is_left and score (N,2) of images
    (H,W,3) uint8 RGB."""
    keypoints, sides = np.full((len(images), 2, 21, 2), np.nan), np.zeros((len(images), 2), dtype=bool)
    scores, worlds = np.zeros((len(images), 2)), np.full((len(images), 2, 21, 3), np.nan)
    for row, image in enumerate(tqdm(images, unit="picture", disable=None)):
        height, width = image.shape[:2]
        for number, (scale, right, down) in enumerate(WINDOWS):
            centre = np.array([right * width + (1 - scale) * width / 2, down * height + (1 - scale) * height / 2])
            affine = np.column_stack([scale * np.eye(2), centre])
            moved = cv2.warpAffine(image, affine, (width, height), borderMode=cv2.BORDER_REPLICATE)
            back = invert_affine(affine)
            found = [(transform_points(hand.keypoints_2d, back), hand) for hand in find_hands(moved)]
            if number and np.isfinite(keypoints[row, 0]).all():  # of two hands, the one read before
                middle = keypoints[row, 0].mean(axis=0)
                found.sort(key=lambda one: float(np.linalg.norm(one[0].mean(axis=0) - middle)))  # noqa: B023
            if found:
                keypoints[row, number], best = found[0]
                sides[row, number], scores[row, number] = best.is_left, best.score
                worlds[row, number] = best.world
    return {"keypoints": keypoints, "is_left": sides, "score": scores, "world": worlds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--video", action="store_true")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with pictures/signs and video/hand.mp4")
    args = parser.parse_args()
    if args.video:
        capture, frames = cv2.VideoCapture(str(args.data / "video" / "hand.mp4")), []
        while (read := capture.read())[0]:
            frames.append(read[1])
        numbers = np.arange(0, len(frames), 5)
        images, names = [frames[number] for number in numbers], {"frames": numbers}
    else:
        paths = sorted((args.data / "pictures" / "signs").glob("*.jpg"))
        images, names = [cv2.imread(str(path)) for path in paths], {"names": np.array([path.name for path in paths])}
    if not images:
        parser.error(f"--data {args.data}: no pictures or frames there")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez(args.output, **names, **answers([np.ascontiguousarray(image[..., ::-1]) for image in images]))


if __name__ == "__main__":
    main()
