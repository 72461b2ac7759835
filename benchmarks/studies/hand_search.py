"""How well `src.photos.detector.search` tells pictures with a hand from pictures without.

``python -m benchmarks.studies.hand_search --data_root data/training_dex_ycb``: pictures of the validation subject,
whole, and the part of each that lies beyond the hand, on the side away from the arm.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch

from datasets import build_dataset
from src.photos.detector.search import MIN_SCORE, KeypointReader, open_reader
from utils.camera import square_box, transform_points

_MARGIN, _LEAST_WIDTH = 15, 200  # pixels


def measure(reader: KeypointReader, dataset: object, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Search ``count`` pictures.

    Returns:
        ``with_hand`` (count,) scores, ``without`` (n,) scores, ``error`` (count,) mean distance of the keypoints found
        from the true ones over the side of the hand's box.
    """
    scores, without, errors = [], [], []
    for index in np.random.default_rng(seed).choice(len(dataset), count, replace=False):
        sample, image = dataset[int(index)], dataset.full_image(int(index))
        true = transform_points(sample["keypoints_2d"].astype(float), sample["crop_to_image"].astype(float))
        found = reader.search(image)
        scores.append(found.score)
        errors.append(np.linalg.norm(found.keypoints - true, axis=1).mean() / square_box(true, 1.0)[2])
        beyond = true[:, 0].mean() > true[0, 0]
        left = int(true[:, 0].max()) + _MARGIN if beyond else 0
        right = image.shape[1] if beyond else int(true[:, 0].min()) - _MARGIN
        if right - left >= _LEAST_WIDTH:
            without.append(reader.search(np.ascontiguousarray(image[:, left:right])).score)
    return {"with_hand": np.array(scores), "without": np.array(without), "error": np.array(errors)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the search for hands on the validation subject.")
    parser.add_argument("--data_root", default="data/training_dex_ycb")
    parser.add_argument("--split", default="s1_val")
    parser.add_argument("--weights", default="weights/pose_2d.safetensors")
    parser.add_argument("--count", type=int, default=60)
    args = parser.parse_args()
    reader = open_reader(args.weights, torch.device("cpu"))
    dataset = build_dataset("dex_ycb", args.data_root, args.split, allow_missing_subjects=True)
    found = measure(reader, dataset, args.count)
    hand, none = found["with_hand"], found["without"]
    print(
        f"{len(hand)} pictures with a hand: lowest scores {np.sort(hand)[:4].round(2)}, "
        f"{int((hand < MIN_SCORE).sum())} below {MIN_SCORE}"
    )
    print(
        f"{len(none)} pictures without: highest scores {np.sort(none)[-4:].round(2)}, "
        f"{int((none >= MIN_SCORE).sum())} not below"
    )
    for threshold in np.arange(0.30, 0.66, 0.04):
        print(
            f"score {threshold:.2f}: {(hand < threshold).mean():4.0%} of the hands missed, "
            f"{(none >= threshold).mean():4.0%} of the pictures without taken for one"
        )
    print(f"keypoints off by more than a fifth of the hand: {int((found['error'] > 0.2).sum())} of {len(hand)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
