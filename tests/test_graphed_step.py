"""Steps recorded as CUDA graphs: the same training as without, and none where it cannot be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from options.recipes import apply_recipe
from options.run_options import get_args_parser
from src.engine.cuda_graph import EAGER_BATCHES, GraphedStep
from src.engine.train import Trainer
from tests.dex_ycb_layout import write_dex_ycb

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class FakeGraph:
    """A recording that counts its replays."""

    replays = 0

    def replay(self) -> None:
        FakeGraph.replays += 1


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """CUDA's recording, replaced; append an error to the list to make it fail."""
    errors: list[str] = []

    @contextlib.contextmanager
    def record(graph: FakeGraph) -> Iterator[None]:
        yield
        if errors:
            raise RuntimeError(errors[0])

    FakeGraph.replays = 0
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return errors


def batch_of(value: float, count: int = 2) -> dict[str, torch.Tensor]:
    return {"image": torch.full((count, 3), value)}


def test_batches_are_computed_then_recorded_then_replayed(recorder: list[str]) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def compute(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(batch)
        return {"loss": batch["image"].sum()}

    step = GraphedStep(compute)
    for number in range(EAGER_BATCHES + 4):
        step(batch_of(number))
    assert len(seen) == EAGER_BATCHES + 1 and FakeGraph.replays == 4 and step.is_recorded
    assert (seen[-1]["image"] == EAGER_BATCHES + 3).all()  # the recording's own input holds the newest batch


def test_what_cannot_be_recorded_goes_on_as_before(recorder: list[str], caplog: pytest.LogCaptureFixture) -> None:
    recorder.append("operation not permitted when stream is capturing")
    step = GraphedStep(lambda batch: {"loss": batch["image"].sum()})
    losses = [float(step(batch_of(number))["loss"]) for number in range(EAGER_BATCHES + 3)]
    assert losses == [6.0 * number for number in range(EAGER_BATCHES + 3)] and FakeGraph.replays == 0
    assert caplog.text.count("cannot be recorded") == 1


def test_another_shape_ends_the_recording(recorder: list[str], caplog: pytest.LogCaptureFixture) -> None:
    step = GraphedStep(lambda batch: {"loss": batch["image"].sum()})
    for _ in range(EAGER_BATCHES + 1):
        step(batch_of(1.0))
    assert float(step(batch_of(1.0, count=1))["loss"]) == 3.0 and not step.is_recorded
    assert float(step(batch_of(2.0))["loss"]) == 12.0 and "another shape" in caplog.text


@needs_gpu
@pytest.mark.parametrize(
    ("model", "rate", "extra"),
    [
        ("mano_baseline", "1e-4", []),
        # The others stand still: where gradients are next to nothing Adam turns rounding into steps.
        ("pose_2d", "0", []),
        ("cmr_identity", "0", []),
        ("boukhayma", "0", []),
        ("mano_identity", "0", ["--recipe", "paper"]),
    ],
)
def test_recorded_training_is_the_training_without(tmp_path: Path, model: str, rate: str, extra: list[str]) -> None:
    root = write_dex_ycb(tmp_path / "dex_ycb", sequences=1)
    words = ["--phase", "train", "--model", model, "--data_root", str(root), "--device", "cuda", "--amp", "no", *extra]
    words += ["--backbone", "regnet_x_400mf", "--input_size", "64", "--crop_size", "64", "--crop_scale", "2"]
    words += ["--batch_size", "8", "--epochs", "4", "--cache", str(root / "cache"), "--augment", "none"]
    losses, norms = {}, {}
    for choice in ("auto", "no"):
        out = ["--out_dir", str(tmp_path / choice), "--cuda_graph", choice, "--optimizer", "adamw", "--lr", rate]
        trainer = Trainer(apply_recipe(get_args_parser().parse_args([*words, *out])))
        trainer.model.train()
        losses[choice], norms[choice] = [], []
        for epoch in range(2):
            trainer.loader.set_epoch(epoch)
            for batch in trainer.loader:
                losses[choice].append(float(trainer._step(batch)["loss"]))
                gradients = [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
                norms[choice].append(float(torch.nn.utils.get_total_norm(gradients)))
        if choice == "auto":
            assert trainer._gradients.is_recorded
    assert losses["auto"] == pytest.approx(losses["no"], rel=2e-2)
    assert norms["auto"] == pytest.approx(norms["no"], rel=5e-2)
    assert len(set(losses["auto"])) > 10
