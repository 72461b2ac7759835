"""Batches in an order that depends on nothing but the seed and the epoch."""

from __future__ import annotations

import logging
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

logger = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]
SHARED_MEMORY = Path("/dev/shm")
_BATCHES_PER_WORKER = 4  # that exist at once: two ready, one being made, one in use
_SAMPLES_AT_ONCE = 2048
#: Share of a device's free memory that samples may take: the rest is the network's.
MEMORY_SHARE = 0.5


class BatchLoader:
    """Iterates over batches of samples, dicts of torch tensors with the keys of `datasets.sample`.

    A data set with ``__getitems__(indices)`` gives its batches whole (with a crop cache: a copy out of a memory map,
    quick enough to need no workers); others are collated sample by sample. One with a method ``shuffled(indices,
    rng)`` chooses the shuffled order. That order is a function of (seed, epoch) alone, so a resumed run sees exactly
    the batches that an uninterrupted one would: ``loader.set_epoch(epoch, start_batch)``.

    Args:
        dataset: with or without ``__getitems__``.
        batch_size: samples a batch; the last one may be smaller unless ``drop_last``.
        shuffle: in an order that depends on ``seed`` and the epoch only; seed: of that order and of the workers.
        indices: visit only these samples of the data set. As an attribute: (N,), those visited, unshuffled.
        max_samples: visit at most so many of them, evenly spread. None or 0: all.
        num_workers: processes; 0 loads in this one. The batches do not depend on it.
        drop_last: leave out the last, smaller batch. Never for evaluation.
        drop_invalid: leave out samples with ``valid`` False: those known to be (``dataset.columns["valid"]``) from
            the start, those found while loading (unreadable pictures) from their batch, which is then smaller.
        pin_memory: page-locked memory for quick copies to a GPU (with workers only).
        rank, world_size: this process's share in distributed runs. Shuffled shares are equal in length.

    Raises:
        ValueError: if the batch size is not positive, there is nothing to load, or with ``drop_last`` no whole batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        indices: np.ndarray | None = None,
        max_samples: int | None = None,
        num_workers: int = 0,
        drop_last: bool = False,
        drop_invalid: bool = True,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be positive")
        chosen = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
        if drop_invalid and hasattr(dataset, "columns"):
            chosen = chosen[dataset.columns["valid"][chosen]]
        if max_samples and max_samples < len(chosen):
            chosen = chosen[np.linspace(0, len(chosen) - 1, max_samples).round().astype(np.int64)]
        self.dataset, self.batch_size, self.indices = dataset, batch_size, chosen
        self._shuffle, self._seed = shuffle, seed
        self._num_workers, self._pin_memory = num_workers, pin_memory
        self._drop_last, self._drop_invalid = drop_last, drop_invalid
        self._rank, self._world_size = rank, world_size
        self._epoch, self._start_batch = 0, 0
        self._group: np.ndarray | None = None
        self._run = 1
        self._resident: ResidentSamples | None = None
        self.check_size()

    def keep_on(self, device: torch.device, only_if_it_fits: bool = False) -> bool:
        """From now on keep all samples in the memory of ``device`` and give batches there; True if it is so.

        Samples found invalid while they are read leave `indices`. The order of the others is that of any loader with
        these indices, so batches are the same as without.

        Args:
            device: a GPU; a CPU works too, for tests.
            only_if_it_fits: do nothing if a GPU has too little memory free, or there is none.
        """
        if only_if_it_fits and not fits(self._read(self.indices[:1]), len(self.indices), device):
            return False
        self._resident = ResidentSamples(self.indices, self._read, device, self._drop_invalid)
        self.indices = self._resident.indices
        self.check_size()
        logger.info("%d samples are kept in the memory of %s", len(self.indices), device)
        return True

    def check_size(self) -> None:
        """Refuse samples that give no batch.

        Raises:
            ValueError: there is none, or there are fewer than a batch and the last, smaller one is left out.
        """
        if len(self.indices) == 0:
            where = f"{getattr(self.dataset, 'root', 'the data set')}, {getattr(self.dataset, 'split', 'whole')}"
            raise ValueError(f"{where}: none of {len(self.dataset)} samples is valid; the warnings above say why")
        if self._drop_last and len(self) == 0:
            each = f" in each of {self._world_size} processes" if self._world_size > 1 else ""
            raise ValueError(
                f"{len(self.indices)} samples give no batch of {self.batch_size}{each}, so nothing would be trained; "
                "use a smaller --batch_size or more data (--max_images, --split, --side)"
            )

    def keep_together(self, group: np.ndarray, run: int) -> None:
        """From now on let up to ``run`` samples of a group follow each other when shuffled (and share a batch).

        Args:
            group: (len(dataset),) numbers, e.g. whose hand it is.
        """
        self._group, self._run = np.asarray(group), run

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch of the next iteration, and the batch it starts at (that one time)."""
        self._epoch, self._start_batch = epoch, start_batch

    def __len__(self) -> int:
        """Batches in a whole epoch, whatever ``start_batch``."""
        count = len(self._order())
        return count // self.batch_size if self._drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order, first, self._start_batch = self._order(), self._start_batch, 0
        size = self.batch_size
        batches = [order[number * size : (number + 1) * size] for number in range(first, len(self))]
        if self._resident is not None:
            yield from map(self._resident.take, batches)
            return
        mixed = np.random.SeedSequence((self._seed, self._epoch, self._rank))
        loader = DataLoader(
            self.dataset,
            batch_sampler=batches,
            collate_fn=_collate,
            num_workers=min(self._workers_that_fit(), len(batches)),
            pin_memory=self._pin_memory,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator().manual_seed(int(mixed.generate_state(1, np.uint32)[0])),
        )
        try:
            yield from filter(self._is_usable, map(self._without_invalid, loader))
        except (ConnectionError, EOFError) as error:  # it died while it handed over a batch
            traceback.clear_frames(error.__traceback__)
            words = f"a loader process died ({type(error).__name__}: {error}): it was killed, or the memory was used up"
            raise RuntimeError(f"{words}; use fewer --num_workers") from error
        except RuntimeError as error:  # of a loader process that died, told again and again while its loader lives
            traceback.clear_frames(error.__traceback__)
            raise

    def _read(self, indices: np.ndarray) -> Batch:
        """The collated batch of these samples, read in this process."""
        if hasattr(self.dataset, "__getitems__"):
            return _collate(self.dataset.__getitems__(indices))
        return _collate([self.dataset[int(index)] for index in indices])

    def _workers_that_fit(self) -> int:
        """Loader processes whose batches in waiting fit into the shared memory, where full means a hang or SIGBUS."""
        free = shared_memory_free() if self._num_workers else None
        if free is None:
            return self._num_workers
        sample = sum(value.nbytes for value in self._read(self.indices[:1]).values())
        fitting = int(free // (sample * self.batch_size * _BATCHES_PER_WORKER))
        if fitting >= self._num_workers:
            return self._num_workers
        logger.warning(
            "%s has %.0f MB free, room for the batches of %d loader processes, not %d: using %d (docker run "
            "--shm-size=8g or --ipc=host gives more)",
            SHARED_MEMORY, free / 1e6, fitting, self._num_workers, fitting,
        )  # fmt: skip
        return fitting

    def _order(self) -> np.ndarray:
        """Dataset indices in the order of this epoch, this process's share of them."""
        if not self._shuffle:
            return self.indices[self._rank :: self._world_size]
        random_numbers = np.random.default_rng([self._seed, self._epoch])
        shuffled = getattr(self.dataset, "shuffled", None)  # a data set may know an order that is quick to read
        order = shuffled(self.indices, random_numbers) if shuffled else random_numbers.permutation(self.indices)
        if self._group is not None:
            order = _in_runs(order, self._group[order], self._run)
        share = len(order) // self._world_size  # equal shares: every process must take the same number of steps
        return order[self._rank :: self._world_size][:share]

    def _is_usable(self, batch: Batch) -> bool:
        if all(len(value) > 0 for value in batch.values()):
            return True
        if self._shuffle and self._world_size > 1:  # the others would take one step more, and wait for ever
            raise ValueError(f"process {self._rank}: a whole batch is unusable; see the warnings, repair the data")
        logger.warning("a batch held no usable sample and was left out")
        return False

    def _without_invalid(self, batch: Batch) -> Batch:
        valid = batch.get("valid")
        if not self._drop_invalid or valid is None or bool(valid.all()):
            return batch
        return {key: value[valid] for key, value in batch.items()}


def shared_memory_free() -> int | None:
    """Bytes free where loader processes hand over their batches; None where that is not a folder (not Linux)."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None


def _collate(samples: dict[str, np.ndarray] | list[dict[str, Any]]) -> Batch:
    """A batch of what a data set's ``__getitems__`` gave: a batch already, or samples."""
    if not isinstance(samples, dict):
        return default_collate(samples)
    return {key: _tensor(value) for key, value in samples.items()}


def _tensor(array: np.ndarray) -> torch.Tensor:
    try:
        return torch.from_numpy(array)
    except ValueError:  # a single row of a record array has strides that torch does not take
        return torch.from_numpy(array.copy())


def _in_runs(order: np.ndarray, group: np.ndarray, run: int) -> np.ndarray:
    """``order`` (N,), but up to ``run`` members of a group follow each other, from where the first of them was."""
    by_group = np.argsort(group, kind="stable")
    _, starts, counts = np.unique(group[by_group], return_index=True, return_counts=True)
    rank = np.empty(len(order), dtype=np.int64)
    rank[by_group] = np.arange(len(order)) - np.repeat(starts, counts)
    leader = np.empty(len(order), dtype=np.int64)
    leader[by_group] = by_group[np.arange(len(order)) - rank[by_group] % run]
    return order[np.argsort(leader, kind="stable")]


def _ignore_signals(worker: int) -> None:
    # Signals meant to end a training reach its whole process group: the training saves, then ends its loaders itself.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class ResidentSamples:
    """Samples of a data set in a device's own memory: a batch costs one gather there and nothing on the host.

    ``read`` gives the CPU batch of indices (N,); ``drop_invalid`` leaves out samples with ``valid`` False.

    Attributes:
        indices: (M,) dataset indices that are kept, in the order they came in; columns: tensors (M, ...) by key.
    """

    def __init__(
        self, indices: np.ndarray, read: Callable[[np.ndarray], Batch], device: torch.device, drop_invalid: bool
    ) -> None:
        columns: Batch = {}
        kept, count = [], 0
        for start in range(0, len(indices), _SAMPLES_AT_ONCE):
            chosen = indices[start : start + _SAMPLES_AT_ONCE]
            part = read(chosen)
            if drop_invalid and "valid" in part:
                valid = part["valid"]
                part, chosen = {key: value[valid] for key, value in part.items()}, chosen[valid.numpy()]
            for key, value in part.items():
                if key not in columns:
                    columns[key] = torch.empty((len(indices), *value.shape[1:]), dtype=value.dtype, device=device)
                columns[key][count : count + len(value)] = value.to(device, non_blocking=True)
            kept.append(chosen)
            count += len(chosen)
        self.columns = {key: value[:count] for key, value in columns.items()}
        self.indices = np.concatenate(kept)
        self._row = np.full(int(indices.max()) + 1, -1, dtype=np.int64)
        self._row[self.indices] = np.arange(count)

    def take(self, indices: np.ndarray) -> Batch:
        """The batch of these dataset indices, on the device; tensors of its own, free to change."""
        any_column = next(iter(self.columns.values()))
        rows = torch.from_numpy(self._row[indices]).to(any_column.device, non_blocking=True)
        return {key: column.index_select(0, rows) for key, column in self.columns.items()}


def fits(sample: Mapping[str, torch.Tensor], count: int, device: torch.device) -> bool:
    """Whether ``count`` samples like this batch's first fit into the memory that a GPU has free, with room to spare.

    On a CPU always False: what is kept there is kept by the crop cache already.
    """
    if device.type != "cuda":
        return False
    needed = count * sum(value[0].numel() * value.element_size() for value in sample.values())
    free, _ = torch.cuda.mem_get_info(device)
    return needed < MEMORY_SHARE * free
