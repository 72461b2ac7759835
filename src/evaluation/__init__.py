"""Metrics over samples, the official definitions, and the official result files."""

from src.evaluation.alignment import procrustes_align, scale_translation_align
from src.evaluation.bootstrap import paired_bootstrap
from src.evaluation.metrics import Evaluation, MetricAccumulator, auc, evaluate_predictions, f_scores
from src.evaluation.shape import bone_lengths, rest_hand, zero_pose_mpvpe

__all__ = [
    "Evaluation",
    "MetricAccumulator",
    "auc",
    "bone_lengths",
    "evaluate_predictions",
    "f_scores",
    "paired_bootstrap",
    "procrustes_align",
    "rest_hand",
    "scale_translation_align",
    "zero_pose_mpvpe",
]
