"""Everything that the next batch of a training depends on, saved and taken up again."""

from __future__ import annotations

import dataclasses
import logging
import math
import operator
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.engine.checkpoint import (
    ModelCard,
    load_strictly,
    read_checkpoint,
    save_checkpoint,
)
from src.engine.distributed import DistributedContext
from src.engine.run_folder import versions
from src.engine.step_log import StepLog
from utils.files import READ_ERRORS
from utils.torch_files import CheckpointError, UnreadableCheckpointError

logger = logging.getLogger(__name__)

Rates = tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]


@dataclasses.dataclass
class Position:
    """Where a training is: the next batch to take, and the best validation score so far."""

    epoch: int = 0
    batch: int = 0
    best: float = math.inf


class TrainingState:
    """Network, optimizer, schedule, position, and what the steps of the epoch under way said.

    Args:
        build_rates: the network's optimizer and schedule, new; scaler: of the losses.
        settings: options by name that decide what is trained (`run_folder.train_settings`).
        batches: of an epoch.
        context: the processes; the main one writes.
    """

    def __init__(
        self,
        card: ModelCard,
        model: nn.Module,
        build_rates: Callable[[], Rates],
        scaler: torch.amp.GradScaler,
        settings: dict[str, Any],
        batches: int,
        device: torch.device,
        context: DistributedContext,
    ) -> None:
        self.card, self.model, self.scaler = card, model, scaler
        self.settings, self._batches, self._device, self._context = settings, batches, device, context
        self.optimizer, self.scheduler = build_rates()
        self.position, self.log = Position(), StepLog(device)
        self._earlier_seconds, self._started = 0.0, time.monotonic()
        #: By option what the weights began from: names and hashes of files, the parts taken; "": not given.
        self.began_from: dict[str, str] = {}

    def start_clock(self) -> None:
        """An epoch, or what is left of it, begins."""
        self._started = time.monotonic()

    def seconds(self) -> float:
        """Seconds of this epoch, also before it was resumed."""
        return self._earlier_seconds + time.monotonic() - self._started

    def end_epoch(self) -> None:
        """Go to the start of the next one."""
        self.position.epoch, self.position.batch = self.position.epoch + 1, 0
        self.log, self._earlier_seconds = StepLog(self._device), 0.0
        self.start_clock()

    def save(self, path: Path) -> None:
        """Write everything (the main process does; all must call)."""
        log = self.log.state(self._context.all_reduce)
        if self._context.is_main:
            save_checkpoint(
                path,
                self.card,
                self.model,
                optimizer=self.optimizer.state_dict(),
                scheduler=self.scheduler.state_dict(),
                scaler=self.scaler.state_dict(),
                position=dataclasses.asdict(self.position),
                log=log,
                seconds=self.seconds(),
                random=torch.get_rng_state(),
                settings=self.settings,
                began_from=self.began_from,
                seed=self.settings["seed"],
                epochs=self.settings["epochs"],
                versions=versions(),
            )

    def load(self, path: Path, override: bool = False) -> dict[str, list[Any]]:
        """Go on from what `save` wrote.

        Args:
            override: go on with these settings where the saved ones differ. The epoch under way begins again then,
                since its batches are others.

        Returns:
            settings that differ, by name, as saved and as now.

        Raises:
            CheckpointError: another network's state, weights that began from others than stated, or (without
                ``override``) a run of other settings.
        """
        state = read_checkpoint(path)
        if "optimizer" not in state:
            raise CheckpointError(f"{path}: holds weights only; continue from them with --init_from")
        began_from = state.get("began_from", {})
        if isinstance(began_from, str):  # of older ones, which noted one file
            began_from = {"--init_from": began_from}
        for option, now in self.began_from.items():
            before = began_from.get(option, now)
            if now not in ("", before):
                raise CheckpointError(
                    f"{path}: began {f'from {before}' if before else f'without {option}'}, not from {now}: --overwrite "
                    f"begins anew from that, and without {option.replace('parts', 'from')} it goes on"
                )
        self.began_from |= began_from
        saved = state.get("settings") or {"seed": state["seed"], "epochs": state["epochs"]}
        changed = {
            name: [saved[name], now] for name, now in self.settings.items() if name in saved and saved[name] != now
        }
        if changed and not override:
            flags = {name: name if " " in name else f"--{name}" for name in changed}
            listed = "; ".join(f"{flags[name]} was {old}, is {new}" for name, (old, new) in changed.items())
            raise CheckpointError(
                f"{path}: not the same run: {listed}. Give the saved run's settings, start another run (--exp_name), "
                "or go on with these by --override, which args.N.json will tell"
            )
        load_strictly(self.model, state["model"], path)
        try:
            self._take_up(state, bool(changed))
        except READ_ERRORS as error:
            words = f"{type(error).__name__}: {error}"
            raise UnreadableCheckpointError(f"{path}: holds no whole state of a training ({words})") from error
        logger.info("resumed %s at epoch %d, batch %d", path, self.position.epoch, self.position.batch)
        return changed

    def _take_up(self, state: dict[str, Any], changed: bool) -> None:
        """Everything of a checkpoint but the weights; ``changed``: the settings are others."""
        self.position = Position(**state["position"])
        if changed:  # the epoch begins again, whatever its batches were
            self.position.batch = 0
        if not (0 <= operator.index(self.position.epoch) and 0 <= self.position.batch <= self._batches):
            raise ValueError(f"{self.position}, but epochs have {self._batches} batches; was it of more images?")
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if changed:
            self._set_rates(self.position.epoch * self._batches, state["optimizer"])
        else:
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            log = state.get("log")
            if log and not self._context.is_main:  # the sums are of all processes together
                log = log | {"sums": [[0.0] * len(row) for row in log["sums"]]}
            self.log = StepLog(self._device, log)
            self._earlier_seconds = state.get("seconds", 0.0)

    def _set_rates(self, steps: int, saved: dict[str, Any]) -> None:
        """Learning rate and weight decay as this run's own options have them after so many steps; moments as saved."""
        own = self.optimizer.state_dict()
        sizes, before = ([len(group["params"]) for group in one["param_groups"]] for one in (own, saved))
        if sizes == before:
            self.optimizer.load_state_dict(own | {"state": saved["state"]})
        else:  # moments go by the parameters' order, which groups change
            logger.info("the optimizer has other groups (--body_lr), so its moments start anew")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no step of the optimizer came before
            for _ in range(steps):
                self.scheduler.step()
