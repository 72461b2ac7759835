"""The hand reduced to what keypoints see: 16 joints and 5 tips, with everything else folded away.

The joint regressor is applied to template and shape directions once (J = J_regressor @ v is linear in
betas), and of the 778 vertices only the five tips stay. Equations are those of SMPL (Loper et al. 2015,
eqs. 2-10) and MANO (Romero et al. 2017).
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from template import HandAssets
from utils.joints import MANO_PARENTS, MANO_TO_STANDARD, tip_vertices

#: (16, 16): joint row moves when joint column turns (the column is an ancestor of the row, or the row itself).
SUBTREE = np.zeros((16, 16))
for _joint in range(16):
    _ancestor = _joint
    while _ancestor >= 0:
        SUBTREE[_joint, _ancestor] = 1.0
        _ancestor = MANO_PARENTS[_ancestor]


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

    def rest_points(self, betas: torch.Tensor) -> torch.Tensor:
        """Zero-pose joints and tips (..., 21, 3), metres, MANO order, from betas (..., 10)."""
        return self.rest + torch.einsum("...s,spc->...pc", betas, self.directions)
