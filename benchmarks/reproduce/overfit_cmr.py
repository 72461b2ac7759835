"""Whether a network of the CMR family can learn a handful of images by heart: its data, loss and decoder are sound.

    python -m benchmarks.reproduce.overfit_cmr --model cmr_pg --images 8 --steps 900

Writes a small synthetic FreiHAND if there is none, takes its first images without augmentation, trains on
them, and prints the error in evaluation mode as it goes. Exit status 1 if it ends above ``--target_mm``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from datasets.augment import prepare_batch
from datasets.synthetic.freihand_writer import write_freihand
from options.recipes import apply_recipe
from options.run_options import get_args_parser
from src.engine.train import Trainer


def learn_by_heart(
    root: Path, out: Path, model: str, backbone: str, images: int, size: int, steps: int, lr: float, every: int = 25
) -> float:
    """Mean root-relative MPJPE, mm, in evaluation mode, of ``images`` training images after ``steps`` steps on them.

    Args:
        root: of a data set in FreiHAND's layout; out: for the run's folder.
        model, backbone: as of run.py; size: px of the input; every: steps between printed lines.
    """
    words = ["--phase", "train", "--model", model, "--backbone", backbone, "--dataset", "freihand", "--data_root", root]
    words += ["--split", "training", "--augment", "none", "--schedule", "cosine", "--out_dir", out, "--amp", "no"]
    words += ["--input_size", size, "--crop_size", size, "--lr", lr, "--batch_size", images, "--device", "cpu"]
    trainer = Trainer(apply_recipe(get_args_parser().parse_args([*map(str, words), "--epochs", "1"])))
    args, optimizer = trainer.args, trainer.state.optimizer
    raw = {key: torch.from_numpy(value) for key, value in trainer.data.gather(np.arange(images)).items()}
    batch = prepare_batch(raw, size, "cpu", None, None, args.crop_scale)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    started, error = time.perf_counter(), float("nan")
    for step in range(1, steps + 1):
        trainer.model.train()
        loss, terms = trainer.objective.loss(trainer.objective.forward(trainer.model, batch), batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % every == 0 or step == steps:
            trainer.model.eval()
            with torch.no_grad():
                scores = trainer.objective.scores(trainer.objective.forward(trainer.model, batch), batch)
            error = float(scores["mpjpe_mm"].mean())
            line = ", ".join(f"{name} {float(value.mean()):.2f}" for name, value in scores.items())
            parts = ", ".join(f"{name} {term.item():.4f}" for name, term in terms.items())
            seconds = time.perf_counter() - started
            print(f"step {step}, {seconds:.0f} s, {line}; loss {loss.item():.3f}: {parts}", flush=True)
    return error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cmr_pg", choices=("cmr_sg", "cmr_pg", "cmr_identity"))
    parser.add_argument("--backbone", default="regnet_x_400mf", help="ResNet18: the released cascade, far slower")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=96, help="px of the input, a multiple of 32")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--root", default="data/synthetic_freihand", help="written if it is missing")
    parser.add_argument("--target_mm", type=float, default=3.0)
    args = parser.parse_args()
    root = Path(args.root)
    if not (root / "training_K.json").exists():
        write_freihand(root, num_train=64, num_eval=16)
    out = Path("out/overfit")
    error = learn_by_heart(root, out, args.model, args.backbone, args.images, args.size, args.steps, args.lr)
    print(f"{args.model}, {args.images} images: {error:.2f} mm after {args.steps} steps (wanted: {args.target_mm:g})")
    return 0 if error < args.target_mm else 1


if __name__ == "__main__":
    sys.exit(main())
