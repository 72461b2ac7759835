"""All small labels of a DexYCB split in one table, read once in parallel and kept beside the crop cache."""

from __future__ import annotations

import logging
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.bad_files import read_or_skip
from datasets.crop_cache import one_builder, usable_cores
from datasets.crop_dataset import DatasetOptions
from datasets.dex_ycb.files import (
    LABEL_SHAPES,
    SequenceFolder,
    check_camera_folder,
    count_frames,
    find_sequences,
    fingerprint,
    labels_name,
    read_intrinsics,
    read_labels,
    read_sequence_info,
)
from datasets.dex_ycb.splits import S4_SEED, Split
from utils.files import READ_ERRORS, atomic_path, writable_folder

logger = logging.getLogger(__name__)

_TABLE_VERSION = 1
#: Below this many label files, starting worker processes costs more than it saves.
_PARALLEL_FROM = 4000
_UNUSABLE = {key: np.full(shape[1:], -1, dtype=np.float32) for key, shape in LABEL_SHAPES.items()}

#: Arrays of `LabelTable` with one row a sample, and those with one a sequence (besides its path).
PER_SAMPLE = ("image_id", "sequence", "camera", "frame", "pose_m", "joint_3d", "joint_2d", "bad")
PER_SEQUENCE = ("subject_id", "sequence_number", "is_left", "betas")


@dataclass
class LabelTable:
    """Raw labels of every sample of a split, both sides, invalid and bad ones included, as the files have them.

    S sequences, V cameras, N samples. ``sequence`` and ``camera`` (N,) index the S and V rows.
    ``bad`` (N,) marks samples whose labels file could not be used (their labels are -1).
    """

    sequence_path: np.ndarray  # (S,) str, relative to the root
    subject_id: np.ndarray  # (S,) int64, 1-based
    sequence_number: np.ndarray  # (S,) int64, place among the subject's sorted sequences
    is_left: np.ndarray  # (S,) bool
    betas: np.ndarray  # (S, 10) float32
    serial: np.ndarray  # (V,) str
    intrinsics: np.ndarray  # (V, 3, 3) float64, px
    image_id: np.ndarray  # (N,) int64
    sequence: np.ndarray  # (N,) int64
    camera: np.ndarray  # (N,) int64
    frame: np.ndarray  # (N,) int64
    pose_m: np.ndarray  # (N, 51) float32
    joint_3d: np.ndarray  # (N, 21, 3) float32, m
    joint_2d: np.ndarray  # (N, 21, 2) float32, px
    bad: np.ndarray  # (N,) bool

    def __len__(self) -> int:
        return len(self.image_id)

    def check(self) -> None:
        """Raise ValueError unless all arrays are as long as each other, and point at each other's rows."""
        for count, names in ((len(self), PER_SAMPLE), (len(self.sequence_path), PER_SEQUENCE)):
            for name in names:
                if len(getattr(self, name)) != count:
                    raise ValueError(f"{name} has {len(getattr(self, name))} rows instead of {count}")
        if len(self) and (self.sequence.max() >= len(self.sequence_path) or self.camera.max() >= len(self.serial)):
            raise ValueError("samples of sequences or cameras that are not there")

    @property
    def annotated(self) -> np.ndarray:
        """(N,) bool: the frame has a hand annotation (no joint is -1, pose not all 0; docs/facts.md 1.4)."""
        no_joints = ((self.joint_3d == -1).all(axis=2) | (self.joint_2d == -1).all(axis=2)).any(axis=1)
        return ~(no_joints | (self.pose_m == 0).all(axis=1) | self.bad)


def load_label_table(root: Path, split: Split, options: DatasetOptions) -> tuple[LabelTable, str]:
    """The split's table and the fingerprint of the data it was read from; from the cache if that is still true.

    Args:
        options: ``skip_bad`` marks unusable labels files as bad instead of raising.

    Raises:
        FileNotFoundError: naming the file that is missing.
        BadFileError: naming the labels file that is unusable, unless ``skip_bad``.
    """
    sequences = find_sequences(root, split, options.allow_missing_subjects)
    key = fingerprint(root, split, sequences)
    read = partial(_read_table, root, split, sequences, options)
    if options.cache is None:
        table = read()
    else:
        cache = Path(options.cache)
        path = cache / f"labels_{split.name}_v{_TABLE_VERSION}_{key}.npz"
        with one_builder(path):
            table = _cached_table(path)
            if table is None:
                writable_folder(cache, "--cache")
                table = read()
                with atomic_path(path) as temporary:
                    np.savez(temporary, **vars(table))
    if table.bad.any():
        if not options.skip_bad:  # the cached table was made with skip_bad
            return read(), key
        logger.warning("%s: left out %d of %d samples: unusable labels", root, int(table.bad.sum()), len(table))
    return table, key


