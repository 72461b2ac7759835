"""Training: resumable to the bit on CPU, stops cleanly on SIGTERM and on a loss that is not finite."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import signal
import sys
import time
from types import FrameType

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
from src.engine.run_folder import RunFolder, versions
from src.engine.step_log import StepLog
from src.engine.validation import mean_scores
from src.models.confidence_objective import IMAGES_OF_PERSON, WithinPersonConfidence, train_only_confidence
from src.models.objectives import ConfidenceObjective, Objective, freeze_all_but_confidence
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


def _augment_generator(seed: int, epoch: int, batch: int, device: torch.device) -> torch.Generator:
    """Random numbers of one batch, from its place alone: a resumed run draws the same."""
    return torch.Generator(device=device).manual_seed((seed * 1_000_003 + epoch) * 1_000_003 + batch)


class Trainer:
    """One training run: built from options, then `run`."""

    def __init__(self, args: argparse.Namespace, command: list[str] | None = None) -> None:
        self.args, self._command = args, command or sys.argv
        torch.manual_seed(args.seed)
        self.device = choose_device(args.device, args.threads)
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
        self.team = join_team(self.device)
        self.amp = config.autocast_dtype(args.amp, self.device)
        self.hand, self.assets = config.hand_model(args, self.device)
        self.card: ModelCard = config.model_card(args, self.assets)
        labels = config.label_options(args)
        self.data = config.open_dataset(args, args.split or f"{args.setup}_train", args.crop_size, **labels)
        self.val_data = config.open_dataset(args, f"{args.setup}_val", args.crop_size)
        self.loader = make_loader(
            self.data,
            self.team.share(args.batch_size),
            shuffle=True,
            seed=args.seed,
            num_workers=args.num_workers,
            drop_last=True,
            max_samples=args.max_images,
            pin_memory=self.device.type == "cuda",
            rank=self.team.rank,
            world_size=self.team.size,
        )
        if args.resident == "yes" or (args.resident == "auto" and args.cache):
            self.loader.keep_on(self.device, only_if_it_fits=args.resident == "auto")
        self.model = self._build_model()
        self.objective: Objective = config.build_objective(args, self.hand, self.model)
        self._freeze()
        if isinstance(self.objective, WithinPersonConfidence):
            self.loader.keep_together(self.data.columns["subject_id"], IMAGES_OF_PERSON)
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
        self.folder = RunFolder.of(args)
        self.position = Position()
        self._stop: int | None = None
        self._saved_at = time.monotonic()

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

    def _freeze(self) -> None:
        if isinstance(self.objective, ConfidenceObjective):
            freeze_all_but_confidence(self.model)
            if isinstance(self.objective, WithinPersonConfidence):
                train_only_confidence(self.model)

    def _can_be_recorded(self) -> bool:
        """Whether a step may be replayed: not several processes', nor compiled, nor over pairs differing in number."""
        if self.args.cuda_graph == "no" or self.device.type != "cuda" or self.team.size > 1:
            return False
        return not (self.args.compile or isinstance(self.objective, ConfidenceObjective))

    # --- state -------------------------------------------------------------------------------

    def save(self, path: object) -> None:
        """Write everything that the next batch depends on (the leading process does)."""
        self._saved_at = time.monotonic()
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
            random=torch.get_rng_state(),
            seed=self.args.seed,
            epochs=self.args.epochs,
            versions=versions(),
        )

    def resume(self, path: object) -> None:
        """Go on from a state that `save` wrote.

        Raises:
            CheckpointError: another network's state, or a run of another seed or length.
        """
        state = read_checkpoint(path)
        if "optimizer" not in state:
            raise CheckpointError(f"{path}: holds weights only; continue from them with --init_from")
        for name, own in (("seed", self.args.seed), ("epochs", self.args.epochs)):
            if state[name] != own:
                raise CheckpointError(f"{path}: was trained with --{name} {state[name]}, not {own}: not the same run")
        load_strictly(self.model, state["model"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.position = Position(**state["position"])
        torch.set_rng_state(state["random"])
        logger.info("resumed %s at epoch %d, batch %d", path, self.position.epoch, self.position.batch)

    # --- the loop ----------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the configured number of epochs."""
        if self.args.resume:
            path = self.folder.last if self.args.resume == "auto" else self.args.resume
            # `--resume` without a file also starts a run that has not begun, so one command serves both.
            if self.args.resume != "auto" or self.folder.last.is_file():
                self.resume(path)
            elif self.args.init_from:
                initialise_from(self.model, self.args.init_from, self.args.init_parts)
        if self.team.leads:
            for leftover in self.folder.checkpoints.glob(".*.tmp.pt"):  # of a process that was killed while it saved
                leftover.unlink()
            self.folder.write_arguments(self.args, self._command, self.device)
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

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop = number

    def _epoch(self) -> None:
        started, position = time.monotonic(), self.position
        self.model.train()
        self._freeze()
        self.loader.set_epoch(position.epoch, start_batch=position.batch)
        log = StepLog(self.device)
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
            log.add(terms, position.batch, batch["image_id"])
            position.batch += 1
            stop = self.team.any(self._stop is not None, self.device)
            if log.is_due or stop:  # at the same batch in all processes: they check together
                self._check(log)
                bar.set_postfix({name: f"{value:.3f}" for name, value in log.means().items()}, refresh=False)
                if stop or time.monotonic() - self._saved_at > 60 * self.args.save_minutes:
                    self.save(self.folder.last)
            if stop:
                raise Interrupted(128 + (self._stop or signal.SIGTERM))
        self._check(log)
        row = {f"train_{name}": value for name, value in log.means().items()}
        row |= {f"val_{name}": value for name, value in self.validate().items()}
        position.epoch, position.batch = position.epoch + 1, 0
        row = {
            "epoch": position.epoch,
            "lr": self.scheduler.get_last_lr()[0],
            "seconds": time.monotonic() - started,
            **row,
        }
        if self.team.leads:
            self.folder.log_epoch(row)
        score = row[f"val_{self.objective.score}"]
        logger.info("epoch %d: %s", position.epoch, ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "epoch"))
        if score < position.best:
            position.best = score
            self.save(self.folder.best)
        self.save(self.folder.last)

    def validate(self) -> dict[str, float]:
        """Mean of every score over the validation split."""
        args = self.args
        self.team.agree(self.model)  # all measure the network that is saved
        loader = make_loader(
            self.val_data, args.batch_size, max_samples=args.val_images, rank=self.team.rank, world_size=self.team.size
        )
        view = (args.input_size, self.device, None, None, args.crop_scale)
        return mean_scores(self.model, self.objective, loader, view, self.team)

    def _step(self, raw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One update from a batch of samples; the loss and its terms, scalars on the device."""
        position, args = self.position, self.args
        generator = _augment_generator(args.seed + self.team.rank, position.epoch, position.batch, self.device)
        size, scale, follow = args.input_size, args.crop_scale, args.crop != "image"
        batch = prepare_batch(raw, size, self.device, self.augment, generator, scale, follow)
        terms = self._gradients(batch)
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        return terms

    def _compute_gradients(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
            output = self.objective.forward(self.network, batch)
        loss, terms = self.objective.loss(output, batch)
        self.scaler.scale(loss).backward()
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    def _check(self, log: StepLog) -> None:
        """Stop, with what is saved as it is, if a loss since the last check was not finite in any process."""
        bad = log.first_bad()
        if not self.team.any(bad is not None, self.device):
            return
        loss, batch, images = bad or (math.nan, self.position.batch - 1, ["of another process"])
        raise NonFiniteLossError(
            f"loss is {loss} in epoch {self.position.epoch + 1}, batch {batch}, images {images}...; "
            f"{self.folder.last} is the last good state: start from it with --init_from and a lower --lr"
        )


def train(args: argparse.Namespace, command: list[str] | None = None) -> None:
    """Train a network as the options say; see ``run.py --help``. ``command``: the words to note (default: sys.argv)."""
    with team_work(), naming_dead_workers():
        Trainer(apply_recipe(args), command).run()
