"""One way of estimating hands that the demo compares with others."""

from __future__ import annotations

from dataclasses import dataclass

from src.evaluation.metrics import Evaluation
from utils.artifacts import Predictions


@dataclass
class Variant:
    """One way of estimating: the network's predictions and the fitted ones, each with its metrics."""

    network: Predictions
    fitted: Predictions
    network_scores: Evaluation
    fitted_scores: Evaluation
