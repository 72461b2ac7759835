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


SMALL = ("--epochs", "1", "--val_images", "4")


@pytest.mark.parametrize(
    ("model", "dataset", "extra"),
    [
        ("cmr_sg", "freihand", ["--backbone", "ResNet18"]),
        ("cmr_pg", "dex_ycb", ["--recipe", "paper"]),
        ("cmr_identity", "humbi", []),
    ],
)
def test_cascades_take_a_step(
    roots: dict[str, Path], tmp_path: Path, model: str, dataset: str, extra: list[str]
) -> None:
    words = ("--batch_size", "2", "--val_images", "2", *extra)  # without a checkpoint: they have half a gigabyte
    trainer = Trainer(apply_recipe(options(roots[dataset], tmp_path, "train", model, dataset, *words)))
    terms = trainer._step(next(iter(trainer.loader)))
    # several processes (DistributedDataParallel) wait for ever for a parameter without gradient
    assert all(value.grad is not None for value in trainer.model.parameters() if value.requires_grad)
    assert 0 < trainer.validate()["mpjpe_mm"] < 1000 and 0 < terms["loss"] < 1000
    assert ("mask" in terms) == (dataset != "dex_ycb")  # the paper's comparison on DexYCB has none
    assert ("mask" in next(iter(trainer.loader))) == (dataset == "freihand")  # elsewhere: silhouettes of the mesh
    assert trainer.card.crop == ("image" if dataset == "freihand" else "joints") and trainer.card.hierarchy_hash


@pytest.mark.parametrize("model", ["cmr_identity", "boukhayma"])
def test_trains_and_resumes(roots: dict[str, Path], tmp_path: Path, model: str) -> None:
    words = ("--epochs", "1", "--val_images", "4", "--batch_size", "28", "--backbone", "mobilenet_v3_small")
    given = options(roots["dex_ycb"], tmp_path, "train", model, "dex_ycb", *words)
    trainer = Trainer(apply_recipe(given))
    trainer.run()
    with open(tmp_path / "dex_ycb" / model / "log.csv", newline="") as handle:
        row = list(csv.DictReader(handle))[-1]
    assert 0 < float(row["val_mpjpe_mm"]) < 1000 and 0 < float(row["train_loss"]) < 1000
    again = Trainer(apply_recipe(options(roots["dex_ycb"], tmp_path, "train", model, "dex_ycb", *words, "--resume")))
    again.state.load(again.folder.last)
    assert again.state.position.epoch == 1
    own = again.model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in trainer.model.state_dict().items())
