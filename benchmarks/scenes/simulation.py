"""Simulated people, frames and network errors, for benchmarks and tests: every quantity has a known truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import roma
import torch

from src.personalization.landmarks.model import LandmarkModel
from template import HandAssets
from template.kinematics import JointsModel, joints_model, posed_points
from utils.artifacts import Predictions
from utils.camera import project


@dataclass(frozen=True)
class SimulationOptions:
    """What the simulated network and keypoint detector are like.

    Attributes:
        noise_px: standard deviation of each keypoint coordinate; outliers: fraction thrown 50 px off.
        pose_noise: rad, standard deviation of each axis of each predicted rotation's error.
        depth: m, mean and standard deviation of the wrist's z (at least 0.5 m), or its range if ``uniform_depth``.
        focal: px.
        pose_spread: multiple of the pose PCA's standard deviations.
        pose_covariance: (48,48) rad^2 over (joint, axis) of the predicted rotations' errors, instead of ``pose_noise``.
    """

    noise_px: float = 2.0
    outliers: float = 0.0
    pose_noise: float = 0.25
    depth: tuple[float, float] = (0.85, 0.07)
    uniform_depth: bool = False
    focal: float = 615.0
    pose_spread: float = 0.7
    pose_covariance: torch.Tensor | None = None


@dataclass
class Simulated:
    """P persons, F frames each; float64. Standard joint order.

    Attributes:
        betas: (P,10); pose: (P,F,16,3,3) true; predicted: (P,F,16,3,3) the network's.
        joints: (P,F,21,3) m camera frame; transl: (P,F,3) m; K: (P,F,3,3) px; keypoints: (P,F,21,2) px.
    """

    betas: torch.Tensor
    pose: torch.Tensor
    predicted: torch.Tensor
    joints: torch.Tensor
    transl: torch.Tensor
    K: torch.Tensor
    keypoints: torch.Tensor

    def predictions(self, assets: HandAssets, first_subject: int = 8, **columns: Any) -> Predictions:
        """What network and detector say, a row a frame, person after person; ``columns``: others, or instead."""
        persons, frames = self.predicted.shape[:2]
        count = persons * frames
        given = {
            "image_id": np.arange(count),
            "subject_id": first_subject + np.repeat(np.arange(persons), frames),
            "sequence_id": np.zeros(count, dtype=np.int64),
            "is_left": np.zeros(count, dtype=bool),
            "K": self.K.flatten(0, 1).numpy(),
            "pose": self.predicted.flatten(0, 1).numpy(),
            "keypoints_2d": self.keypoints.flatten(0, 1).numpy(),
            "hand_name": assets.name,
            "hand_hash": assets.hash,
        }
        return Predictions(**(given | columns))


def simulate(
    assets: HandAssets, persons: int, frames: int, options: SimulationOptions = SimulationOptions(), seed: int = 0
) -> Simulated:
    """Persons with unit-normal betas; poses from the hand's pose PCA in any orientation; pinhole keypoints."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    model = JointsModel(assets)
    n = persons * frames
    betas = normal(persons, 10)
    components, mean = torch.as_tensor(assets.hands_components), torch.as_tensor(assets.hands_mean)
    fingers = mean + options.pose_spread * normal(n, 45) @ components
    orientation = roma.unitquat_to_rotmat(torch.nn.functional.normalize(normal(n, 4), dim=-1))
    pose = torch.cat([orientation[:, None], roma.rotvec_to_rotmat(fingers.unflatten(1, (15, 3)))], dim=1)
    error = options.pose_noise * normal(n, 16, 3)
    if options.pose_covariance is not None:
        error = (normal(n, 48) @ torch.linalg.cholesky(options.pose_covariance.double()).T).unflatten(1, (16, 3))
    predicted = pose @ roma.rotvec_to_rotmat(error)
    rest = model.rest_points(betas).repeat_interleave(frames, dim=0)
    points = posed_points(model, pose, rest).points[:, model.to_standard]
    low, high = options.depth
    depth = low + (high - low) * uniform(n) if options.uniform_depth else (low + high * normal(n)).clamp_min(0.5)
    sideways = (uniform(n, 2) - 0.5) * torch.tensor([0.4, 0.3], dtype=torch.float64)
    wrist = torch.cat([sideways, depth[:, None]], dim=1)
    joints = points + wrist[:, None]
    K = torch.tensor([[options.focal, 0, 319.5], [0, options.focal, 239.5], [0, 0, 1]], dtype=torch.float64)
    K = K.expand(n, 3, 3).clone()
    keypoints = project(joints, K) + options.noise_px * normal(n, 21, 2)
    thrown = uniform(n, 21) < options.outliers
    keypoints = torch.where(thrown[..., None], keypoints + 50 * normal(n, 21, 2), keypoints)
    split = (persons, frames)
    every = (pose, predicted, joints, wrist - rest[:, 0], K, keypoints)
    return Simulated(betas, *(value.unflatten(0, split) for value in every))


def detected(
    assets: HandAssets, world: Simulated, person: int, landmarks: LandmarkModel, generator: np.random.Generator,
    repeats: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """A detector's points (F,21,2) px of a person, by its landmark model and with its noise; ``repeats``: the part
    of its variance that all frames share."""
    model = joints_model(assets, landmarks)
    rest = model.rest_points(world.betas[person]).expand(world.pose.shape[1], -1, -1)
    points = posed_points(model, world.pose[person], rest).points[:, model.to_standard] + world.joints[person, :, :1]
    keypoints = project(points, world.K[person]).numpy()
    noise = repeats**0.5 * generator.normal(size=keypoints.shape[1:]) if repeats else 0.0
    noise = noise + (1 - repeats) ** 0.5 * generator.normal(size=keypoints.shape)
    return keypoints + landmarks.std_box[:, None] * np.ptp(keypoints, axis=1).max(axis=1)[:, None, None] * noise


def second_camera(
    world: Simulated, options: SimulationOptions = SimulationOptions(), angle: float = 0.9, seed: int = 1
) -> tuple[Simulated, torch.Tensor]:
    """The same instants seen by another camera, turned by ``angle`` rad about a vertical axis through (0, 0, 0.85) m.

    Returns:
        The other view (its own noise, its own network errors), and its camera-to-world transform (4,4),
        the first camera's frame being the world.
    """
    generator = torch.Generator().manual_seed(seed)
    around = torch.tensor([0.0, angle, 0.0], dtype=torch.float64)
    centre = torch.tensor([0.0, 0.0, 0.85], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    rotation = roma.rotvec_to_rotmat(around)
    pose[:3, :3], pose[:3, 3] = rotation, centre - rotation @ centre
    joints = (world.joints - pose[:3, 3]) @ rotation
    turned = world.pose.clone()
    turned[:, :, 0] = rotation.T @ turned[:, :, 0]
    shape = world.predicted.shape[:3]
    error = options.pose_noise * torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    noise = options.noise_px * torch.randn(world.keypoints.shape, generator=generator, dtype=torch.float64)
    other = Simulated(
        betas=world.betas,
        pose=turned,
        predicted=turned @ roma.rotvec_to_rotmat(error),
        joints=joints,
        transl=joints[:, :, 0] - (world.joints[:, :, 0] - world.transl),
        K=world.K,
        keypoints=project(joints.flatten(0, 1), world.K.flatten(0, 1)).unflatten(0, shape[:2]) + noise,
    )
    return other, pose
