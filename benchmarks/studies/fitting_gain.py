"""Why fitting gains what it gains: where the network errs, how good the keypoints are and would have to be.

``python benchmarks/studies/fitting_gain.py --predictions IDENTITY.npz --keypoints POSE_2D.npz --data_root DIR
--prior P`` on predictions made with the true shape (``--shape gt``), so that pose is all there is to mend. Keypoints
of any quality are simulated from the predicted ones by scaling their true errors, which keeps the errors' pattern.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402
import roma  # noqa: E402
import torch  # noqa: E402

from datasets import build_dataset  # noqa: E402
from src.evaluation.alignment import procrustes_align  # noqa: E402
from src.personalization.calibration.population import load_population, with_population  # noqa: E402
from src.personalization.fitting.batch import fit_predictions  # noqa: E402
from src.personalization.fitting.fit import FitOptions, PosePriorOptions  # noqa: E402
from src.personalization.pairing import annotations_of, pair_keypoints  # noqa: E402
from template import HandAssets, HandModel, load_hand_assets  # noqa: E402
from utils.artifacts import Predictions, load_predictions  # noqa: E402
from utils.camera import project_numpy  # noqa: E402

SCALES = (1.0, 0.85, 0.7, 0.5, 0.25, 0.0)


@dataclass
class Case:
    """Predictions with keypoints, and the truth of the same images."""

    predictions: Predictions
    joints: np.ndarray  # (N,21,3) m
    keypoints: np.ndarray  # (N,21,2) px, true
    betas: np.ndarray  # (N,10)
    assets: HandAssets

    def joints_of(self, predictions: Predictions) -> np.ndarray:
        """(N,21,3) m, of pose, betas and translation (none: the wrist where it truly is)."""
        with torch.no_grad():
            shift = None if predictions.transl is None else torch.as_tensor(predictions.transl)
            hand = HandModel(self.assets)
            points = hand.joints(torch.as_tensor(predictions.pose), torch.as_tensor(self.betas), shift)
        points = points.numpy().astype(np.float64)
        return points if shift is not None else points - points[:, :1] + self.joints[:, :1]

    def fit(self, keypoints: np.ndarray, options: FitOptions) -> np.ndarray:
        """Fitted joints (N,21,3), m."""
        rows = replace(self.predictions, keypoints_2d=keypoints.astype(np.float32))
        return self.joints_of(fit_predictions(rows, self.betas, self.assets, options=options).predictions)


def read_case(args: argparse.Namespace) -> Case:
    """Everything from the command line's files."""
    assets = load_hand_assets(args.mano_dir, side="right")
    predictions = load_predictions(args.predictions)
    predictions.check_hand(assets)
    predictions = pair_keypoints(predictions, load_predictions(args.keypoints))
    dataset = build_dataset(
        args.dataset, args.data_root, args.split or predictions.split, side="both", cache=args.cache,
        mano_dir=args.mano_dir, allow_missing_subjects=True,
    )  # fmt: skip
    truth = annotations_of(dataset, predictions)
    joints = truth["joints"].astype(np.float64)
    true_keypoints = project_numpy(joints, predictions.K.astype(np.float64))
    return Case(predictions, joints, true_keypoints, truth["betas"], assets)


def errors_of(points: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Root-relative errors, mm: whole; along and across the line of sight; turned best about the wrist; PA."""
    error = 1000 * ((points - points[:, :1]) - (truth - truth[:, :1]))
    ray = truth / np.linalg.norm(truth, axis=-1, keepdims=True)
    along = (error * ray).sum(-1)
    across = np.linalg.norm(error - along[..., None] * ray, axis=-1)
    a, b = points - points[:, :1], truth - truth[:, :1]
    turn = roma.special_procrustes(torch.as_tensor(np.einsum("nja,njb->nab", a, b))).numpy()
    turned = 1000 * np.linalg.norm(a @ turn - b, axis=-1)
    aligned = 1000 * np.linalg.norm(procrustes_align(points, truth) - truth, axis=-1)
    return {
        "mpjpe_mm": float(np.linalg.norm(error, axis=-1).mean()),
        "along_ray_mm": float(np.abs(along).mean()),
        "across_ray_mm": float(across.mean()),
        "turned_about_wrist_mm": float(turned.mean()),
        "pa_mpjpe_mm": float(aligned.mean()),
    }


def pixel_error(keypoints: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean 2D error: px of the image; percent of the hand's box; the same with the common shift removed."""
    box = (truth.max(1) - truth.min(1)).max(-1)[:, None]
    error = keypoints - truth
    centred = error - error.mean(1, keepdims=True)
    length, rest = np.linalg.norm(error, axis=-1), np.linalg.norm(centred, axis=-1)
    return {
        "px": float(length.mean()),
        "box_percent": float(100 * (length / box).mean()),
        "centred_box_percent": float(100 * (rest / box).mean()),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The printed object."""
    case = read_case(args)
    options = FitOptions()
    if args.prior:
        options = with_population(options, load_population(args.prior, case.assets.hash))
    found = case.predictions.keypoints_2d.astype(np.float64)
    rigid = replace(options, prior=PosePriorOptions(1e-4, 1e-4))
    reprojected = project_numpy(case.fit(case.keypoints, rigid), case.predictions.K.astype(np.float64))
    network = errors_of(case.joints_of(case.predictions), case.joints)
    rows = []
    for scale in SCALES:
        noise = replace(options.noise, std_box=options.noise.std_box * max(scale, 0.1))
        keypoints = case.keypoints + scale * (found - case.keypoints)
        fitted = errors_of(case.fit(keypoints, replace(options, noise=noise)), case.joints)
        gain = 100 * (1 - fitted["mpjpe_mm"] / network["mpjpe_mm"])
        rows.append({"keypoint_error_times": scale, "gain_percent": gain, **fitted})
    return {
        "n_images": len(found),
        "network": network,
        "keypoints": pixel_error(found, case.keypoints),
        "network_reprojected_at_best": pixel_error(reprojected, case.keypoints),
        "fitted": rows,
    }


def show(report: dict[str, Any]) -> str:
    lines = [f"{report['n_images']} images"]
    for name in ("network", "keypoints", "network_reprojected_at_best"):
        lines.append(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in report[name].items()))
    lines.append("keypoint errors times   MPJPE   gain %   PA-MPJPE")
    for row in report["fitted"]:
        lines.append(
            f"{row['keypoint_error_times']:>20}{row['mpjpe_mm']:>8.2f}{row['gain_percent']:>9.1f}{row['pa_mpjpe_mm']:>11.2f}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="What limits the gain of fitting.")
    parser.add_argument("--predictions", required=True, help="npz of mano_identity with --shape gt")
    parser.add_argument("--keypoints", required=True, help="npz of pose_2d on the same split")
    parser.add_argument("--data_root", required=True)
    parser.add_argument("--dataset", default="dex_ycb")
    parser.add_argument("--split")
    parser.add_argument("--cache")
    parser.add_argument("--prior", help="population file")
    parser.add_argument("--mano_dir")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    report = measure(args)
    print(json.dumps(report, indent=1) if args.json else show(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
