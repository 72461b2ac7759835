"""How far a run's networks are to be trusted: measured on people nobody trained on, with the first seed."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from benchmarks.reproduce.sizes import LOOK, Size
from benchmarks.reproduce.training import checkpoint_of
from datasets import build_dataset
from src.engine.checkpoint import load_network
from src.engine.predict import predict_dataset
from src.personalization.calibration.measure_population import measure
from utils.artifacts import save_predictions
from utils.device import choose_device

logger = logging.getLogger(__name__)

#: People on whom the networks are measured: nobody trains on them, nobody is evaluated on them.
PEOPLE = {"num_subjects": 80, "num_sequences": 2, "num_frames": 3, "seed": 77}


def open_people(size: Size) -> tuple[Path, Any]:
    """Folder and data set of the people whom networks are measured on; synthetic ones are made if missing."""
    root, split = size.train_root, "s1_val"
    if size.test_data is not None:
        from datasets.synthetic.data_set import SynthesisOptions, write_data_set

        root, split = Path("data/validation_people"), "all"
        write_data_set(root, SynthesisOptions(**PEOPLE, **LOOK))
    return root, build_dataset("dex_ycb", root, split, cache=size.cache, allow_missing_subjects=True)


def make_prior(size: Size) -> Path:
    """The population file of a run, for joint calibration and fitting; see `measure_population`."""
    output = size.prior or size.folder / "prior.npz"
    if output.is_file():
        return output
    root, data = open_people(size)
    files, device = {}, choose_device(size.device)
    for name, network in (("predictions", "fair_confidence"), ("keypoints", "pose_2d")):
        files[name] = str(size.folder / "prior" / f"{name}.npz")
        model, card, digest = load_network(checkpoint_of(size, network, size.seeds[0]), device)
        save_predictions(files[name], predict_dataset(model, card, data, device, model_hash=digest))
    measure(
        argparse.Namespace(
            dataset="dex_ycb",
            data_root=str(size.train_root),
            split="s1_train",
            validation_root=str(root),
            cache=str(size.cache),
            mano_dir=None,
            output=str(output),
            **files,
        )
    )
    return output
