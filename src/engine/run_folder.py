"""The folder of a run: its owner, arguments, versions, a CSV line an epoch, TensorBoard, checkpoints."""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.metadata
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from datasets.bad_files import read_json, reading
from options.run_options import USED_OPTIONS
from src.engine.checkpoint import ModelCard
from utils.file_lock import locked
from utils.files import atomic_path, write_json

logger = logging.getLogger(__name__)

CODE = Path(__file__).resolve().parents[2]
#: Options that say where, how quickly or from what a run computes, not what: a resumed run may have others.
EXECUTION = (
    "cache num_workers resident hierarchy exp_name out_dir channels_last cuda_graph compile init_parts init_from "
    "backbone_weights resume override overwrite save_minutes"
).split()


class RunFolderError(ValueError):
    """A run's folder holds another run."""


def versions() -> dict[str, str]:
    """Versions of what a result depends on, and the revision: git's, else ``$GIT_REVISION``, else the package's."""
    revision = _revision() or os.environ.get("GIT_REVISION")
    if not revision:
        try:
            revision = f"handid {importlib.metadata.version('handid')}"
        except importlib.metadata.PackageNotFoundError:
            revision = "unknown"
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "numpy": np.__version__,
        "git": revision,
    }


def _revision() -> str:
    """Revision of the checkout that this code is in, "-dirty" with changes; empty where there is none, or no git."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    given = {"cwd": CODE, "text": True, "stderr": subprocess.DEVNULL, "env": environment}
    try:
        top = subprocess.check_output(["git", "rev-parse", "--show-toplevel"], **given).strip()
        if Path(top).resolve() != CODE:  # an installed package may lie inside somebody's repository
            return ""
        return subprocess.check_output(["git", "describe", "--always", "--dirty", "--exclude=*"], **given).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


#: Folders of data sets that are not called what ``--dataset`` calls them.
FOLDERS = {"freihand": "FreiHAND", "humbi": "HUMBI", "ho3d": "HO3D"}


def run_path(args: argparse.Namespace) -> Path:
    """The folder that the options name, made or not: ``OUT/<data set>/<exp_name>``."""
    return Path(args.out_dir) / FOLDERS.get(args.dataset, args.dataset) / (args.exp_name or args.model)


def train_settings(args: argparse.Namespace, card: ModelCard, samples: int) -> dict[str, Any]:
    """What decides what a training computes, by name; two runs that agree in it are the same run.

    Args:
        card: of its network; samples: that it sees in an epoch.
    """
    names = [name for name in USED_OPTIONS["train"].split() if name not in EXECUTION]
    return {name: getattr(args, name) for name in names} | {
        "data_root": os.path.realpath(args.data_root),
        "hand model": card.hand_hash,
        "mesh levels": card.hierarchy_hash,
        "training samples": samples,
    }


class RunFolder:
    """``OUT/<dataset>/<exp_name>/`` with ``args.json``, ``log.csv``, ``board/`` and ``checkpoints/``.

    Nothing is made before something is written.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.checkpoints = self.root / "checkpoints"
        self.log = self.root / "log.csv"
        self.last = self.checkpoints / "last.pt"  # the newest, from which --resume goes on
        self.best = self.checkpoints / "best.pt"  # on the validation split
        self._writer: Any = None

    # --- whose folder it is ------------------------------------------------------------------

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Keep other processes from training here. A process that was killed no longer owns its folder.

        Raises:
            LockedError: another process trains here; names it.
            OSError: no folder can be made there.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            words = f"{self.root}: a run's folder cannot be made there ({error.strerror}); choose another --out_dir"
            raise OSError(error.errno, f"{words} or --exp_name") from error
        with locked(self.root / "owner.lock"):
            for leftover in self.checkpoints.glob(".*.tmp.pt"):  # of a process that was killed while it saved
                leftover.unlink()
            yield

    def state_to_resume(self, resume: str | None) -> Path | None:
        """The file that ``--resume`` names, with "auto" the last state; None: there is nothing to go on from.

        Raises:
            RunFolderError: the last state is lost, though there is a best one.
        """
        if resume != "auto":
            return None if resume is None else Path(resume)
        if self.last.is_file():
            return self.last
        if self.best.is_file():
            raise RunFolderError(
                f"{self.root} holds best.pt but no last.pt to go on from; --resume {self.best} goes on from there, "
                "--overwrite starts anew"
            )
        return None  # so that one command starts a run and goes on with it

    def refuse_another_run(self) -> None:
        """Raise RunFolderError if a run has left something here."""
        held = [path.name for path in self._files()]
        if held:
            raise RunFolderError(
                f"{self.root} holds a run already ({', '.join(held)}): go on from it with --resume, replace it with "
                "--overwrite, or choose another --exp_name"
            )

    def clear(self) -> None:
        """Move what a run left here into ``overwritten/``, in place of what an earlier `clear` moved there.

        Whatever then stops the new run (a full disk, a fault in its first batch), the old one is not lost. Nor is it
        if the new one is replaced before it has saved a state: then that goes, and what lies aside stays.
        """
        aside, board = self.root / "overwritten", self.root / "board"
        files = [*self._files(), *([board] if board.exists() else [])]
        if aside.is_dir() and not any(self.checkpoints.glob("[!.]*.pt")):
            for path in files:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            return
        shutil.rmtree(aside, ignore_errors=True)
        for path in files:
            target = aside / path.relative_to(self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)

    def _files(self) -> list[Path]:
        patterns = ("args.json", "args.*.json", "log.csv", "checkpoints/[!.]*.pt")
        return sorted(path for pattern in patterns for path in self.root.glob(pattern))

    # --- what is written ---------------------------------------------------------------------

    def record(self, args: argparse.Namespace, command: list[str], device: torch.device, **notes: Any) -> None:
        """Save the options, the command line, the versions, and what computes: beside earlier records, never over them.

        A run that goes on exactly as it was recorded adds nothing.

        Args:
            notes: where a resumed run goes on (``resumed``), and which settings differ (``changed``).
        """
        values = {
            name: value for name, value in vars(args).items() if isinstance(value, (str, int, float, bool, type(None)))
        }
        computed_on = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        machine = {"versions": versions(), "computed_on": computed_on}
        earlier = records(self.root)
        if earlier and not notes.get("changed") and machine.items() <= earlier[-1].items():
            return
        name = f"args.{len(earlier)}.json" if earlier else "args.json"
        write_json(self.root / name, {"command": command, "args": values, **machine, **notes})

    def epochs(self) -> list[dict[str, str]]:
        """The lines of ``log.csv``; BadFileError if it is damaged."""
        if not self.log.is_file():
            return []
        what = "a log of epochs; move it away, it is not needed to go on"
        with reading(self.log, what, can_skip=False), open(self.log, newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
            if not all(row["epoch"].isdigit() for row in rows):
                raise ValueError("epochs that are no numbers")
            return rows

    def log_epoch(self, row: dict[str, float]) -> None:
        """Add a line to ``log.csv`` (an epoch that was run again after a resume is replaced) and to TensorBoard."""
        rows = [old for old in self.epochs() if int(old["epoch"]) < row["epoch"]]
        names = list(dict.fromkeys(name for line in [*rows, row] for name in line))
        with atomic_path(self.log) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
            table = csv.DictWriter(handle, names)
            table.writeheader()
            table.writerows([*rows, row])
        if self._writer is False:
            return
        try:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self.root / "board"))
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, int(row["epoch"]))
            self._writer.flush()
        except Exception as error:  # of many kinds; a picture of the log is not worth a training
            logger.warning("no TensorBoard (%s: %s); log.csv has the same numbers", type(error).__name__, error)
            self._writer = False


def records(root: Path) -> list[dict[str, Any]]:
    """What `RunFolder.record` wrote in a run's folder, oldest first: of its start, then of resumes that differed."""
    paths = [root / "args.json"]  # whose absence is for the reader to say
    while paths[-1].is_file():
        paths.append(root / f"args.{len(paths)}.json")
    return [read_json(path, can_skip=False) for path in paths[:-1]]
