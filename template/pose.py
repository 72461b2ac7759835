"""Named converters between the pose of the hand layer (rotation matrices) and what files hold.

A *pose* is (..., 16, 3, 3): rotation matrices of MANO's joints (wrist first), each relative to its
parent. A flat hand is all identities. Rotation mathematics is RoMa's. Arrays are taken for tensors, which come back.
"""

from __future__ import annotations

from typing import Any, Protocol

import roma
import torch


class PosePca(Protocol):
    """Anything with MANO's pose PCA: `HandAssets` (NumPy) or `HandModel` (buffers)."""

    hands_components: Any  # (45, 45) rows
    hands_mean: Any  # (45,)


def axis_angle_to_pose(axis_angle: torch.Tensor) -> torch.Tensor:
    """Pose (..., 16, 3, 3) from full axis-angles (..., 48), radians, mean pose already included.

    Raises:
        ValueError: another shape.
    """
    axis_angle = _numbers(axis_angle)
    if axis_angle.shape[-1:] != (48,):
        raise ValueError(
            f"axis_angle has shape {tuple(axis_angle.shape)}, expected (..., 48), the wrist's 3 before the fingers' 45"
        )
    return roma.rotvec_to_rotmat(axis_angle.unflatten(-1, (16, 3)))


def pose_to_axis_angle(pose: torch.Tensor) -> torch.Tensor:
    """Axis-angles (..., 48), radians, of a pose (..., 16, 3, 3): the inverse of `axis_angle_to_pose`.

    Raises:
        ValueError: another shape.
    """
    pose = _numbers(pose)
    if pose.shape[-3:] != (16, 3, 3):
        raise ValueError(f"pose has shape {tuple(pose.shape)}, expected (..., 16, 3, 3) rotation matrices")
    return roma.rotmat_to_rotvec(pose).flatten(-2)


def pca_to_pose(
    hand: PosePca, global_orient: torch.Tensor, coefficients: torch.Tensor, add_mean: bool = True
) -> torch.Tensor:
    """Pose from a global rotation and PCA coefficients, as in DexYCB's ``pose_m`` (docs/facts.md 1.4).

    Args:
        hand: the hand's assets or layer; its components are rows that carry standard deviations.
        global_orient: (..., 3) axis-angle of the wrist, radians.
        coefficients: (..., n), n <= 45 leading coefficients.
        add_mean: add the mean pose (manopth's flat_hand_mean off). DexYCB: yes.

    Returns:
        (..., 16, 3, 3).

    Raises:
        ValueError: more than 45 coefficients.
    """
    global_orient, coefficients = _numbers(global_orient), _numbers(coefficients)
    components, mean = _pca(hand, coefficients)
    count = coefficients.shape[-1]
    if count > components.shape[0]:
        raise ValueError(f"{count} PCA coefficients; the hand has {components.shape[0]} components")
    fingers = coefficients @ components[:count]
    if add_mean:
        fingers = fingers + mean
    return axis_angle_to_pose(torch.cat([global_orient, fingers], dim=-1))


def pose_to_pca(hand: PosePca, pose: torch.Tensor, subtract_mean: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Global axis-angle (..., 3), rad, and all 45 PCA coefficients (..., 45) of a pose (..., 16, 3, 3).

    The component rows are orthogonal but not of unit length, so the projection is divided by the
    squared row norms (docs/facts.md 6).
    """
    axis_angle = pose_to_axis_angle(pose)
    components, mean = _pca(hand, axis_angle)
    fingers = axis_angle[..., 3:]
    if subtract_mean:
        fingers = fingers - mean
    return axis_angle[..., :3], fingers @ components.T / components.square().sum(dim=-1)


def mirror_pose(pose: torch.Tensor) -> torch.Tensor:
    """Pose (..., 16, 3, 3) of the other hand, seen in the mirror x -> -x: M R M with M = diag(-1, 1, 1).

    In axis-angle this negates the y and z components (docs/facts.md 8.14). Its own inverse.
    """
    pose = torch.as_tensor(pose)
    signs = pose.new_tensor([-1.0, 1.0, 1.0])
    return pose * signs[:, None] * signs


def _numbers(values: Any) -> torch.Tensor:
    """As a tensor, whole numbers in torch's default precision."""
    values = torch.as_tensor(values)
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())


def _pca(hand: PosePca, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    components = torch.as_tensor(hand.hands_components, dtype=like.dtype, device=like.device)
    return components, torch.as_tensor(hand.hands_mean, dtype=like.dtype, device=like.device)
