"""One sequence's story: the hand reaches, opens, closes around the object, lifts and turns it.

Everything is a smooth function of time in [0, 1], so the number of frames only says how finely it is
sampled. Movements are minimum-jerk (Flash and Hogan, J. Neurosci. 5(7), 1985) and overlap; small
slow noise is added to place, heading and fingers. Left-handed sequences are right-handed ones in a mirror.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from datasets.synthetic.scene.grasping import STYLES, closure_angles, finger_pose, fit_grip, heading_rotation
from datasets.synthetic.scene.objects import CATALOGUE, CatalogueObject
from template import HandModel, axis_angle_to_pose, mirror_pose

_REST_HEADING = np.array([28.0, 12.0, 32.0])
_HEADING_SPREAD = np.array([15.0, 8.0, 8.0])  # standard deviations, degrees; clipped at two
_STYLE_COMPONENTS = 6  # pose components that carry style and noise
_LIFT_START = 0.62
_CLEARANCE = 0.004  # of the hand above the table, metres


@dataclass(frozen=True)
class Motion:
    """What moves, in the table frame, metres; F frames, n objects, the grasped one first."""

    side: str
    pose: np.ndarray  # (F, 16, 3, 3) of the sequence's own side
    transl: np.ndarray  # (F, 3) MANO's translation
    vertices: np.ndarray  # (F, 778, 3)
    joints: np.ndarray  # (F, 21, 3)
    present: np.ndarray  # (F,) bool: the hand is in the scene and annotated
    objects: tuple[CatalogueObject, ...]
    object_poses: np.ndarray  # (F, n, 4, 4) object -> table


def subject_style(generator: np.random.Generator) -> np.ndarray:
    """(6,) leading pose coefficients, in standard deviations, of how a person holds the fingers."""
    return generator.normal(0.0, 0.22, _STYLE_COMPONENTS)


def make_motion(
    generator: np.random.Generator,
    right: HandModel,
    hand: HandModel,
    betas: np.ndarray,
    style_offset: np.ndarray,
    target: int,
    num_frames: int,
) -> Motion:
    """Tell one sequence.

    Args:
        generator: the sequence's own random numbers; everything below is drawn from it.
        right: the right hand (float64), in which the story is made up.
        hand: the hand (float64) of the sequence's side.
        betas: (10,) of the subject.
        style_offset: of `subject_style`.
        target: index into `CATALOGUE` of the grasped object.
        num_frames: frames, spread evenly over the story.
    """
    # One more sample: the moment at which the object becomes part of the hand.
    time = np.append((np.arange(num_frames) + 0.5) / num_frames, _LIFT_START)
    item = CATALOGUE[target]
    style = STYLES[item.grasps[generator.integers(len(item.grasps))]]
    rest_wrist = right.rest_joints(torch.as_tensor(betas)[None])[0, 0].numpy()

    grasp_heading = np.array(style.heading) + _clipped(generator, _HEADING_SPREAD)
    grip = fit_grip(right, betas, style, item, grasp_heading, generator.uniform(-0.25, 0.35))
    object_place = np.array([*generator.uniform((-0.07, -0.07), (0.07, 0.06)), item.half_extents[2]])
    grasp_place = object_place - grip.wrist_to_object

    place, heading = _arm_path(generator, time, style.from_above, grasp_place, grasp_heading)
    fingers = _finger_path(generator, time, style.fingers, grip.closures, style_offset, right)
    rotation = heading_rotation(heading)
    pose = axis_angle_to_pose(torch.as_tensor(np.hstack([np.zeros((len(time), 3)), fingers])))
    pose[:, 0] = torch.as_tensor(rotation)
    # Raised, smoothly, until no vertex is lower than the clearance.
    output = right(pose, torch.as_tensor(betas).expand(len(time), 10), torch.as_tensor(place - rest_wrist))
    missing = np.logaddexp(0.0, (_CLEARANCE - output.vertices[..., 2].amin(dim=1).numpy()) / 0.004) * 0.004
    place = place + missing[:, None] * [0.0, 0.0, 1.0]

    wrist = _matrix(rotation, place)
    # The object stands until the lift (when the last of the wrists is), then it is fixed to the wrist.
    standing = _matrix(grip.object_rotation, object_place)
    carried = wrist @ (np.linalg.inv(wrist[-1]) @ standing)
    held = np.where((time > _LIFT_START)[:, None, None], carried, standing)[:num_frames]
    pose, place = pose[:num_frames], place[:num_frames]
    others, other_poses = _bystanders(generator, target, object_place)
    object_poses = np.concatenate(
        [held[:, None], np.broadcast_to(other_poses, (num_frames, *other_poses.shape))], axis=1
    )
    if hand.assets.side == "left":
        flip = np.diag([-1.0, 1.0, 1.0, 1.0])
        pose, place, object_poses = mirror_pose(pose), place * [-1, 1, 1], flip @ object_poses @ flip
    transl = place - hand.rest_joints(torch.as_tensor(betas)[None])[0, 0].numpy()
    output = hand(pose, torch.as_tensor(betas).expand(num_frames, 10), torch.as_tensor(transl))
    return Motion(
        hand.assets.side, pose.numpy(), transl, output.vertices.numpy(), output.joints.numpy(),
        _presence(generator, num_frames), (item, *others), object_poses,
    )  # fmt: skip


def minimum_jerk(time: np.ndarray, start: float, end: float) -> np.ndarray:
    """Rest-to-rest progress 0..1 over [start, end]: 10 s^3 - 15 s^4 + 6 s^5 (Flash and Hogan 1985)."""
    share = np.clip((time - start) / (end - start), 0, 1)
    return share**3 * (10 - 15 * share + 6 * share**2)


def slow_noise(generator: np.random.Generator, time: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Smooth random curves (F, len(spread)) of standard deviation ``spread``: three sinusoids each."""
    count = len(spread)
    frequency = generator.uniform(0.4, 2.2, (3, count))
    phase = generator.uniform(0, 2 * np.pi, (3, count))
    waves = np.sin(2 * np.pi * time[:, None, None] * frequency + phase)
    return waves.sum(axis=1) * np.asarray(spread) * np.sqrt(2 / 3)


