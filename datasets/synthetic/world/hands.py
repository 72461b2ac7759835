"""Random people's hands: shape, skin, posture (open palms, signs and letters, fists, pinches, grasps), sleeve, held
object, cameras, lights; one generator decides all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
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
from datasets.synthetic.world.skin import SheetMap, paint_skin, sheet_map
from template import HandModel, load_hand_assets
from template.assets import STAND_IN_PATH
from template.kinematics import JointsModel
from template.stand_in.grasps import FINGER_ORDER, GRASPS, angles_to_pose, clip_angles, grasp_angles
from utils.camera import turn_to_ray

#: Labels of a cut-out of a right hand: px of the cut-out, metres of its camera's frame, axis-angles.
LABEL = np.dtype([
    ("keypoints", np.float32, (21, 2)), ("xyz", np.float32, (21, 3)), ("visible", np.bool_, (21,)),
    ("K", np.float32, (3, 3)), ("pose", np.float32, (48,)), ("betas", np.float32, (10,)),
    ("transl", np.float32, (3,)), ("hand_share", np.float32), ("person", np.int32),
])  # fmt: skip

#: m, the 20 bones of the mean hand, wrist to tips, added up.
MEAN_BONES = 0.8325
SCENES_A_PERSON, VIEWS_A_SCENE = 6, 5
PER_PERSON = SCENES_A_PERSON * VIEWS_A_SCENE
_WITH_OBJECT, _WITH_SLEEVE = 0.16, 0.45
_SEEN_JOINTS = 6

#: MCP, PIP, DIP flexion, degrees, of a finger in a sign.
_STRAIGHT, _CURLED, _HALF, _HOOKED, _BENT = (0, 2, 1), (80, 98, 60), (40, 45, 25), (8, 85, 48), (72, 8, 4)
#: Thumb in a sign: opposition, spread, CMC, MCP, IP, degrees.
_THUMBS = (
    (0, 14, -8, -4, -6),  # out
    (4, -24, 0, 4, 4),  # beside the palm
    (45, -18, 18, 45, 40),  # across the palm
    (69, 3, -15, 31, 35),  # over curled fingers
    (40, 6, 2, 10, 14),  # half opposed
)
#: Thumb tip on a finger's tip: that finger's spread, MCP, PIP, DIP, then the thumb; the first with a round finger, the
#: second with a bent one. Found once by minimising the tips' distance on the mean hand.
_PINCHES = {
    "index": ((0, 50, 25, 15, 55, 0, 6, 5, 10), (0, 47, 58, 35, 55, 2, 5, 5, 10)),
    "middle": ((2, 56, 34, 20, 60, 8, 11, 6, 9), (0, 48, 59, 36, 56, 1, 8, 6, 11)),
    "ring": ((8, 52, 35, 22, 67, 14, 18, 8, 9), (2, 40, 58, 37, 61, 6, 17, 11, 13)),
    "little": ((20, 41, 25, 16, 62, 8, 26, 11, 10), (7, 31, 55, 36, 52, 2, 29, 17, 15)),
}
_NAMES, _SHARES = ("sign", "pinch", "grasp", "open", "fist", "between"), (0.34, 0.16, 0.2, 0.18, 0.05, 0.07)


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
    surface, places, smooth, model = prepared(mano_dir)
    skin = paint_skin(places, generator, nails_too=surface.nails is None)
    betas = (generator.normal(size=10) * 1.1).clip(-3, 3)
    for _ in range(postures):
        parts: list[Part] = []
        if generator.random() < _WITH_OBJECT:
            fingers, part = _grasp(model, betas, generator)
            parts.append(part)
        else:
            fingers = angles_to_pose(random_angles(generator))
        wrist = np.radians(generator.normal(0, (24, 9, 35)).clip((-65, -25, -80), (65, 25, 80)))
        posed = surface.posed(fingers, betas, wrist)
        if generator.random() < _WITH_SLEEVE:
            parts.append(sleeve(surface, posed.vertices, generator))
        scene = PosedScene(surface, posed.vertices, posed.joints, places, skin, parts, generator, smooth)
        arm = posed.vertices[surface.rest[:, 0] > 0.15].mean(axis=0) - posed.joints[0]
        yield Hand(scene, posed, fingers, betas, arm / np.linalg.norm(arm), person)


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


def relative_depth(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `src.models.lifting` learns, of labels (N,) of `LABEL`: of hands made as large as the mean hand, in the axes
    of a camera turned to the middle of the keypoints.

    Returns:
        (N,21) float32 m, depth about the mean, away from the camera; (N,) float32 m, of a pixel at the hand.
    """
    pixels, points = (labels[name].astype(np.float64) for name in ("keypoints", "xyz"))
    centred, turn = points - points.mean(axis=1, keepdims=True), _turn_to_middle(labels)
    chains = points[:, 1:].reshape(-1, 5, 4, 3)
    bones = np.diff(np.concatenate([np.broadcast_to(points[:, None, :1], (len(points), 5, 1, 3)), chains], 2), axis=2)
    size = MEAN_BONES / np.linalg.norm(bones, axis=3).sum(axis=(1, 2))
    centred = size[:, None, None] * (centred @ turn)
    about = pixels - pixels.mean(axis=1, keepdims=True)
    pixel = (centred[..., :2] * about).sum(axis=(1, 2)) / np.square(about).sum(axis=(1, 2))
    return centred[..., 2].astype(np.float32), pixel.astype(np.float32)


