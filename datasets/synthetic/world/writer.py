"""Pictures like the world on disk, with labels in FreiHAND's layout (`datasets.freihand.files`).

``python -m datasets.synthetic.world.writer --root data/world --num_images 4000 --seed 0``

A sample is one hand before one camera; its four versions differ in background, light on it and what the camera did.
Hands are right ones: a left one is the mirror image. A sample depends on (seed, its number) only; a stopped run
goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch

from datasets.freihand.files import SIZE, VERSIONS, image_name, list_path
from datasets.synthetic.dex_ycb_writer import write_image
from datasets.synthetic.freihand_writer import list_entries
from datasets.synthetic.jobs import run_jobs
from datasets.synthetic.world.background import SIDE, random_background
from datasets.synthetic.world.cutout import View
from datasets.synthetic.world.hands import camera_pose, person_hands, prepared, visible_view
from datasets.synthetic.world.photography import photograph
from options.command_line import run_command, values_of, writer_parser
from template import HandModel, axis_angle_to_pose
from utils.camera import crop_affine, transform_intrinsics
from utils.files import write_json, write_text

logger = logging.getLogger(__name__)

_SUPERSAMPLING = 2
#: Part of the picture's side that a hand's box takes: mostly middling, seldom from 20 px to larger than the picture.
_SHARES = (((0.09, 1.2), 0.25, 0.22), ((0.35, 0.75), 0.75, 0.06))  # range, how often, how far off the middle
_STRENGTH = 0.6  # of the camera's faults
_QUALITY = (60, 96)
_LISTS = ("K", "xyz", "mano", "verts", "scale")


@lru_cache(maxsize=2)
def _official(mano_dir: str | None) -> HandModel:
    return HandModel(prepared(mano_dir)[0].assets, tips="freihand", joint_type="regressed", dtype=torch.float64)


def make_sample(seed: int, index: int, mano_dir: str | None = None) -> tuple[list[np.ndarray], np.ndarray, dict]:
    """Four pictures (224, 224, 3) uint8 RGB, a mask (224, 224) uint8 and one entry of each FreiHAND list."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, index, 224]))
    hand = next(person_hands(generator, 1, index, mano_dir))
    share, _, aside = _SHARES[0 if generator.random() < _SHARES[0][1] else 1]
    view = visible_view(generator, hand, size=SIZE, share=share, aside=aside)
    fine = SIZE * _SUPERSAMPLING
    whole = np.array([(SIZE - 1) / 2, (SIZE - 1) / 2, SIZE])
    finer = View(transform_intrinsics(view.K, crop_affine(whole, fine)), view.rotation, view.translation, fine)
    pictures = []
    for number in range(len(VERSIONS)):
        if number % 2 == 0:  # two lights are enough for four pictures
            shot = hand.shoot(generator, finer)
            layer = cv2.resize(shot.rgba, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        pictures.append(layer[..., :3] + (1 - layer[..., 3:]) * _scenery(generator, layer[..., 3]))
    batch = torch.as_tensor(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(1 << 62)))
        batch = photograph(batch, _STRENGTH)
    axis_angle, transl = camera_pose(hand, view)
    pose = axis_angle_to_pose(torch.as_tensor(axis_angle)[None])[0].numpy()
    labels = list_entries(_official(mano_dir), pose, axis_angle, hand.betas, transl, view.K)
    images = [np.round(255 * image.permute(1, 2, 0).numpy()).astype(np.uint8) for image in batch]
    mask = cv2.resize(shot.hand.astype(np.uint8) * 255, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return images, np.where(mask > 127, np.uint8(255), np.uint8(0)), labels


def _scenery(generator: np.random.Generator, alpha: np.ndarray) -> np.ndarray:
    """(224, 224, 3) float32 0..1 of a background, sometimes with the hand's soft shadow, alpha (224, 224)."""
    side = int(generator.uniform(0.4, 1) * SIDE)
    left, top = generator.integers(0, SIDE - side + 1, 2)
    part = random_background(generator)[top : top + side, left : left + side]
    wall = cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
    if generator.random() < 0.4:
        move = np.array([[1, 0, generator.normal(0, 14)], [0, 1, generator.normal(8, 14)]])
        shadow = cv2.GaussianBlur(cv2.warpAffine(alpha, move, (SIZE, SIZE)), (0, 0), generator.uniform(1.5, 12))
        wall *= 1 - generator.uniform(0.1, 0.6) * shadow[..., None]
    return wall


def _write_sample(index: int, root: Path, count: int, seed: int, mano_dir: str | None) -> None:
    notes = root / "labels" / f"{index:08d}.json"
    if notes.exists():
        return
    images, mask, labels = make_sample(seed, index, mano_dir)
    quality = np.random.default_rng([seed, index]).integers(*_QUALITY, len(images))
    for version, image in enumerate(images):
        path = root / "training" / "rgb" / image_name(index + count * version)
        write_image(path, np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, int(quality[version])])
    write_image(root / "training" / "mask" / image_name(index), mask, [cv2.IMWRITE_JPEG_QUALITY, 95])
    write_text(notes, json.dumps(labels, allow_nan=False))  # last: a sample that has it is whole


def write_world(
    root: str | Path, num_images: int, seed: int = 0, processes: int = 1, mano_dir: str | None = None
) -> int:
    """Write the training part of a data set, or go on with one of the same options; how many pictures there are.

    Args:
        num_images: rounded up to a multiple of four.
        mano_dir: the hand model's folder (`load_hand_assets`).

    Raises:
        FileExistsError: root holds another data set.
        ValueError: num_images is not positive.
    """
    root = Path(root)
    if num_images < 1:
        raise ValueError(f"num_images is {num_images}; it must be positive")
    count = -(-num_images // len(VERSIONS))
    options = {"kind": "world", "samples": count, "seed": seed, "hand_model": _official(mano_dir).assets.hash}
    told = root / "synthetic.json"
    if told.exists() and json.loads(told.read_text()) != options:
        raise FileExistsError(f"{told} is of another data set; choose another --root or delete it")
    if not told.exists() and list_path(root, "training", "K").exists():
        raise FileExistsError(f"{root} holds a FreiHAND data set already; choose another --root or delete it")
    if told.exists() and list_path(root, "training", "scale").exists():
        return count * len(VERSIONS)
    for folder in ("training/rgb", "training/mask", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    write_json(told, options)
    job = partial(_write_sample, root=root, count=count, seed=seed, mano_dir=mano_dir)
    run_jobs(job, range(count), processes, "sample")
    rows = [json.loads((root / "labels" / f"{index:08d}.json").read_text()) for index in range(count)]
    for name in _LISTS:  # scale is the last
        write_text(list_path(root, "training", name), json.dumps([row[name] for row in rows]))
    shutil.rmtree(root / "labels")
    return count * len(VERSIONS)


def get_args_parser() -> argparse.ArgumentParser:
    parser = writer_parser("synthetic.world.writer", "Write pictures like the world in FreiHAND's layout.")
    parser.add_argument("--num_images", type=int, required=True, help="pictures, four of each hand")
    parser.add_argument("--processes", type=int, default=1, help="processes")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(get_args_parser(), lambda args: logger.info("%d pictures", write_world(**values_of(args)))))
