"""Calibration: zero-pose MPVPE by method and number of images, coverage of the intervals, the bound.

``python benchmarks/calibration.py`` simulates people (no image, no network); with ``--predictions``,
``--keypoints`` and ``--data_root`` it uses real predictions of the networks instead, several draws of
images for each subject. ``--json`` prints one object, ``--plot FILE`` draws error against images.

The simulated network is off by 0.25 rad in every rotation (each axis), its keypoints by 2 px; depths are
0.85 +- 0.07 m, betas unit normal, and the calibration is told so. Its predicted betas see half of a
person's deviation from the mean, with an error of 0.6 common to all images of the person and one of
0.6 +- 0.3 of each image, which its confidence partly knows.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.scenes.calibration_cases import Scores, real_scores, simulated_scores  # noqa: E402
from template import load_hand_assets  # noqa: E402
from utils.files import atomic_path  # noqa: E402

COUNTS = (1, 2, 3, 5, 10, 20, 50, 100, 200)


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Calibration error against images, coverage, bound.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--plot", help="PNG or SVG: error against number of images, with spread")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="numbers of images")
    parser.add_argument("--persons", type=int, default=100, help="simulated people up to 20 images (fewer beyond)")
    parser.add_argument("--draws", type=int, default=10, help="draws of images for each subject, real predictions")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--mano_dir")
    real = parser.add_argument_group("real predictions")
    real.add_argument("--predictions", help="npz of mano_baseline_conf on the test split")
    real.add_argument("--keypoints", help="npz of pose_2d on the test split")
    real.add_argument("--data_root")
    real.add_argument("--dataset", default="dex_ycb")
    real.add_argument("--prior", help="population file, see measure_population.py")
    return parser


def summarise(scores: Scores) -> dict[str, Any]:
    """The printed object."""
    errors: dict[str, dict[str, float]] = {}
    spread: dict[str, dict[str, float]] = {}
    for (method, count), values in scores.errors.items():
        errors.setdefault(method, {})[str(count)] = float(np.mean(values))
        spread.setdefault(method, {})[str(count)] = float(np.std(values))
    coverage = {
        what: {"68": float((np.abs(z) < 1).mean()), "95": float((np.abs(z) < 1.96).mean()), "n": int(np.size(z))}
        for what, z in scores.standardised.items()
    }
    return {
        "zero_pose_mpvpe_mm": errors,
        "spread_mm": spread,
        "coverage": coverage,
        "seconds_20_frames": float(np.median(scores.seconds)) if scores.seconds else None,
        **scores.more,
    }


def plot(result: dict[str, Any], path: str, title: str) -> None:
    """Error against number of images, one line a method, a band of one standard deviation."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for method, errors in result["zero_pose_mpvpe_mm"].items():
        counts = sorted(int(count) for count in errors)
        mean = np.array([errors[str(count)] for count in counts])
        band = np.array([result["spread_mm"][method][str(count)] for count in counts])
        if method == "mean shape":  # needs no image: a level
            axes.axhline(mean[0], color="k", linestyle=":", label=method)
            continue
        style = "k--" if method == "bound" else "o-"
        line = axes.plot(counts, mean, style, label=method, markersize=4)[0]
        if style == "o-":
            axes.fill_between(counts, mean - band, mean + band, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(list(COUNTS), [str(count) for count in COUNTS])
    axes.set_xlabel("images")
    axes.set_ylabel("zero-pose MPVPE [mm]")
    axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = get_args_parser()
    args = parser.parse_args()
    if args.predictions and not (args.keypoints and args.data_root):
        parser.error("--predictions needs --keypoints and --data_root")
    if args.threads:
        torch.set_num_threads(args.threads)
    assets = load_hand_assets(args.mano_dir)
    real = args.predictions is not None
    result = summarise(real_scores(args, assets) if real else simulated_scores(args, assets))
    if args.plot:
        plot(result, args.plot, "networks' predictions, unseen subjects" if real else "simulated predictions")
    if args.json:
        print(json.dumps(result, indent=1))
        return
    counts = sorted({int(count) for errors in result["zero_pose_mpvpe_mm"].values() for count in errors})
    print(f"{'zero-pose MPVPE [mm]':24s}" + "".join(f"{count:>8d}" for count in counts))
    for method, errors in result["zero_pose_mpvpe_mm"].items():
        print(f"{method:24s}" + "".join(f"{errors[str(n)]:8.2f}" if str(n) in errors else " " * 8 for n in counts))
    for what, shares in result["coverage"].items():
        print(
            f"coverage of {what}: 68 % interval {shares['68']:.3f}, 95 % interval {shares['95']:.3f} "
            f"(n = {shares['n']})"
        )
    for name, value in result.items():
        if name not in ("zero_pose_mpvpe_mm", "spread_mm", "coverage"):
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
