"""Moving pictures of unseen synthetic people, in memory: one camera, 30 frames a second, an occlusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.dex_ycb.splits import SERIALS
from datasets.synthetic.data_set import hand_model, skin_map_of
from datasets.synthetic.scene import population
from datasets.synthetic.scene.appearance import skin_sheets, skin_tone
from datasets.synthetic.scene.background import room_texture, table_texture
from datasets.synthetic.scene.cameras import make_rig
from datasets.synthetic.scene.layout import Scene
from datasets.synthetic.scene.motion import make_motion, subject_style
from datasets.synthetic.scene.objects import CATALOGUE
from datasets.synthetic.scene.render import CameraView, MovingMesh
from datasets.synthetic.scene.shading import random_lights, random_sensor
from utils.camera import project_numpy, square_box

FPS, FRAMES, HIDDEN_FRAMES = 30, 90, 15


@dataclass
class Clip:
    """A right hand in F frames.

    Attributes:
        images: (F,H,W,3) uint8 RGB; K: (3,3) px; betas: (10,).
        joints: (F,21,3) m, camera frame, standard order; hidden: (F,) frames in which the hand is covered.
    """

    images: list[np.ndarray]
    K: np.ndarray
    betas: np.ndarray
    joints: np.ndarray
    hidden: np.ndarray


def make_clip(seed: int, number: int, frames: int = FRAMES, hidden_frames: int = HIDDEN_FRAMES) -> Clip:
    """Render the first story of the 1-based person ``number`` of the set with ``seed``, as one camera sees it.

    Args:
        frames: spread evenly over the story, which is as long as they are; hidden_frames: in a row, of them.
    """
    generator = population.random_numbers(seed, number, 0)
    style = population.random_numbers(seed, number, population.STYLE)
    hand, betas = hand_model(None, "right"), population.subject_betas(seed, number)
    tone, habit = skin_tone(style), subject_style(style)
    target = population.sequence_object(seed, number, 0, len(CATALOGUE))
    motion = make_motion(generator, hand, hand, betas, habit, target, frames)
    skin_map = skin_map_of(None, "right")
    skin = skin_sheets(skin_map, np.clip(tone * generator.normal(1, 0.04, 3), 0.01, 0.95), generator)
    scene, rig = Scene(motion, hand.assets.faces, skin_map, skin, generator), make_rig(seed, number)
    serial = SERIALS[number % len(SERIALS)]
    lights, table = random_lights(generator), table_texture(generator)
    view = CameraView(
        scene, rig.K[serial], rig.camera_to_table[serial], table, room_texture(generator), lights,
        random_sensor(generator, lights.on_table), generator, 1,
    )  # fmt: skip
    shown = np.flatnonzero(motion.present)
    to_camera = np.linalg.inv(rig.camera_to_table[serial])
    joints = motion.joints[shown] @ to_camera[:3, :3].T + to_camera[:3, 3]
    hidden = np.zeros(len(shown), dtype=bool)
    begin = len(shown) // 3 + int(generator.integers(len(shown) // 4))
    hidden[begin : begin + hidden_frames] = True
    images = [
        np.ascontiguousarray(view.render(MovingMesh(*scene.frame(i)), motion.joints[i]).bgr[..., ::-1]) for i in shown
    ]
    patch = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
    for place in np.flatnonzero(hidden):
        cover(images[place], square_box(project_numpy(joints[place], rig.K[serial]), 1.3), patch)
    return Clip(images, rig.K[serial], betas, joints, hidden)


def cover(image: np.ndarray, box: np.ndarray, patch: np.ndarray) -> None:
    """Lay a coarse patch (S,S,3) over a square (3,) of the image (H,W,3), in place."""
    height, width = image.shape[:2]
    left, top = np.maximum(np.floor(box[:2] - box[2] / 2).astype(int), 0)
    right, bottom = np.minimum(np.ceil(box[:2] + box[2] / 2).astype(int), [width, height])
    rows, columns = np.arange(top, bottom), np.arange(left, right)
    pick = [
        ((at - at.min(initial=0)) * len(patch) // max(len(at), 1)).clip(0, len(patch) - 1) for at in (rows, columns)
    ]
    image[top:bottom, left:right] = patch[pick[0][:, None], pick[1]]