def _arm_path(
    generator: np.random.Generator,
    time: np.ndarray,
    from_above: bool,
    grasp_place: np.ndarray,
    grasp_heading: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Wrist places (F, 3) and headings (F, 3) of start -> ahead of the object -> grasp -> lifted."""
    start = grasp_place + generator.uniform((0.02, -0.28, 0.03), (0.22, -0.14, 0.16))
    back_off = np.array([0.0, 0.0, 0.09])
    if not from_above:
        back_off = heading_rotation(grasp_heading) @ np.array([0.05, 0.07, 0.02])
    before = grasp_place + back_off * generator.uniform(0.8, 1.2)
    lifted = grasp_place + generator.uniform((-0.08, -0.08, 0.10), (0.08, 0.06, 0.20))
    start_heading = _REST_HEADING + _clipped(generator, _HEADING_SPREAD)
    turned = grasp_heading + _clipped(generator, np.array([12.0, 9.0, 14.0]))
    reach, close_in = minimum_jerk(time, 0.0, 0.46), minimum_jerk(time, 0.28, 0.56)
    lift = minimum_jerk(time, _LIFT_START, 0.97)
    place = start + np.outer(reach, before - start) + np.outer(close_in, grasp_place - before)
    place += np.outer(lift, lifted - grasp_place)
    heading = start_heading + np.outer(minimum_jerk(time, 0.05, 0.5), grasp_heading - start_heading)
    heading += np.outer(lift, turned - grasp_heading)
    place += slow_noise(generator, time, np.full(3, 0.002))
    heading += slow_noise(generator, time, np.array([2.0, 1.5, 2.0]))
    return place, heading


def _finger_path(
    generator: np.random.Generator,
    time: np.ndarray,
    grasp: str,
    closures: np.ndarray,
    style_offset: np.ndarray,
    right: HandModel,
) -> np.ndarray:
    """Axis-angles (F, 45): relaxed -> pre-shape -> closed, plus style and slow noise in few components."""
    relaxed = closure_angles("relaxed", np.full(5, generator.uniform(0.6, 1.2)))
    opened = closure_angles(grasp, np.full(5, generator.uniform(-0.1, 0.2)))
    closed = closure_angles(grasp, closures)
    opening = minimum_jerk(time, 0.0, generator.uniform(0.25, 0.4))
    start = generator.uniform(0.38, 0.46)
    angles = relaxed + np.outer(opening, opened - relaxed)
    angles += np.outer(minimum_jerk(time, start, generator.uniform(0.58, 0.63)), closed - opened)
    coefficients = style_offset + generator.normal(0, 0.15, _STYLE_COMPONENTS)
    coefficients = coefficients + slow_noise(generator, time, np.full(_STYLE_COMPONENTS, 0.08))
    # Fingers on the object stay where they touch; style shows in the free hand.
    freedom = 1 - 0.85 * minimum_jerk(time, 0.4, _LIFT_START)
    components = right.assets.hands_components[:_STYLE_COMPONENTS]
    return finger_pose(angles) + freedom[:, None] * (coefficients @ components)


def _bystanders(
    generator: np.random.Generator, target: int, object_place: np.ndarray
) -> tuple[list[CatalogueObject], np.ndarray]:
    """One to three other objects that stand about, behind and beside the grasped one."""
    choice = generator.permutation([i for i in range(len(CATALOGUE)) if i != target])[: generator.integers(1, 4)]
    sectors = generator.permutation(4)[: len(choice)]
    poses = []
    for index, sector in zip(choice, sectors, strict=True):
        angle = np.radians(-35 + 62 * sector + generator.uniform(-20, 20))
        distance = generator.uniform(0.15, 0.26)
        place = object_place[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
        turn = Rotation.from_euler("z", generator.uniform(0, 360), degrees=True).as_matrix()
        poses.append(_matrix(turn, np.array([*place, CATALOGUE[index].half_extents[2]])))
    return [CATALOGUE[index] for index in choice], np.array(poses)


def _presence(generator: np.random.Generator, num_frames: int) -> np.ndarray:
    """A few percent of frames, at the start, in which no hand is there yet."""
    absent = int(generator.uniform(0.0, 0.08) * num_frames + generator.random())
    return np.arange(num_frames) >= min(absent, num_frames - 1)


def _matrix(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    matrix = np.zeros((*translation.shape[:-1], 4, 4))
    matrix[..., :3, :3], matrix[..., :3, 3], matrix[..., 3, 3] = rotation, translation, 1.0
    return matrix


def _clipped(generator: np.random.Generator, spread: np.ndarray) -> np.ndarray:
    return spread * generator.standard_normal(3).clip(-2, 2)
