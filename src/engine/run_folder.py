"""The folder of a run: arguments, versions, a CSV line an epoch, TensorBoard, checkpoints."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch
import torchvision

from utils.files import atomic_path, write_json


def versions() -> dict[str, str]:
    """Versions of what a result depends on, and the git revision: of the checkout, else of ``$GIT_REVISION``."""
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "numpy": np.__version__,
        "git": revision.stdout.strip() or os.environ.get("GIT_REVISION", "unknown"),
    }


#: Folders of data sets that are not called what ``--dataset`` calls them.
FOLDERS = {"freihand": "FreiHAND", "humbi": "HUMBI", "ho3d": "HO3D"}


def run_path(args: argparse.Namespace) -> Path:
    """The folder that the options name, made or not: ``OUT/<data set>/<exp_name>``."""
    return Path(args.out_dir) / FOLDERS.get(args.dataset, args.dataset) / (args.exp_name or args.model)


class RunFolder:
    """``OUT/<dataset>/<exp_name>/`` with ``args.json``, ``log.csv``, ``board/`` and ``checkpoints/``."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.checkpoints = self.root / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.log = self.root / "log.csv"
        self._writer = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> RunFolder:
        """The folder that the options name."""
        return cls(run_path(args))

    @property
    def last(self) -> Path:
        """The newest checkpoint, from which --resume goes on."""
        return self.checkpoints / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint that was best on the validation split."""
        return self.checkpoints / "best.pt"

    def write_arguments(self, args: argparse.Namespace, command: list[str], device: torch.device) -> None:
        """Save the options, the command line, the versions, and what computes."""
        values = {
            name: value for name, value in vars(args).items() if isinstance(value, (str, int, float, bool, type(None)))
        }
        computed_on = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        content = {"command": command, "args": values, "versions": versions(), "computed_on": computed_on}
        write_json(self.root / "args.json", content)

    def log_epoch(self, row: dict[str, float]) -> None:
        """Add a line to ``log.csv`` (an epoch that was run again after a resume is replaced) and to TensorBoard."""
        rows = []
        if self.log.is_file():
            with open(self.log, newline="", encoding="utf-8") as handle:
                rows = [old for old in csv.DictReader(handle) if int(old["epoch"]) < row["epoch"]]
        names = list(dict.fromkeys(name for line in [*rows, row] for name in line))
        with atomic_path(self.log) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
            table = csv.DictWriter(handle, names)
            table.writeheader()
            table.writerows([*rows, row])
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.root / "board"))
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def read_arguments(self) -> dict:
        """What `write_arguments` wrote."""
        return json.loads((self.root / "args.json").read_text(encoding="utf-8"))
