"""A pose in closed form from 21 points: exact where bones only swing, sensible where points are missing."""

from __future__ import annotations

import numpy as np
import pytest
import roma
import torch

from src.personalization.fitting.joints_start import pose_on_points
from template import load_hand_assets
from template.kinematics import JointsModel, posed_points
from utils.joints import MANO_PARENTS, STANDARD_TO_MANO

ASSETS = load_hand_assets()
MODEL, MEAN = JointsModel(ASSETS), torch.as_tensor(ASSETS.hands_mean)


def hands(count: int, bend: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points (N,21,3) m in MANO's order, pose (N,16,3,3) and betas (N,10) of hands bent by so many rad."""
    generator = torch.Generator().manual_seed(seed)
    betas = torch.randn(count, 10, generator=generator, dtype=torch.float64)
    axes = bend * torch.randn(count, 15, 3, generator=generator, dtype=torch.float64)
    fingers = roma.rotvec_to_rotmat(MEAN.view(15, 3)) @ roma.rotvec_to_rotmat(axes)
    orientation = roma.random_rotmat(count, dtype=torch.float64)
    pose = torch.cat([orientation[:, None], fingers], dim=1)
    place = torch.tensor([0.1, -0.2, 0.6], dtype=torch.float64)
    return posed_points(MODEL, pose, MODEL.rest_points(betas)).points + place, pose, betas


def test_the_mean_pose_is_found_again_in_any_orientation() -> None:
    points, pose, betas = hands(4, 0.0)
    found = pose_on_points(MODEL, MEAN, points, torch.ones(4, 21).double(), betas)
    torch.testing.assert_close(found[:, 0], pose[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, 1:], pose[:, 1:], atol=0.03, rtol=0)  # the tips' pose blend alone is missed


def test_every_bone_points_where_it_was_seen() -> None:
    points, _, betas = hands(6, 0.3)
    found = pose_on_points(MODEL, MEAN, points, torch.ones(6, 21).double(), betas)
    torch.testing.assert_close(found @ found.mT, torch.eye(3).double().expand_as(found), atol=1e-9, rtol=0)
    posed = posed_points(MODEL, found, MODEL.rest_points(betas)).points
    for child in (joint for joint in range(1, 16) if MANO_PARENTS[joint] > 0):
        parent = MANO_PARENTS[child]
        seen, bone = (value[:, child] - value[:, parent] for value in (points, posed))
        cosine = torch.nn.functional.cosine_similarity(seen, bone, dim=-1)
        assert float(cosine.min()) > np.cos(1e-4), (parent, child)


def test_a_finger_without_points_keeps_the_mean_pose() -> None:
    points, _, betas = hands(3, 0.3)
    trust = torch.ones(3, 21).double()
    index = [STANDARD_TO_MANO.index(joint) for joint in (6, 7, 8)]
    trust[:, index] = 0.0
    points[:, index] = 1e3  # what is not trusted is not looked at
    found = pose_on_points(MODEL, MEAN, points, trust, betas)
    mean = roma.rotvec_to_rotmat(MEAN.view(15, 3))
    knuckle = STANDARD_TO_MANO.index(5)
    torch.testing.assert_close(found[:, knuckle : knuckle + 3], mean[knuckle - 1 : knuckle + 2].expand(3, 3, 3, 3))


@pytest.mark.parametrize("seen", [[0, 1, 2, 3, 20], list(range(16, 21))])
def test_without_a_palm_all_points_say_how_the_hand_lies(seen: list[int]) -> None:
    points, pose, betas = hands(3, 0.0)
    trust = torch.zeros(3, 21).double()
    trust[:, seen] = 1.0
    found = pose_on_points(MODEL, MEAN, points, trust, betas)
    torch.testing.assert_close(found[:, 0], pose[:, 0], atol=1e-5, rtol=0)
