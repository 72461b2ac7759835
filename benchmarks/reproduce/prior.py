"""How far a run's networks are to be trusted: measured on validation and training people, with the first seed."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from benchmarks.reproduce.sizes import Size
from benchmarks.reproduce.training import checkpoint_of
from datasets import build_dataset
from src.engine.checkpoint import load_network
from src.engine.predict import predict_dataset
from src.personalization.measure_population import measure
from utils.artifacts import save_predictions

logger = logging.getLogger(__name__)

TRAINING_IMAGES = 4960


def make_prior(size: Size) -> Path:
    """The population file of a run, for joint calibration and fitting; see `measure_population`."""
    output = size.prior or size.folder / "prior.npz"
    if output.is_file():
        return output
    files = {}
    for name, network, split in (
        ("predictions", "fair_confidence", "s1_val"),
        ("keypoints", "pose_2d", "s1_val"),
        ("shape_predictions", "fair_confidence", "s1_train"),
    ):
        files[name] = str(size.folder / "prior" / f"{name}.npz")
        model, card, digest = load_network(checkpoint_of(size, network, size.seeds[0]))
        data = build_dataset("dex_ycb", size.train_root, split, cache=size.cache)
        save_predictions(
            files[name],
            predict_dataset(
                model, card, data, torch.device("cpu"), model_hash=digest, max_samples=TRAINING_IMAGES
            ),
        )
    measure(
        argparse.Namespace(
            dataset="dex_ycb", data_root=str(size.train_root), split="s1_train", validation_root=None,
            cache=str(size.cache), mano_dir=None, output=str(output), **files,
        )
    )
    return output
