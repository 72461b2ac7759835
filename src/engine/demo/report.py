"""The demo's numbers: ways of estimating hands, compared, as ``results.json`` and on the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.engine.measure import format_table
from src.evaluation.bootstrap import paired_bootstrap
from src.evaluation.metrics import Evaluation
from src.evaluation.shape import zero_pose_mpvpe
from src.personalization.terms.hand_size import Length, identity_lengths, lengths_mm
from template import HandModel
from utils.artifacts import Identity, Predictions

logger = logging.getLogger(__name__)

REPORTED = ("mpjpe_mm", "mpvpe_mm", "pa_mpjpe_mm", "auc", "f5", "f15", "zero_pose_mpvpe_mm", "abs_mpjpe_mm")


@dataclass
class Variant:
    """One way of estimating: the network's predictions and the fitted ones, each with its metrics."""

    network: Predictions
    fitted: Predictions
    network_scores: Evaluation
    fitted_scores: Evaluation


def summarise(
    variants: dict[str, Variant], identities: dict[int, Identity], dataset: Any, hand: HandModel, baseline: Predictions
) -> dict[str, Any]:
    """The content of ``results.json`` without the times."""
    sequences = variants["baseline"].network.sequence_id
    result: dict[str, Any] = {
        "data": "synthetic, unseen subjects 8 and 9",
        "n_images": len(variants["baseline"].network),
        "n_sequences": len(np.unique(sequences)),
        "variants": {},
        "differences_to_baseline_mpjpe_mm": {},
        "calibration": {},
    }
    for name, variant in variants.items():
        scores = {"network": variant.network_scores, "fitted": variant.fitted_scores}
        result["variants"][name] = {
            stage: {key: round(score.summary[key], 4) for key in REPORTED if key in score.summary}
            for stage, score in scores.items()
        }
        if name != "baseline":
            errors = (v.network_scores.per_sample["mpjpe_mm"] for v in (variant, variants["baseline"]))
            found = zip(("mean", "low_95", "high_95"), paired_bootstrap(*errors, sequences), strict=True)
            result["differences_to_baseline_mpjpe_mm"][name] = {key: round(value, 4) for key, value in found}
    for subject, identity in identities.items():
        truth = dataset.subject_betas[subject][None]
        predicted = baseline.betas[baseline.subject_id == subject]
        result["calibration"][f"subject-{subject:02d}"] = {
            "n_images": identity.n_images,
            "method": identity.method,
            "zero_pose_mpvpe_mm": round(float(zero_pose_mpvpe(hand, identity.betas[None], truth)[0]), 4),
            "zero_pose_mpvpe_mean_shape_mm": round(float(zero_pose_mpvpe(hand, np.zeros((1, 10)), truth)[0]), 4),
            "zero_pose_mpvpe_single_image_mm": round(
                float(zero_pose_mpvpe(hand, predicted, np.repeat(truth, len(predicted), 0)).mean()), 4
            ),
            "hand_length_mm": round(identity.hand_length_mm, 2),
            "hand_length_std_mm": identity.hand_length_std_mm and round(identity.hand_length_std_mm, 2),
            "lengths": {name: length.as_json() for name, length in identity_lengths(identity, hand.assets).items()},
            "true_lengths_mm": {
                name: round(length, 2) for name, (length, _) in lengths_mm(hand.assets, truth[0], None).items()
            },
        }
    return result


def report(results: dict[str, Any], output: Path) -> None:
    """Say on the log what came out."""
    rows = {
        f"{name}, {stage}": values[stage]
        for name, values in results["variants"].items()
        for stage in ("network", "fitted")
    }
    lines = [format_table(rows), "", "calibration (zero-pose MPVPE, mm: calibrated / one image / mean shape)"]
    for subject, row in results["calibration"].items():
        lines.append(
            f"  {subject}: {row['zero_pose_mpvpe_mm']:.2f} / {row['zero_pose_mpvpe_single_image_mm']:.2f} / "
            f"{row['zero_pose_mpvpe_mean_shape_mm']:.2f} from {row['n_images']} images"
        )
    lines.append("hand and finger lengths, mm [95% interval] (true)")
    for subject, row in results["calibration"].items():
        lengths = [
            f"{name} {Length(length['mm'], length['std_mm'])} ({row['true_lengths_mm'][name]:.1f})"
            for name, length in row["lengths"].items()
        ]
        lines.append(f"  {subject}: " + ", ".join(lengths))
    lines.append("MPJPE minus the baseline's, mm (95% bootstrap interval over sequences)")
    for name, row in results["differences_to_baseline_mpjpe_mm"].items():
        lines.append(f"  {name}: {row['mean']:+.2f} [{row['low_95']:+.2f}, {row['high_95']:+.2f}]")
    lines.append("seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in results["seconds"].items()))
    logger.info(
        "%d images of two unseen synthetic people, mm relative to the wrist (camera: absolute)\n%s\nwritten to %s",
        results["n_images"],
        "\n".join(lines),
        output,
    )
