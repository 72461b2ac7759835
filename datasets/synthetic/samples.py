"""Synthetic pictures and videos as a person would bring them: loose files, each with its camera beside it.

``python -m datasets.synthetic.samples --images DIR --count 8``, ``... --freihand ROOT --images DIR`` (pictures of the
evaluation part of a set in FreiHAND's layout, official or synthetic) and ``... --video FILE.mp4 --num_frames 60``
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from datasets.dex_ycb.dataset import DexYCB
from datasets.dex_ycb.splits import SUBJECTS
from datasets.freihand.dataset import FreiHAND
from datasets.synthetic.data_set import SynthesisOptions, write_data_set
from options.command_line import CommandParser, run_command
from utils.camera import mirror_intrinsics, project_numpy
from utils.files import atomic_path, write_json
from utils.video_files import VideoInfo, VideoWriter

logger = logging.getLogger(__name__)

#: Official numbers of the people of the s1 test split, whom no shipped network has seen.
UNSEEN = (8, 9)
_FPS = 15.0


def write_photos(
    folder: str | Path, count: int, seed: int = 0, subject: int | None = None, workers: int | None = 1
) -> list[Path]:
    """Write pictures of the unseen people in turn, every third one a left hand, with ``<name>_K.npy`` beside each.

    Names tell the person and the side: ``subject-08_00.jpg``, ``subject-09_left_01.jpg``.

    Args:
        subject: 8 or 9: right hands of that person alone.
        workers: processes; None: one a core. With more than one, Python imports the calling script anew in each, so it
            must keep its commands below ``if __name__ == "__main__":``.

    Raises:
        ValueError: ``subject`` is somebody else's number.
    """
    if subject not in (None, *UNSEEN):
        raise ValueError(f"subject is {subject}; those whom no shipped network has seen are {UNSEEN}")
    people = UNSEEN if subject is None else (subject,)
    folder, written = Path(folder), []
    per_person = -(-count // len(people))
    with tempfile.TemporaryDirectory() as temporary:
        options = SynthesisOptions(max(1, -(-per_person // 8)), 3, seed=seed, left_fraction=0.0)
        dataset = _unseen(Path(temporary), options, people, workers)
        subjects, generator = dataset.columns["subject_id"], np.random.default_rng(seed)
        rows = {person: list(generator.permutation(np.flatnonzero(subjects == person))) for person in people}
        for number in range(count):
            person = people[number % len(people)]
            index = int(rows[person].pop())
            is_left = subject is None and number % 3 == 2
            path = folder / f"subject-{person:02d}{'_left' if is_left else ''}_{number:02d}.jpg"
            K = dataset.columns["K_image"][index].astype(np.float64)
            with atomic_path(path) as temporary_picture:
                if is_left:
                    image = dataset.full_image(index)
                    K, bgr = mirror_intrinsics(K, image.shape[1]), np.ascontiguousarray(image[:, ::-1, ::-1])
                    cv2.imwrite(str(temporary_picture), bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
                else:
                    shutil.copyfile(dataset.image_path(index), temporary_picture)
            _write_K(path, K)
            written.append(path)
    return written


def copy_freihand(root: Path, folder: Path, count: int) -> list[Path]:
    """Copy the first ``count`` evaluation pictures of a FreiHAND folder, with ``<name>_K.npy`` beside each.

    Where its joints are published, ``<name>_bbox.json`` says where the hand is.
    """
    dataset = FreiHAND(root, "evaluation", crop="image")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index in range(min(count, len(dataset))):
        path = folder / dataset.image_path(index).name
        shutil.copyfile(dataset.image_path(index), path)
        K = dataset.columns["K_image"][index].astype(np.float64)
        _write_K(path, K)
        if dataset.columns["valid"][index]:
            pixels = project_numpy(dataset.columns["joints"][index].astype(np.float64), K)
            corners = np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])
            write_json(path.with_name(f"{path.stem}_bbox.json"), corners.round(1).tolist())
        written.append(path)
    return written


def write_video(path: Path, num_frames: int, seed: int = 0) -> int:
    """Write one sequence of an unseen person as the first camera sees it, and its ``<name>_K.npy``.

    Returns:
        how many frames show a hand and were written.
    """
    with tempfile.TemporaryDirectory() as temporary:
        options = SynthesisOptions(1, num_frames, seed=seed, left_fraction=0.0)
        dataset = _unseen(Path(temporary), options, UNSEEN[1:], workers=None)
        order = np.argsort(dataset.columns["image_id"], kind="stable")
        cameras = np.array([str(dataset.image_path(int(row)).parent) for row in order])
        rows = order[cameras == min(cameras)]  # NumPy orders no texts
        first = dataset.full_image(int(rows[0]))
        path.parent.mkdir(parents=True, exist_ok=True)
        with VideoWriter(path, VideoInfo(first.shape[1], first.shape[0], _FPS, len(rows))) as writer:
            for row in rows:
                writer.write(dataset.full_image(int(row)))
        _write_K(path, dataset.columns["K_image"][rows[0]].astype(np.float64))
        return len(rows)


def _unseen(root: Path, options: SynthesisOptions, people: tuple[int, ...], workers: int | None) -> DexYCB:
    write_data_set(root, options, people, workers)
    for person in UNSEEN:  # the split has both: without a folder image ids would be doubted, which nobody asks for
        (root / SUBJECTS[person - 1]).mkdir(exist_ok=True)
    return DexYCB(root, "s1_test", allow_missing_subjects=True)


def _write_K(path: Path, K: np.ndarray) -> None:
    with atomic_path(path.with_name(f"{path.stem}_K.npy")) as temporary, open(temporary, "wb") as handle:
        np.save(handle, K)


def get_args_parser() -> argparse.ArgumentParser:
    parser = CommandParser("Write synthetic pictures or a synthetic video of unseen people.")
    parser.add_argument("--images", help="folder for pictures")
    parser.add_argument("--freihand", help="take the pictures from this FreiHAND folder")
    parser.add_argument("--count", type=int, default=8, help="how many pictures")
    parser.add_argument("--video", help="video to write, .mp4")
    parser.add_argument("--num_frames", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def write(args: argparse.Namespace) -> None:
    if not args.images and not args.video:
        raise ValueError("give --images DIR or --video FILE.mp4")
    if args.images and args.freihand:
        written = copy_freihand(Path(args.freihand), Path(args.images), args.count)
        logger.info("%d pictures in %s", len(written), args.images)
    elif args.images:
        written = write_photos(args.images, args.count, args.seed, workers=None)
        logger.info("%d pictures in %s", len(written), args.images)
    if args.video:
        count = write_video(Path(args.video), args.num_frames, args.seed)
        logger.info("%d frames in %s", count, args.video)


if __name__ == "__main__":
    sys.exit(run_command(get_args_parser(), write))
