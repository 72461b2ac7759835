"""Moving pictures of one or both hands of unseen synthetic people, for tracking: hands cross, and one is covered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks.scenes.video_scenes import FRAMES, HIDDEN_FRAMES, cover
from datasets.dex_ycb.splits import SERIALS
from datasets.synthetic.data_set import hand_model, skin_map_of
from datasets.synthetic.scene import population
from datasets.synthetic.scene.appearance import SKIN_SIZE, skin_sheets, skin_tone
from datasets.synthetic.scene.background import room_texture, table_texture
from datasets.synthetic.scene.cameras import make_rig
from datasets.synthetic.scene.layout import SEG_HAND, Scene, Surface
from datasets.synthetic.scene.motion import Motion, make_motion, minimum_jerk, subject_style
from datasets.synthetic.scene.objects import CATALOGUE
from datasets.synthetic.scene.render import CameraView, MovingMesh
from datasets.synthetic.scene.shading import random_lights, random_sensor
from utils.camera import project_numpy, square_box

#: Seg value of the second hand; the first one's is `SEG_HAND`.
SECOND_HAND = 254
#: A hand is visible while so much of its joints lies in the picture, uncovered, and not behind the other hand.
VISIBLE = 0.6
_QUALITY = 95  # of the JPEG pictures in the cache, which every run sees, so that cached ones are no different


@dataclass
class HandTruth:
    """One hand of a clip: side, joints (F,21,3) m in the camera frame, and visible (F,)."""

    is_left: bool
    joints: np.ndarray
    visible: np.ndarray


@dataclass
class TrackingClip:
    """F frames (H,W,3) uint8 RGB as JPEG bytes, K (3,3) px, betas (10,) of both hands, and the hands."""

    pictures: list[np.ndarray]
    K: np.ndarray
    betas: np.ndarray
    hands: list[HandTruth]

    @property
    def images(self) -> list[np.ndarray]:
        """Decoded."""
        return [np.ascontiguousarray(cv2.imdecode(one, cv2.IMREAD_COLOR)[..., ::-1]) for one in self.pictures]


class TwoHands:
    """Two `Scene`s in one: what a `CameraView` asks for. Objects in the hands are left out; those about them stay."""

    def __init__(self, first: Scene, second: Scene) -> None:
        self._scenes = first, second
        self.standing, self.standing_mesh = first.standing, first.standing_mesh
        self.texels = np.concatenate([first.texels, second.texels])
        self._rows = len(first.texels) // SKIN_SIZE

    def frame(self, index: int) -> tuple[Surface, np.ndarray, np.ndarray]:
        """See `Scene.frame`."""
        parts = [_hand_alone(*scene.frame(index)) for scene in self._scenes]
        (one, *first), (two, *second) = parts
        labels = np.where(two.labels == SEG_HAND, SECOND_HAND, two.labels).astype(np.uint8)
        surface = Surface(
            np.vstack([one.faces, two.faces + len(one.texture)]),
            np.vstack([one.texture, two.texture + np.float32([0, self._rows, 0])]),
            np.concatenate([one.labels, labels]),
            len(one.texture) + len(two.texture),
        )
        return surface, *(np.concatenate(pair) for pair in zip(first, second, strict=True))


def _hand_alone(surface: Surface, vertices: np.ndarray, normals: np.ndarray) -> tuple[Surface, np.ndarray, np.ndarray]:
    """Hand and forearm, which are the first ``n_folded`` vertices."""
    count = surface.n_folded
    own = (surface.faces < count).all(axis=1)
    kept = replace(surface, faces=surface.faces[own], texture=surface.texture[:count], labels=surface.labels[own])
    return kept, vertices[:count], normals[:count]


def moved(motion: Motion, offset: np.ndarray) -> Motion:
    """The hand's motion, each frame displaced by ``offset`` (F,3) m, and in every frame there."""
    return replace(
        motion,
        transl=motion.transl + offset,
        vertices=motion.vertices + offset[:, None],
        joints=motion.joints + offset[:, None],
        present=np.ones(len(offset), dtype=bool),
    )


