"""Batches: order, resume, completeness, workers, broken samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from datasets.loading import BatchLoader


class Numbers(Dataset):
    """Samples that are their own index; some found invalid only when loaded."""

    def __init__(self, count: int, invalid: tuple[int, ...] = ()) -> None:
        self.count, self.invalid = count, invalid

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {key: value[0] for key, value in self.__getitems__(np.array([index])).items()}

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {"image_id": np.asarray(indices), "valid": ~np.isin(indices, self.invalid)}


class SampleBySample(Dataset):
    """The same without `__getitems__`."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"image_id": np.int64(index), "valid": np.bool_(True), "joints": np.full((21, 3), index, np.float32)}


def ids(loader: object) -> list[list[int]]:
    return [batch["image_id"].tolist() for batch in loader]


def test_evaluation_visits_every_sample_once_in_order() -> None:
    loader = BatchLoader(Numbers(10), 4)
    assert ids(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and len(loader) == 3


def test_shuffled_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        np.random.seed(epoch)
        loader = BatchLoader(Numbers(50), 8, shuffle=True, seed=seed)
        loader.set_epoch(epoch)
        return ids(loader)

    assert order(1, 0) == order(1, 0) != order(1, 1) != order(2, 1)
    assert sorted(sum(order(1, 3), [])) == list(range(50))


def test_resume_continues_where_the_epoch_was_left() -> None:
    loader = BatchLoader(Numbers(50), 8, shuffle=True, seed=3, drop_last=True)
    loader.set_epoch(2)
    whole = ids(loader)
    loader.set_epoch(2, start_batch=4)
    assert ids(loader) == whole[4:] and len(loader) == 6
    assert ids(loader) == whole  # the offset was for one time


@pytest.mark.parametrize("dataset", [Numbers(10), SampleBySample()])
def test_workers_change_nothing(dataset: Dataset) -> None:
    loaders = [BatchLoader(dataset, 4, shuffle=True, seed=5, num_workers=workers) for workers in (0, 2)]
    assert ids(loaders[0]) == ids(loaders[1])
    batch = next(iter(loaders[1]))
    assert batch["valid"].dtype == torch.bool and batch["image_id"].dtype == torch.int64


def test_invalid_samples_leave_their_batch() -> None:
    assert ids(BatchLoader(Numbers(9, invalid=(1, 3, 4, 5)), 3)) == [[0, 2], [6, 7, 8]]
    assert ids(BatchLoader(Numbers(6, invalid=(1,)), 3, drop_invalid=False)) == [[0, 1, 2], [3, 4, 5]]
    known = Numbers(6)
    known.columns = {"valid": np.array([True, False, True, True, True, True])}
    assert ids(BatchLoader(known, 3)) == [[0, 2, 3], [4, 5]]


def test_subsets_are_spread_evenly() -> None:
    assert sum(ids(BatchLoader(Numbers(101), 8, max_samples=5)), []) == [0, 25, 50, 75, 100]
    assert sum(ids(BatchLoader(Numbers(10), 2, indices=np.array([7, 2]))), []) == [7, 2]


def test_processes_share_the_samples() -> None:
    shares = [ids(BatchLoader(Numbers(11), 2, shuffle=True, seed=1, rank=rank, world_size=2)) for rank in range(2)]
    seen = [sum(share, []) for share in shares]
    assert len(seen[0]) == len(seen[1]) == 5 and not set(seen[0]) & set(seen[1])
    complete = [sum(ids(BatchLoader(Numbers(11), 2, rank=rank, world_size=2)), []) for rank in range(2)]
    assert sorted(sum(complete, [])) == list(range(11))


class Records(Numbers):
    """Columns that are views of records, as shards give them."""

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        records = np.zeros(len(indices), dtype=np.dtype([("valid", "?"), ("image_id", "<i8")]))
        records["image_id"], records["valid"] = indices, True
        return {"image_id": records["image_id"], "valid": records["valid"].copy()}


def test_a_last_batch_of_one_record_is_a_batch() -> None:
    assert sum(ids(BatchLoader(Records(5), 4)), []) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("world_size", [1, 2])
def test_no_whole_batch_is_an_error(world_size: int) -> None:
    for rank in range(world_size):
        share = {"rank": rank, "world_size": world_size, "shuffle": True, "drop_last": True}
        assert len(BatchLoader(Numbers(8), 8 // world_size, **share)) == 1
        with pytest.raises(ValueError, match="7 samples give no batch of"):
            BatchLoader(Numbers(7), 8 // world_size, **share)
    assert len(BatchLoader(Numbers(1), 8, rank=1, world_size=2)) == 0  # of a small split a process may have none


def test_nothing_to_load_is_an_error() -> None:
    with pytest.raises(ValueError, match="none of 3 samples is valid"):
        BatchLoader(Numbers(3), 2, indices=np.array([], dtype=np.int64))
    with pytest.raises(ValueError, match="batch_size"):
        BatchLoader(Numbers(3), 0)


@pytest.mark.parametrize("start", [0, 1])
def test_samples_kept_on_a_device_come_in_the_same_batches(start: int) -> None:
    plain, kept = (BatchLoader(Numbers(23, invalid=(4, 9)), 5, shuffle=True, seed=3, drop_last=True) for _ in range(2))
    plain.indices = np.setdiff1d(plain.indices, (4, 9))  # what cannot be read is left out at once, not batch by batch
    assert kept.keep_on(torch.device("cpu")) and len(kept) == len(plain) == 4
    for loader in (plain, kept):
        loader.set_epoch(2, start)
    assert ids(kept) == ids(plain)


def test_samples_on_a_device_are_lent_as_copies() -> None:
    loader = BatchLoader(Numbers(6), 3)
    loader.keep_on(torch.device("cpu"))
    for batch in loader:
        batch["image_id"].zero_()
    assert ids(loader) == [[0, 1, 2], [3, 4, 5]]


def test_a_cpu_keeps_nothing_by_itself() -> None:
    assert not BatchLoader(Numbers(6), 3).keep_on(torch.device("cpu"), only_if_it_fits=True)
