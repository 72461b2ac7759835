"""The hand reduced to what keypoints see: 16 joints and 5 tips, with everything else folded away.

The joint regressor is applied to template and shape directions once (J = J_regressor @ v is linear in
betas), and of the 778 vertices only the five tips stay. Equations are those of SMPL (Loper et al. 2015,
eqs. 2-10) and MANO (Romero et al. 2017).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from template import HandAssets
from utils.joints import MANO_PARENTS, MANO_TO_STANDARD, tip_vertices

#: The tip (row of the 21 points) of each of MANO's fingers: index, middle, little, ring, thumb.
FINGER_TIPS = (17, 18, 20, 19, 16)

#: (16, 16): joint row moves when joint column turns (the column is an ancestor of the row, or the row itself).
SUBTREE = np.zeros((16, 16))
for _joint in range(16):
    _ancestor = _joint
    while _ancestor >= 0:
        SUBTREE[_joint, _ancestor] = 1.0
        _ancestor = MANO_PARENTS[_ancestor]


@dataclass
class FingerTables:
    """The hand by fingers; joints and points are ordered as in `finger_pose`, fingers as in MANO.

    Attributes:
        joint_order: (16,) MANO's joints; point_order: (21,) rows of the points; from_joint_order and
        from_point_order: the inverses.
        carrying: how many of the ordered joints carry a tip with some weight; tip_weights: (5,carrying).
        tip_pose: (15,192) = (coordinate and tip, entry of the local transforms), m; zero for bones.
        blend_at_identity: (3,5) m, what tip_pose gives for identity rotations.
    """

    joint_order: torch.Tensor
    from_joint_order: torch.Tensor
    point_order: torch.Tensor
    from_point_order: torch.Tensor
    carrying: int
    tip_weights: torch.Tensor
    tip_pose: torch.Tensor
    blend_at_identity: torch.Tensor


class JointsModel:
    """Constants of the joints-only hand on one device, in MANO order (16 joints, then 5 tips).

    Attributes (P = 21 points, tips last, thumb to little):
        rest: (21,3) metres, zero-pose points at zero betas; directions: (10,21,3) metres per unit of betas.
        tip_pose: (15,9,15) = (rotated joint, entry of R - I row-major, 3 tip + coordinate), metres.
        tip_weights: (5,16) skinning weights of the tips.
        subtree: (16,16), see `SUBTREE`; points_below: (21,16), the same for all points, tips by their weights.
    """

    def __init__(
        self,
        assets: HandAssets,
        tips: str = "manopth",
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        ids = list(tip_vertices(tips, assets.side))
        joint_directions = np.einsum("jv,vcs->sjc", assets.J_regressor, assets.shapedirs)
        rest = np.concatenate([assets.J_regressor @ assets.v_template, assets.v_template[ids]])
        directions = np.concatenate([joint_directions, assets.shapedirs[ids].transpose(2, 0, 1)], axis=1)
        tip_pose = assets.posedirs[ids].reshape(15, 15, 9).transpose(1, 2, 0)

        def constant(array: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=dtype, device=device)

        self.dtype, self.device = dtype, torch.device(device)
        self.rest, self.directions = constant(rest), constant(directions)
        self.tip_pose = constant(tip_pose)
        self.tip_weights = constant(assets.weights[ids])
        self.subtree = constant(SUBTREE)
        self.points_below = torch.cat([self.subtree, self.tip_weights @ self.subtree])
        self.to_standard = torch.tensor(MANO_TO_STANDARD, device=device)

    @functools.cached_property
    def from_standard(self) -> torch.Tensor:
        """(21,) indices: mano = standard[from_standard]."""
        return torch.argsort(self.to_standard)

    @functools.cached_property
    def fingers(self) -> FingerTables:
        """The constants that `finger_pose` needs."""
        joints = [1 + 3 * finger + bone for bone in (2, 1, 0) for finger in range(5)] + [0]
        tips = [tip - 16 for tip in FINGER_TIPS]
        joint_order = torch.tensor(joints, device=self.device)
        point_order = torch.cat([torch.tensor(FINGER_TIPS, device=self.device), joint_order])
        weights = self.tip_weights[tips][:, joints]
        carrying = next(count for count in (5, 10, 15, 16) if not weights[:, count:].any())
        # (joint, row, column, tip, coordinate) -> (coordinate, tip), (row, column or bone, joint)
        blend = self.tip_pose.view(15, 3, 3, 5, 3)[:, :, :, tips].permute(4, 3, 1, 2, 0)
        columns = blend.new_zeros(3, 5, 3, 4, 16)
        columns[:, :, :, :3, :15] = blend[..., [joint - 1 for joint in joints[:15]]]
        return FingerTables(
            joint_order=joint_order,
            from_joint_order=torch.argsort(joint_order),
            point_order=point_order,
            from_point_order=torch.argsort(point_order),
            carrying=carrying,
            tip_weights=weights[:, :carrying].contiguous(),
            tip_pose=columns.view(15, 192),
            blend_at_identity=columns.diagonal(dim1=2, dim2=3).sum(dim=(2, 3)),
        )

    def rest_points(self, betas: torch.Tensor) -> torch.Tensor:
        """Zero-pose joints and tips (..., 21, 3), metres, MANO order, from betas (..., 10)."""
        return self.rest + torch.einsum("...s,spc->...pc", betas, self.directions)
