"""Training: resumable to the bit on CPU, stops cleanly on SIGTERM and on a loss that is not finite."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from datasets.augment import AugmentConfig, prepare_batch
from datasets.loading import BatchLoader
from datasets.protocol import SampleDataset
from options.recipes import apply_recipe
from src.engine import config
from src.engine.checkpoint import ModelCard, initialise_from, read_checkpoint
from src.engine.cuda_graph import GraphedStep
from src.engine.distributed import Interruption, init_distributed, process_group
from src.engine.run_folder import RunFolder, run_path, train_settings
from src.engine.step_log import Term, mean_scores
from src.engine.training_state import TrainingState
from src.models.objectives import Objective
from utils.device import choose_device
from utils.torch_files import UnreadableCheckpointError

logger = logging.getLogger(__name__)


#: Settings without a part in what a validation score is of; with others changed, scores cannot be compared.
_NOT_OF_SCORES = {
    *"batch_size epochs lr body_lr weight_decay optimizer schedule augment rotation_deg seed amp split".split(),
    "training samples",
    "max_images",
}


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the last good checkpoint is untouched."""


def _shared_images(first: SampleDataset, second: SampleDataset) -> int:
    """How many images of the second data set the first one holds, too; of shards, which do not say, none."""
    if not (hasattr(first, "image_path") and hasattr(second, "image_path")):
        return 0
    held = {first.image_path(row) for row in range(len(first))}
    return sum(second.image_path(row) in held for row in range(len(second)))


