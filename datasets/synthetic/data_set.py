"""A whole synthetic data set: calibration, then its sequences over several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

from datasets.dex_ycb.splits import SERIALS
from datasets.synthetic.dex_ycb_writer import write_calibration, write_intrinsics, write_object_models
from datasets.synthetic.scene import population
from datasets.synthetic.scene.cameras import make_rig
from datasets.synthetic.sequence import SynthesisOptions, hand_model, write_sequence
from utils.files import write_json

DESCRIPTION_FILE = "synthetic.json"


def write_data_set(
    root: str | os.PathLike,
    options: SynthesisOptions,
    subjects: Sequence[int] | None = None,
    workers: int | None = None,
) -> None:
    """Write a synthetic data set in DexYCB's layout, or go on with one that was interrupted.

    Args:
        root: its folder; made if missing.
        options: what to write. The result depends on these alone, not on ``workers``.
        subjects: 1-based numbers of the subjects to write sequences of; None: all. Calibration is
            written for all of them.
        workers: processes; None: one for each core.

    Raises:
        FileExistsError: ``root`` holds a data set made with other options, or other files.
        ValueError: a subject is not among the ``num_subjects``.
    """
    root = Path(root)
    chosen = sorted(set(subjects)) if subjects else list(range(1, options.num_subjects + 1))
    if chosen[0] < 1 or chosen[-1] > options.num_subjects:
        raise ValueError(f"subjects {chosen} must lie in 1..{options.num_subjects} (--num_subjects)")
    _claim(root, options)
    write_object_models(root)
    write_intrinsics(root, make_rig(options.seed, chosen[0]))
    for subject in range(1, options.num_subjects + 1):
        betas = population.subject_betas(options.seed, subject)
        write_calibration(root, subject, make_rig(options.seed, subject), betas)
    jobs = [(subject, sequence) for subject in chosen for sequence in range(options.num_sequences)]
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    images = options.num_frames * len(SERIALS)
    with tqdm(total=len(jobs) * images, unit="image", smoothing=0.05) as progress:
        if workers == 1:
            _in_this_process(root, options, jobs, progress, images)
        else:
            _in_processes(root, options, jobs, workers, progress, images)


def _claim(root: Path, options: SynthesisOptions) -> None:
    """Say in the root what the data set is, or check that what is there is the same."""
    wanted = {"options": options.as_json(), "hand_model": hand_model(options.mano_dir, "right").assets.hash}
    path = root / DESCRIPTION_FILE
    if path.is_file():
        existing = json.loads(path.read_text(encoding="utf-8"))
        if existing != wanted:
            raise FileExistsError(
                f"{path} describes another data set ({existing}, wanted {wanted}); choose another --root or delete it"
            )
    elif root.is_dir() and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty and holds no {DESCRIPTION_FILE}; choose another --root")
    else:
        write_json(path, wanted)


def _in_this_process(
    root: Path, options: SynthesisOptions, jobs: list[tuple[int, int]], progress: tqdm, images: int
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the worker processes: the same sums in the same order
    try:
        for subject, sequence in jobs:
            write_sequence(root, options, subject, sequence)
            progress.update(images)
    finally:
        torch.set_num_threads(threads)


def _in_processes(
    root: Path, options: SynthesisOptions, jobs: list[tuple[int, int]], workers: int, progress: tqdm, images: int
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        futures = [pool.submit(write_sequence, root, options, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                progress.update(images)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker() -> None:

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
