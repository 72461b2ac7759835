"""One sequence from its random numbers to its files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from datasets.dex_ycb.splits import SERIALS
from datasets.synthetic.dex_ycb_writer import SequenceWriter
from datasets.synthetic.scene import population
from datasets.synthetic.scene.appearance import SkinMap, make_skin_map, skin_sheets, skin_tone
from datasets.synthetic.scene.background import room_texture, table_texture
from datasets.synthetic.scene.cameras import Rig, make_rig
from datasets.synthetic.scene.layout import Scene
from datasets.synthetic.scene.motion import Motion, make_motion, subject_style
from datasets.synthetic.scene.objects import CATALOGUE
from datasets.synthetic.scene.render import CameraView, MovingMesh
from datasets.synthetic.scene.shading import random_lights, random_sensor
from template import HandModel, load_hand_assets


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
        values = asdict(self)
        del values["mano_dir"]
        return values


@lru_cache(maxsize=4)
def hand_model(mano_dir: str | None, side: str) -> HandModel:
    """The hand of a side in float64, DexYCB's joints (kinematic, manopth's tips)."""
    return HandModel(load_hand_assets(mano_dir, side), tips="manopth", joint_type="kinematic", dtype=torch.float64)


@lru_cache(maxsize=4)
def skin_map_of(mano_dir: str | None, side: str) -> SkinMap:
    """Where the skin of the hand of a side lies on its sheets."""
    hand = hand_model(mano_dir, side)
    flat = torch.eye(3, dtype=torch.float64).expand(1, 16, 3, 3)
    output = hand(flat, torch.zeros(1, 10, dtype=torch.float64))
    return make_skin_map(
        output.vertices[0].numpy(), output.joints[0].numpy(), hand.assets.faces, is_left=side == "left"
    )


def write_sequence(root: Path, options: SynthesisOptions, subject: int, sequence: int) -> None:
    """Make the 0-based ``sequence`` of the 1-based ``subject``; nothing happens if it is already complete."""
    writer = SequenceWriter(root, subject, sequence, options.quality)
    if writer.is_complete():
        return
    generator = population.sequence_generator(options.seed, subject, sequence)
    style = population.style_generator(options.seed, subject)
    side = population.sequence_side(sequence, options.left_fraction)
    hand = hand_model(options.mano_dir, side)
    betas = population.subject_betas(options.seed, subject)
    tone, habit = skin_tone(style), subject_style(style)
    target = population.sequence_object(options.seed, subject, sequence, len(CATALOGUE))
    motion = make_motion(
        generator, hand_model(options.mano_dir, "right"), hand, betas, habit, target, options.num_frames
    )
    skin_map = skin_map_of(options.mano_dir, side)
    skin = skin_sheets(skin_map, np.clip(tone * generator.normal(1, 0.04, 3), 0.01, 0.95), generator)
    scene = Scene(motion, hand.assets.faces, skin_map, skin, generator)
    rig = make_rig(options.seed, subject)
    writer.begin(motion, hand, betas, rig)
    _render(writer, scene, rig, options, generator)
    writer.finish()


def _render(
    writer: SequenceWriter, scene: Scene, rig: Rig, options: SynthesisOptions, generator: np.random.Generator
) -> None:
    motion: Motion = scene.motion
    lights, table = random_lights(generator), table_texture(generator)
    step = round(1 / options.render_scale)
    views = {}
    for serial in SERIALS:
        sensor = random_sensor(generator, lights.on_table)
        views[serial] = CameraView(
            scene, rig.K[serial], rig.camera_to_table[serial], table, room_texture(generator), lights, sensor,
            generator, step,
        )  # fmt: skip
    for frame in range(options.num_frames):
        mesh = MovingMesh.of(*scene.frame(frame))
        joints = motion.joints[frame] if motion.present[frame] else None
        for serial, view in views.items():
            writer.write_frame(serial, frame, view.render(mesh, joints, options.depth))
