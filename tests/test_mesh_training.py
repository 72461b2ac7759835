"""The mesh-convolution family through run.py's phases: trains, resumes, predicts, evaluates."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from datasets.synthetic.freihand_writer import write_freihand
from datasets.synthetic.humbi_writer import write_humbi
from options.recipes import apply_recipe
from options.run_options import get_args_parser
from src.engine.train import Trainer
from tests.dex_ycb_layout import write_dex_ycb


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    write_freihand(folder / "freihand", num_train=5, num_eval=2, evaluation_labels=False)
    write_humbi(folder / "humbi", num_subjects=3, num_frames=1, num_cameras=2)
    return {
        "dex_ycb": write_dex_ycb(folder / "dex_ycb", sequences=1),
        "freihand": folder / "freihand",
        "humbi": folder / "humbi",
    }


def options(root: Path, out: Path, phase: str, model: str, dataset: str, *extra: str) -> object:
    words = ["--phase", phase, "--model", model, "--dataset", dataset, "--data_root", str(root), "--out_dir", str(out)]
    words += ["--device", "cpu", "--input_size", "64", "--crop_size", "64", "--crop_scale", "2", *extra]
    return get_args_parser().parse_args(words)


def log_of(folder: Path) -> dict[str, float]:
    with open(folder / "log.csv", newline="") as handle:
        return {name: float(value) for name, value in list(csv.DictReader(handle))[-1].items()}


SMALL = ("--epochs", "1", "--val_images", "4")


@pytest.mark.parametrize(
    ("model", "dataset", "extra"),
    [
        ("cmr_sg", "freihand", ["--batch_size", "8", "--backbone", "ResNet18"]),
        ("cmr_pg", "dex_ycb", ["--batch_size", "28", "--recipe", "paper"]),
        ("cmr_identity", "humbi", ["--batch_size", "2"]),
        ("cmr_identity", "dex_ycb", ["--batch_size", "28", "--backbone", "mobilenet_v3_small"]),
        ("boukhayma", "dex_ycb", ["--batch_size", "28", "--backbone", "ResNet18"]),
    ],
)
def test_trains(roots: dict[str, Path], tmp_path: Path, model: str, dataset: str, extra: list[str]) -> None:
    trainer = Trainer(apply_recipe(options(roots[dataset], tmp_path, "train", model, dataset, *SMALL, *extra)))
    trainer.run()
    # several processes (DistributedDataParallel) wait for ever for a parameter without gradient
    assert all(value.grad is not None for value in trainer.model.parameters() if value.requires_grad)
    folder = next(tmp_path.glob(f"*/{model}"))
    row = log_of(folder)
    assert 0 < row["val_mpjpe_mm"] < 1000 and 0 < row["train_loss"] < 1000
    assert ("train_mask" in row) == (model == "cmr_sg" or dataset == "humbi")
    state = torch.load(folder / "checkpoints/last.pt", weights_only=True)
    assert state["card"]["crop"] == ("image" if dataset == "freihand" else "joints")
    assert bool(state["card"]["hierarchy_hash"]) == model.startswith("cmr")
    if "mobilenet_v3_small" in extra:  # --resume takes the state up, strictly
        again = Trainer(apply_recipe(options(roots[dataset], tmp_path, "train", model, dataset, *SMALL, *extra)))
        again.resume(folder / "checkpoints/last.pt")
        assert again.position.epoch == 1
        own = again.model.state_dict()
        assert all(torch.equal(value, own[name]) for name, value in trainer.model.state_dict().items())
