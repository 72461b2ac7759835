"""Own photos without a network of ours, on synthetic pictures of known hands: what mediapipe finds and gives.

``python benchmarks/own_photos.py --data_root DIR`` (DexYCB layout; ``pip install -r requirements-detect.txt``) prints,
over ``--images`` pictures of each subject, how many hands are found, on which side, how far the keypoints are off, how
far the hand fitted to one picture is off (shape unknown, and known), and how far the shape is off after joint
calibration from all of them, without a cue and with a ruler. ``--json`` prints one object.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from datasets import build_dataset  # noqa: E402
from options.calibrate import get_args_parser as calibration_parser  # noqa: E402
from src.evaluation.shape import zero_pose_mpvpe  # noqa: E402
from src.personalization.calibration.from_keypoints import fit_options  # noqa: E402
from src.personalization.calibration.identity import calibrate_predictions  # noqa: E402
from src.personalization.fitting.from_keypoints import KeypointFit  # noqa: E402
from src.personalization.terms.hand_size import lengths_mm  # noqa: E402
from src.photos.calibrate import photo_options  # noqa: E402
from src.photos.camera import Camera  # noqa: E402
from src.photos.detector.detection import Detection  # noqa: E402
from src.photos.detector.mediapipe_hands import find_hands  # noqa: E402
from src.photos.hands import PhotoHand, keypoint_hands  # noqa: E402
from template import HandAssets, HandModel, load_hand_assets  # noqa: E402
from utils.camera import project_numpy  # noqa: E402

#: A detection whose keypoints are further from the hand's than this part of its box is of something else.
ELSEWHERE = 0.3
RULER_MM = 3.0


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="mediapipe on synthetic pictures, and the fits that follow.")
    parser.add_argument("--data_root", default="data/unseen_dex_ycb")
    parser.add_argument("--split", default="s1_test")
    parser.add_argument("--subjects", type=int, nargs="+", help="official numbers (default: all of the split)")
    parser.add_argument("--images", type=int, default=20, help="pictures of each subject")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keypoint_std", type=float, help="px, instead of the detector's default")
    return parser


def main() -> int:
    args = get_args_parser().parse_args()
    logging.basicConfig(level=logging.ERROR)
    assets = load_hand_assets()
    dataset = build_dataset("dex_ycb", args.data_root, args.split, side="both", allow_missing_subjects=True)
    generator = np.random.default_rng(args.seed)
    totals: dict[str, list[float]] = {}
    for subject in args.subjects or sorted(set(dataset.columns["subject_id"].tolist())):
        rows = np.flatnonzero((dataset.columns["subject_id"] == subject) & dataset.columns["valid"])
        rows = np.sort(generator.permutation(rows)[: args.images])
        for name, values in measure(dataset, rows, subject, assets, args.keypoint_std, generator).items():
            totals.setdefault(name, []).extend(values)
    result = summarise(totals)
    print(json.dumps(result, indent=None if args.json else 2))
    return 0


def measure(
    dataset: Any, rows: np.ndarray, subject: int, assets: HandAssets, std: float | None, generator: np.random.Generator
) -> dict[str, list[float]]:
    """Everything about the pictures ``rows`` of one subject, by name of the measure."""
    columns, found, hands, chosen = dataset.columns, {}, [], []
    for row in rows:
        hand = matching(dataset, int(row))
        found.setdefault("found", []).append(float(hand is not None))
        if hand is None:
            continue
        truth, left = true_keypoints(dataset, int(row)), bool(columns["is_left"][row])
        pixels = np.linalg.norm(hand.keypoints_2d - truth, axis=1)
        size = float((truth.max(axis=0) - truth.min(axis=0)).max())
        found.setdefault("right_side", []).append(float(hand.is_left == left))
        found.setdefault("keypoint_px", []).append(float(np.median(pixels)))
        found.setdefault("keypoint_over_box", []).append(float(np.median(pixels) / size))
        K = columns["K_image"][row].astype(np.float64)
        hands.append(PhotoHand(str(row), int(row), hand, K, left, Camera(K, "data set")))
        chosen.append(int(row))
    betas = columns["betas"][rows[0]].astype(np.float64)
    given = calibration_parser().parse_args(["--images", "x", "--output", "x"])
    given.keypoint_std = std
    # The points are the detector's: its landmark model holds for one hand alone as for all of them together.
    options = fit_options(photo_options(given, assets, torch.device("cpu")))
    for name, known in (("unknown", None), ("known", betas)):
        fit = keypoint_hands(hands).fit(assets, options, known)
        found[f"mpjpe_mm_shape_{name}"] = root_relative(fit, columns["joints"][chosen], assets).tolist()
        if known is None:
            alone = fit
    predictions = keypoint_hands(hands).explained(alone, assets, options, subject)
    layer, length = HandModel(assets, dtype=torch.float64), lengths_mm(assets, betas, None, ("hand",))["hand"][0]
    measured = length + RULER_MM * generator.normal()
    for name, ruler in (("joint", None), ("joint_ruler", measured)):
        given.hand_length_mm, given.hand_length_std_mm = ruler, RULER_MM
        believed = replace(photo_options(given, assets, torch.device("cpu")), accept_conflict=True)
        identity = calibrate_predictions(predictions, assets, believed, num_images=len(predictions))[subject]
        found[f"zero_pose_mpvpe_mm_{name}"] = zero_pose_mpvpe(layer, identity.betas[None], betas[None]).tolist()
        found[f"hand_length_error_mm_{name}"] = [identity.hand_length_mm - length]
        found[f"hand_length_z_{name}"] = [(identity.hand_length_mm - length) / identity.hand_length_std_mm]
        spread = np.sqrt(np.diag(identity.covariance))
        found[f"betas_z_{name}"] = ((identity.betas - betas) / spread).tolist()
    found["zero_pose_mpvpe_mm_mean_shape"] = zero_pose_mpvpe(layer, np.zeros((1, 10)), betas[None]).tolist()
    return found


def true_keypoints(dataset: Any, row: int) -> np.ndarray:
    """(21,2) px of `full_image`."""
    return project_numpy(dataset.columns["joints"][row].astype(np.float64), dataset.columns["K_image"][row])


def matching(dataset: Any, row: int) -> Detection | None:
    """The detection of the picture's hand (left hands mirrored by the data set), with its side in the picture."""
    left = bool(dataset.columns["is_left"][row])
    image, truth = dataset.full_image(row), true_keypoints(dataset, row)
    hands = find_hands(np.ascontiguousarray(image))
    size = float((truth.max(axis=0) - truth.min(axis=0)).max())
    near = [(float(np.linalg.norm(hand.keypoints_2d - truth, axis=1).mean()), hand) for hand in hands]
    near = [pair for pair in near if pair[0] < ELSEWHERE * size]
    if not near:
        return None
    best = min(near, key=lambda pair: pair[0])[1]
    return Detection(best.keypoints_2d, best.keypoint_confidence, best.is_left != left, best.score, best.world)


def root_relative(fit: KeypointFit, joints: np.ndarray, assets: HandAssets) -> np.ndarray:
    """Mean joint error (N,), mm, wrist on wrist."""
    found = HandModel(assets, dtype=torch.float64).joints(fit.pose, fit.betas, fit.transl).numpy()
    off = (found - found[:, :1]) - (joints - joints[:, :1])
    return 1000 * np.linalg.norm(off, axis=-1).mean(axis=1)


def summarise(totals: dict[str, list[float]]) -> dict[str, Any]:
    """Means (medians of pixels), and how often a truth lies within 1 and 1.96 standard deviations."""
    result: dict[str, Any] = {"images": len(totals["found"])}
    for name, values in totals.items():
        array = np.asarray(values)
        if "_z_" in name:
            result[name] = {"68": float((np.abs(array) < 1).mean()), "95": float((np.abs(array) < 1.96).mean())}
        elif "length_error" in name:
            result[name] = {"mean": float(array.mean()), "rms": float(np.sqrt((array**2).mean()))}
        elif name == "found" or name == "right_side":
            result[name] = int(array.sum())
        else:
            result[name] = round(float(np.median(array) if "keypoint" in name else array.mean()), 4)
    return result


if __name__ == "__main__":
    sys.exit(main())
