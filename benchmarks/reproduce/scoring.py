"""Every row of the table for one seed: predictions, identities, scores before and after fitting."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.reproduce.sizes import ROWS, Row, Size
from benchmarks.reproduce.training import checkpoint_of, is_trained
from datasets import build_dataset
from src.engine.checkpoint import ModelCard, load_network
from src.engine.measure import evaluate_hands
from src.engine.predict import predict_dataset
from src.models.mesh_joints import mesh_hand
from src.personalization.calibration.identity import calibrate_predictions
from src.personalization.calibration.population import (
    CalibrationOptions,
    calibration_options,
    load_population,
    with_population,
)
from src.personalization.fitting.batch import fit_predictions
from src.personalization.fitting.fit import FitOptions
from src.personalization.pairing import annotations_of, pair_keypoints
from src.personalization.terms.hand_size import LengthCue, length_gradient
from template import HandModel, load_hand_assets
from template.kinematics import JointsModel
from utils.artifacts import Predictions, load_predictions, save_predictions
from utils.device import choose_device
from utils.files import write_json

logger = logging.getLogger(__name__)

#: Of these the last is in the camera's frame, of hands that have a depth there: fitted ones and registered meshes.
METRICS = ("mpjpe_mm", "mpvpe_mm", "pa_mpjpe_mm", "auc", "zero_pose_mpvpe_mm", "abs_mpjpe_mm")
RULER = 0.003  # standard deviation, m
IMAGES = 20

Betas = dict[int, np.ndarray]


@dataclass
class GivenShapes:
    """What an identity-aware network is told: betas (10,) by subject."""

    betas: Betas
    kind = "given"

    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        rows = np.stack([self.betas[int(subject)] for subject in batch["subject_id"]])
        return torch.as_tensor(rows, dtype=torch.float32, device=batch["image"].device)


class Part:
    """Some samples of a data set, as a data set."""

    def __init__(self, whole: Any, rows: np.ndarray) -> None:
        self.whole, self.rows, self.split = whole, rows, whole.split
        self.columns = {key: column[rows] for key, column in whole.columns.items()}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """A batch of samples."""
        return self.whole.gather(self.rows[indices])


def halves(columns: dict[str, np.ndarray], evaluated: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to calibrate from and rows to evaluate: of every subject, the first and the last half of the sequences.

    Args:
        columns: of a data set.
        evaluated: rows to evaluate of each subject, evenly spread.
    """
    first, last = [], []
    for subject in np.unique(columns["subject_id"]):
        rows = np.flatnonzero((columns["subject_id"] == subject) & columns["valid"])
        sequences = np.unique(columns["sequence_id"][rows])
        early = np.isin(columns["sequence_id"][rows], sequences[: len(sequences) // 2])
        late = rows[~early]
        first.append(rows[early])
        last.append(late[np.unique(np.linspace(0, len(late) - 1, evaluated).round().astype(int))])
    return np.concatenate(first), np.concatenate(last)


def open_test_data(size: Size) -> Any:
    """The data set of the people who are evaluated."""
    return build_dataset("dex_ycb", size.test_root, size.test_split, cache=size.cache, allow_missing_subjects=True)


class Scores:
    """One seed of a run; ``prior`` is its population file. What is asked for twice is computed once, and kept."""

    def __init__(self, size: Size, seed: int, prior: Path) -> None:
        self.size, self.seed, self.device = size, seed, choose_device(size.device)
        self.folder = size.folder / f"seed{seed}"
        self.assets = load_hand_assets()
        self.data = open_test_data(size)
        rows = halves(self.data.columns, size.evaluated)
        self.parts = {"calibration": Part(self.data, rows[0]), "evaluation": Part(self.data, rows[1])}
        self.true_betas: Betas = self.data.subject_betas
        self.population = load_population(prior, self.assets.hash)

    def all_rows(self) -> list[dict[str, Any]]:
        """Scores of every row whose network is trained, in order; the others are named in the log."""
        rows = []
        for number, row in enumerate(ROWS):
            if row.group not in self.size.groups:
                continue
            if is_trained(checkpoint_of(self.size, row.network, self.seed)):
                rows.append(self._row(number, row))
            else:
                logger.warning("seed %d: %s is not trained; its row is left out", self.seed, row.network)
        return rows

    def _row(self, number: int, row: Row) -> dict[str, Any]:
        path, digest = self.folder / "rows" / f"{number:02d}.json", self._network(row.network)[2]
        wanted = {"group": row.group, "recipe": row.recipe, "model": row.model, "shape": row.shape, "seed": self.seed}
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if {key: found.get(key) for key in wanted} == wanted and found.get("model_hash", digest) == digest:
                return found
        logger.info("seed %d: %s %s, %s", self.seed, row.recipe, row.model, row.shape)
        predictions = self._predictions(row.network, row.shape, "evaluation")
        result = {**wanted, "model_hash": digest, "network": self._summary(predictions)}
        if row.fits:
            result["fitted"] = self._summary(self._fitted(predictions))
        write_json(path, result)
        return result

    # --- predictions -------------------------------------------------------------------------

    def _network(self, network: str) -> tuple[nn.Module, ModelCard, str]:
        return load_network(checkpoint_of(self.size, network, self.seed), self.device)

    def _predictions(self, network: str, shape: str, part: str) -> Predictions:
        path = self.folder / "predictions" / f"{network}_{part}_{''.join(c if c.isalnum() else '_' for c in shape)}.npz"
        model, card, digest = self._network(network)
        if path.is_file() and (kept := load_predictions(path)).model_hash == digest:
            return kept
        given = None if shape in ("predicted", "none") else GivenShapes(self.betas(shape, network))
        predictions = predict_dataset(model, card, self.parts[part], self.device, given, model_hash=digest)
        save_predictions(path, predictions)
        return predictions

    def _keypoints(self, predictions: Predictions, part: str) -> Predictions:
        return pair_keypoints(predictions, self._predictions("pose_2d", "none", part))

    def _fitted(self, predictions: Predictions) -> Predictions:
        options = with_population(FitOptions(), self.population, keep_depth=False)
        paired = self._keypoints(predictions, "evaluation")
        return fit_predictions(paired, paired.betas, self.assets, options=options).predictions

    def _summary(self, predictions: Predictions) -> dict[str, Any]:
        """Means over all samples, and means of every subject in the order of their numbers."""
        truth = annotations_of(self.data, predictions)
        hand = HandModel(self.assets) if predictions.vertices is None else mesh_hand(self.assets, "dex_ycb")
        result = evaluate_hands(hand, predictions, truth, f_scores=False)
        subjects = np.unique(predictions.subject_id)
        names = [name for name in METRICS if name in result.per_sample]
        return {
            "mean": {name: float(result.per_sample[name].mean()) for name in names},
            "per_subject": {
                name: [float(result.per_sample[name][predictions.subject_id == s].mean()) for s in subjects]
                for name in names
            },
            "n_images": len(predictions),
        }

    # --- shapes ------------------------------------------------------------------------------

    def betas(self, shape: str, network: str) -> Betas:
        """Betas of every subject that a row's ``shape`` stands for; the paper's networks calibrate from their own."""
        subjects = sorted(self.true_betas)
        if shape == "true":
            return self.true_betas
        if shape == "mean shape":
            return {subject: np.zeros(10, np.float32) for subject in subjects}
        if shape == "wrong":
            return dict(zip(subjects, [self.true_betas[s] for s in (*subjects[1:], subjects[0])], strict=True))
        method, _, count = shape.removeprefix("calibrated: ").partition(", ")
        source = self.paper if network.startswith("paper") else self.fair
        return self._calibrated(source, method, int(count.split()[0]) if count else IMAGES)

    def _calibrated(self, source: Predictions, method: str, images: int) -> Betas:
        kind, _, ruler = method.partition(" + ")
        found: Betas = {}
        for subject, length in self._ruled.items():
            cues = (LengthCue("hand", length, RULER),) if ruler else ()
            options = replace(self._options, cues=cues, accept_conflict=bool(ruler))
            identities = calibrate_predictions(
                source, self.assets, options, method=kind, num_images=images, seed=self.seed, subject=subject
            )
            found[subject] = identities[subject].betas.astype(np.float32)
        return found

    @cached_property
    def fair(self) -> Predictions:
        """Shapes, poses, confidences and keypoints of the images to calibrate from."""
        return self._keypoints(self._predictions("fair_confidence", "predicted", "calibration"), "calibration")

    @cached_property
    def paper(self) -> Predictions:
        """Shapes of the images to calibrate from, as the paper's baseline sees them."""
        return self._predictions("paper_baseline", "predicted", "calibration")

    @cached_property
    def _options(self) -> CalibrationOptions:
        return calibration_options(self.population)

    @cached_property
    def _ruled(self) -> dict[int, float]:
        """Hand length, m, of every subject as a ruler gives it: true, with the ruler's error."""
        model = JointsModel(self.assets)
        generator = np.random.default_rng(self.seed)
        return {
            subject: float(length_gradient(model, torch.as_tensor(betas, dtype=torch.float64), "hand")[0])
            + RULER * float(generator.normal())
            for subject, betas in sorted(self.true_betas.items())
        }
