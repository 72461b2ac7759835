"""What an image's confidence is worth: how it ranks images, what averages by it give, what an oracle would give.

``python benchmarks/studies/confidence_ranking.py --predictions CONFIDENCE.npz --data_root DIR [--split s1_test]``
Rankings are by two errors of the predicted shape, the mean absolute difference of betas (the paper's target) and the
zero-pose vertex distance (what calibration is judged by), over pairs of images of any people and of one person.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from datasets import open_labels  # noqa: E402
from src.evaluation.shape import zero_pose_mpvpe  # noqa: E402
from src.personalization.calibration.images import average_weights  # noqa: E402
from src.personalization.pairing import annotations_of  # noqa: E402
from template import HandModel, load_hand_assets  # noqa: E402
from utils.artifacts import load_predictions  # noqa: E402


def ranking_accuracy(score: np.ndarray, error: np.ndarray, person: np.ndarray, least: float = 0.0) -> dict[str, float]:
    """Share of pairs whose smaller error has the higher score, (N,) each, if errors differ by more than ``least``."""
    first, second = np.triu_indices(len(score), 1)
    if len(first) > 2_000_000:
        first, second = np.random.default_rng(0).integers(len(score), size=(2, 2_000_000))
    difference = error[second] - error[first]
    right = (score[first] - score[second]) * difference > 0
    far = np.abs(difference) > least
    same = person[first] == person[second]
    within = []
    for number in np.unique(person):
        rows = np.flatnonzero(person == number)
        a, b = np.triu_indices(len(rows), 1)
        gap, apart = score[rows][a] - score[rows][b], error[rows][b] - error[rows][a]
        within.append((gap * apart > 0)[np.abs(apart) > least])
    across = right[far & ~same]
    return {
        "any_people": float(across.mean()) if len(across) else None,
        "one_person": float(np.concatenate(within).mean()),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The printed object."""
    assets = load_hand_assets(args.mano_dir, side="right")
    hand = HandModel(assets)
    predictions = load_predictions(args.predictions)
    predictions.check_hand(assets)
    options = {"cache": args.cache, "mano_dir": args.mano_dir}
    dataset = open_labels(args.dataset, args.data_root, args.split or predictions.split, **options)
    truth = annotations_of(dataset, predictions)["betas"]
    betas, person, score = predictions.betas, predictions.subject_id, predictions.confidence
    betas_error = np.abs(betas - truth).mean(1)
    vertex_error = zero_pose_mpvpe(hand, betas, truth)
    people = [np.flatnonzero(person == number) for number in np.unique(person)]

    def within_share(values: np.ndarray) -> float:
        between = np.concatenate([np.full(len(rows), values[rows].mean()) for rows in people])
        own = np.concatenate([values[rows] for rows in people]) - between
        return float(own.var() / values.var())

    ranking = {
        "betas_l1": ranking_accuracy(score, betas_error, person),
        "zero_pose": ranking_accuracy(score, vertex_error, person),
        "zero_pose_more_than_1_mm_apart": ranking_accuracy(score, vertex_error, person, 1.0),
    }
    return {
        "n_images": len(betas),
        "n_people": len(people),
        "share_of_variance_within_people": {
            "betas_l1": within_share(betas_error),
            "zero_pose": within_share(vertex_error),
        },
        "ranking_accuracy": ranking,
        "zero_pose_mpvpe_mm": _averages(args, hand, betas, truth, people, score, vertex_error),
    }


def _averages(
    args: argparse.Namespace, hand: HandModel, betas: np.ndarray, truth: np.ndarray, people: list[np.ndarray],
    score: np.ndarray, error: np.ndarray,
) -> dict[str, float]:  # fmt: skip
    """Zero-pose error, mm, over draws of images: by confidence, equal, and by what only an oracle knows."""
    random = np.random.default_rng(args.seed)
    cases = {
        "mean": ("mean", score), "confidence": ("confidence", score), "top_k": ("top_k", score),
        "top_k_oracle": ("top_k", -error),
    }  # fmt: skip
    averages: dict[str, list[np.ndarray]] = {name: [] for name in cases}
    true = []
    for _ in range(args.draws):
        for rows in people:
            drawn = random.choice(rows, min(args.num_images, len(rows)), replace=False)
            true.append(truth[drawn[0]])
            for name, (method, values) in cases.items():
                averages[name].append(average_weights(len(drawn), method, values[drawn]) @ betas[drawn])
    target = np.stack(true)
    errors = {
        name: float(zero_pose_mpvpe(hand, np.float32(np.stack(rows)), target).mean()) for name, rows in averages.items()
    }
    errors["mean_shape"] = float(zero_pose_mpvpe(hand, np.zeros_like(target), target).mean())
    return errors


def main() -> int:
    parser = argparse.ArgumentParser(description="Ranking accuracy of the confidence and what its averages are worth.")
    parser.add_argument("--predictions", required=True, help="npz of mano_baseline_conf")
    parser.add_argument("--data_root", required=True)
    parser.add_argument("--dataset", default="dex_ycb")
    parser.add_argument("--split")
    parser.add_argument("--cache")
    parser.add_argument("--mano_dir")
    parser.add_argument("--num_images", type=int, default=20)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(args), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
