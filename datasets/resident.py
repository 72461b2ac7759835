"""A split's samples in a device's own memory, so that a batch costs one gather there and nothing on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

Batch = dict[str, torch.Tensor]
_SAMPLES_AT_ONCE = 2048
#: Share of a device's free memory that samples may take: the rest is the network's.
MEMORY_SHARE = 0.5


class ResidentSamples:
    """Samples of a data set on a device.

    Args:
        indices: (N,) dataset indices to keep.
        read: indices -> collated batch of CPU tensors, as `datasets.loading` reads it.
        device: where to keep them.
        drop_invalid: leave out samples with ``valid`` False.

    Attributes:
        indices: (M,) dataset indices that are kept, in the order they came in.
        columns: tensors (M, ...) by key.
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
