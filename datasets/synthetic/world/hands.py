"""Random people's hands: shape, skin, posture, sleeve, held object, cameras, lights; one generator decides all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import roma
import scipy.sparse
import torch

from datasets.synthetic.scene.appearance import object_texture
from datasets.synthetic.scene.grasping import STYLES, closure_angles, finger_pose, fit_grip, heading_rotation
from datasets.synthetic.scene.objects import CATALOGUE
from datasets.synthetic.world.cameras import random_view
from datasets.synthetic.world.cutout import Cutout, Part, PosedScene, View, neighbour_mean, sleeve
from datasets.synthetic.world.lights import random_lights
from datasets.synthetic.world.mesh import HandSurface, PosedSurface, hand_surface
from datasets.synthetic.world.poses import random_angles
from datasets.synthetic.world.skin import SheetMap, Skin, paint_skin, sheet_map
from template import HandModel
from template.stand_in.grasps import angles_to_pose

#: Labels of a cut-out of a right hand: px of the cut-out, metres of its camera's frame, axis-angles.
LABEL = np.dtype([
    ("keypoints", np.float32, (21, 2)), ("xyz", np.float32, (21, 3)), ("visible", np.bool_, (21,)),
    ("K", np.float32, (3, 3)), ("pose", np.float32, (48,)), ("betas", np.float32, (10,)),
    ("transl", np.float32, (3,)), ("hand_share", np.float32), ("person", np.int32),
])  # fmt: skip

SCENES_A_PERSON, VIEWS_A_SCENE = 6, 5
PER_PERSON = SCENES_A_PERSON * VIEWS_A_SCENE
_WITH_OBJECT, _WITH_SLEEVE = 0.16, 0.45
_SEEN_JOINTS = 6


@lru_cache(maxsize=2)
def prepared(mano_dir: str | None) -> tuple[HandSurface, SheetMap, scipy.sparse.csr_matrix, HandModel]:
    """The surface, its place on the sheets, its neighbours' mean, and the hand model (float64)."""
    surface = hand_surface(mano_dir)
    smooth = neighbour_mean(surface.faces, len(surface.rest))
    return surface, sheet_map(surface), smooth, HandModel(surface.assets, dtype=torch.float64)


class Hand(NamedTuple):
    """One person's hand in one posture, ready for cameras."""

    scene: PosedScene
    posed: PosedSurface
    fingers: np.ndarray  # (45,) axis-angles
    betas: np.ndarray  # (10,)
    arm: np.ndarray  # (3,) unit, away from the hand
    person: int

    def shoot(self, generator: np.random.Generator, view: View) -> Cutout:
        """A picture in the light of a random place."""
        up = view.rotation.T @ (np.array([0.0, -1.0, 0.0]) + generator.normal(0, 0.3, 3))
        lights = random_lights(generator, up / np.linalg.norm(up), -view.rotation[2])
        exposure = generator.normal(0.56 + 0.16 * (self.scene.skin.tone.mean() - 0.25), 0.13)
        return self.scene.photograph(view, lights, float(np.clip(exposure, 0.12, 0.95)))


def person_cutouts(seed: int, person: int, mano_dir: str | None = None) -> Iterator[tuple[np.ndarray, np.void]]:
    """The `PER_PERSON` cut-outs (SIZE, SIZE, 4) uint8 of one person with their labels (`LABEL`)."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, person, 20261126]))
    for hand in person_hands(generator, SCENES_A_PERSON, person, mano_dir):
        for _ in range(VIEWS_A_SCENE):
            view = visible_view(generator, hand)
            shot = hand.shoot(generator, view)
            yield shot.rgba, _label(hand, view, shot)


def visible_view(generator: np.random.Generator, hand: Hand, **options: Any) -> View:
    """A random camera (options as `random_view`) that sees some of the hand, not only what it holds."""
    for _ in range(5):
        view = random_view(generator, hand.posed.joints, hand.arm, **options)
        if hand.scene.visible(view).sum() >= _SEEN_JOINTS:
            break
    return view


def person_hands(
    generator: np.random.Generator, postures: int, person: int = 0, mano_dir: str | None = None
) -> Iterator[Hand]:
    """A random person's hand in so many random postures."""
    surface, places, _, _ = prepared(mano_dir)
    skin = paint_skin(places, generator, nails_too=surface.nails is None)
    betas = (generator.normal(size=10) * 1.1).clip(-3, 3)
    for _ in range(postures):
        yield _posture(generator, betas, skin, person, mano_dir)


def _posture(generator: np.random.Generator, betas: np.ndarray, skin: Skin, person: int, mano_dir: str | None) -> Hand:
    surface, places, smooth, hand = prepared(mano_dir)
    parts: list[Part] = []
    if generator.random() < _WITH_OBJECT:
        fingers, part = _grasp(hand, betas, generator)
        parts.append(part)
    else:
        fingers = angles_to_pose(random_angles(generator))
    wrist = np.radians(generator.normal(0, (24, 9, 35)).clip((-65, -25, -80), (65, 25, 80)))
    posed = surface.posed(fingers, betas, wrist)
    if generator.random() < _WITH_SLEEVE:
        parts.append(sleeve(surface, posed.vertices, generator))
    scene = PosedScene(surface, posed.vertices, posed.joints, places, skin, parts, generator, smooth)
    far = surface.rest[:, 0] > 0.15
    arm = posed.vertices[far].mean(axis=0) - posed.joints[0]
    return Hand(scene, posed, fingers, betas, arm / np.linalg.norm(arm), person)


def camera_pose(hand: Hand, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Axis-angles (48,) and translation (3,) of the hand model in the camera's frame."""
    root = roma.rotmat_to_rotvec(torch.as_tensor(view.rotation)[None])[0].numpy()
    # The hand's frame has the wrist at its origin, which is where J0(betas) + transl lies.
    return np.concatenate([root, hand.fingers]), view.translation - hand.posed.rest_wrist


def _label(hand: Hand, view: View, shot: Cutout) -> np.void:
    label = np.zeros((), LABEL)
    label["keypoints"], label["xyz"] = view.project(hand.posed.joints), view.to_camera(hand.posed.joints)
    label["visible"], label["K"], label["betas"] = shot.visible, view.K, hand.betas
    label["pose"], label["transl"] = camera_pose(hand, view)
    label["hand_share"], label["person"] = shot.hand_share, hand.person
    return label[()]


def _grasp(hand: HandModel, betas: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, Part]:
    """Finger axis-angles (45,) that hold an object of the catalogue, and the object in the hand's frame."""
    item = CATALOGUE[generator.integers(len(CATALOGUE))]
    item = replace(item, half_extents=tuple(np.array(item.half_extents) * generator.uniform(0.45, 1.2, 3)))
    style = list(STYLES.values())[generator.integers(len(STYLES))]
    heading = np.array(style.heading) + generator.normal(0, 10, 3)
    grip = fit_grip(hand, betas, style, item, heading, generator.uniform(-0.6, 0.6))
    to_hand = heading_rotation(heading).T
    mesh = item.mesh()
    vertices = (mesh.vertices @ grip.object_rotation.T + grip.wrist_to_object) @ to_hand.T
    fingers = finger_pose(closure_angles(style.fingers, grip.closures)[None])[0]
    colours = tuple(tuple(int(v) for v in generator.integers(5, 250, 3)) for _ in range(3))
    texture = object_texture(int(generator.integers(1 << 30)), colours, 128)
    return fingers, Part(vertices.astype(np.float32), np.asarray(mesh.faces), mesh.uv, texture)
