"""Training: resumable to the bit on CPU, stops cleanly on SIGTERM and on a loss that is not finite."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import math
import signal
import sys
import time
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from datasets.augment import AugmentConfig, prepare_batch
from datasets.loading import make_loader, naming_dead_workers
from options.recipes import apply_recipe
from src.engine import config
from src.engine.checkpoint import (
    CheckpointError,
    ModelCard,
    initialise_from,
    load_strictly,
    read_checkpoint,
    save_checkpoint,
)
from src.engine.cuda_graph import GraphedStep
from src.engine.distributed import join_team, team_work
from src.engine.run_folder import RunFolder, RunFolderError, train_settings, versions
from src.engine.step_log import StepLog, Term
from src.engine.validation import mean_scores
from src.models.objectives import Objective
from utils.device import choose_device

logger = logging.getLogger(__name__)


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the last good checkpoint is untouched."""


class Interrupted(SystemExit):
    """SIGTERM or SIGINT arrived; the state was saved. Exit status 143."""


@dataclasses.dataclass
class Position:
    """Where a training is: the next batch to take, and the best validation score so far."""

    epoch: int = 0
    batch: int = 0
    best: float = math.inf


def _augment_generator(seed: int, rank: int, epoch: int, batch: int, device: torch.device) -> torch.Generator:
    """Random numbers of one batch, from its place alone: a resumed run draws the same."""
    place = (seed * 1_000_003 + epoch) * 1_000_003 + batch
    return torch.Generator(device=device).manual_seed((place + rank * 7_046_029_254_386_353_087) % 2**63)