def crossing(generator: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Displacements (F,3) m of the right and the left hand: apart, past each other, and back again.

    The left hand passes above, so that the meshes do not meet.
    """
    time = (np.arange(frames) + 0.5) / frames
    begin, back = generator.uniform(0.12, 0.3), generator.uniform(0.55, 0.75)
    past = minimum_jerk(time, begin, begin + 0.25) - minimum_jerk(time, back, back + 0.22)
    apart, across = generator.uniform(0.09, 0.14), generator.uniform(0.04, 0.10)
    side = apart - (apart + across) * past
    none, height = np.zeros(frames), generator.uniform(0.09, 0.14)
    right = np.stack([side, none, none], axis=1)
    return right, np.stack([-side, none + generator.uniform(-0.04, 0.04), none + height], axis=1)


def make_tracking_clip(seed: int, number: int, cache: Path | None = None) -> TrackingClip:
    """Of the 1-based person ``number`` of ``seed``: even ones show both hands, which cross; from ``cache`` if there."""
    path = None if cache is None else cache / f"tracking_{seed}_{number}.npz"
    if path is not None and path.is_file():
        with np.load(path) as data:
            ends = np.cumsum(data["sizes"])[:-1]
            hands = [HandTruth(*row) for row in zip(data["is_left"], data["joints"], data["visible"], strict=True)]
            return TrackingClip(np.split(data["bytes"], ends), data["K"], data["betas"], hands)
    clip = _make(seed, number)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            bytes=np.concatenate(clip.pictures), sizes=[len(one) for one in clip.pictures], K=clip.K, betas=clip.betas,
            is_left=[hand.is_left for hand in clip.hands], joints=[hand.joints for hand in clip.hands],
            visible=[hand.visible for hand in clip.hands],
        )  # fmt: skip
    return clip


def _make(seed: int, number: int) -> TrackingClip:
    generator = population.random_numbers(seed, number, 0)
    style = population.random_numbers(seed, number, population.STYLE)
    betas, tone, habit = population.subject_betas(seed, number), skin_tone(style), subject_style(style)
    colour = np.clip(tone * generator.normal(1, 0.04, 3), 0.01, 0.95)
    right, scenes, motions = hand_model(None, "right"), [], []
    sides = ("right", "left") if number % 2 == 0 else ("right",) if number % 4 == 1 else ("left",)
    paths = crossing(generator, FRAMES)
    for side in sides:
        hand, target = hand_model(None, side), population.sequence_object(seed, number, 0, len(CATALOGUE))
        motion = make_motion(generator, right, hand, betas, habit, target, FRAMES)
        if len(sides) == 2:
            motion = moved(motion, paths[side == "left"])
        skin_map = skin_map_of(None, side)
        scenes.append(Scene(motion, hand.assets.faces, skin_map, skin_sheets(skin_map, colour, generator), generator))
        motions.append(motion)
    scene = TwoHands(*scenes) if len(sides) == 2 else scenes[0]
    rig, serial = make_rig(seed, number), SERIALS[number % len(SERIALS)]
    lights, table = random_lights(generator), table_texture(generator)
    K, pose = rig.K[serial], rig.camera_to_table[serial]
    view = CameraView(
        scene, K, pose, table, room_texture(generator), lights, random_sensor(generator, lights.on_table), generator, 1
    )  # fmt: skip
    shown = np.flatnonzero(np.all([motion.present for motion in motions], axis=0))
    to_camera = np.linalg.inv(pose)
    joints = [motion.joints[shown] @ to_camera[:3, :3].T + to_camera[:3, 3] for motion in motions]
    covered = int(generator.integers(len(sides)))
    begin = len(shown) // 3 + int(generator.integers(len(shown) // 4))
    patch = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
    pictures, visible = [], np.zeros((len(sides), len(shown)), dtype=bool)
    for row, frame in enumerate(shown):
        where = np.concatenate([motion.joints[frame] for motion in motions])
        picture = view.render(MovingMesh(*scene.frame(frame)), where)
        image, seg = np.ascontiguousarray(picture.bgr[..., ::-1]), picture.seg.copy()
        if begin <= row < begin + HIDDEN_FRAMES:
            square = square_box(project_numpy(joints[covered][row], K), 1.3)
            cover(image, square, patch)
            cover(seg[..., None], square, np.zeros((1, 1, 1), np.uint8))
        pictures.append(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
        for hand, label in enumerate((SEG_HAND, SECOND_HAND)[: len(sides)]):
            visible[hand, row] = _share(seg, project_numpy(joints[hand][row], K), label) >= VISIBLE
    hands = [HandTruth(side == "left", *rows) for side, *rows in zip(sides, joints, visible, strict=True)]
    return TrackingClip(pictures, K, betas, hands)


def _share(seg: np.ndarray, points: np.ndarray, label: int) -> float:
    """Part of the points (N,2) px that fall on pixels of ``label``."""
    height, width = seg.shape
    columns, rows = np.round(points).astype(int).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    return float((seg[rows[inside], columns[inside]] == label).sum() / len(points))
