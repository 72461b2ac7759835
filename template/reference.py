"""Kinematic chain and linear blend skinning, for all vertices of a hand or for a few of them.

SMPL eq. n is Loper et al., "SMPL: A Skinned Multi-Person Linear Model", ACM TOG 2015; MANO is
Romero et al., "Embodied Hands", ACM TOG 2017, which uses the same equations for the hand.
This is the plain form, differentiated by autograd; `template.fast_skinning` gives the same numbers.

Coordinates are kept *planar*, (B, 3, V) instead of (B, V, 3): every step is then a matrix product
or an elementwise product over long contiguous rows.
"""

from __future__ import annotations

import torch

from utils.joints import MANO_PARENTS

#: Five fingers of three joints hang on the wrist: joint 1 + 3 * finger + level.
FINGERS, LEVELS = 5, 3


def forward_kinematics(pose: torch.Tensor, rest_joints: torch.Tensor) -> torch.Tensor:
    """World transforms of the 16 joints, SMPL eq. 4, one product a level for all five fingers.

    Args:
        pose: (B, 16, 3, 3) rotations relative to the parent.
        rest_joints: (B, 16, 3) metres.

    Returns:
        (B, 16, 3, 4): rotation and position, metres, of each joint, in MANO's order.
    """
    bones = rest_joints[:, 1:] - rest_joints[:, list(MANO_PARENTS[1:])]
    local = torch.cat([pose, torch.cat([rest_joints[:, :1], bones], dim=1)[..., None]], dim=-1)
    wrist = local[:, :1]
    fingers = local[:, 1:].unflatten(1, (FINGERS, LEVELS))
    chain, parent = [], wrist
    for level in range(LEVELS):
        child = parent[..., :3] @ fingers[:, :, level]
        parent = torch.cat([child[..., :3], child[..., 3:] + parent[..., 3:]], dim=-1)
        chain.append(parent)
    return torch.cat([wrist, torch.stack(chain, dim=2).flatten(1, 2)], dim=1)


def blend_features(pose: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
    """(B, 146) factors of template, shape and pose directions (SMPL eqs. 6, 8, 9): 1, betas, R - I row-major."""
    identity = torch.eye(3, dtype=pose.dtype, device=pose.device)
    return torch.cat([torch.ones_like(betas[:, :1]), betas, (pose[:, 1:] - identity).flatten(1)], dim=1)


def skin(
    unposed: torch.Tensor,
    transforms: torch.Tensor,
    rest_joints: torch.Tensor,
    transl: torch.Tensor | None,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Posed vertices, SMPL eqs. 2 and 3.

    Args:
        unposed: (B, 3, V) metres, rest vertices with shape and pose blend (SMPL eq. 7).
        transforms: (B, 16, 3, 4) of `forward_kinematics`.
        rest_joints: (B, 16, 3) metres.
        transl: (B, 3) metres, or None.
        weights: (16, V) skinning weights.

    Returns:
        (B, 3, V) metres.
    """
    # eq. 3: the rest pose is taken off, so that the transform applies to rest coordinates
    offsets = transforms[..., 3] - (transforms[..., :3] @ rest_joints[..., None])[..., 0]
    relative = torch.cat([transforms[..., :3], offsets[..., None]], dim=-1)
    blended = (relative.flatten(2).transpose(1, 2) @ weights).view(-1, 3, 4, weights.shape[1])
    posed = (blended[:, :, :3] * unposed[:, None]).sum(dim=2) + blended[:, :, 3]
    return posed if transl is None else posed + transl[..., None]
