"""A whole synthetic data set: calibration, then its sequences over several processes, each from its random numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from datasets.dex_ycb.splits import SERIALS
from datasets.synthetic.dex_ycb_writer import (
    finish_sequence,
    sequence_labels,
    write_calibration,
    write_frame,
    write_intrinsics,
    write_object_models,
)
from datasets.synthetic.jobs import run_jobs
from datasets.synthetic.scene import population
from datasets.synthetic.scene.appearance import SkinMap, make_skin_map, skin_sheets, skin_tone
from datasets.synthetic.scene.background import room_texture, table_texture
from datasets.synthetic.scene.cameras import make_rig
from datasets.synthetic.scene.layout import Scene
from datasets.synthetic.scene.motion import make_motion, subject_style
from datasets.synthetic.scene.objects import CATALOGUE
from datasets.synthetic.scene.render import CameraView, MovingMesh
from datasets.synthetic.scene.shading import random_lights, random_sensor
from template import HandModel, load_hand_assets
from utils.files import write_json

DESCRIPTION_FILE = "synthetic.json"


@dataclass(frozen=True)
class SynthesisOptions:
    """What decides the data set's content; written beside it as ``synthetic.json``."""

    num_sequences: int = 100
    num_frames: int = 72
    seed: int = 0
    num_subjects: int = 10
    left_fraction: float = 0.5
    render_scale: float = 1.0
    quality: int = 92
    depth: bool = False
    mano_dir: str | None = None

    def __post_init__(self) -> None:
        checks = {
            "num_sequences": 1 <= self.num_sequences <= 300,
            "num_frames": self.num_frames >= 1,
            "seed": self.seed >= 0,
            "num_subjects": self.num_subjects >= 10,
            "left_fraction": 0 <= self.left_fraction <= 1,
            "render_scale": self.render_scale in (1.0, 0.5, 0.25),
            "quality": 1 <= self.quality <= 100,
        }
        for name, is_good in checks.items():
            if not is_good:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; allowed: num_sequences 1..300, num_frames from 1, seed from 0, "
                    "num_subjects from 10, left_fraction 0..1, render_scale 1, 0.5 or 0.25, quality 1..100"
                )

    def as_json(self) -> dict[str, object]:
        """Plain values, without what only tells where the hand model lies."""
        return {name: value for name, value in asdict(self).items() if name != "mano_dir"}


@lru_cache(maxsize=4)
def hand_model(mano_dir: str | None, side: str, tips: str = "manopth", joint_type: str = "kinematic") -> HandModel:
    """The hand of a side in float64; by default with DexYCB's joints."""
    return HandModel(load_hand_assets(mano_dir, side), tips=tips, joint_type=joint_type, dtype=torch.float64)


@lru_cache(maxsize=4)
def skin_map_of(mano_dir: str | None, side: str) -> SkinMap:
    """Where the skin of the hand of a side lies on its sheets."""
    hand = hand_model(mano_dir, side)
    flat = torch.eye(3, dtype=torch.float64).expand(1, 16, 3, 3)
    output = hand(flat, torch.zeros(1, 10, dtype=torch.float64))
    vertices, joints = output.vertices[0].numpy(), output.joints[0].numpy()
    return make_skin_map(vertices, joints, hand.assets.faces, is_left=side == "left")


def tell_story(
    seed: int, place: tuple[int, int], side: str, frames: int, mano_dir: str | None = None
) -> tuple[np.random.Generator, Scene]:
    """The random numbers of a subject's sequence, ``place``, and what happens in it in so many frames."""
    subject, sequence = place
    generator = population.random_numbers(seed, subject, sequence)
    style = population.random_numbers(seed, subject, population.STYLE)
    right, hand = (hand_model(mano_dir, name) for name in ("right", side))
    tone, habit = skin_tone(style), subject_style(style)
    target = population.sequence_object(seed, subject, sequence, len(CATALOGUE))
    motion = make_motion(generator, right, hand, population.subject_betas(seed, subject), habit, target, frames)
    skin_map = skin_map_of(mano_dir, side)
    skin = skin_sheets(skin_map, np.clip(tone * generator.normal(1, 0.04, 3), 0.01, 0.95), generator)
    return generator, Scene(motion, hand.assets.faces, skin_map, skin, generator)


def write_sequence(root: Path, options: SynthesisOptions, place: tuple[int, int]) -> None:
    """Make one, ``place``: its 1-based subject and 0-based number; nothing happens if it is already complete."""
    subject, sequence = place
    folder = root / population.subject_name(subject) / population.sequence_name(subject, sequence)
    if (folder / "pose.npz").is_file():  # the last file of a sequence
        return
    side = population.sequence_side(sequence, options.left_fraction)
    hand, betas = hand_model(options.mano_dir, side), population.subject_betas(options.seed, subject)
    generator, scene = tell_story(options.seed, place, side, options.num_frames, options.mano_dir)
    motion, rig = scene.motion, make_rig(options.seed, subject)
    labels = sequence_labels(motion, hand, betas, rig)
    lights, table = random_lights(generator), table_texture(generator)
    views = {}
    for serial in SERIALS:
        (folder / serial).mkdir(parents=True, exist_ok=True)
        sensor = random_sensor(generator, lights.on_table)
        views[serial] = CameraView(
            scene, rig.K[serial], rig.camera_to_table[serial], table, room_texture(generator), lights, sensor,
            generator, round(1 / options.render_scale),
        )  # fmt: skip
    for frame in range(options.num_frames):
        mesh = MovingMesh(*scene.frame(frame))
        joints = motion.joints[frame] if motion.present[frame] else None
        for serial, view in views.items():
            picture = view.render(mesh, joints, options.depth)
            known = {key: values[frame] for key, values in labels[serial].items()}
            write_frame(folder / serial, frame, picture, known, options.quality)
    finish_sequence(folder, subject, motion, hand, betas, rig)


def write_data_set(
    root: str | os.PathLike,
    options: SynthesisOptions,
    subjects: Sequence[int] | None = None,
    workers: int | None = None,
) -> None:
    """Write a synthetic data set in DexYCB's layout, or go on with one that was interrupted.

    Args:
        options: what to write. The result depends on these alone, not on ``workers``.
        subjects: 1-based numbers of those to write sequences of; None: all. Calibration is written for everybody.
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
    run_jobs(partial(write_sequence, root, options), jobs, workers, "image", options.num_frames * len(SERIALS))


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
