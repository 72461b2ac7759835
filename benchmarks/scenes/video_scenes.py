"""Moving pictures of unseen synthetic people, in memory: one camera, 30 frames a second, an occlusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from datasets.dex_ycb.splits import SERIALS
from datasets.image_crop import crop_image
from datasets.synthetic.data_set import tell_story
from datasets.synthetic.scene import population
from datasets.synthetic.scene.background import room_texture, table_texture
from datasets.synthetic.scene.cameras import make_rig
from datasets.synthetic.scene.render import CameraView, MovingMesh
from datasets.synthetic.scene.shading import random_lights, random_sensor
from src.engine.checkpoint import ModelCard
from src.photos.detector.search import KeypointReader, network_input
from utils.camera import crop_affine, project_numpy, square_box, transform_intrinsics

FPS, FRAMES, HIDDEN_FRAMES = 30, 90, 15
Kept = TypeVar("Kept")


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
    generator, scene = tell_story(seed, (number, 0), "right", frames)
    motion, rig, betas = scene.motion, make_rig(seed, number), population.subject_betas(seed, number)
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


@torch.no_grad()
def look(
    clip: Clip, network: torch.nn.Module, card: ModelCard, reader: KeypointReader, betas: np.ndarray | None = None
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """What a network, told the betas (10,) or not, says at the hand's true boxes, and there the keypoint network's
    keypoints (F,21,2) px and confidence (F,21), float64."""
    boxes = [square_box(project_numpy(joints, clip.K), 1.0) for joints in clip.joints]
    windows, size = [box * [1, 1, card.crop_scale] for box in boxes], card.input_size
    images = zip(clip.images, windows, strict=True)
    crops = network_input([crop_image(image, window, size) for image, window in images], "cpu")
    K = np.stack([transform_intrinsics(clip.K, crop_affine(window, size)) for window in windows])
    told = None if betas is None else torch.as_tensor(betas, dtype=torch.float32).expand(len(crops), -1)
    said = network(crops, betas=told, K=torch.as_tensor(K, dtype=torch.float32))
    read = [reader.read(image, box[None]) for image, box in zip(clip.images, boxes, strict=True)]
    keypoints, confidence = (torch.as_tensor(np.concatenate([one[part] for one in read])).double() for part in (0, 1))
    return said, keypoints, confidence


def kept(path: Path | None, kind: type[Kept], make: Callable[[], Kept]) -> Kept:
    """What ``make`` gives, a dataclass of tensors, from the file if it is there already."""
    if path is not None and path.is_file():
        return kind(**torch.load(path, weights_only=True))
    found = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vars(found), path)
    return found


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
