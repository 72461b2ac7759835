"""One hand with its forearm, without objects or table, photographed at any size by any camera.

The sets of single hands (FreiHAND, HUMBI) are made with it. Skin, sleeve, light and sensor are those of the
synthetic DexYCB; the frame is its table frame (z up, the hand's owner towards -y).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch

from datasets.synthetic.data_set import hand_model, skin_map_of
from datasets.synthetic.scene.appearance import skin_sheets, skin_tone, to_linear
from datasets.synthetic.scene.background import room_texture, table_texture
from datasets.synthetic.scene.grasping import closure_angles, finger_pose, heading_rotation
from datasets.synthetic.scene.layout import SEG_HAND, Scene, Surface
from datasets.synthetic.scene.motion import Motion
from datasets.synthetic.scene.objects import CATALOGUE
from datasets.synthetic.scene.population import STYLE, random_numbers, subject_betas
from datasets.synthetic.scene.render import MovingMesh
from datasets.synthetic.scene.shading import Lights, random_lights, random_sensor
from template import axis_angle_to_pose, pca_to_pose, pose_to_pca
from utils.camera import crop_affine, transform_intrinsics

_SUPERSAMPLING = 2
_WRIST = np.array([0.04, -0.12, 0.22])
_REST_HEADING = np.array([28.0, 12.0, 32.0])
_HEADING_SPREAD = np.array([25.0, 22.0, 60.0])  # standard deviations, degrees; clipped at two
_GRASPS = ("open", "flat", "relaxed", "power_cylinder", "pinch", "tripod", "hook", "pointing", "fist", "spread")
_FREE_COMPONENTS, _FREE_SPREAD = 8, 0.25
_FAR = np.eye(4)
_FAR[:3, 3] = -1000.0


class Shot(NamedTuple):
    """What a camera saw of the hand; colour is premultiplied by alpha."""

    radiance: np.ndarray  # (size, size, 3) float32 linear RGB
    alpha: np.ndarray  # (size, size) float32 0..1 of hand and arm
    mask: np.ndarray  # (size, size) uint8: 255 where the hand (up to the wrist) covers half the pixel, else 0


@dataclass(frozen=True)
class StudioHand:
    """A posed right hand, float64 metres, table frame, and what is needed to photograph it."""

    pose: np.ndarray  # (16, 3, 3)
    betas: np.ndarray  # (10,)
    transl: np.ndarray  # (3,)
    rest_wrist: np.ndarray  # (3,)
    vertices: np.ndarray  # (778, 3)
    joints: np.ndarray  # (21, 3)
    mesh: MovingMesh
    texels: np.ndarray
    lights: Lights

    def in_camera(self, camera_to_table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pose (16, 3, 3) and translation (3,) in the frame of a camera (4, 4): the rigid rule of docs/facts.md 1.4."""
        A, b = _inverse(camera_to_table)
        pose = self.pose.copy()
        pose[0] = A @ pose[0]
        return pose, A @ (self.transl + self.rest_wrist) + b - self.rest_wrist

    def points_in_camera(self, points: np.ndarray, camera_to_table: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the table frame in the frame of a camera (4, 4)."""
        A, b = _inverse(camera_to_table)
        return points @ A.T + b

    def photograph(self, K: np.ndarray, camera_to_table: np.ndarray, size: int) -> Shot:
        """Look at the hand through a square image of ``size`` pixels with intrinsics K (3, 3)."""
        fine = size * _SUPERSAMPLING
        whole = np.array([(size - 1) / 2, (size - 1) / 2, size])
        pixels = np.stack(np.meshgrid(np.arange(fine), np.arange(fine)), axis=-1).reshape(-1, 2)
        K_fine = transform_intrinsics(K, crop_affine(whole, fine))
        seen, label, _, colour = self.mesh.look(self.texels, self.lights, K_fine, pixels, camera_to_table)
        radiance, alpha = np.zeros((fine * fine, 3), np.float32), np.zeros((fine * fine, 2), np.float32)
        radiance[seen], alpha[seen, 0], alpha[seen, 1] = colour, 1, label == SEG_HAND
        radiance, alpha = (
            cv2.resize(value.reshape(fine, fine, -1), (size, size), interpolation=cv2.INTER_AREA)
            for value in (radiance, alpha)
        )
        return Shot(radiance, alpha[..., 0], np.where(alpha[..., 1] >= 0.5, np.uint8(255), np.uint8(0)))

    def develop(self, shot: Shot, background: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """(size, size, 3) uint8 **BGR** of a shot before a background (size, size, 3) of linear RGB paint."""
        lit = background * self.lights.on_table.astype(np.float32)
        sensor = random_sensor(generator, self.lights.on_table)
        radiance = shot.radiance + (1 - shot.alpha[..., None]) * lit
        return np.ascontiguousarray(sensor.develop(radiance, sensor.random_corner(generator)))


def make_studio_hand(
    seed: int, subject: int, generator: np.random.Generator, mano_dir: str | None = None, components: int = 45
) -> StudioHand:
    """A random posture of a person of `datasets.synthetic.scene.population`.

    Args:
        seed, subject: of the data set and the person's 1-based number; they decide betas and skin.
        generator: of the posture, the sleeve and the light.
        components: so many leading pose components make up the posture; 45: any posture.
    """
    hand, betas = hand_model(mano_dir, "right"), subject_betas(seed, subject)
    grasp = _GRASPS[generator.integers(len(_GRASPS))]
    angles = closure_angles(grasp, generator.uniform(0.0, 1.0) + generator.normal(0, 0.15, 5))
    free = generator.normal(0, _FREE_SPREAD, _FREE_COMPONENTS) @ hand.assets.hands_components[:_FREE_COMPONENTS]
    axis_angle = np.concatenate([np.zeros(3), finger_pose(angles[None])[0] + free])
    pose = axis_angle_to_pose(torch.as_tensor(axis_angle)[None])
    if components < 45:
        pose = pca_to_pose(hand.assets, torch.zeros(1, 3).double(), pose_to_pca(hand.assets, pose)[1][:, :components])
    heading = _REST_HEADING + _HEADING_SPREAD * generator.standard_normal(3).clip(-2, 2)
    pose[0, 0] = torch.as_tensor(heading_rotation(heading))
    shape = torch.as_tensor(betas)[None]
    rest_wrist = hand.rest_joints(shape)[0, 0].numpy()
    transl = _WRIST + generator.normal(0, 0.02, 3) - rest_wrist
    output = hand(pose, shape, torch.as_tensor(transl)[None])
    vertices, joints = output.vertices[0].numpy(), output.joints[0].numpy()

    # The scene wants a sequence with objects; they stand out of sight, and their faces are dropped.
    motion = Motion(
        "right", pose.numpy(), transl[None], vertices[None], joints[None], np.array([True]), CATALOGUE[:2],
        np.broadcast_to(_FAR, (1, 2, 4, 4)),
    )  # fmt: skip
    skin_map, style = skin_map_of(mano_dir, "right"), random_numbers(seed, subject, STYLE)
    tone = np.clip(skin_tone(style) * generator.normal(1, 0.04, 3), 0.01, 0.95)
    scene = Scene(motion, hand.assets.faces, skin_map, skin_sheets(skin_map, tone, generator), generator)
    surface, positions, normals = scene.frame(0)
    kept = np.isin(surface.labels, (SEG_HAND, 0))
    bare = Surface(surface.faces[kept], surface.texture, surface.labels[kept], surface.n_folded)
    return StudioHand(
        pose[0].numpy(), betas, transl, rest_wrist, vertices, joints, MovingMesh(bare, positions, normals),
        scene.texels, random_lights(generator),
    )  # fmt: skip


def green_screen(generator: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) float32 linear RGB: a green cloth, unevenly lit."""
    green = to_linear(np.array([70, 165, 85]) * generator.uniform(0.85, 1.1))
    light = generator.normal(1, 0.08, (4, 4)).astype(np.float32)
    return green * cv2.resize(light, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]


def random_place(generator: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) float32 linear RGB: a random part of a room or of a table top."""
    picture = (room_texture if generator.random() < 0.6 else table_texture)(generator)
    side = int(generator.integers(200, 440))
    top, left = (int(generator.integers(0, extent - side + 1)) for extent in picture.shape[:2])
    part = np.ascontiguousarray(picture[top : top + side, left : left + side])
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)


def _inverse(camera_to_table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    A = camera_to_table[:3, :3].T
    return A, -A @ camera_to_table[:3, 3]
