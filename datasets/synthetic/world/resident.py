"""A bank's shards in a device's memory, growing while other processes render more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from datasets.synthetic.world.background import SIDE
from datasets.synthetic.world.bank import BACKGROUNDS_A_SHARD, CUTOUTS_A_SHARD, shard_paths, whole_shards
from datasets.synthetic.world.cutout import SIZE


class ResidentBank:
    """Cut-outs, backgrounds and keypoints of all whole shards.

    Args:
        root: folder of `bank.write_bank`.
        device: where to keep them.
        max_cutouts: memory is reserved for so many (0.1 MB each), and no more are read.
    """

    def __init__(self, root: str | Path, device: torch.device | str, max_cutouts: int) -> None:
        self.root, self.device = Path(root), torch.device(device)
        shards = -(-max_cutouts // CUTOUTS_A_SHARD)
        self._most = shards
        cutouts, walls = shards * CUTOUTS_A_SHARD, shards * BACKGROUNDS_A_SHARD
        self.rgba = torch.empty((cutouts, SIZE, SIZE, 4), dtype=torch.uint8, device=self.device)
        self.walls = torch.empty((walls, SIDE, SIDE, 3), dtype=torch.uint8, device=self.device)
        self.keypoints = torch.empty((cutouts, 21, 2), device=self.device)
        self._read: set[int] = set()

    @property
    def cutouts(self) -> int:
        """How many cut-outs are here."""
        return len(self._read) * CUTOUTS_A_SHARD

    @property
    def backgrounds(self) -> int:
        """How many backgrounds are here."""
        return len(self._read) * BACKGROUNDS_A_SHARD

    def refresh(self, at_most: int = 1_000_000) -> int:
        """Read shards that are new, ``at_most`` so many; how many were read."""
        new = [number for number in whole_shards(self.root) if number not in self._read]
        new = new[: min(at_most, self._most - len(self._read))]
        for number in new:
            pixels, walls, labels = (np.load(path) for path in shard_paths(self.root, number))
            first, wall = self.cutouts, self.backgrounds
            self.rgba[first : first + len(pixels)] = torch.from_numpy(pixels).to(self.device)
            self.walls[wall : wall + len(walls)] = torch.from_numpy(walls).to(self.device)
            rows = torch.from_numpy(np.ascontiguousarray(labels["keypoints"]))
            self.keypoints[first : first + len(pixels)] = rows.to(self.device)
            self._read.add(number)
        return len(new)

    def cut(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels (B, 4, SIZE, SIZE) float32 0..1, colour times alpha, and keypoints (B, 21, 2) px of them."""
        return self.rgba[index].permute(0, 3, 1, 2).float().div_(255), self.keypoints[index]

    def wall(self, index: torch.Tensor) -> torch.Tensor:
        """Backgrounds (B, 3, SIDE, SIDE) float32 0..1."""
        return self.walls[index].permute(0, 3, 1, 2).float().div_(255)