def _cached_table(path: Path) -> LabelTable | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            table = LabelTable(**archive)
        table.check()
        return table
    except READ_ERRORS as error:
        logger.warning("%s is damaged, so the labels are read again (%s: %s)", path, type(error).__name__, error)
        return None


def _read_table(root: Path, split: Split, sequences: list[SequenceFolder], options: DatasetOptions) -> LabelTable:
    skip_bad = options.skip_bad
    intrinsics = [
        read_or_skip(skip_bad, f"skipped every image of camera {serial}", read_intrinsics, root, serial)
        for serial in split.serials
    ]
    jobs = [(root, sequence, split.serials, skip_bad) for sequence in sequences]
    parts = [_read_sequence(jobs[0])]
    workers = usable_cores() if options.workers is None else options.workers
    expected = len(jobs) * len(parts[0]["frame"])
    logger.info("reading about %d label files of %s from %s", expected, split.name, root)
    with ExitStack() as stack:
        if workers > 1 and expected >= _PARALLEL_FROM:
            # The children only read files with NumPy, so forking is safe beside torch's threads.
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("fork")))
            rest = pool.map(_read_sequence, jobs[1:], chunksize=4)
        else:
            rest = map(_read_sequence, jobs[1:])
        bar = tqdm(rest, total=len(jobs), initial=1, desc=f"labels of {split.name}", unit="sequence", disable=None)
        parts += bar
    counts = [len(part["frame"]) for part in parts]
    rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0] if key not in ("is_left", "betas")}
    unusable = [camera for camera, K in enumerate(intrinsics) if K is None]
    table = LabelTable(
        sequence_path=np.array([sequence.path for sequence in sequences]),
        subject_id=np.array([sequence.subject_id for sequence in sequences], dtype=np.int64),
        sequence_number=np.array([sequence.number for sequence in sequences], dtype=np.int64),
        is_left=np.array([part["is_left"] for part in parts], dtype=bool),
        betas=np.stack([part["betas"] for part in parts]),
        serial=np.array(split.serials),
        intrinsics=np.stack([np.eye(3) if K is None else K for K in intrinsics]),
        bad=rows.pop("bad") | np.isin(rows["camera"], unusable),
        image_id=np.arange(sum(counts), dtype=np.int64),
        sequence=np.repeat(np.arange(len(parts)), counts),
        **rows,
    )
    if split.image_share is None:
        return table
    # The samples whose place in a seeded shuffle falls into the share (the paper's s4) keep their ids.
    low, high = (round(share * len(table)) for share in split.image_share)
    kept = np.sort(np.random.default_rng(S4_SEED).permutation(len(table))[low:high])
    return replace(table, **{key: getattr(table, key)[kept] for key in PER_SAMPLE})


def _read_sequence(job: tuple[Path, SequenceFolder, tuple[str, ...], bool]) -> dict[str, np.ndarray]:
    root, sequence, serials, skip_bad = job
    info = read_or_skip(skip_bad, f"skipped the whole sequence {sequence.path}", read_sequence_info, root, sequence)
    # The images of a sequence that is skipped keep their official ids.
    if info is None:
        num_frames, is_left, betas = count_frames(root / sequence.path / serials[0]), False, np.zeros(10, np.float32)
    else:
        num_frames, is_left, betas = info
    rows: dict[str, list] = {key: [] for key in ("camera", "frame", "bad", *LABEL_SHAPES)}
    for camera, serial in enumerate(serials):
        folder = root / sequence.path / serial
        check_camera_folder(folder, num_frames)
        for frame in range(num_frames):
            labels = info and read_or_skip(skip_bad, "skipped", read_labels, folder / labels_name(frame))
            for key, value in {"camera": camera, "frame": frame, "bad": not labels, **(labels or _UNUSABLE)}.items():
                rows[key].append(value)
    return {"is_left": is_left, "betas": betas, **{key: np.array(values) for key, values in rows.items()}}
