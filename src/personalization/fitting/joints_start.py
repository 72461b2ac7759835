"""A hand's pose from 21 points in closed form: the palm laid on its points, then each bone turned to its own."""

from __future__ import annotations

import roma
import torch

from template.kinematics import JointsModel, posed_points

#: MANO order: wrist and knuckles.
_PALM = [0, 1, 4, 7, 10]
#: MANO order: knuckles and what follows them, then the next joints, then the last ones and the tips.
_LEVELS = (
    ([1, 4, 7, 10, 13], [2, 5, 8, 11, 14]),
    ([2, 5, 8, 11, 14], [3, 6, 9, 12, 15]),
    ([3, 6, 9, 12, 15], [17, 18, 20, 19, 16]),
)


def pose_on_points(
    model: JointsModel, mean: torch.Tensor, points: torch.Tensor, trust: torch.Tensor, betas: torch.Tensor
) -> torch.Tensor:
    """Rotations (N,16,3,3), from knuckle to tip; the mean pose's where points are missing.

    Args:
        mean: (45,) rad, the mean pose of the fingers, axis-angle.
        points: (N,21,3) m, MANO order, tips last; trust: (N,21), zero where one is missing; betas: (N,10).
    """
    n, rest = len(points), model.rest_points(betas)
    fingers = roma.rotvec_to_rotmat(mean.view(15, 3)).to(points)
    pose = torch.cat([torch.eye(3).to(points).expand(n, 1, 3, 3), fingers.expand(n, 15, 3, 3)], dim=1)
    palm = torch.zeros_like(trust)
    palm[:, _PALM] = trust[:, _PALM]
    few = (palm > 0).sum(dim=1) < 3  # then all points say how the hand lies
    weight = torch.where(few[:, None], trust, palm)
    share = (weight / weight.sum(dim=1, keepdim=True).clamp_min(1e-30))[..., None]
    whole, target = (v - (share * v).sum(dim=1, keepdim=True) for v in (posed_points(model, pose, rest).points, points))
    pose[:, 0] = roma.special_procrustes((share * target).mT @ whole)
    turned = pose[:, :1].expand(n, 5, 3, 3)
    for joints, children in _LEVELS:
        bone, seen = rest[:, children] - rest[:, joints], points[:, children] - points[:, joints]
        own, there = pose[:, joints], (trust[:, children] > 0) & (trust[:, joints] > 0)
        swing = _swing((own @ bone[..., None])[..., 0], (turned.mT @ seen[..., None])[..., 0])
        pose[:, joints] = torch.where(there[..., None, None], swing @ own, own)
        turned = turned @ pose[:, joints]
    return pose


def _swing(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Smallest rotations (...,3,3) from directions ``start`` to ``end`` (...,3)."""
    start, end = (torch.nn.functional.normalize(value, dim=-1) for value in (start, end))
    axis = torch.linalg.cross(start, end)
    sine = axis.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, (start * end).sum(dim=-1, keepdim=True))
    return roma.rotvec_to_rotmat(axis * (angle / sine.clamp_min(1e-9)))
