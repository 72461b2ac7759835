"""Banks of cut-outs and backgrounds on disk: raw arrays in shards that trainings read while others are written.

``python -m datasets.synthetic.world.bank --root DIR --people 10000`` writes for each shard ``NNNNN.rgba.npy``
(N, 160, 160, 4) uint8, ``NNNNN.backgrounds.npy`` and ``NNNNN.labels.npy``. A shard depends on (seed, its number) only,
is written under another name first, and is skipped where it exists: a stopped run goes on.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from datasets.bad_files import read_json
from datasets.synthetic.jobs import run_jobs
from datasets.synthetic.world.background import SIDE, random_background
from datasets.synthetic.world.cutout import SIZE
from datasets.synthetic.world.hands import (
    LABEL,
    PER_PERSON,
    default_betas,
    person_cutouts,
    relative_depth,
    relative_pose,
)
from options.command_line import run_command, values_of, writer_parser
from utils.files import atomic_path, write_json

logger = logging.getLogger(__name__)

PEOPLE_A_SHARD = 20
CUTOUTS_A_SHARD = PEOPLE_A_SHARD * PER_PERSON
BACKGROUNDS_A_SHARD = 60
#: In a bank's folder, what it is of.
PLAN_NAME = "bank.json"


def shard_paths(root: Path, number: int) -> tuple[Path, Path, Path]:
    """Pixels, backgrounds and labels of a shard; the labels come last, so a shard that has them is whole."""
    return tuple(root / f"{number:05d}.{part}.npy" for part in ("rgba", "backgrounds", "labels"))


def whole_shards(root: str | Path) -> list[int]:
    """Numbers of the shards that are whole, in order."""
    return sorted(int(path.name[:5]) for path in Path(root).glob("*.labels.npy"))


def write_shard(number: int, root: Path, seed: int, mano_dir: str | None, always: int, deadline: float) -> None:
    """Write a shard unless it is there; numbers from ``always`` on not after the deadline."""
    pixels, backgrounds, labels = shard_paths(root, number)
    if labels.exists() or (number >= always and time.time() > deadline):
        return
    rgba, rows = np.empty((CUTOUTS_A_SHARD, SIZE, SIZE, 4), np.uint8), np.empty(CUTOUTS_A_SHARD, LABEL)
    place = 0
    for person in range(number * PEOPLE_A_SHARD, (number + 1) * PEOPLE_A_SHARD):
        for rgba[place], rows[place] in person_cutouts(seed, person, mano_dir):
            place += 1
    generator = np.random.default_rng(np.random.SeedSequence([seed, number, 7]))
    walls = np.stack([random_background(generator) for _ in range(BACKGROUNDS_A_SHARD)])
    for path, array in ((pixels, rgba), (backgrounds, walls), (labels, rows)):
        with atomic_path(path) as temporary:
            np.save(temporary, array)


def write_bank(
    root: str | Path,
    people: int,
    seed: int = 0,
    processes: int = 1,
    first: int = 0,
    minutes: float = 1e9,
    mano_dir: str | None = None,
) -> int:
    """Write a bank with several processes; the number of shards that are whole at the end.

    Args:
        people: rounded up to whole shards; each gives `PER_PERSON` cut-outs.
        first: number of the first person, a multiple of a shard's: other banks of a seed (validation) begin elsewhere.
        minutes: no shard but as many as there are processes is begun later than this.

    Raises:
        ValueError: a bank of another seed or hand model is there, or ``first`` is within a shard.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    plan, path = {"seed": seed, "mano_dir": mano_dir}, root / PLAN_NAME
    if path.is_file() and (found := read_json(path)) != plan:
        raise ValueError(f"{path}: this bank is of {found}, not of {plan}; give another --root, or delete it")
    write_json(path, plan)
    if first % PEOPLE_A_SHARD:
        raise ValueError(f"--first {first}: shards hold {PEOPLE_A_SHARD} people; give a multiple of that")
    start = first // PEOPLE_A_SHARD
    numbers = range(start, start - (-people // PEOPLE_A_SHARD))
    limits = {"always": start + processes, "deadline": time.time() + 60 * minutes}
    job = partial(write_shard, root=root, seed=seed, mano_dir=mano_dir, **limits)
    run_jobs(job, numbers, processes, "shard")
    return len(whole_shards(root))


class ResidentBank:
    """Cut-outs, backgrounds and keypoints of all whole shards in a device's memory, growing while others are rendered.

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
        #: m, relative depths, and of a pixel of the cut-out, as `relative_depth`.
        self.depth = torch.empty((cutouts, 21), device=self.device)
        self.pixel = torch.empty(cutouts, device=self.device)
        #: Rotations as `relative_pose`, and the person's shape, of the fine hand as `default_betas`.
        self.pose = torch.empty((cutouts, 16, 3, 3), device=self.device)
        self.betas = torch.empty((cutouts, 10), device=self.device)
        self._read: set[int] = set()
        plan = self.root / PLAN_NAME
        self._is_fine = not plan.is_file() or read_json(plan)["mano_dir"] is None

    @property
    def cutouts(self) -> int:
        return len(self._read) * CUTOUTS_A_SHARD

    @property
    def backgrounds(self) -> int:
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
            betas = default_betas(labels["betas"]) if self._is_fine else np.ascontiguousarray(labels["betas"])
            rows = np.ascontiguousarray(labels["keypoints"]), betas, *relative_depth(labels), relative_pose(labels)
            wholes = self.keypoints, self.betas, self.depth, self.pixel, self.pose
            for whole, part in zip(wholes, rows, strict=True):
                whole[first : first + len(pixels)] = torch.from_numpy(part).to(self.device)
            self._read.add(number)
        return len(new)

    def cut(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels (B, 4, SIZE, SIZE) float32 0..1, colour times alpha, and keypoints (B, 21, 2) px of them."""
        return self.rgba[index].permute(0, 3, 1, 2).float().div_(255), self.keypoints[index]

    def wall(self, index: torch.Tensor) -> torch.Tensor:
        """Backgrounds (B, 3, SIDE, SIDE) float32 0..1."""
        return self.walls[index].permute(0, 3, 1, 2).float().div_(255)


def get_args_parser() -> argparse.ArgumentParser:
    parser = writer_parser("synthetic.world.bank", "Render cut-outs and backgrounds.")
    parser.add_argument("--people", type=int, default=200, help=f"each gives {PER_PERSON} cut-outs")
    parser.add_argument("--first", type=int, default=0, help="number of the first person")
    parser.add_argument("--processes", type=int, default=1, help="processes")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no shard later than this")
    return parser


def write(args: argparse.Namespace) -> None:
    began = time.time()
    count = write_bank(**values_of(args))
    logger.info("%s: %d shards of %d cut-outs, %.1f s", args.root, count, CUTOUTS_A_SHARD, time.time() - began)


if __name__ == "__main__":
    sys.exit(run_command(get_args_parser(), write))