def relative_pose(labels: np.ndarray) -> np.ndarray:
    """Rotations (N,16,3,3) float32 of labels (N,) of `LABEL`, in the axes of `relative_depth`'s camera."""
    pose = roma.rotvec_to_rotmat(torch.as_tensor(labels["pose"].astype(np.float64)).unflatten(1, (16, 3))).numpy()
    pose[:, 0] = _turn_to_middle(labels).mT @ pose[:, 0]
    return pose.astype(np.float32)


def default_betas(betas: np.ndarray) -> np.ndarray:
    """Betas (N,10) float32 of the default hand that come closest to the fine one's, which networks are not told of.

    Joints and tips of the flat hand, to 1 mm, beside betas of unit variance: 0.5 mm are left; of equal betas 1.1.
    """
    weights, offset = _to_default()
    return (betas @ weights.T + offset).astype(np.float32)


@cache
def _to_default() -> tuple[np.ndarray, np.ndarray]:
    """(10,10) and (10,) of `default_betas`."""
    models = [JointsModel(assets) for assets in (load_hand_assets(STAND_IN_PATH), hand_surface().assets)]
    rest = [(model.rest - model.rest[:1]).flatten().numpy() for model in models]  # about the wrist
    default, fine = ((one.directions - one.directions[:, :1]).flatten(1).numpy() for one in models)  # (10,63)
    solve = np.linalg.solve(default @ default.T + 1e-6 * np.eye(10), default)
    return solve @ fine.T, solve @ (rest[1] - rest[0])


def _turn_to_middle(labels: np.ndarray) -> np.ndarray:
    """(N,3,3) that take the optical axis to the ray through the middle of the keypoints."""
    middle = labels["keypoints"].astype(np.float64).mean(axis=1)
    ray = np.linalg.solve(labels["K"].astype(np.float64), np.insert(middle, 2, 1, axis=1)[..., None])[..., 0]
    return turn_to_ray(torch.as_tensor(ray / np.linalg.norm(ray, axis=1, keepdims=True))).numpy()


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


def random_angles(generator: np.random.Generator) -> np.ndarray:
    """The 21 anatomical angles (`template.stand_in.grasps.FINGER_ORDER`), radians, of a random posture."""
    kind = _NAMES[generator.choice(len(_NAMES), p=np.array(_SHARES) / sum(_SHARES))]
    if kind == "between":
        first, second = (_posture(_NAMES[generator.integers(5)], generator) for _ in range(2))
        angles = first + generator.uniform(0.2, 0.8) * (second - first)
    else:
        angles = _posture(kind, generator)
    spread = np.radians(generator.uniform(1, 9))
    common = np.tile(generator.normal(0, 0.6, 4), 4)  # people bend their fingers together
    noise = np.concatenate([0.7 * generator.normal(size=16) + common, generator.normal(size=5)])
    return clip_angles(angles + spread * noise)


def _posture(kind: str, generator: np.random.Generator) -> np.ndarray:
    if kind == "sign":
        return _sign(generator)
    if kind == "pinch":
        return _pinch(generator)
    if kind == "grasp":
        names = [name for name in GRASPS if name not in ("open", "spread", "flat", "fist")]
        return grasp_angles(names[generator.integers(len(names))], generator.uniform(0, 1))
    if kind == "fist":
        return grasp_angles("fist", generator.uniform(0.8, 1))
    return grasp_angles(("open", "spread", "flat")[generator.integers(3)], generator.uniform(0, 1))


def _sign(generator: np.random.Generator) -> np.ndarray:
    """Each finger straight or folded on its own, as in digits and letters."""
    fold = (_CURLED, _CURLED, _CURLED, _HALF, _HOOKED, _BENT)[generator.integers(6)]
    straight = generator.random(4) < 0.55
    rows = []
    wide = generator.uniform(0, 1)
    for number in range(4):
        flexion = _STRAIGHT if straight[number] else fold
        spread = (10, 1, -9, -17)[number] * wide if straight[number] else 0
        rows.append([spread, *(np.array(flexion) * generator.uniform(0.85, 1.1))])
    thumb = _THUMBS[generator.integers(len(_THUMBS))]
    return np.radians(np.concatenate([*rows, thumb]).astype(np.float64))


def _pinch(generator: np.random.Generator) -> np.ndarray:
    """Thumb and one finger (or all of them) meet; the others are straight, relaxed or curled."""
    finger = FINGER_ORDER[generator.choice(4, p=[0.45, 0.25, 0.15, 0.15])]
    round_one, bent = (np.array(row, float) for row in _PINCHES[finger])
    meeting = round_one + generator.uniform(0, 1) * (bent - round_one)
    angles = grasp_angles(("spread", "relaxed", "power_cylinder")[generator.integers(3)], generator.uniform(0, 0.9))
    place = FINGER_ORDER.index(finger)
    if generator.random() < 0.25:  # an O: the other fingers join
        for other in range(4):
            angles[4 * other : 4 * other + 4] = np.radians(meeting[:4] + [0, 3 * other, 2 * other, 2 * other])
    angles[4 * place : 4 * place + 4] = np.radians(meeting[:4])
    angles[16:] = np.radians(meeting[4:])
    return angles
