"""How widely poses are spread is learnt from keypoints; 3D joints that contradict the keypoints are not believed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import roma
import torch

from src.personalization.estimates import usual_poses
from src.personalization.estimates.evidence import prepare
from src.personalization.estimates.people import people_of
from src.personalization.estimates.personalise import LEAST_SPREAD, personalise_rows
from src.personalization.fitting.fit import FitOptions, PosePriorOptions
from src.personalization.terms.pose_prior import habit_prior
from template import HandModel, load_hand_assets
from template.assets import STAND_IN_PATH
from template.kinematics import JointsModel
from utils.artifacts import Predictions
from utils.camera import project
from utils.identity import Identity

ASSETS = load_hand_assets(STAND_IN_PATH)
HANDS = 32


def seen_hands(spread: float, floor: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Poses (N,16,3,3), spread so, joints (N,21,3) m, K (N,3,3) and keypoints (N,21,2) px, 2% of the box off."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    root = torch.linalg.inv(torch.linalg.cholesky(habit_prior(ASSETS, spread=spread, floor=floor).precision[0, 3:, 3:]))
    fingers = (torch.as_tensor(ASSETS.hands_mean) + normal(HANDS, 45) @ root).unflatten(1, (15, 3))
    palm = roma.unitquat_to_rotmat(torch.nn.functional.normalize(normal(HANDS, 4), dim=-1))
    pose = torch.cat([palm[:, None], roma.rotvec_to_rotmat(fingers)], dim=1)
    place = torch.tensor([0.0, 0.0, 0.6]) + 0.05 * normal(HANDS, 3)
    joints = HandModel(ASSETS, dtype=torch.float64).joints(pose, torch.zeros(HANDS, 10).double(), place)
    K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=torch.float64).expand(HANDS, 3, 3)
    pixels = project(joints, K)
    box = (pixels.amax(dim=1) - pixels.amin(dim=1)).amax(dim=-1)[:, None, None]
    return pose, joints, K, pixels + 0.02 * box * normal(HANDS, 21, 2)


@pytest.mark.parametrize(("spread", "floor"), [(0.5, 0.05), (1.0, 0.1), (1.4, 0.2)])
def test_the_spread_of_poses_is_learnt(spread: float, floor: float) -> None:
    """From rotations that lie half way to the usual pose, which would say a quarter of it."""
    pose, _, K, pixels = seen_hands(spread, floor)
    mean = roma.rotvec_to_rotmat(torch.as_tensor(ASSETS.hands_mean).view(15, 3)).expand(HANDS, 15, 3, 3)
    half = pose.clone()
    half[:, 1:] = mean @ roma.rotvec_to_rotmat(roma.rotmat_to_rotvec(mean.mT @ pose[:, 1:]) / 2)
    given, options = (half, torch.zeros(HANDS, 10).double(), K, pixels), FitOptions(PosePriorOptions(*LEAST_SPREAD))
    found = usual_poses.learnt_poses(ASSETS, JointsModel(ASSETS), given, None, options).precision
    pairs = itertools.product(usual_poses.SPREADS, usual_poses.FLOORS)
    near = [(s, f) for s, f in pairs if torch.allclose(habit_prior(ASSETS, spread=s, floor=f).precision, found)]
    assert len(near) == 1
    assert 0.55 < near[0][0] / spread < 1.6 and 0.55 < near[0][1] / floor < 1.6  # a step of the list, or none


def test_nothing_to_learn_from_leaves_the_usual_poses() -> None:
    pose, _, K, pixels = seen_hands(1.0, 0.1)
    given = (pose, torch.zeros(HANDS, 10).double(), K, torch.full_like(pixels, torch.nan))
    found = usual_poses.learnt_poses(ASSETS, JointsModel(ASSETS), given, None, FitOptions())
    torch.testing.assert_close(found.precision, habit_prior(ASSETS).precision)


def test_joints_that_contradict_the_keypoints_do_not_displace_a_hand() -> None:
    """3D joints of one hand are turned by 100 degrees: it came out at a wrong depth, far from its keypoints."""
    _, joints, K, pixels = seen_hands(0.5, 0.05)
    points = (joints - joints[:, :1]).clone()
    points[3] = points[3] @ roma.rotvec_to_rotmat(torch.tensor([1.2, 1.2, 0.0], dtype=torch.float64)).mT
    rows = Predictions(
        image_id=np.arange(HANDS), subject_id=np.zeros(HANDS, int), is_left=np.zeros(HANDS, bool), K=K.numpy(),
        keypoints_2d=pixels.numpy(), joints_3d=points.numpy(), sequence_id=np.zeros(HANDS, int),
        model_name="sam3d_body",
    )  # fmt: skip
    ready = prepare(rows, ASSETS, people_of(ASSETS), theirs=False)
    found = personalise_rows(ready, {0: Identity(np.zeros(10), ASSETS.name, ASSETS.hash, 180.0)}, ASSETS)
    off = np.linalg.norm(found.joints - joints.numpy(), axis=-1).mean(axis=1)
    box = np.ptp(rows.keypoints_2d, axis=1).max(axis=1)
    assert (found.reprojection_px / box).max() < 0.06
    assert off[3] < 0.05, off