class Trainer:
    """One training run: built from options, then `run`. Writes nothing before `run`.

    Raises:
        RunFolderError: the run's folder holds a run, and the options do not say what to do with it.
        ValueError: options that do not go together, or data that give no batch.
    """

    def __init__(self, args: argparse.Namespace, command: list[str] | None = None) -> None:
        self.args, self._command = args, command or sys.argv
        if args.epochs < 1:
            raise ValueError(f"--epochs is {args.epochs}; at least one is needed")
        self.folder = RunFolder.of(args)
        if not args.resume and not args.overwrite:
            self.folder.refuse_another_run()
        torch.manual_seed(args.seed)
        self.device = choose_device(args.device, args.threads)
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
        self.team = join_team(self.device)
        self.amp = config.autocast_dtype(args.amp, self.device)
        self.hand, self.assets = config.hand_model(args, self.device)
        self.card: ModelCard = config.model_card(args, self.assets)
        with self.team.one_first():
            labels = config.label_options(args)
            self.data = config.open_dataset(args, args.split or f"{args.setup}_train", args.crop_size, **labels)
            self.val_data = config.open_dataset(args, f"{args.setup}_val", args.crop_size)
        share = {"rank": self.team.rank, "world_size": self.team.size}
        self.loader = make_loader(
            self.data,
            self.team.share(args.batch_size),
            shuffle=True,
            seed=args.seed,
            num_workers=args.num_workers,
            drop_last=True,
            max_samples=args.max_images,
            pin_memory=self.device.type == "cuda",
            **share,
        )
        self.val_loader = make_loader(self.val_data, args.batch_size, max_samples=args.val_images, **share)
        if args.resident == "yes" or (args.resident == "auto" and args.cache):
            self.loader.keep_on(self.device, only_if_it_fits=args.resident == "auto")
        self.model = self._build_model()
        self.objective: Objective = config.build_objective(args, self.hand, self.model)
        self.objective.start_training(self.model)
        if self.objective.images_of_person > 1:
            self.loader.keep_together(self.data.columns["subject_id"], self.objective.images_of_person)
        network = torch.compile(self.model) if args.compile else self.model
        self.network = self.team.wrap(network)
        self.optimizer, self.scheduler = config.build_optimizer(
            args, self.model, args.epochs * len(self.loader), len(self.loader)
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == torch.float16)
        self._gradients = GraphedStep(self._compute_gradients) if self._can_be_recorded() else self._compute_gradients
        self.augment = {"fair": AugmentConfig.fair, "paper": AugmentConfig.paper, "none": AugmentConfig}[args.augment]()
        if args.rotation_deg is not None:
            self.augment = dataclasses.replace(self.augment, rotation_deg=args.rotation_deg)
        self.settings = train_settings(args) | {
            "hand model": self.card.hand_hash,
            "mesh levels": self.card.hierarchy_hash,
            "training samples": len(self.loader.indices),
        }
        self.position = Position()
        self.log, self._earlier_seconds = StepLog(self.device), 0.0
        self._stop: int | None = None
        self._started = self._saved_at = time.monotonic()

    def _build_model(self) -> nn.Module:
        options = dict(self.card.options)
        if self.args.backbone_weights:
            options["weights"] = self.args.backbone_weights
        model = dataclasses.replace(self.card, options=options).build(self.assets, self.args.hierarchy)
        self.card.hierarchy_hash = getattr(model, "hierarchy_hash", "")
        if self.args.init_from and not self.args.resume:
            initialise_from(model, self.args.init_from, self.args.init_parts)
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.args.channels_last == "yes" else model

    def _can_be_recorded(self) -> bool:
        """Whether a step may be replayed: not several processes', nor compiled, nor one that differs by batch."""
        if self.args.cuda_graph == "no" or self.device.type != "cuda" or self.team.size > 1:
            return False
        return self.objective.is_static and not self.args.compile

    # --- state -------------------------------------------------------------------------------

    def save(self, path: object) -> None:
        """Write everything that the next batch depends on (the leading process does; all must call)."""
        self._saved_at = time.monotonic()
        log = self.log.state(self.team.sum)
        if not self.team.leads:
            return
        save_checkpoint(
            path,
            self.card,
            self.model,
            optimizer=self.optimizer.state_dict(),
            scheduler=self.scheduler.state_dict(),
            scaler=self.scaler.state_dict(),
            position=dataclasses.asdict(self.position),
            log=log,
            seconds=self._seconds(),
            random=torch.get_rng_state(),
            settings=self.settings,
            seed=self.args.seed,
            epochs=self.args.epochs,
            versions=versions(),
        )

    def resume(self, path: Path) -> dict[str, list[Any]]:
        """Go on from a state that `save` wrote.

        Returns:
            with ``--override``: settings that differ, by name, as saved and as now. The epoch under way begins again
            then, since its batches are others.

        Raises:
            CheckpointError: another network's state, or (without ``--override``) a run of other settings.
        """
        state = read_checkpoint(path)
        if "optimizer" not in state:
            raise CheckpointError(f"{path}: holds weights only; continue from them with --init_from")
        saved = state.get("settings") or {"seed": state["seed"], "epochs": state["epochs"]}
        changed = {
            name: [saved[name], now] for name, now in self.settings.items() if name in saved and saved[name] != now
        }
        if changed and not self.args.override:
            listed = "; ".join(f"{_flag(name)} was {old}, is {new}" for name, (old, new) in changed.items())
            raise CheckpointError(
                f"{path}: not the same run: {listed}. Give the saved run's settings, start another run (--exp_name), "
                "or go on with these by --override, which args.N.json will tell"
            )
        load_strictly(self.model, state["model"], path)
        position = Position(**state["position"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if changed:
            position.batch = 0
            self._set_rates(position.epoch * len(self.loader))
        else:
            self.scheduler.load_state_dict(state["scheduler"])
            is_first = self.team.leads  # the sums are of all processes together
            self.log = StepLog(self.device, state.get("log") if is_first else None)
            self._earlier_seconds = state.get("seconds", 0.0)
        self.position = position
        logger.info("resumed %s at epoch %d, batch %d", path, self.position.epoch, self.position.batch)
        return changed

    def _set_rates(self, steps: int) -> None:
        """Learning rate and weight decay as this run's own options have them after so many steps."""
        moments = self.optimizer.state_dict()["state"]
        self.optimizer, self.scheduler = config.build_optimizer(
            self.args, self.model, self.args.epochs * len(self.loader), len(self.loader)
        )
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no step of the optimizer came before
            for _ in range(steps):
                self.scheduler.step()

    # --- the loop ----------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the configured number of epochs.

        Raises:
            RunFolderError: another process trains in the folder, or it holds another run.
            CheckpointError: as `resume`.
            Interrupted: SIGTERM or SIGINT; the state was saved.
            NonFiniteLossError: see there.
        """
        with self.folder.owned() if self.team.leads else contextlib.nullcontext():
            self._begin()
            previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
            try:
                while self.position.epoch < self.args.epochs:
                    self._epoch()
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)
            self.team.barrier()  # whoever returns first finds the last state written
        logger.info(
            "trained %d epochs; best %s %.3f; %s",
            self.args.epochs,
            self.objective.score,
            self.position.best,
            self.folder.last,
        )

    def _begin(self) -> None:
        """Take up the saved state, if there is one to go on from, and note how the run goes on."""
        args, folder = self.args, self.folder
        path = folder.last if args.resume == "auto" else None if args.resume is None else Path(args.resume)
        # `--resume` without a file also starts a run that has not begun, so one command serves both.
        is_new = path is None or (args.resume == "auto" and not path.is_file())
        is_own = not is_new and path.resolve().parent == folder.checkpoints.resolve()
        changed: dict[str, list[Any]] = {}
        if not is_new:
            changed = self.resume(path)
        elif args.resume and args.init_from:
            initialise_from(self.model, args.init_from, args.init_parts)
        if self.team.leads and not is_own:
            if args.overwrite:
                folder.clear()
            elif args.resume == "auto" and folder.best.is_file():
                raise RunFolderError(
                    f"{folder.root} holds best.pt but no last.pt to go on from; --resume {folder.best} goes on from "
                    "there, --overwrite starts anew"
                )
            elif args.resume != "auto":
                folder.refuse_another_run()
        if is_own and folder.best.is_file():  # never to be replaced by a worse one
            best = read_checkpoint(folder.best).get("position", {}).get("best", math.inf)
            self.position.best = min(self.position.best, best)
        if self.team.leads and self.position.epoch < args.epochs:
            place = {"from": str(path), "epoch": self.position.epoch, "batch": self.position.batch}
            notes = {} if is_new else {"resumed": place}
            folder.record(args, self._command, self.device, **notes, **({"changed": changed} if changed else {}))
        self.team.barrier()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop = number

    def _stop_if_told(self) -> None:
        """Raise Interrupted after a signal; the state is saved."""
        if self._stop is not None:
            raise Interrupted(128 + self._stop)

    def _seconds(self) -> float:
        """Of this epoch, also before it was resumed."""
        return self._earlier_seconds + time.monotonic() - self._started

    def _epoch(self) -> None:
        position = self.position
        self._started = time.monotonic()
        self.objective.start_training(self.model)
        self.loader.set_epoch(position.epoch, start_batch=position.batch)
        bar = tqdm(
            self.loader,
            initial=position.batch,
            total=len(self.loader),
            desc=f"epoch {position.epoch + 1}/{self.args.epochs}",
            mininterval=2,
            disable=not self.team.leads,
        )
        for batch in bar:
            terms = self._step(batch)
            self.log.add(terms, position.batch, batch["image_id"])
            position.batch += 1
            # at the same batch in all processes: they check and leave together
            if self.log.is_due or (self._stop is not None and self.team.size == 1):
                stop, save = self._check()
                bar.set_postfix({name: f"{value:.3f}" for name, value in self.log.means().items()}, refresh=False)
                if stop or save:
                    self.save(self.folder.last)
                if stop:
                    raise Interrupted(128 + (self._stop or signal.SIGTERM))
        self._check()
        sums = self.log.state(self.team.sum)
        if not sums:
            raise ValueError("no batch of this epoch held a usable sample; see the warnings, repair the data")
        position.batch = len(self.loader)
        self.save(self.folder.last)  # validation may be long: a signal or a kill during it loses nothing
        row = {f"train_{name}": value for name, value in self.log.means(sums).items()}
        row |= {f"val_{name}": value for name, value in self.validate().items()}
        self._finish_epoch(row)

    def _finish_epoch(self, row: dict[str, float]) -> None:
        """Write the epoch's line, and its state if it is the best one so far."""
        position = self.position
        score = row.get(f"val_{self.objective.score}", math.nan)
        rate = self.scheduler.get_last_lr()[0]
        row = {"epoch": position.epoch + 1, "lr": rate, "seconds": self._seconds(), **row}
        if self.team.leads:
            self.folder.log_epoch(row)
        logger.info("epoch %s", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        if not math.isfinite(score):
            raise NonFiniteLossError(
                f"epoch {row['epoch']}: val_{self.objective.score} is {score}, so no epoch could be the best; see "
                f"{self.folder.log}. More --val_images may help a ranking, a lower --lr a loss that grows"
            )
        position.epoch, position.batch = position.epoch + 1, 0
        self.log, self._earlier_seconds, self._started = StepLog(self.device), 0.0, time.monotonic()
        if score < position.best:
            position.best = score
            self.save(self.folder.best)
        self.save(self.folder.last)

    def validate(self) -> dict[str, float]:
        """Mean of every score over the validation split.

        Raises:
            Interrupted: after a signal.
        """
        self.team.agree(self.model)  # all measure the network that is saved
        view = {"input_size": self.args.input_size, "device": self.device, "crop_scale": self.args.crop_scale}
        return mean_scores(self.model, self.objective, self.val_loader, view, self.team, self._stop_if_told)

    def _step(self, raw: dict[str, torch.Tensor]) -> dict[str, Term]:
        """One update from a batch of samples; the loss and its terms, scalars on the device."""
        position, args = self.position, self.args
        generator = _augment_generator(args.seed, self.team.rank, position.epoch, position.batch, self.device)
        size, scale, follow = args.input_size, args.crop_scale, args.crop != "image"
        batch = prepare_batch(raw, size, self.device, self.augment, generator, scale, follow)
        terms = self._gradients(batch)
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        return terms

    def _compute_gradients(self, batch: dict[str, torch.Tensor]) -> dict[str, Term]:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
            output = self.objective.forward(self.network, batch)
        loss, terms = self.objective.loss(output, batch)
        self.scaler.scale(loss).backward()
        return {"loss": loss.detach(), **terms}

    def _check(self) -> tuple[bool, bool]:
        """Whether a signal came, and whether it is time to save, in any process.

        Raises:
            NonFiniteLossError: a loss since the last check was not finite in any process; what is saved stays.
        """
        bad = self.log.first_bad()
        is_late = time.monotonic() - self._saved_at > 60 * self.args.save_minutes
        any_bad, stop, save = self.team.any_of(bad is not None, self._stop is not None, is_late, device=self.device)
        if any_bad:
            loss, batch, images = bad or (math.nan, self.position.batch - 1, ["of another process"])
            raise NonFiniteLossError(
                f"loss is {loss} in epoch {self.position.epoch + 1}, batch {batch}, images {images}...; "
                f"{self.folder.last} is the last good state: start from it with --init_from and a lower --lr"
            )
        return stop, save


def _flag(setting: str) -> str:
    return setting if " " in setting else f"--{setting}"


def train(args: argparse.Namespace, command: list[str] | None = None) -> None:
    """Train a network as the options say; see ``run.py --help``. ``command``: the words to note (default: sys.argv)."""
    with team_work(), naming_dead_workers():
        Trainer(apply_recipe(args), command).run()