def _named(path: str | None) -> str:
    """Name and hash of a weights' file; "" for none, or one that is no longer there."""
    if path is None or not Path(path).is_file():
        return ""
    return f"{Path(path).name} ({hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]})"


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
        self.folder = RunFolder(run_path(args))
        if not args.resume and not args.overwrite:
            self.folder.refuse_another_run()
        torch.manual_seed(args.seed)
        self.device = choose_device(args.device, args.threads)
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
        self.context = init_distributed(self.device)
        self.amp = config.autocast_dtype(args.amp, self.device)
        self.hand, self.assets = config.hand_model(args, self.device)
        self.card: ModelCard = config.model_card(args, self.assets)
        options = dict(self.card.options) | ({"weights": args.backbone_weights} if args.backbone_weights else {})
        model = dataclasses.replace(self.card, options=options).build(self.assets, args.hierarchy)
        self.card.hierarchy_hash = getattr(model, "hierarchy_hash", "")
        frozen = args.model == "mano_baseline_conf"  # all but its branch is taken as it is
        is_new = self._state_to_resume() is None
        if frozen and is_new and not args.init_from:
            raise ValueError("--model mano_baseline_conf trains its branch alone; give the baseline: --init_from FILE")
        if args.init_from and is_new:
            initialise_from(model, args.init_from, args.init_parts, self.card, frozen, self.assets)
        with self.context.local_main_first():
            labels = {"with_mask": True} if args.dataset == "freihand" and config.has_mask(args) else {}
            self.data = config.open_dataset(args, args.split or f"{args.setup}_train", args.crop_size, **labels)
            self.val_data = config.open_dataset(args, f"{args.setup}_val", args.crop_size)
        if args.split and (seen := _shared_images(self.data, self.val_data)):
            logger.warning(
                "%d of the %d validation images (%s_val) are trained on, too: best.pt says nothing of unseen people",
                *(seen, len(self.val_data), args.setup),
            )
        share = {"rank": self.context.rank, "world_size": self.context.world_size}
        self.loader = BatchLoader(
            self.data,
            self.context.local_batch_size(args.batch_size),
            shuffle=True,
            seed=args.seed,
            num_workers=args.num_workers,
            drop_last=True,
            max_samples=args.max_images,
            pin_memory=self.device.type == "cuda",
            **share,
        )
        self.val_loader = BatchLoader(self.val_data, args.batch_size, max_samples=args.val_images, **share)
        if args.resident == "yes" or (args.resident == "auto" and args.cache):
            self.loader.keep_on(self.device, only_if_it_fits=args.resident == "auto")
        model = model.to(self.device)
        self.model = model.to(memory_format=torch.channels_last) if args.channels_last == "yes" else model
        self.objective: Objective = config.build_objective(args, self.hand, self.model)
        self.objective.start_training(self.model)
        if self.objective.images_of_person > 1:
            self.loader.keep_together(self.data.columns["subject_id"], self.objective.images_of_person)
        network = torch.compile(self.model) if args.compile else self.model
        self.network = self.context.wrap(network)
        settings = train_settings(args, self.card, len(self.loader.indices))
        batches = len(self.loader)
        build_rates = functools.partial(config.build_optimizer, args, self.model, args.epochs * batches, batches)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == torch.float16)
        self.state = TrainingState(
            self.card, self.model, build_rates, scaler, settings, batches, self.device, self.context
        )
        parts = " ".join(sorted(args.init_parts or ["all parts"])) if args.init_from else ""
        files = {f"--{name}": _named(getattr(args, name)) for name in ("init_from", "backbone_weights")}
        self.state.began_from = files | {"--init_parts": parts}
        self._gradients = self._compute_gradients
        is_gpu_alone = self.device.type == "cuda" and self.context.world_size == 1
        if args.cuda_graph != "no" and is_gpu_alone and self.objective.is_static and not args.compile:
            self._gradients = GraphedStep(self._compute_gradients)
        self.augment = {"fair": AugmentConfig.fair, "paper": AugmentConfig.paper, "none": AugmentConfig}[args.augment]()
        if args.rotation_deg is not None:
            self.augment = dataclasses.replace(self.augment, rotation_deg=args.rotation_deg)
        self.interruption = Interruption(self.context)
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Train to the configured number of epochs.

        Raises:
            LockedError: another process trains in the folder. RunFolderError: it holds another run.
            CheckpointError: as `TrainingState.load`.
            Interrupted: SIGTERM or SIGINT; the state was saved.
            NonFiniteLossError: see there.
        """
        with self.folder.owned() if self.context.is_main else contextlib.nullcontext():
            with self.interruption.listening():
                self._begin()
                while self.state.position.epoch < self.args.epochs:
                    self._epoch()
            self.context.barrier()  # whoever returns first finds the last state written
        score, best = self.objective.score, self.state.position.best
        logger.info("trained %d epochs; best %s %.3f; %s", self.args.epochs, score, best, self.folder.last)

    def _state_to_resume(self) -> Path | None:
        resume = self.args.resume
        return None if self.args.overwrite and resume == "auto" else self.folder.state_to_resume(resume)

    def _begin(self) -> None:
        """Take up the saved state, if there is one to go on from, and note how the run goes on."""
        args, folder, position = self.args, self.folder, self.state.position
        path = self._state_to_resume()
        changed: dict[str, list[Any]] = {}
        if path is not None:
            try:
                changed = self.state.load(path, args.override)
            except UnreadableCheckpointError as error:
                if path != folder.last or not folder.best.is_file():
                    raise
                raise UnreadableCheckpointError(
                    f"{error} --resume {folder.best} goes on from the best epoch"
                ) from error
            position = self.state.position
        is_own = path is not None and path.resolve().parent == folder.checkpoints.resolve()
        self.context.barrier()  # all have read
        if self.context.is_main and args.overwrite:
            folder.clear()
        elif self.context.is_main and not is_own and args.resume != "auto":
            folder.refuse_another_run()
        folder.epochs()  # damaged: said now, not after an epoch
        of_pairs = {"batch_size"} if self.objective.score == "ranking_error" else set()  # within a batch
        if changed.keys() - _NOT_OF_SCORES | changed.keys() & of_pairs:  # scores are of other images, views or pairs
            position.best = math.inf
            if is_own and self.context.is_main and folder.best.is_file():
                taken = len(list(folder.best.parent.glob("best_before*.pt")))
                aside = folder.best.with_name(f"best_before{f'_{taken + 1}' if taken else ''}.pt")
                folder.best.rename(aside)
                logger.info("scores are new, so that best.pt starts anew; the one before is %s", aside)
        elif is_own and folder.best.is_file():  # never to be replaced by a worse one
            best = read_checkpoint(folder.best).get("position", {}).get("best", math.inf)
            position.best = min(position.best, best)
        else:  # a score without its state, which lies in another run's folder
            position.best = math.inf
        if self.context.is_main and position.epoch < args.epochs:
            notes: dict[str, Any] = {"changed": changed} if changed else {}
            if path is not None:
                notes["resumed"] = {"from": str(path), "epoch": position.epoch, "batch": position.batch}
            folder.record(args, self._command, self.device, **notes)
        self.context.barrier()

    def _save(self, path: Path) -> None:
        self._saved_at = time.monotonic()
        self.state.save(path)

    def _epoch(self) -> None:
        position = self.state.position
        self.state.start_clock()
        self.objective.start_training(self.model)
        self.loader.set_epoch(position.epoch, start_batch=position.batch)
        bar = tqdm(
            self.loader,
            initial=position.batch,
            total=len(self.loader),
            desc=f"epoch {position.epoch + 1}/{self.args.epochs}",
            mininterval=2,
            disable=not self.context.is_main,
        )
        for batch in bar:
            terms = self._step(batch)
            self.state.log.add(terms, position.batch, batch["image_id"])
            position.batch += 1
            # at the same batch in all processes: they check and leave together
            if self.state.log.is_due or (self.interruption.is_noted() and self.context.world_size == 1):
                stop, save = self._check()
                bar.set_postfix({name: f"{value:.3f}" for name, value in self.state.log.means().items()}, refresh=False)
                if stop or save:
                    self._save(self.folder.last)
                if stop:
                    raise self.interruption.ended()
        self._check()
        sums = self.state.log.state(self.context.all_reduce)
        if not sums:
            raise ValueError("no batch of this epoch held a usable sample; see the warnings, repair the data")
        position.batch = len(self.loader)
        self._save(self.folder.last)  # validation may be long: a signal or a kill during it loses nothing
        row = {f"train_{name}": value for name, value in self.state.log.means(sums).items()}
        row |= {f"val_{name}": value for name, value in self.validate().items()}
        # the epoch's line, and its state if it is the best one so far
        score = row.get(f"val_{self.objective.score}", math.nan)
        rate = self.state.scheduler.get_last_lr()[0]
        row = {"epoch": position.epoch + 1, "lr": rate, "seconds": self.state.seconds(), **row}
        if self.context.is_main:
            self.folder.log_epoch(row)
        logger.info("epoch %s", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        if not math.isfinite(score):
            raise NonFiniteLossError(
                f"epoch {row['epoch']}: val_{self.objective.score} is {score}, so no epoch could be the best; see "
                f"{self.folder.log}. More --val_images may help a ranking, a lower --lr a loss that grows"
            )
        self.state.end_epoch()
        if score < position.best:
            position.best = score
            self._save(self.folder.best)
        self._save(self.folder.last)

    def validate(self) -> dict[str, float]:
        """Mean of every score over the validation split.

        Raises:
            Interrupted: after a signal to any process.
        """
        self.context.broadcast_buffers(self.model)  # all measure the network that is saved
        view = {"input_size": self.args.input_size, "device": self.device, "crop_scale": self.args.crop_scale}
        is_noted = self.interruption.is_noted
        scores = mean_scores(self.model, self.objective, self.val_loader, view, self.context, is_noted)
        if self.context.any_of(is_noted(), device=self.device)[0]:  # all leave together, none in the others' exchange
            raise self.interruption.ended()
        return scores

    def _step(self, raw: dict[str, torch.Tensor]) -> dict[str, Term]:
        """One update from a batch of samples; the loss and its terms, scalars on the device."""
        position, args = self.state.position, self.args
        # of the batch's place alone: a resumed run draws the same
        place = (args.seed * 1_000_003 + position.epoch) * 1_000_003 + position.batch
        seed = (place + self.context.rank * 7_046_029_254_386_353_087) % 2**63
        generator = torch.Generator(device=self.device).manual_seed(seed)
        follow = args.crop != "image"
        batch = prepare_batch(
            raw, args.input_size, self.device, self.augment, generator, args.crop_scale, follow_joints=follow
        )
        terms = self._gradients(batch)
        scaler, optimizer = self.state.scaler, self.state.optimizer
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        scaler.step(optimizer)
        scaler.update()
        self.state.scheduler.step()
        return terms

    def _compute_gradients(self, batch: dict[str, torch.Tensor]) -> dict[str, Term]:
        self.state.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
            output = self.objective.forward(self.network, batch)
        loss, terms = self.objective.loss(output, batch)
        self.state.scaler.scale(loss).backward()
        return {"loss": loss.detach(), **terms}

    def _check(self) -> tuple[bool, bool]:
        """Whether a signal came, and whether it is time to save, in any process.

        Raises:
            NonFiniteLossError: a loss since the last check was not finite in any process; what is saved stays.
        """
        bad = self.state.log.first_bad()
        is_late = time.monotonic() - self._saved_at > 60 * self.args.save_minutes
        any_bad, stop, save = self.context.any_of(
            bad is not None, self.interruption.is_noted(), is_late, device=self.device
        )
        if any_bad:
            loss, batch, images = bad or (math.nan, self.state.position.batch - 1, ["of another process"])
            remedy = f"{self.folder.last} is the last good state: start from it with --init_from and a lower --lr"
            if not self.folder.last.is_file():
                remedy = "no state was saved yet: start anew with --overwrite and a lower --lr"
            raise NonFiniteLossError(
                f"loss is {loss} in epoch {self.state.position.epoch + 1}, batch {batch}, images {images}...; {remedy}"
            )
        return stop, save


def train(args: argparse.Namespace, command: list[str] | None = None) -> None:
    """Train a network as the options say; see ``run.py --help``. ``command``: the words to note (default: sys.argv)."""
    with process_group():
        Trainer(apply_recipe(args), command).run()
